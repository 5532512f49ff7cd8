"""Restoring bursts to pictures: one burst (a folder of frames), or a folder of bursts.

Shape suffixes: B batch, T frames, I channels of a frame, H height, W width in pixels, s scale.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeAlias

from torch import Tensor

from zoo.data.burst.camera import GAMMA, Camera
from zoo.data.burst.finding import NPZ, find_bursts
from zoo.data.burst.raw import upright
from zoo.data.burst.reading import BurstFiles, read_burst
from zoo.data.burst.stored import is_raw
from zoo.data.images import EXTENSIONS, write_photo
from zoo.data.photo import Photo
from zoo.data.pixels import to_array
from zoo.distributed import ProcessGroup
from zoo.errors import ImageError, ZooError
from zoo.files import is_same_file, natural_key
from zoo.inference.jobs import Plan, Report, planned, restore_each
from zoo.inference.outputs import Outputs
from zoo.inference.pipeline import Stages
from zoo.inference.runner import RestoreSettings, check_range, kept_on_cpu, restore_tensor
from zoo.inference.tiling import Progress
from zoo.networks import Network
from zoo.ops.registration import register_burst

Look: TypeAlias = Literal["auto", "camera", "plain", "linear"]
"""How linear RAW colours become a picture; see :func:`developed`."""

_BRIGHT, _BRIGHT_TO = 0.99, 0.9


def restore_bursts(
    network: Network,
    source: Path,
    outputs: Outputs,
    settings: RestoreSettings,
    *,
    look: Look = "auto",
    progress: Progress,
    group: ProcessGroup,
) -> Report:
    """Restore one burst, or every burst in a folder.

    Args:
        network: a burst network.
        source: a burst (a folder of frames, or an npz file) or a folder of bursts; see
            :mod:`zoo.data.burst.reading`.
        outputs: picture to write, or a folder; pictures in a folder are named after their burst.
        settings: tile and overlap in pixels of a frame's planes, and precision. The ensemble is not
            available for bursts.
        look: how linear RAW colours become a picture; see :func:`developed`.
        progress: see :data:`zoo.inference.tiling.Progress`.
        group: processes that share the bursts.

    Raises:
        ImageError: if a burst cannot be read. With several bursts, the others are still restored,
            and the error is raised at the end; it then also reports pictures that cannot be
            written.
        WriteError: if a single picture cannot be written.
        ZooError: if the settings ask for the ensemble.
    """
    if settings.ensemble:
        raise ZooError(
            "the ensemble does not work for bursts, because a turned mosaic has another colour "
            "pattern; omit it"
        )

    def read(path: Path, output: Path) -> BurstFiles:
        burst = read_burst(path)
        _camera(burst, look)  # wrong facts are found before the work
        return burst

    def restored(burst: BurstFiles, progress: Progress) -> Photo:
        return developed(restore_burst(network, burst, settings, progress), burst, look)

    stages = Stages(
        read=read,
        restore=restored,
        write=lambda output, picture: write_photo(output, picture, outputs.saving),
        restored_bytes=lambda picture: picture.color_HWC.nbytes,
    )
    named = replace(outputs, keeps_format=False)
    plan = group.from_first(lambda: _plan(source, named))
    with kept_on_cpu(network):
        return restore_each(plan, stages, "burst", progress=progress, group=group)


def restore_burst(
    network: Network, burst: BurstFiles, settings: RestoreSettings, progress: Progress = False
) -> Tensor:
    """Restore one burst in memory.

    If the network needs registration, it is computed once from whole frames, for all tiles.

    Args:
        network: a burst network.
        burst: the frames.
        settings: tiles and precision.
        progress: see :data:`zoo.inference.tiling.Progress`.

    Returns:
        (3, s*H, s*W) float32 in [0, 1], linear if the frames are linear.

    Raises:
        ImageError: if the network needs another kind of frames.
        ZooError: if the network needs a given flow.
    """
    frames_TIHW = burst.frames_TIHW
    if frames_TIHW.shape[1] != network.channels:
        kinds = {3: "RGB frames", 4: "four planes of a RAW mosaic"}
        name = network.recipe.name if network.recipe else "the network"
        raise ImageError(
            f"burst {burst.name!r} has {kinds[frames_TIHW.shape[1]]}, but {name} takes "
            f"{kinds[network.channels]}; choose another model, see zoo list '*qmamba*'"
        )
    if network.needs_flow:
        raise ZooError(
            "this network was trained with a given flow, which files do not have; build it with "
            "flow_prior: registration"
        )
    burst_BTIHW = frames_TIHW[None]
    check_range(burst_BTIHW)  # registration fails on values that are not finite
    flow = (register_burst(burst_BTIHW),) if network.takes_flow else ()
    return restore_tensor(network, burst_BTIHW, settings, progress, flow)[0]


def developed(restored_3HW: Tensor, burst: BurstFiles, look: Look = "auto") -> Photo:
    """Convert the network's output to an upright picture.

    Outputs of RGB bursts are not changed and keep their bit depth. Linear RAW colours are processed
    according to ``look``:

    * "camera": white balance, colour matrix, gamma 2.2 and tone curve from the burst's metadata
      (``rgb_gain``, ``red_gain``, ``blue_gain``, ``rgb2cam``); 8 bits;
    * "plain": scale the channels to the same mean, scale all so that 99 percent of the pixels are
      below 0.9, then gamma 2.2; 8 bits;
    * "linear": no processing; 16 bits;
    * "auto": "camera" if the burst has metadata, otherwise "plain".

    Raises:
        ImageError: if ``look`` is "camera" and the burst has no metadata, or if the metadata is
            needed and wrong.
    """
    bits = burst.bit_depth
    if is_raw(burst.frames_TIHW):
        camera, bits = _camera(burst, look), 16 if look == "linear" else 8
        if camera is not None:
            restored_3HW = camera.process(restored_3HW)
        elif look != "linear":
            restored_3HW = _plain(restored_3HW)
    picture_3HW = upright(restored_3HW.clamp(0, 1).float(), burst.flips)
    return Photo(to_array(picture_3HW), bit_depth=bits)


def _camera(burst: BurstFiles, look: Look) -> Camera | None:
    """Return the camera with which a burst becomes a picture; None without one."""
    if not is_raw(burst.frames_TIHW) or look not in ("auto", "camera"):
        return None
    camera = burst.camera
    if look == "camera" and camera is None:
        raise ImageError(
            f"burst {burst.name!r} has no file with gains and colour matrix (meta.json or "
            "meta_info.pkl); use the look 'plain' or 'linear'"
        )
    return camera


def _plain(linear_3HW: Tensor) -> Tensor:
    means = linear_3HW.mean((1, 2), keepdim=True).clamp(min=1e-6)
    balanced = linear_3HW * (means.mean() / means)
    flat = balanced.amax(0).flatten()
    bright = flat.kthvalue(round(_BRIGHT * flat.numel())).values.clamp(min=1e-6)
    return (balanced * (_BRIGHT_TO / bright)).clamp(0, 1) ** (1 / GAMMA)


def _plan(source: Path, outputs: Outputs) -> Plan:
    bursts, unread = find_bursts(source, outputs.folder), []
    many = bursts != [source]
    if many:
        unread = _beside(bursts, outputs.folder)
        outputs.check_folder("the input has several bursts")
        names = outputs.of_several([Path(burst.name) for burst in bursts])
        pairs = list(zip(bursts, names, strict=True))
        _refuse_a_burst(outputs.folder, bursts)
    else:
        pairs = [(source, outputs.of_one(Path(source.resolve().name)))]
    files = {burst: _files(burst) for burst in bursts}
    inputs = {os.path.realpath(file) for found in files.values() for file in found}
    for burst, output in pairs:
        own = any(is_same_file(output, file) for file in files[burst])
        if own or os.path.realpath(output) in inputs:
            raise ImageError(f"{output}: the output would replace a frame; choose another place")
    return planned(pairs, outputs, source=source, many=many, unread=unread)


def _refuse_a_burst(folder: Path, bursts: Sequence[Path]) -> None:
    """Raise an ImageError if the folder of the outputs, among the bursts, is one of them.

    Pictures with names of other bursts are outputs of before.
    """
    if not folder.is_dir() or not is_same_file(folder.resolve().parent, bursts[0].parent):
        return
    for file in _files(folder):
        if file.exists() and not any(file.stem.startswith(burst.stem) for burst in bursts):
            raise ImageError(
                f"{folder}: the folder of the outputs is a burst itself, with {file.name}; choose "
                "another folder"
            )


def _beside(bursts: Sequence[Path], without: Path) -> list[Path]:
    """Folders beside bursts that are none, without that of the outputs and that of true images."""
    found = (path for path in bursts[0].parent.iterdir() if path.is_dir() and path not in bursts)
    return sorted(
        (
            path
            for path in found
            if path.name != "gt"
            and not path.name.startswith(".")
            and not is_same_file(path, without)
        ),
        key=natural_key,
    )


def _files(burst: Path) -> list[Path]:
    """Files of a burst that a picture could replace."""
    if burst.is_file():
        return [burst]
    planes = [*burst.glob("im_raw_*.png"), *burst.glob("samsung_*/im_raw.png")]
    images = [file for file in burst.iterdir() if file.suffix.lower() in EXTENSIONS]
    return [burst / NPZ, *(planes or images)]
