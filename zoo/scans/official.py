"""Where the authors' MambaCSR puts the results of its column-first cross-scale walks.

Their code takes the window number of a column-first walk for a row-first one when it maps results
back to the image. On a square grid of windows the two agree; on any other the results of these two
directions come back scrambled. Training cut square patches and never met it; photographs do.

The scan itself is right, so the whole difference is one permutation after it: the one here. It is
used with ``compat: official`` alone, to reproduce the authors' published outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor


def official_column_sources(
    height: int, width: int, size: int, device: torch.device | None = None
) -> Tensor:
    """The true token whose result the authors' code writes to each place of the fine grid.

    Args:
        height: of the fine grid in tokens, a multiple of ``size``.
        width: of the same grid.
        size: side of a window in tokens.
        device: of the result.

    Returns:
        int64 tensor (H * W,), a permutation: ``y_official[n] = y[sources[n]]``, both row-major. It
        is the identity where ``height == width``.
    """
    rows, columns = height // size, width // size
    place_L = torch.arange(height * width, device=device)
    # The authors unroll to (window column b, row q, window row a, column p), having read the
    # window's number as a * columns + b; it is gj * rows + gi.
    column_in = place_L % size
    window_row = place_L // size % rows
    row_in = place_L // (size * rows) % size
    window_column = place_L // (size * rows * size)
    window = window_row * columns + window_column
    y_L = window % rows * size + row_in
    x_L = window // rows * size + column_in
    return y_L * width + x_L
