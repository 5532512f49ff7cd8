"""Restoring image files and bursts: whole or in tiles, one file or a folder."""

from __future__ import annotations

from pathlib import Path

from zoo.data.photo import Saving
from zoo.distributed import ProcessGroup
from zoo.inference.burst import Look, developed, restore_burst, restore_bursts
from zoo.inference.image import restore_images, restore_photo
from zoo.inference.jobs import check_paths
from zoo.inference.runner import Precision, RestoreSettings, restore_tensor
from zoo.inference.tiling import OVERLAP
from zoo.networks import Network


def restore(
    network: Network,
    source: str | Path,
    target: str | Path,
    *,
    tile: int | None = None,
    overlap: int = OVERLAP,
    ensemble: bool = False,
    precision: Precision = "fp32",
    overwrite: bool = False,
    progress: bool = True,
    look: Look = "auto",
    quality: int | None = None,
    lossless: bool = False,
    strip_metadata: bool = False,
    group: ProcessGroup | None = None,
) -> list[Path]:
    """Restore an image file or all images in a folder; with a burst network, bursts.

    Outputs keep the kind of the input: gray or colour, alpha, 8 or 16 bits; and what it says beside
    its pixels: colour profile, EXIF, XMP and resolution, which grows with the picture. A gray
    network restores each channel of a colour photo separately. Alpha is upsampled by bicubic
    interpolation.

    Args:
        network: the network.
        source: an image file or a folder of image files; for a burst network, a burst or a folder
            of bursts.
        target: file or folder to write; a missing folder is created. For one input, a path that
            has a suffix is a file, unless it is an existing folder or a string that ends in "/".
        tile: side of a tile in input pixels, or 0 for the whole image at once; for the default, see
            :class:`RestoreSettings`.
        overlap: overlap of neighbouring tiles in input pixels.
        ensemble: whether to average over the eight flips and quarter turns.
        precision: "fp32", "bf16" or "fp16".
        overwrite: whether to overwrite existing outputs; otherwise they are skipped.
        progress: whether to show a progress bar.
        look: how linear RAW colours become a picture, for RAW bursts only; see
            :func:`zoo.inference.burst.developed`.
        quality: 1 to 100 for JPEG (95 by default) and WebP (lossless by default).
        lossless: whether an output format that always loses, JPEG, is an error.
        strip_metadata: whether to write pixels only, without colour profile, EXIF, XMP and
            resolution. Without its profile, a photo of many colours looks duller.
        group: processes that share the files. Each takes the next file when it is free. None
            means this process alone.

    Returns:
        The files that were written by all processes.

    Raises:
        ImageError: if a path is empty, the suffix of the target is not that of an image, or an
            image cannot be read. In a folder, the other images are still restored,
            and the error is raised at the end; it then also reports images that cannot be written.
        WriteError: if a single image cannot be written, or the target's name is too long.
        ZooError: if the settings contradict each other.
    """
    check_paths(source, target)
    group = group or ProcessGroup()
    settings = RestoreSettings(tile=tile, overlap=overlap, ensemble=ensemble, precision=precision)
    saving = Saving(quality=quality, lossless=lossless, metadata=not strip_metadata)
    if network.takes_burst:
        return restore_bursts(
            network,
            Path(source),
            target,
            settings,
            look=look,
            overwrite=overwrite,
            progress=progress,
            group=group,
            saving=saving,
        )
    return restore_images(
        network,
        Path(source),
        target,
        settings,
        overwrite=overwrite,
        progress=progress,
        group=group,
        saving=saving,
    )


__all__ = [
    "Look",
    "Precision",
    "RestoreSettings",
    "developed",
    "restore",
    "restore_burst",
    "restore_photo",
    "restore_tensor",
]
