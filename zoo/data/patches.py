"""Training pairs: a degraded patch, its clean patch, and the patches of its guides.

Every pair depends only on (seed, index), so that training resumes exactly, with any number of
loader processes. A degraded patch equals a crop of the whole photo after degradation.

Shape suffixes: H height, W width in pixels, C channels of any number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from zoo.data.degradations import Degradation
from zoo.data.guides import GuidePhotos
from zoo.data.pairing import match_degraded
from zoo.data.photos import AnyPhoto, TrainingPhoto, all_faults
from zoo.data.pixels import dequantise, quantise, to_array, to_tensor, with_channels
from zoo.data.sharpening import Sharpening
from zoo.errors import ImageError, RecipeError

GRID = 16
"""Windows start and end at multiples of this many degraded pixels: the size of a JPEG block with
4:2:0 subsampling."""


Example: TypeAlias = tuple[Tensor, ...]
"""The degraded patch, the target, the patch of each guide, and where the target is sharpened, the
clean patch."""

Augment: TypeAlias = bool | Literal["flip"]

_TURNS = {True: tuple(range(8)), "flip": (0, 4), False: (0,)}
"""The turns that are drawn; see :func:`_turned`."""


class _Patches(Dataset[Example]):
    """Base of the patch datasets: checks photos and draws a photo and its flip or rotation."""

    def __init__(
        self,
        photos: Sequence[AnyPhoto | np.ndarray],
        *,
        scale: int,
        patch: int,
        channels: int,
        augment: Augment,
        length: int,
        seed: int,
        out_channels: int | None,
        guides: Sequence[GuidePhotos],
        sharpen: Sharpening | None,
    ) -> None:
        out_channels = channels if out_channels is None else out_channels
        for name, value, smallest in (
            ("patch", patch, 1),
            ("length", length, 1),
            ("seed", seed, 0),
        ):
            if value < smallest:
                raise RecipeError(f"{name} must be at least {smallest}, not {value}")
        for name, value in {"channels": channels, "out_channels": out_channels}.items():
            if value < 1:
                raise RecipeError(f"{name} must be at least 1, not {value}")
        if not photos:
            raise ImageError("there is no photo for training")
        self.scale = scale
        self.patch = patch
        self.channels, self.out_channels = channels, out_channels
        self.guides = guides
        self.turns = _TURNS[augment]
        self.sharpen = sharpen
        self.length = length
        self.seed = seed
        option = "channels" if channels == out_channels else "out_channels"
        self._photos = [
            _checked(photo, index, out_channels, option) for index, photo in enumerate(photos)
        ]
        needed = patch * scale
        small = [
            f"training photo {photo.name!r} has {photo.shape[1]}x{photo.shape[0]} pixels"
            for photo in self._photos
            if min(photo.shape[:2]) < needed
        ]
        if small:
            reason = (
                f"training photos are too small; patches of {patch} at scale {scale} need "
                f"{needed}x{needed}, so remove these photos or choose a smaller patch"
            )
            raise ImageError(all_faults(small, len(self._photos), reason))

    def __len__(self) -> int:
        return self.length

    def _draw(self, index: int) -> tuple[int, int, np.random.Generator]:
        """Draw a photo number and a turn; also return the generator for all further draws."""
        if not 0 <= index < self.length:
            raise IndexError(f"pair {index} of {self.length}")
        rng = np.random.default_rng((self.seed, index))
        number = int(rng.integers(len(self._photos)))
        return number, self.turns[int(rng.integers(len(self.turns)))], rng

    def _pixels(self, photo: AnyPhoto, turn: int, scale: int) -> np.ndarray:
        """Crop a photo to multiples of the scale, then flip or rotate it."""
        pixels_HWC = photo.pixels_HWC
        height, width = (side // scale * scale for side in pixels_HWC.shape[:2])
        return _turned(pixels_HWC[:height, :width], turn)

    def _guides(self, number: int, turn: int, row: slice, column: slice) -> Example:
        """Return the patch of each guide of a photo, at this place in the degraded photo."""
        found = []
        for photos, guide in self.guides:
            pixels_HWC = self._pixels(photos[number], turn, guide.scale)
            patch_HWC = pixels_HWC[_scaled(row, guide.scale), _scaled(column, guide.scale)]
            found.append(_tensor(patch_HWC, guide.channels))
        return tuple(found)

    def _sharpened(self, image_CHW: Tensor) -> Tensor:
        if self.sharpen is None:
            return image_CHW
        return to_tensor(self.sharpen(to_array(image_CHW)))

    def _targets(self, pixels_HWC: np.ndarray, row: slice, column: slice) -> tuple[Tensor, ...]:
        """Return the target at this place of a photo or of a part of it; if it is sharpened, also
        the clean patch."""
        if self.sharpen is None:
            return (_tensor(pixels_HWC[row, column], self.out_channels),)
        margin = self.sharpen.margin
        (top, rows), (left, columns) = (
            (max(0, part.start - margin), slice(max(0, part.start - margin), part.stop + margin))
            for part in (row, column)
        )
        clean_CHW = _tensor(pixels_HWC[rows, columns], self.out_channels)
        place = (
            slice(None),
            slice(row.start - top, row.stop - top),
            slice(column.start - left, column.stop - left),
        )
        sharp_CHW = self._sharpened(clean_CHW)
        return sharp_CHW[place].contiguous(), clean_CHW[place].contiguous()


class PatchDataset(_Patches):
    """Random patches of photos as (degraded_CHW, clean_CHW, *guides), float32.

    A photo is drawn, then its flip and rotation, then the position of the patch, each uniformly.
    Only a window of the photo is degraded, not all of it. The window is the patch plus a margin,
    extended to the grid of JPEG blocks and clipped at the border of the photo. Cropping the margin
    removes all pixels that differ from those of the whole degraded photo.

    Args:
        photos: clean photos. Arrays (H, W, 1 or 3) may be uint8, uint16, or floating point in
            [0, 1], which is stored as uint16. Photos are cropped at the right and bottom to
            multiples of the scale.
        degradation: makes the degraded patch; its scale is clean size divided by degraded size.
        patch: side of the degraded patch in pixels.
        channels: channels of the degraded patch. 1 converts RGB to luma, 3 converts gray to RGB.
        augment: whether photos are flipped and rotated by quarter turns at random; "flip" exchanges
            left and right at random.
        length: number of pairs.
        seed: at least 0; different seeds give independent pairs.
        out_channels: channels of the clean patch; None for those of the degraded patch.
        guides: the guides of the photos.
        sharpen: sharpens the clean photos; None leaves them as they are.

    Raises:
        ImageError: if there is no photo, or if photos are smaller than a patch; the message names
            them.
        RecipeError: if patch, length, seed or a number of channels is out of range.
    """

    def __init__(
        self,
        photos: Sequence[AnyPhoto | np.ndarray],
        *,
        degradation: Degradation,
        patch: int,
        channels: int,
        augment: Augment = True,
        length: int,
        seed: int,
        out_channels: int | None = None,
        guides: Sequence[GuidePhotos] = (),
        sharpen: Sharpening | None = None,
    ) -> None:
        super().__init__(
            photos,
            scale=degradation.scale,
            patch=patch,
            channels=channels,
            augment=augment,
            length=length,
            seed=seed,
            out_channels=out_channels,
            guides=guides,
            sharpen=sharpen,
        )
        self.degradation = degradation
        if channels != self.out_channels and {channels, self.out_channels} != {1, 3}:
            raise RecipeError(
                f"the network takes {channels} channels and returns {self.out_channels}, which no "
                "degradation makes from one image; train on pairs: data.photos and data.degraded"
            )
        if degradation.photographs_only and channels not in (1, 3):
            raise RecipeError(
                f"{type(degradation).__name__} degrades gray and RGB photographs only, and the "
                f"images have {channels} channels; choose another degradation, such as bicubic"
            )

    def __getitem__(self, index: int) -> Example:
        number, turn, rng = self._draw(index)
        scale = self.scale
        pixels_HWC = self._pixels(self._photos[number], turn, scale)
        rows, row = self._window(pixels_HWC.shape[0] // scale, rng)
        columns, column = self._window(pixels_HWC.shape[1] // scale, rng)
        window_HWC = pixels_HWC[_scaled(rows, scale), _scaled(columns, scale)]
        source_CHW = self._sharpened(_tensor(window_HWC, self.channels))
        degraded_CHW = self.degradation(source_CHW, rng)
        targets = self._targets(window_HWC, _scaled(row, scale), _scaled(column, scale))
        return (
            degraded_CHW[:, row, column].contiguous(),
            targets[0],
            *self._guides(number, turn, _within(rows, row), _within(columns, column)),
            *targets[1:],
        )

    def _window(self, side: int, rng: np.random.Generator) -> tuple[slice, slice]:
        """Draw a patch along one side. Returns its window in the photo, and the patch's position
        in the window."""
        start = int(rng.integers(side - self.patch + 1))
        end = start + self.patch
        margin = self.degradation.margin
        if self.sharpen is not None:
            margin += -(-self.sharpen.margin // self.scale)
        first = max(0, start - margin) // GRID * GRID
        last = min(side, -(-(end + margin) // GRID) * GRID)
        return slice(first, last), slice(start - first, end - first)


class PairDataset(_Patches):
    """Random patches of photos with given degraded versions, as PatchDataset returns them.

    A photo is drawn, then its flip and rotation, then the position of the patch, each uniformly.

    Args:
        photos: clean photos.
        degraded: their degraded versions, in any order; see
            :func:`zoo.data.pairing.match_degraded`.
        scale: clean size divided by degraded size.
        patch: side of the degraded patch in pixels.
        channels: channels of the degraded patch. 1 converts RGB to luma, 3 converts gray to RGB.
        augment: whether photos are flipped and rotated by quarter turns at random; "flip" exchanges
            left and right at random.
        length: number of pairs.
        seed: at least 0; different seeds give independent pairs.
        out_channels: channels of the clean patch; None for those of the degraded patch.
        guides: the guides of the photos.
        sharpen: sharpens the clean photos; None leaves them as they are.

    Raises:
        ImageError: if pairs do not match (see :func:`zoo.data.pairing.match_degraded`), or photos
            are too small; the message names them.
        RecipeError: if patch, length, seed or a number of channels is out of range.
    """

    def __init__(
        self,
        photos: Sequence[AnyPhoto],
        degraded: Sequence[AnyPhoto],
        *,
        scale: int,
        patch: int,
        channels: int,
        augment: Augment = True,
        length: int,
        seed: int,
        out_channels: int | None = None,
        guides: Sequence[GuidePhotos] = (),
        sharpen: Sharpening | None = None,
    ) -> None:
        super().__init__(
            photos,
            scale=scale,
            patch=patch,
            channels=channels,
            augment=augment,
            length=length,
            seed=seed,
            out_channels=out_channels,
            guides=guides,
            sharpen=sharpen,
        )
        alike = self.channels == self.out_channels
        matched = match_degraded(photos, degraded, scale, alike=alike)
        self._degraded = [
            _checked(photo, index, channels, "channels") for index, photo in enumerate(matched)
        ]

    def __getitem__(self, index: int) -> Example:
        number, turn, rng = self._draw(index)
        clean_HWC = self._pixels(self._photos[number], turn, self.scale)
        degraded_HWC = self._pixels(self._degraded[number], turn, 1)
        starts = [int(rng.integers(side - self.patch + 1)) for side in degraded_HWC.shape[:2]]
        row, column = (slice(start, start + self.patch) for start in starts)
        targets = self._targets(clean_HWC, _scaled(row, self.scale), _scaled(column, self.scale))
        return (
            _tensor(degraded_HWC[row, column], self.channels),
            targets[0],
            *self._guides(number, turn, row, column),
            *targets[1:],
        )


def _tensor(pixels_HWC: np.ndarray, channels: int) -> Tensor:
    return to_tensor(with_channels(dequantise(pixels_HWC), channels))


def _checked(photo: AnyPhoto | np.ndarray, index: int, channels: int, option: str) -> AnyPhoto:
    """Convert an array to a photo, and check shape and dtype of the photo.

    ``option`` of the network sets the number of channels.
    """
    if isinstance(photo, np.ndarray):
        floating = np.issubdtype(photo.dtype, np.floating)
        photo = TrainingPhoto(f"number {index}", quantise(photo, 16) if floating else photo)
    known = (1, 3) if channels in (1, 3) else (channels,)
    if len(photo.shape) != 3 or photo.shape[2] not in known:
        wanted = " or ".join(f"(H, W, {number})" for number in known)
        raise ImageError(
            f"training photo {photo.name!r} must have shape {wanted}, not {photo.shape}; choose "
            f"other photos, or change network.{option}"
        )
    dtypes = (np.uint8, np.uint16, np.float32)
    if isinstance(photo, TrainingPhoto) and photo.pixels_HWC.dtype not in dtypes:
        raise ImageError(
            f"training photo {photo.name!r} must be uint8, uint16 or floating point, "
            f"not {photo.pixels_HWC.dtype}"
        )
    return photo


def _turned(pixels_HWC: np.ndarray, number: int) -> np.ndarray:
    """Apply one of the eight combinations of flip and quarter turn; returns a view."""
    turned_HWC = np.rot90(pixels_HWC, number % 4)
    return turned_HWC[:, ::-1] if number >= 4 else turned_HWC


def _scaled(part: slice, scale: int) -> slice:
    return slice(part.start * scale, part.stop * scale)


def _within(window: slice, part: slice) -> slice:
    """The place of a part of a window, in what the window is cut from."""
    return slice(window.start + part.start, window.start + part.stop)
