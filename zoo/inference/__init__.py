"""Restoring images and bursts, in memory or as files: whole or in tiles, one or a folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, overload

from torch import nn

from zoo.checkpoints import load
from zoo.checkpoints.saving import unwrapped
from zoo.data.photo import Saving
from zoo.data.value_range import ValueRange
from zoo.distributed import ProcessGroup
from zoo.errors import ImageError
from zoo.inference.burst import Look, developed, restore_burst
from zoo.inference.files import restore_files
from zoo.inference.image import restore_photo
from zoo.inference.memory import restore_in_memory
from zoo.inference.runner import Precision, RestoreSettings, restore_tensor
from zoo.inference.tiling import Progress
from zoo.networks import Network

ImageT = TypeVar("ImageT")


@overload
def restore(
    network: Network | str | Path, source: str | Path, target: str | Path, **options: Any
) -> list[Path]: ...


@overload
def restore(
    network: Network | str | Path, source: ImageT, target: None = None, **options: Any
) -> ImageT: ...


def restore(  # type: ignore[misc]  # the two above do not repeat the options
    network: Network | str | Path,
    source: Any,
    target: str | Path | None = None,
    *,
    tile: int | None = None,
    overlap: int | None = None,
    ensemble: bool = False,
    precision: Precision | Literal["auto"] = "fp32",
    tf32: bool = False,
    progress: Progress = True,
    suffix: str = "",
    format: str = "",
    recursive: bool = False,
    overwrite: bool = False,
    look: Look = "auto",
    quality: int | None = None,
    lossless: bool = False,
    strip_metadata: bool = False,
    guides: Mapping[str, Any] | None = None,
    group: ProcessGroup | None = None,
    value_range: ValueRange | None = None,
) -> Any:
    """Restore an image in memory; or an image file, a folder of them, or bursts.

    An image in memory is a NumPy array (H, W) or (H, W, C), a PIL image, the bytes of an image
    file, or a tensor (I, H, W) or (B, I, H, W). The result is of the same kind. Values are uint8,
    uint16, or floats from 0 to 1; with a range of values, any in it. Where an array is NaN, so is
    the result. Two or four channels of an array are gray or RGB with alpha. A
    burst in memory is a tensor (T, I, H, W), or a batch of them; its result is linear where its
    frames are.

    Outputs keep the kind of the input: gray or colour, alpha, 8 or 16 bits; and what it says beside
    its pixels: colour profile, EXIF, XMP and resolution, which grows with the picture. A gray
    network restores each channel of a colour photo separately. Alpha is upsampled by bicubic
    interpolation.

    Args:
        network: the network, or what :func:`zoo.load` takes: the name of a model whose weights
            ship, or a file of weights. In place of a compiled network, the network itself runs.
        source: an image in memory, an image file or a folder of image files; for a burst network, a
            burst or a folder of bursts.
        target: file or folder to write; a missing folder is created. For one input, a path that
            has a suffix is a file, unless it is an existing folder or a string that ends in "/".
            For an image in memory there is none.
        tile: largest side of a tile in input pixels, or 0 for the whole image at once; None for the
            largest that fits in free memory, see :class:`RestoreSettings`.
        overlap: least overlap of neighbouring tiles in input pixels; None for what the network
            needs, 16 to 32.
        ensemble: whether to average over the eight flips and quarter turns.
        precision: "fp32", "bf16" or "fp16"; "auto" measures once whether bf16 is faster here.
        tf32: whether fp32 may be TF32 on a GPU: faster, with 10 bits of fraction in products.
        progress: whether to show a progress bar on a terminal; or a function that is called with
            the part of the work that is done, above 0 and up to 1, after each tile. If it raises an
            error, the work ends.
        suffix: text that outputs in a folder get: ``photo.png`` becomes ``photo_TEXT.png``.
        format: format of outputs in a folder, such as "jpg"; "" for that of the input.
        recursive: whether to restore the folders in a folder, too; the outputs are in folders of
            the same names.
        overwrite: whether to overwrite existing outputs; otherwise they are skipped.
        look: how linear RAW colours become a picture, for RAW bursts only; see
            :func:`zoo.inference.burst.developed`.
        quality: 1 to 100 for JPEG (95 by default) and WebP (lossless by default).
        lossless: whether an output format that always loses, JPEG, is an error.
        strip_metadata: whether to write pixels only, without colour profile, EXIF, XMP and
            resolution. Without its profile, a photo of many colours looks duller.
        value_range: the values that are black and white, for data that is no photograph; None for
            those that the network was trained with.
        guides: for each guide that the network needs, by name, a file, or a folder of files with
            the names of the images. For an image in memory, a guide of any kind that an image may
            have, or a file; for a batch of images, a tensor (B, C, H, W).
        group: processes that share the files. Each takes the next file when it is free. None
            means this process alone.

    Returns:
        The image in memory, (s*H, s*W); or the files that were written by all processes.

    Raises:
        ImageError: if a path is empty, the suffix of the target is not that of an image, or an
            image cannot be read. In a folder, the other images are still restored,
            and the error is raised at the end; it then also reports images that cannot be written.
            In memory, if a shape or dtype is not that of an image for the network.
        WriteError: if a single image cannot be written, or the target's name is too long.
        ZooError: if the settings contradict each other, or have no effect.
    """
    settings = RestoreSettings(
        tile=tile, overlap=overlap, ensemble=ensemble, precision=precision, tf32=tf32
    )
    saving = Saving(quality=quality, lossless=lossless, metadata=not strip_metadata)
    network = unwrapped(network) if isinstance(network, nn.Module) else load(network)
    if isinstance(source, (str, Path)):
        if target is None:
            raise ImageError(f"{source}: give the file or folder to write, too")
        return restore_files(
            network,
            source,
            target,
            settings,
            suffix=suffix,
            format=format,
            recursive=recursive,
            overwrite=overwrite,
            progress=progress,
            look=look,
            saving=saving,
            guides=guides,
            value_range=value_range,
            group=group,
        ).written
    for_files = {"target": target, "suffix": suffix, "format": format, "recursive": recursive,
                 "overwrite": overwrite, "look": look != "auto"}  # fmt: skip
    if given := [name for name, value in for_files.items() if value]:
        raise ImageError(f"{given[0]} is for files; leave it out for an image in memory")
    return restore_in_memory(network, source, settings, progress, saving, value_range, guides)


__all__ = [
    "Look",
    "Precision",
    "Progress",
    "RestoreSettings",
    "developed",
    "restore",
    "restore_burst",
    "restore_files",
    "restore_photo",
    "restore_tensor",
]
