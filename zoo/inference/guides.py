"""The guides of the images that are restored: in files, or in memory.

Shape suffixes: B batch, C channels, H height, W width in pixels.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.data.formats import format_of
from zoo.data.guides import fitted
from zoo.data.images import list_photos, read_photo
from zoo.data.pairing import counterparts
from zoo.data.photo import Photo
from zoo.data.value_range import ValueRange, image_of, in_range, refuse_no_data
from zoo.errors import ImageError
from zoo.networks import Network


class GuideFiles:
    """The files of the guides of one image, or of all images in a folder.

    Args:
        network: the network.
        given: for each guide of the network, by name, a file for one image, or a folder. A folder
            has files with the names of the images, in the same folders inside it.
        source: the image, or the folder of images.
        value_range: the values of floating-point files that are 0 and 1.
    """

    def __init__(
        self,
        network: Network,
        given: Mapping[str, str | Path],
        source: Path,
        value_range: ValueRange | None = None,
    ) -> None:
        self.guides, self.scale = network.guides, network.scale
        for name in self.guides:
            if not isinstance(given[name], str | Path):
                raise ImageError(
                    f"the guide {name} of a file is {type(given[name]).__name__}; give the path of "
                    "a file or folder, or read the image and give both in memory"
                )
        self.paths = {name: Path(given[name]) for name in network.guides}
        self.source, self.value_range = source, value_range
        self.listed = cache(list_photos)

    def of(self, image: Path, photo: Photo) -> tuple[Tensor, ...]:
        """Read the guides of an image, each (C, H, W).

        Raises:
            ImageError: if a guide is missing, has a wrong size or pixels without data; the message
                names it.
        """
        height, width, _ = photo.color_HWC.shape
        found = []
        for name, guide in self.guides.items():
            file = self._file(image, name)
            read = read_photo(file, self.value_range, floats_only=True)
            refuse_no_data(file, read)
            try:
                found.append(fitted(read.color_HWC, guide, height, width, name))
            except ImageError as error:
                raise ImageError(f"{image}: {error}; its file is {file}") from error
        return tuple(found)

    def _file(self, image: Path, name: str) -> Path:
        path = self.paths[name]
        if self.source.is_dir():
            path = path / image.parent.relative_to(self.source)
        elif not path.is_dir():
            return path
        files = self.listed(path)
        [number] = counterparts([image], files, self.scale, name)
        return files[number]


_COLOURS = {"1": "L", "LA": "L", "P": "RGB", "PA": "RGB", "RGBA": "RGB"}
"""PIL modes that are converted, without their alpha, and to which mode."""


class GuidesInMemory:
    """The guides of an image, or a batch of images, in memory.

    Args:
        network: the network.
        given: for each guide of the network, by name, an array ``(H, W)`` or ``(H, W, C)``, a PIL
            image, the bytes of a file, the path of one, or a tensor ``(C, H, W)``; for a batch of
            images, a tensor ``(B, C, H, W)``.
        value_range: the values of floating-point guides that are 0 and 1.

    Raises:
        ImageError: if a guide is missing, or the network takes none of its name.
    """

    def __init__(
        self, network: Network, given: Mapping[str, Any], value_range: ValueRange | None = None
    ) -> None:
        self.guides, self.given, self.value_range = network.guides, given, value_range
        for name, guide in self.guides.items():
            if given.get(name) is None:
                raise ImageError(
                    f"the network needs the guide {name} ({guide}); give it with "
                    f"guides={{{name!r}: IMAGE}}"
                )
        for name in given:
            if name not in self.guides:
                takes = f"takes {', '.join(self.guides)}" if self.guides else "takes no guide"
                raise ImageError(f"guides has {name!r}, but the network {takes}; leave it out")

    def of(self, batch: int, height: int, width: int) -> tuple[Tensor, ...]:
        """Return the guides of images of this size, each (B, C, H, W), float32.

        Raises:
            ImageError: if one is of another kind, or its size, channels, values or number are not
                those that belong to the images; the message names it.
        """
        found = []
        for name, guide in self.guides.items():
            photos = self._photos(name)
            if len(photos) != batch:
                raise ImageError(
                    f"there are {batch} images and {len(photos)} of the guide {name}; give a "
                    "tensor (B, C, H, W) with a guide for each image"
                )
            each = [fitted(photo.color_HWC, guide, height, width, name) for photo in photos]
            found.append(torch.stack(each))
        return tuple(found)

    def _photos(self, name: str) -> list[Photo]:
        given, path = self.given[name], Path(f"(guide {name})")
        pil = sys.modules.get("PIL.Image")  # without it, the guide is none of its own
        if isinstance(given, str | Path):
            path = Path(given)
            photos = [read_photo(given, self.value_range, floats_only=True)]
        elif isinstance(given, bytes | bytearray | memoryview):
            data = bytes(given)
            photos = [self._in_range(path, format_of(path, data).read(path, data))]
        else:
            if isinstance(given, Tensor):
                arrays = _arrays(given, name)
            elif isinstance(given, np.ndarray):
                arrays = [given]
            elif pil is not None and isinstance(given, pil.Image):
                mode = _COLOURS.get(given.mode, given.mode)
                arrays = [np.asarray(given if mode == given.mode else given.convert(mode))]
            else:
                raise ImageError(
                    f"the guide {name} is {type(given).__name__}; a guide is a NumPy array, a PIL "
                    "image, the bytes or the path of a file, or a tensor"
                )
            photos = [self._in_range(path, image_of(path, array)) for array in arrays]
        for photo in photos:
            refuse_no_data(path, photo)
        return photos

    def _in_range(self, path: Path, photo: Photo) -> Photo:
        return in_range(path, photo, self.value_range if photo.bit_depth == 32 else None)


def _arrays(tensor: Tensor, name: str) -> list[np.ndarray]:
    """Return the images (H, W, C) of a tensor (C, H, W) or (B, C, H, W)."""
    if tensor.dim() not in (3, 4) or tensor.is_meta or tensor.layout is not torch.strided:
        raise ImageError(
            f"the guide {name} is a tensor of shape {tuple(tensor.shape)}, {tensor.layout}, on "
            f"{tensor.device}; it must be a dense tensor (C, H, W) or (B, C, H, W) with values"
        )
    images = tensor.detach() if tensor.dim() == 4 else tensor.detach()[None]
    floats = images.float() if images.is_floating_point() else images
    return list(floats.cpu().movedim(1, -1).numpy())


__all__ = ["GuideFiles", "GuidesInMemory"]
