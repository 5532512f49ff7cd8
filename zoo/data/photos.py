"""The photos to train on: read and checked before the first step, in memory as far as it reaches.

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
"""What recipes and commands name instead of a folder to use the bundled sample photos."""

READERS = 4
"""Threads that read files; decoding leaves Python's lock alone."""

SHOWN = 5
"""Faulty files that an error names."""


@dataclass(frozen=True, eq=False)
class TrainingPhoto:
    """A clean photo held compactly: ``pixels_HWC`` is uint8 or uint16, C = 1 or 3."""

    name: str
    pixels_HWC: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W, C)."""
        return self.pixels_HWC.shape


@dataclass(frozen=True, eq=False)
class StoredPhoto:
    """A photo that is read from its file at every use; otherwise as :class:`TrainingPhoto`."""

    name: str
    shape: tuple[int, ...]

    @property
    def pixels_HWC(self) -> np.ndarray:  # noqa: N802 - the field's name
        """Read it.

        Raises:
            ImageError: if the file is no longer what it was when the training began.
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
    """Read the photos to train on; alpha channels are left out.

    Every file is read once, so that faults are known before training starts. Photos are kept in
    memory until it is full; the others are read again when they are needed.

    Args:
        source: a folder of images, several of them, or ``"samples"`` for the bundled samples not
            held out.
        memory: how much may be kept, in GB (1e9 bytes).
        progress: show a progress bar.

    Raises:
        ImageError: naming the folder, or all files, that cannot be read.
        ZooError: for samples whose package is not installed.
    """
    if source == SAMPLES_SOURCE:
        return [_compact(name, load_sample(name)) for name in sample_names(held_out=False)]
    folders = [source] if isinstance(source, (str, Path)) else source
    paths = [path for folder in folders for path in list_photos(folder)]
    photos: list[AnyPhoto] = []
    faults: list[str] = []
    left = memory * 1e9
    with ThreadPoolExecutor(READERS) as readers:
        results = readers.map(_read, paths)
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
    """For each clean photo its degraded counterpart, of the same name and 1/scale of the size.

    A name may end in the scale, as ``0001x2.png`` for ``0001.png``. A clean photo may be up to one
    degraded pixel larger.

    Raises:
        ImageError: naming all photos without a counterpart or of another size.
    """
    known = {pair_name(photo.name, scale): photo for photo in degraded}
    found, faults = [], []
    for photo in photos:
        other = known.get(pair_name(photo.name, scale))
        if other is None:
            faults.append(f"{photo.name!r} has no degraded counterpart of its name")
            continue
        sizes = list(zip(photo.shape[:2], other.shape[:2], strict=True))
        if any(clean // scale != small for clean, small in sizes):
            faults.append(
                f"{photo.name!r} has {photo.shape[1]}x{photo.shape[0]} pixels and {other.name!r} "
                f"{other.shape[1]}x{other.shape[0]}, which is not 1/{scale} of it"
            )
        found.append(other)
    if faults:
        raise ImageError(all_faults(faults, len(photos), "pairs do not match"))
    return found


def pair_name(name: str | Path, scale: int) -> str:
    """What a file and its counterpart have in common: the stem without a scale at its end."""
    return re.sub(rf"(?<=.)[_-]?x{scale}$", "", Path(name).stem)


def all_faults(faults: Iterable[str], total: int, what: str) -> str:
    """One message for many faults."""
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
