"""Training pairs: a degraded patch and the clean one it came from.

Every pair is a function of (seed, index) alone, so that a training resumes exactly, with any number
of workers, and is what one would cut from the photo after degrading the whole of it.

Shape suffixes: H height, W width in pixels, C channels (1 gray, 3 RGB).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from zoo.data.degradations import Degradation
from zoo.data.images import Photo, list_photos, quantise, read_photo, with_channels
from zoo.data.samples import load_sample, sample_names
from zoo.errors import ImageError, RecipeError

SAMPLES = "samples"
"""The source that means the bundled samples instead of a folder."""

GRID = 16
"""Windows begin and end on multiples of this many degraded pixels: a JPEG's block with 4:2:0."""


@dataclass(frozen=True, eq=False)
class TrainingPhoto:
    """A clean photo held compactly: ``pixels_HWC`` is uint8 or uint16, C = 1 or 3."""

    name: str
    pixels_HWC: np.ndarray


def load_training_photos(source: str | Path) -> list[TrainingPhoto]:
    """Read the photos to train on; alpha channels are left out.

    Args:
        source: a folder of images, or ``"samples"`` for the bundled samples not held out.

    Raises:
        ImageError: for a folder or file that cannot be read.
        ZooError: for samples whose package is not installed.
    """
    if source == SAMPLES:
        return [_compact(name, load_sample(name)) for name in sample_names(held_out=False)]
    return [_compact(str(path), read_photo(path)) for path in list_photos(source)]


class PatchDataset(Dataset[tuple[Tensor, Tensor]]):
    """Random patches of photos as (degraded_CHW, clean_CHW), float32.

    A photo is drawn, then its flip and rotation, then the patch's place in it, each uniformly. The
    augmented photo is never degraded as a whole: a window of it is, grown from the patch by a
    margin and out to a grid that blocks of a JPEG lie on, and clipped at the photo's border. There
    the border is the photo's own, elsewhere the margin is cut off with all that differs.

    Args:
        photos: clean photos; bare arrays (H, W, 1 or 3) may be uint8, uint16, or floating point in
            [0, 1], which is held as uint16. Right and bottom are cropped to multiples of the scale.
        degradation: makes the degraded patch; its scale is the ratio of the two sides.
        patch: side of the degraded patch in pixels.
        channels: 1 turns RGB into luma, 3 repeats gray.
        augment: flip and rotate by quarter turns.
        length: number of pairs.
        seed: not negative; pairs of different seeds are independent.

    Raises:
        ImageError: when there is no photo, or one is smaller than a patch.
        RecipeError: for a patch, length, seed or number of channels that makes no sense.
    """

    def __init__(
        self,
        photos: Sequence[TrainingPhoto | np.ndarray],
        *,
        degradation: Degradation,
        patch: int,
        channels: int,
        augment: bool = True,
        length: int,
        seed: int,
    ) -> None:
        for name, value, smallest in (
            ("patch", patch, 1),
            ("length", length, 1),
            ("seed", seed, 0),
        ):
            if value < smallest:
                raise RecipeError(f"{name} must be at least {smallest}, not {value}")
        if channels not in (1, 3):
            raise RecipeError(f"channels must be 1 (gray) or 3 (RGB), not {channels}")
        if not photos:
            raise ImageError("there is no photo to train on")
        self.degradation = degradation
        self.patch = patch
        self.channels = channels
        self.augment = augment
        self.length = length
        self.seed = seed
        self._pixels = [self._checked(photo, index) for index, photo in enumerate(photos)]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if not 0 <= index < self.length:
            raise IndexError(f"pair {index} of {self.length}")
        rng = np.random.default_rng((self.seed, index))
        pixels_HWC = self._pixels[rng.integers(len(self._pixels))]
        if self.augment:
            pixels_HWC = _turned(pixels_HWC, int(rng.integers(8)))
        scale = self.degradation.scale
        rows, row = self._window(pixels_HWC.shape[0] // scale, rng)
        columns, column = self._window(pixels_HWC.shape[1] // scale, rng)
        clean_CHW = self._clean(pixels_HWC[_scaled(rows, scale), _scaled(columns, scale)])
        degraded_CHW = self.degradation(clean_CHW, rng)
        return (
            degraded_CHW[:, row, column].contiguous(),
            clean_CHW[:, _scaled(row, scale), _scaled(column, scale)].contiguous(),
        )

    def _window(self, side: int, rng: np.random.Generator) -> tuple[slice, slice]:
        """Draw a patch along one side: its window in the photo, and its place in the window."""
        start = int(rng.integers(side - self.patch + 1))
        end = start + self.patch
        margin = self.degradation.margin
        first = max(0, start - margin) // GRID * GRID
        last = min(side, -(-(end + margin) // GRID) * GRID)
        return slice(first, last), slice(start - first, end - first)

    def _clean(self, pixels_HWC: np.ndarray) -> Tensor:
        top = np.float32(np.iinfo(pixels_HWC.dtype).max)
        color_HWC = with_channels(pixels_HWC.astype(np.float32) / top, self.channels)
        return torch.from_numpy(np.ascontiguousarray(color_HWC.transpose(2, 0, 1)))

    def _checked(self, photo: TrainingPhoto | np.ndarray, index: int) -> np.ndarray:
        """The pixels of a photo, cropped to multiples of the scale."""
        if isinstance(photo, TrainingPhoto):
            name, pixels_HWC = photo.name, photo.pixels_HWC
        else:
            name, pixels_HWC = f"number {index}", photo
        if pixels_HWC.ndim != 3 or pixels_HWC.shape[2] not in (1, 3):
            raise ImageError(
                f"training photo {name!r} must have shape (H, W, 1) or (H, W, 3), "
                f"not {pixels_HWC.shape}"
            )
        if np.issubdtype(pixels_HWC.dtype, np.floating):
            pixels_HWC = quantise(pixels_HWC, 16)
        if pixels_HWC.dtype not in (np.uint8, np.uint16):
            raise ImageError(
                f"training photo {name!r} must be uint8, uint16 or floating point, "
                f"not {pixels_HWC.dtype}"
            )
        scale = self.degradation.scale
        height, width = pixels_HWC.shape[:2]
        needed = self.patch * scale
        if min(height, width) < needed:
            raise ImageError(
                f"training photo {name!r} has {width}x{height} pixels, but patches of {self.patch} "
                f"at scale {scale} need {needed}x{needed}; leave it out or choose a smaller patch"
            )
        return pixels_HWC[: height // scale * scale, : width // scale * scale]


def _compact(name: str, photo: Photo) -> TrainingPhoto:
    return TrainingPhoto(name, quantise(photo.color_HWC, photo.bit_depth))


def _turned(pixels_HWC: np.ndarray, number: int) -> np.ndarray:
    """One of the eight flips and quarter turns, as a view."""
    turned_HWC = np.rot90(pixels_HWC, number % 4)
    return turned_HWC[:, ::-1] if number >= 4 else turned_HWC


def _scaled(part: slice, scale: int) -> slice:
    return slice(part.start * scale, part.stop * scale)
