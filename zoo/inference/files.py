"""Restoring files: one image or burst, or a folder of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from zoo.data.guides import check_named
from zoo.data.photo import Saving
from zoo.data.value_range import ValueRange
from zoo.distributed import ProcessGroup
from zoo.errors import ImageError, ZooError
from zoo.inference.burst import Look, restore_bursts
from zoo.inference.faster_precision import faster_precision
from zoo.inference.image import restore_images
from zoo.inference.jobs import Report
from zoo.inference.outputs import Outputs
from zoo.inference.runner import RestoreSettings
from zoo.inference.tiling import Progress
from zoo.networks import Network


def restore_files(
    network: Network,
    source: str | Path,
    target: str | Path,
    settings: RestoreSettings,
    *,
    suffix: str = "",
    format: str = "",
    recursive: bool = False,
    overwrite: bool = False,
    progress: Progress = True,
    look: Look = "auto",
    saving: Saving | None = None,
    guides: Mapping[str, str | Path] | None = None,
    value_range: ValueRange | None = None,
    group: ProcessGroup | None = None,
) -> Report:
    """Restore files and report what became of them; see :func:`zoo.restore`.

    Raises:
        ImageError, WriteError, ZooError: as :func:`zoo.restore` does.
    """
    if not str(source):
        raise ImageError("the path of the input is empty; give a file or a folder")
    outputs = Outputs(
        target=target,
        suffix=suffix,
        format=format,
        overwrite=overwrite,
        saving=saving or Saving(),
    )
    _check_look(network, look)
    check_named(network.guides, guides or {}, "--guide ")
    group = group or ProcessGroup()
    if settings.precision == "auto":  # the same for all files, whichever process restores them
        chosen = group.from_first(lambda: faster_precision(network, settings.tf32))
        settings = replace(settings, precision=chosen)
    if network.takes_burst:
        if value_range is not None:
            raise ZooError("a range of values is for images; bursts state a white_level")
        if recursive:
            raise ZooError(
                "recursive (-r) does not work for bursts; give the folder that holds the bursts"
            )
        return restore_bursts(
            network, Path(source), outputs, settings, look=look, progress=progress, group=group
        )
    return restore_images(
        network,
        Path(source),
        outputs,
        settings,
        guides=guides or {},
        recursive=recursive,
        progress=progress,
        group=group,
        value_range=value_range,
    )


def _check_look(network: Network, look: Look) -> None:
    if look == "auto" or (network.takes_burst and network.channels == 4):
        return
    takes = "bursts of RGB frames" if network.takes_burst else "images"
    raise ZooError(
        f"look {look!r} has no effect: it is for RAW bursts, and this network takes {takes}; leave "
        "it out"
    )
