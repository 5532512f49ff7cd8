"""Evaluation mode of a network for as long as somebody needs it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple
from weakref import WeakKeyDictionary

from torch import nn


class _Use(NamedTuple):
    """How many blocks a network is in now, and whether it trained before the first one."""

    blocks: int
    trained: bool


_uses: WeakKeyDictionary[nn.Module, _Use] = WeakKeyDictionary()
_lock = threading.Lock()


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """In the block, the network is in evaluation mode; afterwards it trains again if it did.

    Several threads may be in such blocks; the last one to leave restores the mode.
    """
    with _lock:
        count, trained = _uses.get(network, _Use(0, network.training))
        _uses[network] = _Use(count + 1, trained)
        network.eval()
    try:
        yield
    finally:
        with _lock:
            count, trained = _uses.pop(network)
            if count > 1:
                _uses[network] = _Use(count - 1, trained)
            else:
                network.train(trained)
