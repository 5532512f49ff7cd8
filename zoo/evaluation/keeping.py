"""Keeping the restored images of an evaluation in a folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from zoo.data.images import Photo, write_photo
from zoo.data.testsets import TestImage
from zoo.errors import ZooError
from zoo.evaluation.image import Restored
from zoo.files import is_same_file

Keeper: TypeAlias = Callable[[str, Restored], None]
"""Called with the name of an image and the images of its score."""


def image_keeper(folder: Path | None) -> Keeper:
    """Return a function that writes restored images to a folder; it does nothing without one."""

    def keep(name: str, found: Restored) -> None:
        if folder is not None:
            channels = found.restored.shape[2]
            depth = 8 if _is_picture(channels) else 32
            write_photo(_kept(folder, name, channels), Photo(found.restored, bit_depth=depth))

    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    return keep


def check_nothing_is_replaced(images: Sequence[TestImage], folder: Path) -> None:
    """Raise a ZooError if a restored image in the folder would replace an image of a test set."""
    for image in images:
        for file in (image.clean, image.degraded):
            kept = (_kept(folder, image.name, channels) for channels in (1, 2))
            if file is not None and any(is_same_file(file, path) for path in kept):
                raise ZooError(f"--save-images: {file} would be replaced; choose another folder")


def _is_picture(channels: int) -> bool:
    return channels in (1, 3)


def _kept(folder: Path, name: str, channels: int) -> Path:
    """The file that holds the restored image of this name; an array if it is no picture."""
    return folder / f"{name}{'.png' if _is_picture(channels) else '.npy'}"
