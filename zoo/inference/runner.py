"""Running a network on a tensor: tiles, self-ensemble and precision.

Shape suffixes: B batch, I image channels, H height, W width in pixels, s scale.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.errors import ZooError, is_out_of_memory, shown
from zoo.inference import graphs
from zoo.inference.device_memory import DeviceMemory, memory_of
from zoo.inference.evaluation_mode import evaluating
from zoo.inference.faster_precision import faster_precision
from zoo.inference.kept import kept_memory
from zoo.inference.tiling import (
    BURST_TILE,
    SMALLEST_TILE,
    TILE,
    Need,
    Progress,
    Run,
    fitting_overlap,
    fitting_tile,
    in_tiles,
)
from zoo.networks import Network
from zoo.networks.guide import check_guides
from zoo.ops.passes.conditions import switched_off
from zoo.ops.precision import DTYPES, Precision, autocast, float32_products
from zoo.ops.scan.dispatch import asked_for
from zoo.registry import capabilities_of

logger = logging.getLogger(__name__)

GPU = "cuda"
"""Type of the devices on which images have channels last and networks are recorded."""

_LEAST, _MOST, _BLOCK = -0.5, 2, 8
"""Bounds of the mean of a block of pixels, and its side: a sharpened image can exceed 0 and 1, and
noise averages out; an image of 0 to 255 exceeds 2, and one of -1 to 1 is below -0.5."""


_WORTH_KEEPING = 2**15
"""Pixels from which the features of an image are so large that the C library does not keep them."""

_needs: WeakKeyDictionary[Network, dict[Hashable, dict[torch.Size, Need]]] = WeakKeyDictionary()
"""The memory that networks need, as far as it has been measured."""


@dataclass(frozen=True, kw_only=True)
class RestoreSettings:
    """How a network is run on an image.

    Attributes:
        tile: largest side of a tile in input pixels, or 0 for the whole image at once. None selects
            the largest that fits in free memory; where that is not known, 512, or 128 for bursts.
        overlap: least overlap of neighbouring tiles in input pixels; tiles are blended there. None
            selects what the network needs, 16 to 32, see
            :func:`zoo.inference.tiling.fitting_overlap`.
        ensemble: whether to average over the eight flips and quarter turns ("+" in the papers).
            This takes eight times as long and gains about 0.1 dB.
        precision: "fp32", or "bf16" or "fp16" for autocast. The scan's state is always float32.
            "auto" is fp32 or bf16, see :func:`zoo.inference.faster_precision.faster_precision`.
        tf32: whether a GPU may compute float32 products and convolutions in TF32, whose factors
            have 10 bits of fraction.

    Raises:
        ZooError: if a value is out of range or no whole number, or the tile is smaller than twice
            the overlap.
    """

    tile: int | None = None
    overlap: int | None = None
    ensemble: bool = False
    precision: Precision | Literal["auto"] = "fp32"
    tf32: bool = False

    def __post_init__(self) -> None:
        for name, value in (("tile", self.tile), ("overlap", self.overlap)):
            whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
            if not whole and value is not None:
                raise ZooError(f"{name} is {shown(value)}; it must be a whole number of pixels")
        if (self.tile or 0) < 0 or (self.overlap or 0) < 0:
            raise ZooError(
                f"tile is {self.tile} and overlap is {self.overlap}; both must be at least 0 pixels"
            )
        if self.tile and self.overlap and self.tile < 2 * self.overlap:
            raise ZooError(
                f"tile {self.tile} is less than twice the overlap {self.overlap}; "
                "use larger tiles or a smaller overlap"
            )
        if self.precision != "auto" and self.precision not in DTYPES:
            raise ZooError(
                f"precision is {self.precision!r}; it must be one of {', '.join(DTYPES)}, auto"
            )


def restore_tensor(
    network: Network,
    image_BIHW: Tensor,
    settings: RestoreSettings | None = None,
    progress: Progress = False,
    guides: Sequence[Tensor] = (),
) -> Tensor:
    """Restore images in memory.

    Args:
        network: the network; it runs in evaluation mode, on its own device.
        image_BIHW: float32 in [0, 1]; for a burst, (B, T, I, H, W).
        settings: tiles, ensemble and precision; None for the defaults.
        progress: see :data:`zoo.inference.tiling.Progress`.
        guides: the guides that the network needs, in its sequence; for a burst, the displacement
            of the frames, if the network takes one.

    Returns:
        (B, O, s*H, s*W) float32 in [0, 1], on the CPU.

    Raises:
        ZooError: if the image has integers, NaN, infinite values or values from 0 to 255, a guide
            is missing or has a wrong size, or the memory is too small.
    """
    check_range(image_BIHW)
    with torch.inference_mode():
        restored = _in_memory(network, image_BIHW, settings or RestoreSettings(), progress, guides)
        values = restored.numpy()
    return torch.from_numpy(values)  # the same memory, as a tensor that may be changed and trained


def _in_memory(
    network: Network,
    image_BIHW: Tensor,
    settings: RestoreSettings,
    progress: Progress,
    guides: Sequence[Tensor],
) -> Tensor:
    """Restore with tiles that fit in memory."""
    if not network.takes_burst:
        check_guides(network.guides, image_BIHW, guides)
    memory = memory_of(network)
    large = math.prod(image_BIHW.shape[-2:]) >= _WORTH_KEEPING
    with evaluating(network), kept_on_cpu(network) if large else nullcontext():
        return _in_fitting_tiles(network, image_BIHW, settings, progress, guides, memory)


def kept_on_cpu(network: Network) -> AbstractContextManager[None]:
    """Keep the memory that a network frees, in a block, where it runs on the CPU."""
    on_cpu = next(network.parameters()).device.type == "cpu" and network.runs_in_torch
    return kept_memory() if on_cpu else nullcontext()


def _in_fitting_tiles(
    network: Network,
    image_BIHW: Tensor,
    settings: RestoreSettings,
    progress: Progress,
    guides: Sequence[Tensor],
    memory: DeviceMemory | None,
) -> Tensor:
    """Restore in tiles that are sized to memory, and halved where it runs out nevertheless."""
    run, overlap = _runner(network, settings), settings.overlap
    tile, sized = settings.tile, settings.tile is not None
    if overlap is None:
        overlap = fitting_overlap(network)
        overlap = min(overlap, tile // 2) if tile else overlap
    default = BURST_TILE if network.takes_burst else TILE
    while True:
        try:
            if not sized:
                tile, sized = default, True
                known = _known_of(network, settings)
                tile = fitting_tile(run, image_BIHW, overlap, memory, default, guides, known)
            return _restored(network, run, image_BIHW, guides, tile or 0, overlap, progress)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if not graphs.make_room():
                tile = _smaller(tile or max(image_BIHW.shape[-2:]), overlap, error)
                logger.warning("memory ran out; trying tiles of %d pixels", tile)
        # After the handler, because the error keeps the tensors of the failed run alive.
        if memory is not None:
            memory.release()


def _known_of(network: Network, settings: RestoreSettings) -> dict[torch.Size, Need]:
    """Return what is known of the memory that the network needs with these settings, to add to."""
    parameter = next(network.parameters())
    how = (
        *(settings.ensemble, settings.precision, settings.tf32, asked_for(None)),
        *(parameter.dtype, parameter.device, torch.get_num_threads(), switched_off()),
    )
    return _needs.setdefault(network, {}).setdefault(how, {})


def check_range(image_BIHW: Tensor) -> None:
    """Check the values of images.

    Raises:
        ZooError: if they are integers, not finite, or far from [0, 1].
    """
    fix = (
        "divide it by 255 (65535 for 16 bits), or by the value that is white, as value_range= of "
        "zoo.restore does"
    )
    if not image_BIHW.is_floating_point():
        kind = str(image_BIHW.dtype).removeprefix("torch.")
        raise ZooError(f"the image has {kind} values; networks take floats from 0 to 1: {fix}")
    if not image_BIHW.numel():
        return
    least, most = (float(bound) for bound in image_BIHW.aminmax())
    if not (math.isfinite(least) and math.isfinite(most)):
        raise ZooError(
            "the image has NaN or infinite values; replace them first, as torch.nan_to_num does"
        )
    if least < _LEAST or most > _MOST:
        side = min(_BLOCK, *image_BIHW.shape[-2:])
        images_NIHW = image_BIHW.flatten(0, -4).float()
        least, most = (float(bound) for bound in F.avg_pool2d(images_NIHW, side).aminmax())
    if most > _MOST:
        raise ZooError(f"the image has values up to {most:g}; networks take 0 to 1: {fix}")
    if least < _LEAST:
        raise ZooError(
            f"the image has values down to {least:g}; networks take 0 to 1: scale it to that range"
        )


def _smaller(tile: int, overlap: int, error: Exception) -> int:
    if tile // 2 < max(SMALLEST_TILE, 2 * overlap):
        raise ZooError(
            f"memory ran out even with tiles of {tile} pixels; close other programs, "
            "or use a smaller model or a smaller overlap"
        ) from error
    return tile // 2


def _restored(
    network: Network,
    run: Run,
    image_BIHW: Tensor,
    guides: Sequence[Tensor],
    tile: int,
    overlap: int,
    progress: Progress,
) -> Tensor:
    grid = capabilities_of(network).size_multiple
    if tile:
        tile = max(grid, tile // grid * grid)
        overlap = min(overlap, tile // 2)  # a tile that became smaller leaves less room for it
    found_BIHW = in_tiles(
        run,
        image_BIHW,
        scale=network.scale,
        channels=network.out_channels,
        tile=tile,
        overlap=overlap,
        progress=progress,
        guides=guides,
        grid=grid,
    )
    if tile and max(image_BIHW.shape[-2:]) > tile:
        return found_BIHW.clamp_(0, 1)  # blended here; a network may return what is not ours
    return found_BIHW.clamp(0, 1)


def _runner(network: Network, settings: RestoreSettings) -> Run:
    parameter = next(network.parameters())
    asked = settings.precision
    precision = faster_precision(network, settings.tf32) if asked == "auto" else asked

    def computed(*inputs: Tensor) -> Tensor:
        with autocast(parameter.device, precision):
            found: Tensor = network(*inputs)
        return found

    def once(*inputs: Tensor) -> Tensor:
        moved = [tensor.to(parameter.device, parameter.dtype) for tensor in inputs]
        with float32_products(tf32=settings.tf32):
            if parameter.device.type == GPU:
                moved = [channels_last(tensor) for tensor in moved]
                found = graphs.recorder(network, computed, moved, precision)
            else:
                found = computed(*moved)
        return _checked(found, network, inputs[0]).float().cpu()

    def ensemble(*inputs: Tensor) -> Tensor:
        total = None
        for turn in range(8):
            seen = once(*(_turn(tensor, turn) for tensor in inputs))
            turned = _turn(seen, turn, back=True)
            total = turned if total is None else total + turned
        assert total is not None
        return total / 8

    return ensemble if settings.ensemble else once


def _checked(found: Any, network: Network, image_BIHW: Tensor) -> Tensor:
    """Return what a network returned, if its shape is that of the contract.

    Raises:
        ZooError: if it is not: a wrong size or a single channel would pass silently, as broadcast.
    """
    height, width = (network.scale * size for size in image_BIHW.shape[-2:])
    expected = (len(image_BIHW), network.out_channels, height, width)
    if isinstance(found, Tensor) and tuple(found.shape) == expected:
        return found
    told = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
    raise ZooError(
        f"{type(network).__name__} returned {told} for an image of shape "
        f"{tuple(image_BIHW.shape)}; in evaluation mode it must return one tensor "
        f"(B, out_channels, scale * H, scale * W), here {expected}: correct its head, or the "
        "attributes of the network"
    )


def channels_last(image_BIHW: Tensor) -> Tensor:
    """Return the same images in channels-last memory; works for images and bursts.

    Convolutions on a GPU are faster with it and keep it, and tokens are stored this way too.
    PyTorch's own memory format does not support bursts.
    """
    return image_BIHW.movedim(-3, -1).contiguous().movedim(-1, -3)


def _turn(image_BIHW: Tensor, turn: int, *, back: bool = False) -> Tensor:
    """Apply one of the eight flips and quarter turns, or its inverse."""
    quarters, flipped = turn % 4, turn >= 4
    if back:
        turned = image_BIHW.rot90(-quarters, (2, 3))
        return turned.flip(3) if flipped else turned
    turned = image_BIHW.flip(3) if flipped else image_BIHW
    return turned.rot90(quarters, (2, 3))
