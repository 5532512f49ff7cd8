"""Test images cut into tiles as the authors' code cuts them, for numbers that are the papers'.

For photographs :mod:`zoo.inference` is the better way: it blends its tiles. Here the image is cut
into equal parts that overlap, and each part's own region is kept as it is.

Shape suffixes: B batch, I image channels, H height, W width in pixels.

Source: the test procedures of MambaIR (limit 200, a tenth of overlap) and MambaCSR (limit 192, a
quarter, tiles mirrored up to multiples of 64).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from zoo.evaluation.settings import TilingSettings
from zoo.ops.padding import crop, margin_to_grid, pad


def tiled(
    run: Callable[[Tensor], Tensor], image_BIHW: Tensor, scale: int, tiling: TilingSettings
) -> Tensor:
    """Put an image through a network, part by part.

    Args:
        run: from an image to ``scale`` times its size.
        image_BIHW: the image.
        scale: of the network.
        tiling: how to cut.

    Returns:
        (B, I, scale * H, scale * W).
    """
    height, width = image_BIHW.shape[2:]
    rows, columns = height // tiling.limit + 1, width // tiling.limit + 1
    margin = margin_to_grid(image_BIHW, rows, columns)
    padded_BIHW = pad(image_BIHW, margin, mode="reflect")
    result = []
    for top, bottom, above, below in _parts(padded_BIHW.shape[2], rows, tiling.shave):
        line = []
        for left, right, before, after in _parts(padded_BIHW.shape[3], columns, tiling.shave):
            tile_BIHW = padded_BIHW[:, :, above:below, before:after]
            output_BIHW = _mirrored(run, tile_BIHW, scale, tiling.grid)
            own_rows = slice((top - above) * scale, (bottom - above) * scale)
            own_columns = slice((left - before) * scale, (right - before) * scale)
            line.append(output_BIHW[:, :, own_rows, own_columns])
        result.append(torch.cat(line, dim=3))
    return crop(torch.cat(result, dim=2), margin, scale)


def _parts(side: int, number: int, shave: int) -> list[tuple[int, int, int, int]]:
    """Start and end of each part of a side, and of the tile that is computed for it."""
    size = side // number
    reach = size // shave
    return [
        (start, start + size, max(0, start - reach), min(side, start + size + reach))
        for start in range(0, side, size)
    ]


def _mirrored(run: Callable[[Tensor], Tensor], tile_BIHW: Tensor, scale: int, grid: int) -> Tensor:
    """Run on the tile continued by its mirror image, edge repeated, to beyond the next multiple."""
    if not grid:
        return run(tile_BIHW)
    height, width = tile_BIHW.shape[2:]
    larger = (height // grid + 1) * grid, (width // grid + 1) * grid
    tile_BIHW = torch.cat([tile_BIHW, tile_BIHW.flip(2)], dim=2)[:, :, : larger[0]]
    tile_BIHW = torch.cat([tile_BIHW, tile_BIHW.flip(3)], dim=3)[:, :, :, : larger[1]]
    return run(tile_BIHW)[:, :, : height * scale, : width * scale]
