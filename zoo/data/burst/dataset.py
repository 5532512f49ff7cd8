"""Datasets of bursts for training and validation, made from photos on the fly.

Every burst depends only on (seed, index), so that training resumes exactly, and a validation set is
the same everywhere without being stored.

Shape suffixes: H height, W width in pixels, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from zoo.data.burst.synthesis import BurstSynthesis, SyntheticBurst
from zoo.data.photos import AnyPhoto
from zoo.data.pixels import dequantise, to_tensor, with_channels
from zoo.errors import ImageError, RecipeError


class BurstSample(NamedTuple):
    """One item of a batch; shapes as in :class:`~zoo.data.burst.synthesis.SyntheticBurst`."""

    frames: Tensor
    clean: Tensor
    flow: Tensor


def generator(*seeds: int) -> torch.Generator:
    """A random generator seeded with several integers."""
    state = np.random.SeedSequence(seeds).generate_state(2)
    return torch.Generator().manual_seed(int(state[0]) << 31 ^ int(state[1]))


class BurstDataset(Dataset[BurstSample]):
    """Random bursts made from photos.

    First a photo is drawn, then a square of it, its flip and quarter turn, and then the random
    values of the burst. If a photo is smaller than the square, the largest square that fits is
    upscaled.

    Args:
        photos: clean photos with 8 or 16 bits; gray ones are converted to RGB.
        synthesis: makes a burst from a square of a photo.
        patch: side of a frame's planes in pixels.
        length: number of bursts.
        seed: at least 0; different seeds give independent bursts.
        augment: whether squares are flipped and rotated by quarter turns at random.

    Raises:
        ImageError: if there is no photo.
        RecipeError: if patch, length or seed is out of range.
    """

    def __init__(
        self,
        photos: Sequence[AnyPhoto],
        *,
        synthesis: BurstSynthesis,
        patch: int,
        length: int,
        seed: int,
        augment: bool = True,
    ) -> None:
        smallest = {"patch": (patch, 1), "length": (length, 1), "seed": (seed, 0)}
        for name, (value, low) in smallest.items():
            if value < low:
                raise RecipeError(f"{name} must be at least {low}, not {value}")
        if not photos:
            raise ImageError("there is no photo to make bursts from")
        self.photos, self.synthesis = photos, synthesis
        self.patch, self.length, self.seed, self.augment = patch, length, seed, augment

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> BurstSample:
        if not 0 <= index < self.length:
            raise IndexError(f"burst {index} of {self.length}")
        burst = self.burst(index)
        return BurstSample(burst.frames, burst.clean, burst.flow)

    def burst(self, index: int) -> SyntheticBurst:
        """Make one burst, with its camera and noise level."""
        rng = generator(self.seed, index)
        photo = self.photos[below(len(self.photos), rng)]
        window = self.synthesis.window(self.patch * self.synthesis.scale)
        piece_3HW = random_square(photo.pixels_HWC, window, rng)
        if self.augment:
            turn = below(8, rng)
            piece_3HW = piece_3HW.rot90(turn % 4, (1, 2))
            if turn >= 4:
                piece_3HW = piece_3HW.flip(2)
        return self.synthesis(piece_3HW.contiguous(), rng)


class ValidationBursts(Dataset[BurstSample]):
    """A fixed set of bursts: the same number for each photo, and the same bursts every time.

    Args:
        photos: clean photos.
        synthesis: makes a burst from a square of a photo.
        patch: side of a frame's planes in pixels.
        per_photo: number of bursts per photo.
    """

    def __init__(
        self,
        photos: Sequence[AnyPhoto],
        *,
        synthesis: BurstSynthesis,
        patch: int,
        per_photo: int,
    ) -> None:
        self.sets = [
            BurstDataset(
                [photo], synthesis=synthesis, patch=patch, length=per_photo, seed=n, augment=False
            )
            for n, photo in enumerate(photos)
        ]
        self.per_photo = per_photo
        self.names = [photo.name for photo in photos for _ in range(per_photo)]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> BurstSample:
        return self.sets[index // self.per_photo][index % self.per_photo]


def random_square(pixels_HWC: np.ndarray, side: int, rng: torch.Generator) -> Tensor:
    """Cut a random square from a photo; if the photo is too small, upscale the largest square.

    Args:
        pixels_HWC: uint8 or uint16 photo, gray or RGB.
        side: side of the result in pixels.
        rng: source of all randomness.

    Returns:
        (3, side, side) float32 RGB in [0, 1].
    """
    height, width = pixels_HWC.shape[:2]
    taken = min(side, height, width)
    top, left = below(height - taken + 1, rng), below(width - taken + 1, rng)
    piece = pixels_HWC[top : top + taken, left : left + taken]
    piece_3HW = to_tensor(with_channels(dequantise(piece), 3))
    if taken < side:
        size = (side, side)
        piece_3HW = F.interpolate(piece_3HW[None], size=size, mode="bicubic", antialias=True)[0]
    return piece_3HW.clamp(0, 1)


def below(bound: int, rng: torch.Generator) -> int:
    """Draw a whole number from 0 to below the bound."""
    return int(torch.randint(bound, (), generator=rng))
