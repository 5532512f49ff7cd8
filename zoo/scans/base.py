"""The contract of a scan order, and its cache.

A scan order turns an image grid into an index list ``order_KS`` (int32): K directions of S steps,
each entry a token number in row-major order or -1 for a zero token. It is pure, depends on height
and width alone, and can be traced with symbolic sizes unless it says otherwise.

Shape suffixes: K directions, S steps, H height, W width, all in tokens.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from threading import Lock
from typing import ClassVar

import torch
from torch import Tensor

from zoo.errors import RecipeError, nearest
from zoo.ops.scan.order import check_order
from zoo.registry import Registry

CACHED_ORDERS = 64
"""Orders kept in memory at once; the least recently used one goes first."""

_cache: OrderedDict[tuple[ScanOrder, int, int, torch.device], Tensor] = OrderedDict()
_lock = Lock()


class ScanOrder(ABC):
    """A way to walk the tokens of an image, as an index list.

    Subclasses are frozen dataclasses (equal settings are equal orders) that implement
    :meth:`build` with tensor operations only.
    """

    directions: tuple[str, ...]
    """Names of the K directions; their sequence is the sequence of the weights."""

    grids: ClassVar[int] = 1
    """Token grids that the order numbers: 2 where a coarse one stands before the fine one."""

    traceable: ClassVar[bool] = True
    """False where the order needs a Python loop over tokens and so a size known beforehand."""

    @abstractmethod
    def build(self, height: int, width: int, device: torch.device) -> Tensor:
        """Compute ``order_KS`` for a grid of ``height`` x ``width`` tokens."""

    def tokens(self, height: int, width: int) -> int:
        """Number L of tokens that the order numbers."""
        return height * width

    def order(self, height: int, width: int, device: torch.device | str | None = None) -> Tensor:
        """Return ``order_KS`` (int32), from the cache where it is there.

        Raises:
            RecipeError: when an order that cannot be traced is traced.
        """
        device = torch.device("cpu" if device is None else device)
        if torch.compiler.is_compiling() or not isinstance(height, int):
            if not self.traceable:
                raise RecipeError(
                    f"scan order {type(self).__name__} cannot be traced with dynamic sizes; "
                    "use raster, window, serpentine or diagonal for a network that is exported"
                )
            return self.build(height, width, device)
        key = (self, height, width, device)
        with _lock:
            if key in _cache:
                _cache.move_to_end(key)
                return _cache[key]
        # Built outside inference mode, so that training can use a cached order later.
        with torch.inference_mode(False):
            order_KS = self.build(height, width, device).contiguous()
        check_order(order_KS, self.tokens(height, width))
        with _lock:
            _cache[key] = order_KS
            while len(_cache) > CACHED_ORDERS:
                _cache.popitem(last=False)
        return order_KS


SCANS = Registry("scan", ScanOrder)


def check_directions(directions: tuple[str, ...], known: tuple[str, ...]) -> None:
    """Raise a RecipeError unless ``directions`` is a non-empty selection from ``known``."""
    if not directions:
        raise RecipeError(f"directions must name at least one of {', '.join(known)}")
    for index, name in enumerate(directions):
        if name not in known:
            raise RecipeError(
                f"directions[{index}]: unknown direction {name!r}{nearest(name, known)}"
            )


def stack_directions(paths: dict[str, Tensor], directions: tuple[str, ...]) -> Tensor:
    """Stack named one-dimensional paths, or their reverses ``*_reversed``, to ``order_KS``."""
    rows = [
        paths[name.removesuffix("_reversed")].flip(0) if name.endswith("_reversed") else paths[name]
        for name in directions
    ]
    return torch.stack(rows)
