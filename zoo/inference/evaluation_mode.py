"""Evaluation mode of a network for as long as somebody needs it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple
from weakref import WeakKeyDictionary

from torch import nn


class _Use(NamedTuple):
    """How many blocks a network is in now, and which of its modules trained before the first one.

    Some may be frozen in evaluation mode while others train.
    """

    blocks: int
    trained: tuple[nn.Module, ...]


_uses: WeakKeyDictionary[nn.Module, _Use] = WeakKeyDictionary()
_lock = threading.Lock()


def pauses_training(network: nn.Module) -> bool:
    """Return whether the network is in such a block now, and trains again afterwards."""
    with _lock:
        return network in _uses and bool(_uses[network].trained)


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """In the block, the network is in evaluation mode; afterwards its modules train again that did.

    Several threads may be in such blocks; the last one to leave restores the mode.
    """
    with _lock:
        known = _uses.get(network)
        if known is None:
            known = _Use(0, tuple(module for module in network.modules() if module.training))
        _uses[network] = known._replace(blocks=known.blocks + 1)
        network.eval()
    try:
        yield
    finally:
        with _lock:
            count, trained = _uses.pop(network)
            if count > 1:
                _uses[network] = _Use(count - 1, trained)
            else:
                for module in trained:
                    module.training = True
