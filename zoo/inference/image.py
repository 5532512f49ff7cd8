"""Restoring photographs of any size and mode: one file, or a folder.

Shape suffixes: B batch, I image channels, H height, W width in pixels, s scale.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import Tensor

from zoo.data import headers
from zoo.data.bicubic import resize_bicubic
from zoo.data.formats import check_channels, format_for
from zoo.data.images import EXTENSIONS, read_photo, without_arrays, write_photo
from zoo.data.photo import Photo
from zoo.data.pixels import bleed_colors, to_array, to_tensor, with_channels
from zoo.data.value_range import ValueRange, check_range, range_of, said_of_no_data
from zoo.distributed import ProcessGroup
from zoo.errors import ImageError
from zoo.files import is_same_file, natural_key
from zoo.inference.guides import GuideFiles
from zoo.inference.jobs import Plan, Report, planned, restore_each
from zoo.inference.outputs import Outputs
from zoo.inference.pipeline import Stages
from zoo.inference.runner import RestoreSettings, kept_on_cpu, restore_tensor
from zoo.inference.tiling import Progress
from zoo.networks import Network

logger = logging.getLogger(__name__)

_START = 2**20
"""Bytes at the start of a file in which its size is looked for, behind what cameras write there."""

_PIXEL_BYTES = 24
"""Memory of a pixel that is read: four float32, and four samples of 16 bits."""


def restore_images(
    network: Network,
    source: Path,
    outputs: Outputs,
    settings: RestoreSettings,
    *,
    guides: Mapping[str, str | Path],
    recursive: bool,
    progress: Progress,
    group: ProcessGroup,
    value_range: ValueRange | None = None,
) -> Report:
    """Restore an image file or all images in a folder; see :func:`zoo.restore`."""
    value_range = check_range(value_range) or range_of(network.recipe)
    beside = GuideFiles(network, guides, source, value_range)

    def read(image: Path, output: Path) -> tuple[Photo, tuple[Tensor, ...]]:
        photo = read_photo(image, value_range)
        check_channels(output, _channels_out(network, photo))  # now, not after the work
        if photo.dropped and outputs.saving.metadata:
            names = ", ".join(photo.dropped[:4]) + (", ..." if len(photo.dropped) > 4 else "")
            logger.warning("%s: not kept in the output: %s", image, names)
        if photo.no_data_HWC is not None:
            marked = ", and the output has no data there either"
            logger.warning(
                "%s %s; the network sees their neighbours%s",
                image,
                said_of_no_data(photo),
                marked if format_for(output).marks(photo) else "",
            )
        return photo, beside.of(image, photo)

    def restored(seen: tuple[Photo, tuple[Tensor, ...]], progress: Progress) -> Photo:
        photo, guides = seen
        return restore_photo(network, photo, settings, progress, guides)

    stages = Stages(
        read=read,
        restore=restored,
        write=lambda output, photo: write_photo(output, photo, outputs.saving),
        read_bytes=lambda image: _read_bytes(image, network),
        restored_bytes=lambda photo: photo.color_HWC.nbytes,
    )
    # Only the first process looks: the others might already see outputs of this run.
    plan = group.from_first(lambda: _plan(source, outputs, recursive=recursive))
    with kept_on_cpu(network):
        return restore_each(plan, stages, "image", progress=progress, group=group)


def _read_bytes(image: Path, network: Network) -> int | None:
    """How much memory a photo and its guides will take; None where the file's start says nothing.

    Three colours and alpha are float32; the samples of the file come on top while it is decoded.
    """
    try:
        if not image.is_file():
            return None  # a pipe would wait for somebody who writes
        with image.open("rb") as file:
            size = headers.size(file.read(_START))
    except (OSError, ValueError):
        return None  # reading it says what is wrong
    if size is None:
        return None
    pixels = size[0] * size[1] * (1 + sum(guide.scale**2 for guide in network.guides.values()))
    return _PIXEL_BYTES * pixels


def restore_photo(
    network: Network,
    photo: Photo,
    settings: RestoreSettings | None = None,
    progress: Progress = False,
    guides: Sequence[Tensor] = (),
) -> Photo:
    """Restore one photo in memory and return the result; see :func:`zoo.restore`.

    Args:
        network: the network.
        photo: the photo.
        settings: tiles, ensemble and precision; None for the defaults.
        progress: see :data:`zoo.inference.tiling.Progress`.
        guides: the guides that the network needs, each (C, H, W), in its sequence.
    """
    settings = settings or RestoreSettings()
    color_HWC, alpha_HW = photo.color_HWC, photo.alpha_HW
    channels = color_HWC.shape[2]
    if alpha_HW is not None:
        color_HWC = bleed_colors(color_HWC, alpha_HW)
    each = network.channels == network.out_channels == 1  # each channel of the photo by itself
    if each:
        color_BIHW = to_tensor(color_HWC)[:, None]
    else:
        color_BIHW = to_tensor(with_channels(color_HWC, network.channels))[None]
    seen = [guide_CHW.expand(len(color_BIHW), -1, -1, -1) for guide_CHW in guides]
    restored_BIHW = restore_tensor(network, color_BIHW, settings, progress, seen)
    if each:
        restored_BIHW = restored_BIHW.transpose(0, 1)
    color_HWC = to_array(restored_BIHW[0])
    if network.channels == network.out_channels:
        color_HWC = with_channels(color_HWC, channels)
    if alpha_HW is not None and network.scale > 1:
        enlarged = resize_bicubic(to_tensor(alpha_HW[..., None])[None], network.scale)
        alpha_HW = to_array(enlarged[0])[..., 0].clip(0, 1)
    return replace(
        photo,
        color_HWC=color_HWC,
        alpha_HW=alpha_HW,
        metadata=photo.metadata.enlarged(network.scale),
        no_data_HWC=_enlarged_marks(photo.no_data_HWC, network.scale, color_HWC.shape[2]),
    )


def _channels_out(network: Network, photo: Photo) -> int:
    """Channels of a restored photo: a gray network restores each of the photo's."""
    each = network.channels == network.out_channels == 1
    return photo.color_HWC.shape[2] if each else network.out_channels


def _enlarged_marks(no_data_HWC: np.ndarray | None, scale: int, channels: int) -> np.ndarray | None:
    """Where an output has no data: where its band of the input has none.

    With other channels than the input's, where no band of the input has any.
    """
    if no_data_HWC is None:
        return None
    if no_data_HWC.shape[2] != channels:
        no_data_HWC = no_data_HWC.all(axis=2, keepdims=True).repeat(channels, axis=2)
    return no_data_HWC.repeat(scale, 0).repeat(scale, 1)


def _plan(source: Path, outputs: Outputs, *, recursive: bool) -> Plan:
    many = source.is_dir()
    unread: list[Path] = []
    if many:
        outputs.check_folder("the input is a folder")
        images, unread = find_images(source, recursive=recursive, without=outputs.folder)
        if is_same_file(source, outputs.folder):
            images = outputs.without_own(images)
        names = [image.relative_to(source) for image in images]
        pairs = list(zip(images, outputs.of_several(names), strict=True))
    else:
        pairs = [(source, outputs.of_one(Path(source.name)))]
        _check_one(source, recursive=recursive)
    for image, output in pairs:
        if is_same_file(image, output):
            raise ImageError(f"{output}: the output would replace the input; choose another path")
    return planned(pairs, outputs, source=source, many=many, unread=unread)


def _check_one(source: Path, *, recursive: bool) -> None:
    """Check the only input, also where its output exists, so that it is not read."""
    if recursive:
        logger.warning("-r (recursive=True) has no effect: %s is no folder", source)
    try:
        source.stat()
    except FileNotFoundError as error:
        fault = "is a link to a missing file" if source.is_symlink() else "does not exist"
        raise ImageError(f"image file {str(source)!r} {fault}; check the path") from error
    except (OSError, ValueError):
        pass  # reading it says what is wrong


def find_images(folder: Path, *, recursive: bool, without: Path) -> tuple[list[Path], list[Path]]:
    """Return the image files in a folder in natural order, and what is there but is not read.

    Hidden files and folders are left out. Links to folders are not followed: they could lead in a
    circle.

    Args:
        folder: the folder.
        recursive: whether to look in the folders inside it, too.
        without: a folder that is left out: that of the outputs.

    Raises:
        ImageError: if a folder cannot be read, or there is no image.
    """
    images: list[Path] = []
    unread: list[Path] = []
    waiting = [folder]
    while waiting:
        here = waiting.pop(0)
        for path in _visible(here):
            if not path.is_dir():
                (images if path.suffix.lower() in EXTENSIONS else unread).append(path)
            elif is_same_file(path, without):
                continue
            elif recursive and not path.is_symlink():
                waiting.append(path)
            elif _holds_image(path):
                unread.append(path)
    images, arrays = without_arrays(images)
    if images:
        return images, unread + arrays
    folders = any(path.is_dir() for path in unread)
    raise ImageError(
        f"image folder {str(folder)!r} holds no image; it needs files that end in one of "
        f"{', '.join(EXTENSIONS)}"
        + ("; -r (in Python, recursive=True) looks in the folders inside it" if folders else "")
    )


def _holds_image(folder: Path) -> bool:
    """Whether an image is in a folder, or in the folders inside it."""
    return any(
        Path(name).suffix.lower() in EXTENSIONS and not name.startswith(".")
        for here, _, names in os.walk(folder)
        if not any(part.startswith(".") for part in Path(here).relative_to(folder).parts)
        for name in names
    )


def _visible(folder: Path) -> list[Path]:
    try:
        found = [path for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise ImageError(
            f"image folder {str(folder)!r} cannot be read: {error.strerror}; check its permissions"
        ) from error
    return sorted(found, key=natural_key)
