"""Training photos: read and checked before training, and held in memory up to a limit.

Shape suffixes: H height, W width in pixels, C channels of any number.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from tqdm import tqdm

from zoo.data.images import Photo, list_photos, read_photo
from zoo.data.pixels import quantise
from zoo.data.samples import load_sample, sample_names
from zoo.data.value_range import ValueRange, refuse_no_data
from zoo.errors import ImageError

SAMPLES_SOURCE = "samples"
"""Recipes and commands use this name in place of a folder for the bundled sample photos."""

NUM_THREADS = 4
"""Number of threads that read files; decoding releases Python's global interpreter lock."""

SHOWN = 5
"""Number of faulty files that an error message names."""


@dataclass(frozen=True, eq=False)
class TrainingPhoto:
    """A clean photo in memory: ``pixels_HWC`` is uint8, uint16, or float32 in about [0, 1]."""

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
    value_range: ValueRange | None
    floats_only: bool

    @property
    def pixels_HWC(self) -> np.ndarray:  # noqa: N802 - the field's name
        """Read the file: uint8, uint16 or float32.

        Raises:
            ImageError: if the file cannot be read, or its shape has changed since training began.
        """
        photo = read_photo(self.name, self.value_range, floats_only=self.floats_only)
        found = _compact(self.name, photo)
        if found.shape != self.shape:
            raise ImageError(
                f"image file {self.name!r} changed during training: it had shape {self.shape} and "
                f"now has {found.shape}"
            )
        return found.pixels_HWC


AnyPhoto: TypeAlias = TrainingPhoto | StoredPhoto


def load_training_photos(
    source: str | Path | Sequence[str],
    *,
    memory: float = 4.0,
    progress: bool = False,
    value_range: ValueRange | None = None,
    floats_only: bool = False,
) -> list[AnyPhoto]:
    """Read the training photos; alpha channels are dropped.

    Every file is read once, so that faults are found before training starts. Photos stay in memory
    up to the limit; the others are read again whenever they are needed.

    Args:
        source: a folder of images, a sequence of such folders, or ``"samples"`` for the bundled
            samples that are not held out.
        memory: limit of the memory for photos, in GB (1e9 bytes).
        progress: whether to show a progress bar.
        value_range: the values of the files that are 0 and 1; see :func:`zoo.data.read_photo`.
        floats_only: whether the range is that of floating-point files only.

    Raises:
        ImageError: if a folder or files cannot be read, or pixels have no data; the message names
            the files.
        ZooError: if the package of the samples is not installed.
    """
    if source == SAMPLES_SOURCE:
        return [_compact(name, load_sample(name)) for name in sample_names(held_out=False)]
    paths = photo_files(source)
    photos: list[AnyPhoto] = []
    faults: list[str] = []
    left = memory * 1e9
    with ThreadPoolExecutor(NUM_THREADS) as threads:
        results = threads.map(lambda path: _read(path, value_range, floats_only), paths)
        hidden = not progress or None
        for found in tqdm(results, "checking photos", len(paths), disable=hidden, leave=False):
            if isinstance(found, str):
                faults.append(found)
                continue
            left -= found.pixels_HWC.nbytes
            stored = StoredPhoto(found.name, found.shape, value_range, floats_only)
            photos.append(found if left >= 0 else stored)
    if faults:
        raise ImageError(all_faults(faults, len(paths), "training photos cannot be read"))
    return photos


def photo_files(source: str | Path | Sequence[str]) -> list[Path]:
    """List the images of a folder or of a sequence of folders.

    Raises:
        ImageError: if a folder cannot be read or has no image.
    """
    folders = [source] if isinstance(source, (str, Path)) else source
    return [path for folder in folders for path in list_photos(folder)]


def all_faults(faults: Sequence[str], total: int, what: str) -> str:
    """Combine faults into one message that counts them and shows the first few."""
    shown = "; ".join(faults[:SHOWN])
    more = f"; and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
    return f"{len(faults)} of {total} {what}: {shown}{more}"


def _read(path: Path, value_range: ValueRange | None, floats_only: bool) -> TrainingPhoto | str:
    try:
        return _compact(str(path), read_photo(path, value_range, floats_only=floats_only))
    except ImageError as error:
        return str(error)


def _compact(name: str, photo: Photo) -> TrainingPhoto:
    refuse_no_data(name, photo)
    if photo.bit_depth == 32 or photo.value_range is not None:
        return TrainingPhoto(name, photo.color_HWC)
    return TrainingPhoto(name, quantise(photo.color_HWC, photo.bit_depth))
