"""Multi-head self-attention in windows, shifted in every second block of a group.

The windows are an index list, as scan orders are: one lookup cuts the tokens into windows, shifts
the windows and mirrors tokens beyond the border, and another one puts the results back.

Shape suffixes: B batch, H height, W width, C channels, L tokens (H * W), V windows, P tokens of a
window, Q = P, R pairs of them (P * Q), h heads, d channels of a head, X three times C.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.blocks.contract import MIXERS, Mixer, Placed
from zoo.ops.padding import mirrored
from zoo.scans import ScanOrder

APART = -100.0
"""Added to the logits of two tokens of a window that are not neighbours in the image (Swin)."""

MAX_WINDOW = 64
"""Largest side of a window: attention takes memory in proportion to its fourth power."""

_CACHED = 16
"""Largest number of layouts kept in memory."""


class Layout(NamedTuple):
    """The windows of an image.

    Attributes:
        window_VP: int64, the token of each place in each window.
        place_L: int64, the place in ``window_VP`` of each token, counted through all windows.
    """

    window_VP: Tensor
    place_L: Tensor


@MIXERS.register("window_attention")
class WindowAttention(Mixer, Placed):
    """Self-attention in windows with relative position bias (Swin, Sec. 3.2; MambaIRv2).

    An image whose sides are not multiples of the window is mirrored at the bottom and on the right.

    Args:
        dim: channels C, a multiple of ``heads``.
        scan: not used; a window has no order.
        window: side of a window in tokens.
        heads: number of heads.
        shift: displacement of the windows in tokens, below ``window``. None shifts them by half a
            window in every second block of its kind in a group, and leaves them in the others.
    """

    takes_scan = False

    def __init__(
        self,
        dim: int,
        *,
        scan: ScanOrder | None = None,
        window: int = 16,
        heads: int = 4,
        shift: int | None = None,
    ) -> None:
        super().__init__()
        if not 1 <= window <= MAX_WINDOW:
            raise ValueError(f"window is {window}; it must be from 1 to {MAX_WINDOW}")
        if heads < 1:
            raise ValueError(f"heads is {heads}; it must be at least 1")
        if dim % heads:
            raise ValueError(f"heads is {heads}, which does not divide dim {dim}; use a divisor")
        if shift is not None and not 0 <= shift < window:
            raise ValueError(f"shift is {shift}; it must be from 0 to {window - 1}, or null")
        self.window, self.heads = window, heads
        self.alternates, self.shift = shift is None, shift or 0
        self.qkv = nn.Linear(dim, 3 * dim)
        self.bias_table = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        self.proj = nn.Linear(dim, dim)
        nn.init.trunc_normal_(self.bias_table, std=0.02)

    def place(self, index: int) -> None:
        if self.alternates:
            self.shift = self.window // 2 * (index % 2)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        _, height, width, _ = x_BHWC.shape
        qkv_BLX = self.qkv(x_BHWC).flatten(1, 2)
        # Index lists are cached, but not as symbols of a traced graph.
        tracing = torch.compiler.is_compiling() or not isinstance(height, int)
        attend = self._traced if tracing else self._attended
        return self.proj(attend(qkv_BLX, height, width)).unflatten(1, (height, width))

    def _bias(self, relative_PQ: Tensor) -> Tensor:
        """Look up the bias of each pair of tokens, (h, P, Q)."""
        bias_hR = self.bias_table.t().index_select(1, relative_PQ.flatten())
        return bias_hR.unflatten(1, (self.window**2, self.window**2))

    def _heads(self, qkv_BLX: Tensor, window_VP: Tensor) -> tuple[Tensor, ...]:
        """Cut tokens into windows: queries, keys and values, each (B, V, h, P, d)."""
        qkv = qkv_BLX.index_select(1, window_VP.flatten())
        qkv = torch.unflatten(qkv, 1, (-1, self.window**2)).unflatten(-1, (3, self.heads, -1))
        return qkv.permute(3, 0, 1, 4, 2, 5).unbind(0)

    def _attended(self, qkv_BLX: Tensor, height: int, width: int) -> Tensor:
        """Attend with the operator that keeps no logits, to windows of the same mask at once."""
        layout, counts = grouped_layout(height, width, self.window, self.shift, qkv_BLX.device)
        relative_PQ = cached_relative_positions(self.window, qkv_BLX.device)
        bias_hPQ = self._bias(relative_PQ).to(qkv_BLX.dtype)
        biases = [bias_hPQ]
        if self.shift:
            masks = edge_masks(self.window, self.shift, qkv_BLX.device)
            biases += [bias_hPQ + mask_PQ.to(bias_hPQ.dtype) for mask_PQ in masks]
        found, first = [], 0
        for bias, count in zip(biases, counts, strict=True):
            if count:
                part_VP = layout.window_VP[first : first + count]
                q, k, v = (t.flatten(0, 1) for t in self._heads(qkv_BLX, part_VP))
                y_VhPd = F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None])
                y_VPC = y_VhPd.transpose(1, 2).flatten(2)
                found.append(y_VPC.unflatten(0, (-1, count)).flatten(1, 2))
                first += count
        return torch.cat(found, 1).index_select(1, layout.place_L)

    def _traced(self, qkv_BLX: Tensor, height: int, width: int) -> Tensor:
        """Attend with plain operators and one mask for each window, for graphs of any size."""
        layout = windows(height, width, self.window, self.shift, qkv_BLX.device)
        q, k, v = self._heads(qkv_BLX, layout.window_VP)
        bias_hPQ = self._bias(relative_positions(self.window, qkv_BLX.device)).to(q.dtype)
        logits_BVhPQ = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2) + bias_hPQ
        if self.shift:
            region_VP = regions(height, width, self.window, self.shift, qkv_BLX.device)
            apart_VPQ = region_VP[:, :, None] != region_VP[:, None]
            logits_BVhPQ = logits_BVhPQ + (apart_VPQ * APART).to(q.dtype)[:, None]
        y_BVhPd = logits_BVhPQ.softmax(-1) @ v
        y_BLC = y_BVhPd.transpose(2, 3).flatten(3).flatten(1, 2)
        return y_BLC.index_select(1, layout.place_L)

    def extra_repr(self) -> str:
        return f"window={self.window}, heads={self.heads}, shift={self.shift}"


def relative_positions(window: int, device: torch.device | None = None) -> Tensor:
    """Return the row of the bias table of each pair of tokens in a window, (P, Q) int64."""
    place_P = torch.arange(window**2, device=device)
    row_P, column_P = place_P // window, place_P % window
    down_PQ = row_P[:, None] - row_P + window - 1
    right_PQ = column_P[:, None] - column_P + window - 1
    return down_PQ * (2 * window - 1) + right_PQ


@lru_cache(_CACHED)
def cached_relative_positions(window: int, device: torch.device) -> Tensor:
    """Return :func:`relative_positions`, outside inference mode, so that training can use it."""
    with torch.inference_mode(False):
        return relative_positions(window, device)


def windows(height: int, width: int, window: int, shift: int, device: torch.device) -> Layout:
    """Return the windows of an image in row-major order; sizes may be symbols of a traced graph.

    Args:
        height: height of the image in tokens.
        width: width of the image in tokens.
        window: side of a window in tokens.
        shift: displacement of the windows in tokens.
        device: device of the result.
    """
    rows, columns = (height + window - 1) // window, (width + window - 1) // window
    row_VP, column_VP = _shifted_places(rows, columns, window, device)
    # Windows are displaced on the mirrored image, and what leaves it comes in on the other side.
    row_VP = (row_VP + shift) % (rows * window)
    column_VP = (column_VP + shift) % (columns * window)
    row_VP, column_VP = mirrored(row_VP, height), mirrored(column_VP, width)
    token_L = torch.arange(height * width, device=device)
    y_L = (token_L // width - shift) % (rows * window)
    x_L = (token_L % width - shift) % (columns * window)
    window_L = y_L // window * columns + x_L // window
    place_L = window_L * window**2 + y_L % window * window + x_L % window
    return Layout(row_VP * width + column_VP, place_L)


def regions(height: int, width: int, window: int, shift: int, device: torch.device) -> Tensor:
    """Return a number for each place in each window, (V, P); places with equal ones are neighbours.

    A shifted window at the border holds tokens from both sides of the image.
    """
    rows, columns = (height + window - 1) // window, (width + window - 1) // window
    row_VP, column_VP = _shifted_places(rows, columns, window, device)

    def band(place_VP: Tensor, size: int) -> Tensor:
        return (place_VP >= size - window).long() + (place_VP >= size - shift).long()

    return band(row_VP, rows * window) * 3 + band(column_VP, columns * window)


def _shifted_places(
    rows: int, columns: int, window: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return row and column of each place in each window, after the shift, both (V, P)."""
    window_V1 = torch.arange(rows * columns, device=device)[:, None]
    place_P = torch.arange(window**2, device=device)
    row_VP = window_V1 // columns * window + place_P // window
    column_VP = window_V1 % columns * window + place_P % window
    return row_VP, column_VP


@lru_cache(_CACHED)
def grouped_layout(
    height: int, width: int, window: int, shift: int, device: torch.device
) -> tuple[Layout, tuple[int, ...]]:
    """Return the windows of an image, those with equal masks side by side, and their numbers.

    The groups are: windows inside, in the last column, in the last row, and in the corner; see
    :func:`edge_masks`. Without a shift, there is one group.
    """
    # Outside inference mode, so that training can use a cached layout later.
    with torch.inference_mode(False):
        layout = windows(height, width, window, shift, device)
        if not shift:
            return layout, (len(layout.window_VP),)
        rows, columns = -(-height // window), -(-width // window)
        number_RC = torch.arange(rows * columns, device=device).reshape(rows, columns)
        groups = [
            number_RC[:-1, :-1],
            number_RC[:-1, -1:],
            number_RC[-1:, :-1],
            number_RC[-1:, -1:],
        ]
        moved_V = torch.cat([group.flatten() for group in groups])
        place_L = layout.place_L
        back_V = moved_V.argsort()
        place_L = back_V[place_L // window**2] * window**2 + place_L % window**2
        return Layout(layout.window_VP[moved_V], place_L), tuple(g.numel() for g in groups)


@lru_cache(_CACHED)
def edge_masks(window: int, shift: int, device: torch.device) -> tuple[Tensor, ...]:
    """Return the masks of shifted windows in the last column, the last row and the corner.

    Each is float32 (P, P): 0 for two tokens that are neighbours in the image, else ``APART``.
    """
    with torch.inference_mode(False):
        place_P = torch.arange(window**2, device=device)
        rows_P, columns_P = place_P // window < window - shift, place_P % window < window - shift
        in_rows_PQ = rows_P[:, None] != rows_P
        in_columns_PQ = columns_P[:, None] != columns_P
        apart = (in_columns_PQ, in_rows_PQ, in_rows_PQ | in_columns_PQ)
        return tuple(pairs_PQ * APART for pairs_PQ in apart)
