"""Training photos: read and checked before training, and held in memory up to a limit.

Shape suffixes: H height, W width in pixels, C channels (1 gray, 3 RGB).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from tqdm import tqdm

from zoo.data.images import Photo, list_photos, read_photo
from zoo.data.pixels import quantise
from zoo.data.samples import load_sample, sample_names
from zoo.errors import ImageError

SAMPLES_SOURCE = "samples"
"""Recipes and commands use this name in place of a folder for the bundled sample photos."""

NUM_THREADS = 4
"""Number of threads that read files; decoding releases Python's global interpreter lock."""

SHOWN = 5
"""Number of faulty files that an error message names."""


@dataclass(frozen=True, eq=False)
class TrainingPhoto:
    """A clean photo in memory: ``pixels_HWC`` is uint8 or uint16, C = 1 or 3."""

    name: str
    pixels_HWC: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W, C)."""
        return self.pixels_HWC.shape


@dataclass(frozen=True, eq=False)
class StoredPhoto:
    """A photo that is read from its file at each access, with the attributes of TrainingPhoto."""

    name: str
    shape: tuple[int, ...]

    @property
    def pixels_HWC(self) -> np.ndarray:  # noqa: N802 - the field's name
        """Read the file: uint8 or uint16, C = 1 or 3.

        Raises:
            ImageError: if the file cannot be read, or its shape has changed since training began.
        """
        found = _compact(self.name, read_photo(self.name))
        if found.shape != self.shape:
            raise ImageError(
                f"image file {self.name!r} changed during training: it had shape {self.shape} and "
                f"now has {found.shape}"
            )
        return found.pixels_HWC


AnyPhoto: TypeAlias = TrainingPhoto | StoredPhoto


def load_training_photos(
    source: str | Path | Sequence[str], *, memory: float = 4.0, progress: bool = False
) -> list[AnyPhoto]:
    """Read the training photos; alpha channels are dropped.

    Every file is read once, so that faults are found before training starts. Photos stay in memory
    up to the limit; the others are read again whenever they are needed.

    Args:
        source: a folder of images, a sequence of such folders, or ``"samples"`` for the bundled
            samples that are not held out.
        memory: limit of the memory for photos, in GB (1e9 bytes).
        progress: whether to show a progress bar.

    Raises:
        ImageError: if a folder or files cannot be read; the message names them.
        ZooError: if the package of the samples is not installed.
    """
    if source == SAMPLES_SOURCE:
        return [_compact(name, load_sample(name)) for name in sample_names(held_out=False)]
    folders = [source] if isinstance(source, (str, Path)) else source
    paths = [path for folder in folders for path in list_photos(folder)]
    photos: list[AnyPhoto] = []
    faults: list[str] = []
    left = memory * 1e9
    with ThreadPoolExecutor(NUM_THREADS) as threads:
        results = threads.map(_read, paths)
        hidden = not progress or None
        for found in tqdm(results, "checking photos", len(paths), disable=hidden, leave=False):
            if isinstance(found, str):
                faults.append(found)
                continue
            left -= found.pixels_HWC.nbytes
            photos.append(found if left >= 0 else StoredPhoto(found.name, found.shape))
    if faults:
        raise ImageError(all_faults(faults, len(paths), "training photos cannot be read"))
    return photos


def match_degraded(
    photos: Sequence[AnyPhoto], degraded: Sequence[AnyPhoto], scale: int
) -> list[AnyPhoto]:
    """Find the degraded version of each clean photo: the same name and 1/scale of the size.

    The scale may be appended to names: ``0001x2.png`` belongs to ``0001.png``. Sizes of clean
    photos are rounded down to multiples of the scale before the comparison.

    Raises:
        ImageError: if photos have no degraded version or one of another size; the message names
            them.
    """
    known = {pair_name(photo.name, scale): photo for photo in degraded}
    found, faults = [], []
    for photo in photos:
        other = known.get(pair_name(photo.name, scale))
        if other is None:
            faults.append(f"{photo.name!r} has no degraded counterpart with the same name")
            continue
        sizes = list(zip(photo.shape[:2], other.shape[:2], strict=True))
        if any(clean // scale != small for clean, small in sizes):
            faults.append(
                f"{photo.name!r} has {photo.shape[1]}x{photo.shape[0]} pixels and {other.name!r} "
                f"{other.shape[1]}x{other.shape[0]}, which is not 1/{scale} of that size"
            )
        found.append(other)
    if faults:
        raise ImageError(all_faults(faults, len(photos), "pairs do not match"))
    return found


def pair_name(name: str | Path, scale: int) -> str:
    """The name that a file and its counterpart share: the stem without the scale at its end."""
    return re.sub(rf"(?<=.)[_-]?x{scale}$", "", Path(name).stem)


def all_faults(faults: Iterable[str], total: int, what: str) -> str:
    """Combine faults into one message that counts them and shows the first few."""
    faults = list(faults)
    shown = "; ".join(faults[:SHOWN])
    more = f"; and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
    return f"{len(faults)} of {total} {what}: {shown}{more}"


def _read(path: Path) -> TrainingPhoto | str:
    try:
        return _compact(str(path), read_photo(path))
    except ImageError as error:
        return str(error)


def _compact(name: str, photo: Photo) -> TrainingPhoto:
    return TrainingPhoto(name, quantise(photo.color_HWC, photo.bit_depth))
