"""Restoring image files and bursts with a network: whole or in tiles, one file or a folder."""

from __future__ import annotations

from pathlib import Path

from zoo.distributed import ProcessGroup
from zoo.inference.burst import Look, developed, restore_burst, restore_bursts
from zoo.inference.image import restore_images, restore_photo
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
    group: ProcessGroup | None = None,
) -> list[Path]:
    """Restore an image file or all images of a folder; with a burst network, bursts.

    Gray, colour, alpha, 8 and 16 bits are kept. A colour photo goes through a gray network channel
    by channel; alpha is enlarged by bicubic interpolation.

    Args:
        network: what restores.
        source: an image file or a folder of them.
        target: file or folder to write; a folder is made where it is missing.
        tile: side of a tile in input pixels, 0 for the whole image at once; see
            :class:`RestoreSettings`, which also has the default.
        overlap: pixels that neighbouring tiles share.
        ensemble: average over the eight flips and quarter turns.
        precision: "fp32", "bf16" or "fp16".
        overwrite: write over outputs that exist; otherwise they are skipped.
        progress: show a progress bar.
        look: of RAW bursts, see :func:`zoo.inference.burst.developed`.
        group: processes that share the files. Each takes the next file when it is free. None
            means this process alone.

    Returns:
        The files that were written, by all processes.

    Raises:
        ImageError: for images that cannot be read. In a folder the others are still restored, and
            the error comes at the end; there it also tells of images that cannot be written.
        WriteError: if a single image cannot be written.
        ZooError: for settings that make no sense.
    """
    group = group or ProcessGroup()
    settings = RestoreSettings(tile=tile, overlap=overlap, ensemble=ensemble, precision=precision)
    if network.takes_burst:
        return restore_bursts(
            network,
            Path(source),
            Path(target),
            settings,
            look=look,
            overwrite=overwrite,
            progress=progress,
            group=group,
        )
    return restore_images(
        network,
        Path(source),
        Path(target),
        settings,
        overwrite=overwrite,
        progress=progress,
        group=group,
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
