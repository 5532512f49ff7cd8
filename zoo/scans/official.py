"""An error in the authors' MambaCSR code, reproduced for comparison with their outputs.

When their code maps the results of the column-first cross-scale scans back to the image, it reads
column-first window numbers as row-first ones. On a square grid of windows both are the same. On
other grids the results of these two directions are scrambled. Training used square patches, so it
did not show there; it does on photographs.

The scan itself is correct, so the error amounts to one permutation after it, which is computed
here. It is used only with ``compat: official``, to reproduce the authors' published outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor


def official_column_sources(
    height: int, width: int, size: int, device: torch.device | None = None
) -> Tensor:
    """Return, for each position of the fine grid, the token that the authors' code writes there.

    Args:
        height: height of the fine grid in tokens, a multiple of ``size``.
        width: width of the fine grid in tokens, a multiple of ``size``.
        size: side of a window in tokens.
        device: device of the result.

    Returns:
        int64 tensor (H * W,), a permutation: ``y_official[n] = y[sources[n]]``, both row-major. It
        is the identity if ``height == width``.
    """
    rows, columns = height // size, width // size
    place_L = torch.arange(height * width, device=device)
    # The authors' axes are (window column b, row q, window row a, column p). Their code reads the
    # window number as a * columns + b, but it is b * rows + a.
    column_in = place_L % size
    window_row = place_L // size % rows
    row_in = place_L // (size * rows) % size
    window_column = place_L // (size * rows * size)
    window = window_row * columns + window_column
    y_L = window % rows * size + row_in
    x_L = window // rows * size + column_in
    return y_L * width + x_L
