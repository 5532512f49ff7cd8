"""Tiling test images as the authors' code does, to reproduce the papers' numbers.

An image is cut into equal parts. Each part is computed on a larger tile, which overlaps with its
neighbours, and then cropped from it without blending. For photographs, use :mod:`zoo.inference`,
which blends its tiles.

Shape suffixes: B batch, I image channels, H height, W width in pixels.

Source: the test procedures of MambaIR (limit 200, overlap a tenth) and MambaCSR (limit 192, overlap
a quarter, tiles extended by reflection to multiples of 64).
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
    """Run a network on images, part by part.

    Args:
        run: takes images and returns ``scale`` times their size.
        image_BIHW: the images.
        scale: output over input size of the network.
        tiling: settings of the tiling.

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
    """Return the start and end of each part of a side, then the start and end of its tile."""
    size = side // number
    reach = size // shave
    return [
        (start, start + size, max(0, start - reach), min(side, start + size + reach))
        for start in range(0, side, size)
    ]


def _mirrored(run: Callable[[Tensor], Tensor], tile_BIHW: Tensor, scale: int, grid: int) -> Tensor:
    """Run on the tile, extended by its mirror image (edge repeated) to a larger multiple of grid.

    A tile that already is a multiple is extended too, as in the authors' code.
    """
    if not grid:
        return run(tile_BIHW)
    height, width = tile_BIHW.shape[2:]
    larger = (height // grid + 1) * grid, (width // grid + 1) * grid
    tile_BIHW = torch.cat([tile_BIHW, tile_BIHW.flip(2)], dim=2)[:, :, : larger[0]]
    tile_BIHW = torch.cat([tile_BIHW, tile_BIHW.flip(3)], dim=3)[:, :, :, : larger[1]]
    return run(tile_BIHW)[:, :, : height * scale, : width * scale]
