"""A dataset of real bursts with their clean images: random patches for training.

Every example depends only on (seed, index), so that training resumes exactly.

Shape suffixes: T frames, I channels of a frame, H height, W width in pixels; lower case h and w are
those of a frame, upper case those of the clean image.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from zoo.data.burst.clean import CleanImage, clean_of
from zoo.data.burst.dataset import BurstSample, below, generator
from zoo.data.burst.finding import find_bursts
from zoo.data.burst.reading import read_burst
from zoo.data.burst.stored import is_raw
from zoo.data.burst.synthesis import bayer_flip
from zoo.data.photos import all_faults
from zoo.errors import ImageError


class RealBurst(NamedTuple):
    """A burst on disk and its clean image."""

    path: Path
    clean: CleanImage

    def read(self, frames: int, scale: int) -> tuple[Tensor, Tensor]:
        """Read frames (T, I, h, w) and the clean image (3, scale * h, scale * w).

        Args:
            frames: number of frames; the burst must have as many, and the first are taken.
            scale: size of the clean image over that of a frame.

        Raises:
            ImageError: if files are damaged, or the burst has fewer frames or another scale.
        """
        frames_TIhw = read_burst(self.path).frames_TIHW
        if len(frames_TIhw) < frames:
            raise ImageError(
                f"burst {str(self.path)!r} has {len(frames_TIhw)} frames; the network takes "
                f"{frames}: set network.burst={len(frames_TIhw)}, or remove the burst"
            )
        clean_3HW = self.clean.read(raw=is_raw(frames_TIhw))
        size, wanted = tuple(clean_3HW.shape[1:]), tuple(scale * n for n in frames_TIhw.shape[2:])
        if size != wanted:
            raise ImageError(
                f"the clean image {str(self.clean.path)!r} has {size} pixels; at x{scale}, "
                f"{str(self.path)!r} needs {wanted}"
            )
        return frames_TIhw[:frames], clean_3HW


def real_bursts(folder: str | Path, frames: int, scale: int, channels: int) -> list[RealBurst]:
    """List the bursts of a folder with their clean images; every file is read once.

    Args:
        folder: the folder; see :mod:`zoo.data.burst.clean` for the sets.
        frames: number of frames that are needed.
        scale: size of the clean image over that of a frame.
        channels: 4 for RAW bursts, 3 for RGB bursts.

    Raises:
        ImageError: if bursts cannot be used; the message names them.
    """
    bursts, faults = [], []
    for path in find_bursts(folder):
        try:
            burst = RealBurst(path, clean_of(path))
            frames_TIhw, _ = burst.read(frames, scale)
        except ImageError as error:
            faults.append(str(error))
            continue
        if frames_TIhw.shape[1] != channels:
            faults.append(
                f"burst {str(path)!r} has {frames_TIhw.shape[1]} channels; the network takes "
                f"{channels}"
            )
            continue
        bursts.append(burst)
    if faults:
        raise ImageError(all_faults(faults, len(bursts) + len(faults), "bursts cannot be used"))
    return bursts


class RealBurstDataset(Dataset[BurstSample]):
    """Random patches of real bursts, flipped and turned at random; RAW ones stay RGGB.

    The flow of a sample is not known: it is zero.

    Args:
        bursts: the bursts.
        frames: number of frames of a sample.
        scale: size of the clean image over that of a frame.
        patch: side of a frame in pixels of its planes; smaller bursts are an error.
        length: number of samples.
        seed: at least 0.
        augment: whether patches are flipped and turned.
    """

    def __init__(
        self,
        bursts: Sequence[RealBurst],
        *,
        frames: int,
        scale: int,
        patch: int,
        length: int,
        seed: int,
        augment: bool = True,
    ) -> None:
        self.bursts, self.frames, self.scale = bursts, frames, scale
        self.patch, self.length, self.seed, self.augment = patch, length, seed, augment

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> BurstSample:
        if not 0 <= index < self.length:
            raise IndexError(f"burst {index} of {self.length}")
        rng = generator(self.seed, index)
        burst = self.bursts[below(len(self.bursts), rng)]
        frames_TIhw, clean_3HW = burst.read(self.frames, self.scale)
        height, width = frames_TIhw.shape[2:]
        if min(height, width) < self.patch:
            raise ImageError(
                f"burst {str(burst.path)!r} has frames of {width}x{height}; data.patch is "
                f"{self.patch}: choose a smaller one"
            )
        turned = below(8, rng) if self.augment else 0
        raw = is_raw(frames_TIhw)
        # A flipped mosaic starts one line later, so that it is RGGB again: flips need a plane more.
        rows, columns, transposed = bool(turned & 1), bool(turned & 2), bool(turned & 4)
        sides = []
        for flips, size in ((rows, height), (columns, width)):
            more = int(raw and flips and size > self.patch)
            sides.append((below(size - self.patch - more + 1, rng), self.patch + more, flips))
        return self._sample(frames_TIhw, clean_3HW, sides, transposed)

    def _sample(
        self,
        frames_TIhw: Tensor,
        clean_3HW: Tensor,
        sides: Sequence[tuple[int, int, bool]],
        transposed: bool,
    ) -> BurstSample:
        """Cut a window, given as (start, length, whether flipped) along rows and columns."""
        raw, s = is_raw(frames_TIhw), self.scale
        for axis, (start, length, _) in zip((-2, -1), sides, strict=True):
            frames_TIhw = frames_TIhw.narrow(axis, start, length)
            clean_3HW = clean_3HW.narrow(axis, s * start, s * length)
        for axis, (_, length, flips) in zip((-2, -1), sides, strict=True):
            if not flips:
                continue
            clean_3HW = clean_3HW.flip(axis)
            if not raw:
                frames_TIhw = frames_TIhw.flip(axis)
                continue
            frames_TIhw = bayer_flip(frames_TIhw, rows=axis == -2, columns=axis == -1)
            frames_TIhw = frames_TIhw.narrow(axis, 0, self.patch)
            # One line of the mosaic is half a plane's pixel. Where there is no plane more, the last
            # two lines are repeated, as those of the mosaic.
            inner = s * (length - 1)
            kept = clean_3HW.narrow(axis, s // 2, inner)
            kept = torch.cat([kept, kept.narrow(axis, inner - s, s)], axis)
            clean_3HW = kept.narrow(axis, 0, s * self.patch)
        if transposed:
            frames_TIhw, clean_3HW = frames_TIhw.mT, clean_3HW.mT
            if raw:
                frames_TIhw = frames_TIhw[:, [0, 2, 1, 3]]
        flow = frames_TIhw.new_zeros(len(frames_TIhw), 2, self.patch, self.patch)
        return BurstSample(frames_TIhw.contiguous(), clean_3HW.contiguous(), flow)


class RealValidation(Dataset[BurstSample]):
    """Whole bursts, the same every time.

    Args:
        bursts: the bursts.
        frames: number of frames of a sample.
        scale: size of the clean image over that of a frame.
    """

    def __init__(self, bursts: Sequence[RealBurst], *, frames: int, scale: int) -> None:
        self.bursts, self.frames, self.scale = bursts, frames, scale
        self.names = [burst.path.name for burst in bursts]

    def __len__(self) -> int:
        return len(self.bursts)

    def __getitem__(self, index: int) -> BurstSample:
        frames_TIhw, clean_3HW = self.bursts[index].read(self.frames, self.scale)
        flow = frames_TIhw.new_zeros(len(frames_TIhw), 2, *frames_TIhw.shape[2:])
        return BurstSample(frames_TIhw, clean_3HW, flow)
