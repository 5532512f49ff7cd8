"""Images too large for memory: overlapping, blended tiles that fit in a GPU's free memory.

Shape suffixes: B batch, I image channels, H height, W width in pixels, s scale. The frames of a
burst are between batch and channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeAlias, TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

from zoo.networks.guide import window

T = TypeVar("T")

TILE, BURST_TILE = 512, 128
"""Default side of a tile in pixels if free memory is unknown: for images, and for bursts, which
need several times the memory."""

OVERLAP = 32
"""Default overlap of neighbouring tiles in pixels; tiles are blended there."""

SMALLEST_TILE = 32
"""Smallest side in pixels to which tiles are halved when memory runs out."""

_PROBE = 4
"""Before an image is cut, a probe tile is run twice: once as a warm-up, once to measure its memory.
Its side is the default side divided by this, so both runs cost an eighth of a default tile."""

_SHARE = 0.8
"""Fraction of free memory that a tile may use; the rest allows for memory fragmentation."""

_STEP = 64
"""Chosen tile sides are multiples of this, so that they do not change with every free byte."""

Progress: TypeAlias = bool | Callable[[float], None]
"""Whether to show a progress bar on a terminal; or a function that is called after each tile with
the part of the work that is done, above 0 and up to 1. If it raises an error, the work ends. The
part is smaller again if memory runs out and smaller tiles are tried."""


def part_of(progress: Progress, number: int, count: int) -> Progress:
    """Return how one of ``count`` jobs tells its progress, so that all of them go from 0 to 1."""
    if not callable(progress):
        return progress
    return lambda done: progress((number + done) / count)


Run: TypeAlias = Callable[..., Tensor]
"""Takes images, and their guides if there are any, and returns images of ``scale`` times the size,
on the CPU."""


class DeviceMemory(Protocol):
    """Memory of a device, in bytes."""

    def free(self) -> int:
        """Return how much can still be allocated."""
        ...

    def peak(self, function: Callable[[], object]) -> int:
        """Run ``function`` and return its peak memory, without what was allocated before."""
        ...

    def release(self) -> None:
        """Return cached memory to the device."""
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
    """Return the memory of a device, or None if its free memory is unknown."""
    return CudaMemory(device) if device.type == "cuda" else None


def fitting_tile(
    run: Run,
    image_BIHW: Tensor,
    overlap: int,
    memory: DeviceMemory | None,
    default: int = TILE,
    guides: Sequence[Tensor] = (),
) -> int:
    """Return the side of the largest tile that fits in memory, or 0 if the whole image fits.

    The memory of a small tile is measured. Memory is assumed to be proportional to the number of
    pixels. It also has a part that does not depend on pixels, so this errs on the safe side.

    Args:
        run: the function that will be run on tiles.
        image_BIHW: the images.
        overlap: overlap of tiles in pixels; a tile is at least twice as large.
        memory: memory of the device; None selects the default tile.
        default: side in pixels of a tile that fits on most devices.
        guides: guides of the images.
    """
    default = max(default, 2 * overlap)
    height, width = image_BIHW.shape[-2:]
    if memory is None:
        return default
    if height * width <= default**2:
        return 0
    side = default // _PROBE
    probe = window((image_BIHW, *guides), slice(0, side), slice(0, side))
    run(*probe)  # warm-up: compiles and chooses algorithms
    bytes_a_pixel = memory.peak(lambda: run(*probe)) / math.prod(probe[0].shape[-2:])
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
    progress: Progress = False,
    guides: Sequence[Tensor] = (),
) -> Tensor:
    """Run ``run`` on images tile by tile, and blend the tiles where they overlap.

    Args:
        run: takes a tile and returns ``scale`` times its size.
        image_BIHW: the images.
        scale: output over input size of ``run``.
        channels: number of channels that ``run`` returns.
        tile: side of a tile in input pixels, or 0 for the whole image at once.
        overlap: overlap of tiles in input pixels, at most half a tile.
        progress: how the progress is told.
        guides: guides of the images, which ``run`` gets the same part of.

    Returns:
        (B, channels, s*H, s*W).
    """
    height, width = image_BIHW.shape[-2:]
    rows = list(spans(height, tile, overlap))
    columns = list(spans(width, tile, overlap))
    if len(rows) == len(columns) == 1:
        whole_BIHW = run(image_BIHW, *guides)
        if callable(progress):
            progress(1.0)
        return whole_BIHW
    total_BIHW = torch.zeros(len(image_BIHW), channels, height * scale, width * scale)
    weight_HW = torch.zeros(height * scale, width * scale)
    places = [(row, column) for row in rows for column in columns]
    for row, column in _told(places, progress):
        tile_BIHW = run(*window((image_BIHW, *guides), row, column))
        ramp_HW = (
            _ramp(row, height, overlap, scale)[:, None] * _ramp(column, width, overlap, scale)[None]
        )
        place = (_scaled(row, scale), _scaled(column, scale))
        total_BIHW[:, :, place[0], place[1]] += tile_BIHW * ramp_HW
        weight_HW[place] += ramp_HW
    return total_BIHW / weight_HW


def _told(tiles: Sequence[T], progress: Progress) -> Iterator[T]:
    """Yield tiles, and tell the progress after each."""
    if not callable(progress):
        # Below the bar of several images, this one disappears at its end.
        yield from tqdm(tiles, unit="tile", disable=not progress or None, leave=None)
        return
    for number, tile in enumerate(tiles, 1):
        yield tile
        progress(number / len(tiles))


def spans(size: int, tile: int, overlap: int) -> Iterator[slice]:
    """Yield the spans of tiles along one side of an image; the last tile ends at the border.

    Args:
        size: length of the side in pixels.
        tile: length of a tile in pixels; 0 for one tile.
        overlap: least overlap of neighbouring tiles in pixels, at most half a tile.
    """
    if tile == 0 or size <= tile:
        yield slice(0, size)
        return
    for start in range(0, size - tile, tile - overlap):
        yield slice(start, start + tile)
    yield slice(size - tile, size)


def _ramp(span: slice, size: int, overlap: int, scale: int) -> Tensor:
    """Return a tile's weights along one side; they fall linearly in an overlap, never to zero."""
    length, reach = (span.stop - span.start) * scale, overlap * scale
    position = torch.arange(length, dtype=torch.float32) + 0.5
    weight = torch.ones(length)
    # Without an overlap, the quotients are infinite and limit nothing.
    if span.start > 0:
        weight = torch.minimum(weight, position / reach)
    if span.stop < size:
        weight = torch.minimum(weight, position.flip(0) / reach)
    return weight


def _scaled(span: slice, scale: int) -> slice:
    return slice(span.start * scale, span.stop * scale)
