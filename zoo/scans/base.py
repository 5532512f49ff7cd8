"""The contract of a scan order, and its cache.

A scan order computes ``order_KS`` (int32) for a grid of tokens: K directions of S steps. Each entry
is a token number in row-major order, or -1 for a zero token. The result depends on the height, the
width and the order's settings only. An order can be traced with symbolic sizes unless
``traceable`` is False.

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
"""Largest number of orders kept in memory; the least recently used one is dropped first."""

CACHED_BYTES = 1 << 27
"""Largest size of all orders kept in memory. The latest one is kept whatever its size."""

_cache: OrderedDict[tuple[ScanOrder, int, int, torch.device], Tensor] = OrderedDict()
_lock = Lock()


class ScanOrder(ABC):
    """The order in which a scan reads the tokens of an image, as a list of indices.

    Subclasses are frozen dataclasses, so that orders with equal settings are equal. They implement
    :meth:`build` with tensor operations only, unless ``traceable`` is False.
    """

    directions: tuple[str, ...]
    """Names of the K directions, in the order of their weights."""

    grids: ClassVar[int] = 1
    """Number of token grids in the scan: 1, or 2 for a coarse grid and a fine grid."""

    traceable: ClassVar[bool] = True
    """False if :meth:`build` needs a Python loop over tokens, and therefore a fixed size."""

    by_content: ClassVar[bool] = False
    """True if the order depends on the image: :meth:`build` then raises an error, and a mixer
    computes the order from what it knows of the tokens."""

    @abstractmethod
    def build(self, height: int, width: int, device: torch.device) -> Tensor:
        """Compute ``order_KS`` for a grid of ``height`` x ``width`` tokens."""

    def tokens(self, height: int, width: int) -> int:
        """Return the number L of tokens that the order reads from."""
        return height * width

    def check_traceable(self) -> None:
        """Raise a RecipeError if the order cannot be traced, whether or not the size is fixed."""
        if not self.traceable:
            orders = [(entry.name, entry.target) for entry in SCANS.entries()]
            known = [
                name
                for name, order in orders
                if order.traceable is True and order.grids == 1 and not order.by_content
            ]
            raise RecipeError(
                f"the scan order {type(self).__name__} cannot be traced, so the network cannot be "
                f"exported, not even for one size; use one of {', '.join(known)}"
            )

    def order(self, height: int, width: int, device: torch.device | str | None = None) -> Tensor:
        """Return ``order_KS`` (int32), from the cache if possible.

        Raises:
            RecipeError: if the order cannot be traced, but is used in a trace, or if it is wrong.
        """
        device = torch.device("cpu" if device is None else device)
        if torch.compiler.is_compiling() or not isinstance(height, int):
            self.check_traceable()
            return self.build(height, width, device)
        key = (self, height, width, device)
        with _lock:
            if key in _cache:
                _cache.move_to_end(key)
                return _cache[key]
        # Built outside inference mode, so that training can use a cached order later.
        with torch.inference_mode(False):
            order_KS = self.build(height, width, device).contiguous()
        try:
            check_order(order_KS, self.tokens(height, width))
        except ValueError as error:
            name = type(self).__name__
            raise RecipeError(f"the scan order {name} of {height} x {width}: {error}") from error
        with _lock:
            _cache[key] = order_KS
            _shrink_cache()
        return order_KS


def _shrink_cache() -> None:
    held = sum(order_KS.nbytes for order_KS in _cache.values())
    while len(_cache) > CACHED_ORDERS or (held > CACHED_BYTES and len(_cache) > 1):
        held -= _cache.popitem(last=False)[1].nbytes


SCANS = Registry("scan", ScanOrder)


def check_directions(directions: tuple[str, ...], known: tuple[str, ...]) -> None:
    """Raise a RecipeError if ``directions`` is empty or has a name that is not in ``known``."""
    if not directions:
        raise RecipeError(f"directions must name at least one of {', '.join(known)}")
    for index, name in enumerate(directions):
        if name not in known:
            raise RecipeError(
                f"directions[{index}]: unknown direction {name!r}{nearest(name, known)}"
            )


def stack_directions(paths: dict[str, Tensor], directions: tuple[str, ...]) -> Tensor:
    """Stack paths into ``order_KS``, one for each direction.

    Args:
        paths: named paths, each of shape (S,).
        directions: names of paths; ``X_reversed`` is path X in reverse.
    """
    rows = [
        paths[name.removesuffix("_reversed")].flip(0) if name.endswith("_reversed") else paths[name]
        for name in directions
    ]
    return torch.stack(rows)


def path_through(steps_HW: Tensor) -> Tensor:
    """Return the path (S,) that reads each token at its step: the inverse of a permutation.

    Args:
        steps_HW: the step of each token, from 0 to S - 1, each once; integers of any dtype.
    """
    steps_S = steps_HW.reshape(-1).long()
    tokens_S = torch.arange(steps_S.shape[0], dtype=torch.int32, device=steps_S.device)
    return torch.zeros_like(tokens_S).scatter(0, steps_S, tokens_S)
