"""Images too large for memory: overlapping, blended tiles that fit in what is free.

Shape suffixes: B batch, I image channels, H height, W width in pixels, s scale. The frames of a
burst are between batch and channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from typing import NamedTuple, TypeAlias, TypeVar

import torch
from torch import Tensor, nn
from tqdm import tqdm

from zoo.data.decoding import own_stderr
from zoo.inference.device_memory import DeviceMemory
from zoo.inference.recordable import unrecorded
from zoo.networks import Network
from zoo.networks.guide import window
from zoo.registry import capabilities_of

T = TypeVar("T")

TILE, BURST_TILE = 512, 128
"""Default side of a tile in pixels if free memory is unknown: for images, and for bursts, which
need several times the memory."""

LEAST_OVERLAP, MOST_OVERLAP = 16, 32
"""Bounds in pixels of the overlap that is chosen for a network; tiles are blended there."""

_REACH = 4
"""Overlap over the standard deviation of how far convolutions carry a value, in pixels. What a
pixel in the middle of an overlap misses beyond the border of a tile is two deviations away."""

_OVERLAP_STEP = 8
"""Chosen overlaps are multiples of this."""

SMALLEST_TILE = 32
"""Smallest side in pixels to which tiles are halved when memory runs out."""

_PROBE = 4
"""Before an image is cut, a probe tile is run twice: once as a warm-up, once to measure its memory.
Its side is the default side divided by this, so both runs cost an eighth of a default tile."""

_MOST_PROBES = 3
"""How often the memory of a probe tile is measured, if it is less than that of its result."""

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


class Need(NamedTuple):
    """Bytes that a pixel of a tile needs: while a network runs, and of the restored image."""

    work: float
    result: float


def fitting_overlap(network: Network) -> int:
    """Return the overlap of tiles that a network needs, in pixels.

    A scan reaches across the whole tile, however large it is, and so does not tell where to stop.
    What shows at the border of a tile is what its convolutions miss there. Each carries a value by
    a random step, so that many of them carry it by the root of their number. A network that works
    on a grid, of windows or of levels of smaller size, needs a cell of it. One that aligns frames,
    or whose layers are not known, has the most.
    """
    if network.takes_burst or not network.runs_in_torch:
        return MOST_OVERLAP
    kernels = [m.kernel_size[0] for m in network.modules() if isinstance(m, nn.Conv2d)]
    deviation = math.sqrt(sum((side**2 - 1) / 12 for side in kernels))
    reach = math.ceil(_REACH * deviation / _OVERLAP_STEP) * _OVERLAP_STEP
    cell = capabilities_of(network).size_multiple
    return min(max(LEAST_OVERLAP, reach, cell), MOST_OVERLAP)


def fitting_tile(
    run: Run,
    image_BIHW: Tensor,
    overlap: int,
    memory: DeviceMemory | None,
    default: int = TILE,
    guides: Sequence[Tensor] = (),
    known: MutableMapping[torch.Size, Need] | None = None,
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
        known: what was measured before with this function, and is measured now, by the shape of the
            images without their sides.
    """
    default = max(default, 2 * overlap)
    height, width = image_BIHW.shape[-2:]
    if memory is None:
        return default
    side = default // _PROBE
    if height * width <= side**2 or (height * width <= default**2 and not memory.is_scarce()):
        return 0
    known = {} if known is None else known
    kind = image_BIHW.shape[:-2]
    if kind not in known:
        known[kind] = _need(run, window((image_BIHW, *guides), *[slice(0, side)] * 2), memory)
    taken = known[kind].result * height * width if memory.has_results else 0
    pixels = (memory.share * memory.free() - taken) / max(known[kind].work, 1)
    if height * width <= pixels:
        return 0
    return max(side, 2 * overlap, math.isqrt(max(0, int(pixels))) // _STEP * _STEP)


def _need(run: Run, probe: Sequence[Tensor], memory: DeviceMemory) -> Need:
    """Measure what a small tile needs."""
    pixels = math.prod(probe[0].shape[-2:])
    work = 0
    with unrecorded():  # a replay takes no memory beside its recording
        result_BIHW = run(*probe)  # the first run compiles and chooses algorithms
        for _ in range(_MOST_PROBES):
            work = memory.peak(lambda: run(*probe))
            if work >= result_BIHW.nbytes:  # otherwise, others in this process gave memory back
                break
    return Need(work / pixels, result_BIHW.nbytes / pixels)


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
    grid: int = 1,
) -> Tensor:
    """Run ``run`` on images tile by tile, and blend the tiles where they overlap.

    Args:
        run: takes a tile and returns ``scale`` times its size.
        image_BIHW: the images.
        scale: output over input size of ``run``.
        channels: number of channels that ``run`` returns.
        tile: largest side of a tile in input pixels, or 0 for the whole image at once.
        overlap: least overlap of tiles in input pixels, at most half a tile.
        progress: how the progress is told.
        guides: guides of the images, which ``run`` gets the same part of.
        grid: sides of tiles are multiples of this; ``tile`` must be one.

    Returns:
        (B, channels, s*H, s*W).
    """
    height, width = image_BIHW.shape[-2:]
    rows = list(spans(height, tile, overlap, grid))
    columns = list(spans(width, tile, overlap, grid))
    if len(rows) == len(columns) == 1:
        whole_BIHW = run(image_BIHW, *guides)
        if callable(progress):
            progress(1.0)
        return whole_BIHW
    total_BIHW = torch.zeros(len(image_BIHW), channels, height * scale, width * scale)
    across = _weights(columns, width, overlap, scale)
    places = [
        (row, down_H, column, across_W)
        for row, down_H in zip(rows, _weights(rows, height, overlap, scale), strict=True)
        for column, across_W in zip(columns, across, strict=True)
    ]
    for row, down_H, column, across_W in _told(places, progress):
        tile_BIHW = run(*window((image_BIHW, *guides), row, column))
        place_BIHW = total_BIHW[:, :, _scaled(row, scale), _scaled(column, scale)]
        place_BIHW += tile_BIHW * (down_H[:, None] * across_W[None])
    return total_BIHW


def _told(tiles: Sequence[T], progress: Progress) -> Iterator[T]:
    """Yield tiles, and tell the progress after each."""
    if not callable(progress):
        with own_stderr():  # which the bar asks whether it is a terminal
            # Below the bar of several images, this one disappears at its end.
            bar = tqdm(tiles, unit="tile", disable=not progress or None, leave=None)
        yield from bar
        return
    for number, tile in enumerate(tiles, 1):
        yield tile
        progress(number / len(tiles))


def spans(size: int, tile: int, overlap: int, grid: int = 1) -> Iterator[slice]:
    """Yield the spans of tiles along one side of an image: equal, as few and as short as can be.

    The first tile begins at one border and the last one ends at the other. Rather than overlap more
    than they need, tiles are shorter, so that few pixels are computed twice.

    Args:
        size: length of the side in pixels.
        tile: greatest length of a tile in pixels, a multiple of ``grid``; 0 for one tile.
        overlap: least overlap of neighbouring tiles in pixels, at most half a tile.
        grid: lengths are multiples of this.
    """
    if tile == 0 or size <= tile:
        yield slice(0, size)
        return
    count = math.ceil((size - overlap) / (tile - overlap))
    length = math.ceil((size + (count - 1) * overlap) / count)
    length = math.ceil(length / grid) * grid
    for number in range(count):
        start = number * (size - length) // (count - 1)
        yield slice(start, start + length)


def _weights(tiles: Sequence[slice], size: int, overlap: int, scale: int) -> list[Tensor]:
    """Return the weights of all tiles along one side; those of a pixel have the sum 1."""
    ramps = [_ramp(span, size, overlap, scale) for span in tiles]
    total = torch.zeros(size * scale)
    for span, ramp in zip(tiles, ramps, strict=True):
        total[_scaled(span, scale)] += ramp
    return [ramp / total[_scaled(span, scale)] for span, ramp in zip(tiles, ramps, strict=True)]


def _ramp(span: slice, size: int, overlap: int, scale: int) -> Tensor:
    """Return what a tile counts along one side; it falls linearly in an overlap, never to zero."""
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
