"""Files of the guides of the images that are restored.

Shape suffixes: C channels, H height, W width in pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from torch import Tensor

from zoo.data.guides import fitted
from zoo.data.images import list_photos, read_photo
from zoo.data.pairing import counterparts
from zoo.data.photo import Photo
from zoo.data.value_range import ValueRange, refuse_no_data
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
