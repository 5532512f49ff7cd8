"""Images larger than memory: tiles that overlap and are blended, sized to what a GPU has free.

Shape suffixes: B batch, I image channels, H height, W width in pixels, s scale. A burst has its
frames between batch and channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Protocol, TypeAlias

import torch
from torch import Tensor
from tqdm import tqdm

TILE, BURST_TILE = 512, 128
"""Default side of a tile in pixels where free memory is unknown: for an image, and for a burst,
whose frames need several times the memory."""

OVERLAP = 32
"""Default overlap of neighbouring tiles in pixels, over which they are blended."""

SMALLEST_TILE = 32
"""When memory runs out tiles are halved, but not below this side in pixels."""

_PROBE = 4
"""A tile of this fraction of the default side is run and then measured before an image is cut: an
eighth of the work of one default tile."""

_SHARE = 0.8
"""Share of free memory that a tile may take; the rest is for gaps between blocks of memory."""

_STEP = 64
"""Sides of sized tiles are multiples of this, so that they do not change with every free byte."""

Run: TypeAlias = Callable[[Tensor], Tensor]
"""From images to ``scale`` times their size, on the CPU."""


class DeviceMemory(Protocol):
    """What can be known of a device's memory, in bytes."""

    def free(self) -> int:
        """What can still be allocated."""
        ...

    def peak(self, function: Callable[[], object]) -> int:
        """The most that ``function`` holds at once, beyond what is held before."""
        ...

    def release(self) -> None:
        """Give back what is held in reserve."""
        ...


class CudaMemory:
    """Memory of an NVIDIA GPU, as the driver and PyTorch's allocator report it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def free(self) -> int:
        cached = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        return int(torch.cuda.mem_get_info(self.device)[0] + cached)

    def peak(self, function: Callable[[], object]) -> int:
        held = torch.cuda.memory_allocated(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        function()
        return int(torch.cuda.max_memory_allocated(self.device) - held)

    def release(self) -> None:
        torch.cuda.empty_cache()


def memory_of(device: torch.device) -> DeviceMemory | None:
    """The memory of a device, or None where its free memory is unknown."""
    return CudaMemory(device) if device.type == "cuda" else None


def fitting_tile(
    run: Run,
    image_BIHW: Tensor,
    overlap: int,
    memory: DeviceMemory | None,
    default: int = TILE,
) -> int:
    """Side of the largest tile that memory holds, or 0 where it holds the whole image.

    A small tile is run and its memory measured; the networks' memory is linear in pixels, and what
    does not depend on pixels is charged to them, which errs on the safe side.

    Args:
        run: what will be run on tiles.
        image_BIHW: the images.
        overlap: of tiles, in pixels; a tile has at least twice as many.
        memory: of the device; the default tile is taken where it is None.
        default: side in pixels of a tile that most memories hold.
    """
    default = max(default, 2 * overlap)
    height, width = image_BIHW.shape[-2:]
    if memory is None:
        return default
    if height * width <= default**2:
        return 0
    side = default // _PROBE
    probe_BIHW = image_BIHW[..., :side, :side]
    run(probe_BIHW)  # warm-up: compiles and chooses algorithms
    bytes_a_pixel = memory.peak(lambda: run(probe_BIHW)) / math.prod(probe_BIHW.shape[-2:])
    pixels = _SHARE * memory.free() / max(bytes_a_pixel, 1)
    if height * width <= pixels:
        return 0
    return max(side, 2 * overlap, math.isqrt(int(pixels)) // _STEP * _STEP)


def in_tiles(
    run: Run,
    image_BIHW: Tensor,
    *,
    scale: int,
    channels: int,
    tile: int,
    overlap: int,
    progress: bool = False,
) -> Tensor:
    """Put images through ``run`` tile by tile and blend the tiles where they overlap.

    Args:
        run: from a tile to ``scale`` times its size.
        image_BIHW: the images.
        scale: of ``run``.
        channels: of what ``run`` returns.
        tile: side in pixels of ``image_BIHW``, or 0 for the whole at once.
        overlap: in pixels, at most half a tile.
        progress: show a progress bar over tiles.

    Returns:
        (B, channels, s*H, s*W).
    """
    height, width = image_BIHW.shape[-2:]
    rows = list(spans(height, tile, overlap))
    columns = list(spans(width, tile, overlap))
    if len(rows) == len(columns) == 1:
        return run(image_BIHW)
    total_BIHW = torch.zeros(len(image_BIHW), channels, height * scale, width * scale)
    weight_HW = torch.zeros(height * scale, width * scale)
    places = [(row, column) for row in rows for column in columns]
    for row, column in tqdm(places, unit="tile", disable=not progress or None):
        tile_BIHW = run(image_BIHW[..., row, column])
        ramp_HW = (
            _ramp(row, height, overlap, scale)[:, None] * _ramp(column, width, overlap, scale)[None]
        )
        place = (_scaled(row, scale), _scaled(column, scale))
        total_BIHW[:, :, place[0], place[1]] += tile_BIHW * ramp_HW
        weight_HW[place] += ramp_HW
    return total_BIHW / weight_HW


def spans(size: int, tile: int, overlap: int) -> Iterator[slice]:
    """Cut a side into tiles that overlap by at least ``overlap``; the last ends at the border.

    Args:
        size: of the side, in pixels.
        tile: of a tile, in pixels; 0 for one tile.
        overlap: in pixels, at most half a tile.
    """
    if tile == 0 or size <= tile:
        yield slice(0, size)
        return
    for start in range(0, size - tile, tile - overlap):
        yield slice(start, start + tile)
    yield slice(size - tile, size)


def _ramp(span: slice, size: int, overlap: int, scale: int) -> Tensor:
    """Weights of a tile along one side: they fall linearly towards neighbours, never to zero."""
    length, reach = (span.stop - span.start) * scale, overlap * scale
    position = torch.arange(length, dtype=torch.float32) + 0.5
    weight = torch.ones(length)
    if reach and span.start > 0:
        weight = torch.minimum(weight, position / reach)
    if reach and span.stop < size:
        weight = torch.minimum(weight, position.flip(0) / reach)
    return weight


def _scaled(span: slice, scale: int) -> slice:
    return slice(span.start * scale, span.stop * scale)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device, or the machine, has no memory left."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    text = str(error).lower()
    return "out of memory" in text or "can't allocate memory" in text
