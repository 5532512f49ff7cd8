"""Restoring bursts: a folder of frames is one burst, a folder of folders many; a picture out.

Shape suffixes: B batch, T frames, I channels of a frame, H height, W width in pixels, s scale.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from zoo.data.burst.camera import GAMMA
from zoo.data.burst.reading import BurstFiles, find_bursts, read_burst
from zoo.data.images import EXTENSIONS, Photo, write_photo
from zoo.data.pixels import to_array
from zoo.distributed import ProcessGroup
from zoo.errors import ImageError, ZooError
from zoo.inference.jobs import restore_each, without_existing
from zoo.inference.runner import RestoreSettings, restore_tensor
from zoo.networks import Network
from zoo.ops.registration import register_burst
from zoo.registry import capabilities_of

Look: TypeAlias = Literal["auto", "camera", "plain", "linear"]
"""How linear RAW colours become a picture: see :func:`developed`."""

_BRIGHT, _BRIGHT_TO = 0.99, 0.9


def restore_bursts(
    network: Network,
    source: Path,
    target: Path,
    settings: RestoreSettings,
    *,
    look: Look = "auto",
    overwrite: bool,
    progress: bool,
    group: ProcessGroup,
) -> list[Path]:
    """Restore one burst, or every burst of a folder.

    Args:
        network: a burst network.
        source: a burst (a folder of frames, or an npz file) or a folder of bursts; see
            :mod:`zoo.data.burst.reading`.
        target: picture to write, or a folder, in which a burst's picture has its name.
        settings: tile and overlap in pixels of a frame's planes, and precision; no ensemble.
        look: see :func:`developed`.
        overwrite: write over outputs that exist; otherwise they are skipped.
        progress: show a progress bar.
        group: processes that share the bursts.

    Returns:
        The files that were written, by all processes.

    Raises:
        ImageError: for bursts that cannot be read. Of several bursts the others are still restored,
            and the error comes at the end; there it also tells of pictures that cannot be written.
        WriteError: if a single picture cannot be written.
        ZooError: for settings that make no sense.
    """
    if settings.ensemble:
        raise ZooError(
            "no ensemble for bursts: a turned mosaic has its colours in other places; leave it out"
        )
    many = find_bursts(source) != [source]

    def one(path: Path, output: Path) -> None:
        burst = read_burst(path)
        restored = restore_burst(network, burst, settings, progress and not many)
        write_photo(output, developed(restored, burst, look))

    waiting = group.from_first(lambda: without_existing(_jobs(source, target), overwrite))
    return restore_each(waiting, one, "burst", many=many, progress=progress, group=group)


def restore_burst(
    network: Network, burst: BurstFiles, settings: RestoreSettings, progress: bool = False
) -> Tensor:
    """Restore one burst in memory: (3, s*H, s*W) float32 in [0, 1], linear where the frames are.

    Registration, where the network wants it, sees the whole frames, tiles all take part of it.

    Raises:
        ImageError: for a burst that the network cannot take.
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
            "this network was trained with a known flow, which files do not have; build it with "
            "flow_prior: registration"
        )
    flow_TIHW = frames_TIHW.new_zeros(len(frames_TIHW), 2, *frames_TIHW.shape[2:])
    if network.takes_flow:
        flow_TIHW = register_burst(frames_TIHW[None])[0]
    together = torch.cat([frames_TIHW, flow_TIHW], dim=1)[None]
    return restore_tensor(_WithFlow(network), together, settings, progress)[0]


def developed(restored_3HW: Tensor, burst: BurstFiles, look: Look = "auto") -> Photo:
    """A picture of the network's output.

    RGB bursts come out as they went in, with their bit depth. Linear RAW colours are developed:

    * "camera": white balance, colour matrix, gamma 2.2 and tone curve by the burst's facts
      (``rgb_gain``, ``red_gain``, ``blue_gain``, ``rgb2cam``); 8 bits;
    * "plain": channels scaled to one mean, then so that all but one pixel in a hundred lie below
      0.9, and gamma 2.2; 8 bits;
    * "linear": nothing is done; 16 bits;
    * "auto": "camera" where the facts are there, otherwise "plain".

    Raises:
        ImageError: where "camera" is asked for and there are no facts.
    """
    bits = burst.bit_depth
    if burst.frames_TIHW.shape[1] == 4:
        camera, bits = burst.camera, 16 if look == "linear" else 8
        if look == "camera" and camera is None:
            raise ImageError(
                f"burst {burst.name!r} has no gains and colour matrix beside it (meta.json or "
                "meta_info.pkl); use the look 'plain' or 'linear'"
            )
        if look in ("auto", "camera") and camera is not None:
            restored_3HW = camera.process(restored_3HW)
        elif look != "linear":
            restored_3HW = _plain(restored_3HW)
    return Photo(to_array(restored_3HW.clamp(0, 1).float()), bit_depth=bits)


def _plain(linear_3HW: Tensor) -> Tensor:
    means = linear_3HW.mean((1, 2), keepdim=True).clamp(min=1e-6)
    balanced = linear_3HW * (means.mean() / means)
    flat = balanced.amax(0).flatten()
    bright = flat.kthvalue(max(1, round(_BRIGHT * flat.numel()))).values.clamp(min=1e-6)
    return (balanced * (_BRIGHT_TO / bright)).clamp(0, 1) ** (1 / GAMMA)


class _WithFlow(Network):
    """A burst network whose flow comes as two more channels, so that tiles cut both alike."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network, self.scale, self.burst = network, network.scale, network.burst
        self.channels = network.channels + 2
        self.capabilities = capabilities_of(network)

    def forward(self, together: Tensor) -> Tensor:
        frames, flow = together[:, :, :-2], together[:, :, -2:]
        return self.network(frames, flow)


def _jobs(source: Path, target: Path) -> list[tuple[Path, Path]]:
    bursts = find_bursts(source)
    if bursts == [source]:
        if target.suffix.lower() in EXTENSIONS and not target.is_dir():
            return [(source, target)]
        return [(source, target / f"{source.resolve().stem}.png")]
    if target.is_file() or target.suffix.lower() in EXTENSIONS:
        raise ImageError(f"{target}: the input holds several bursts, so the output is a folder")
    return [(path, target / f"{path.stem}.png") for path in bursts]
