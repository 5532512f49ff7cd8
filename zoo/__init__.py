"""Mamba networks for image restoration: load, restore, train, export, and mix their parts.

    import zoo

    network = zoo.load("mambair_tiny_x2")
    zoo.restore(network, "photo.png", "restored.png")

Names are imported on first use, so that ``import zoo`` is fast.
"""

from __future__ import annotations

import importlib
import os
import sys

from zoo.startup import leave_current_folder, runs_a_command

TYPE_CHECKING = False  # the module typing could be another one before the next line
leave_current_folder()
if runs_a_command() and "multiprocessing.spawn" not in sys.modules:  # not if it only loads data
    importlib.import_module("zoo.interrupts").start_quietly()

if TYPE_CHECKING:
    from typing import Any

    from zoo.checkpoints import convert, detect, load, save
    from zoo.description import describe, list_parts
    from zoo.inference import restore
    from zoo.integrations.hub import push
    from zoo.ops import backends, selective_scan, use_backend
    from zoo.recipe import build
    from zoo.registry import register
    from zoo.shipped import list_models

    __version__: str

# Use huge pages on Linux. With small pages, PyTorch spends a third of the time of a 512-pixel image
# on mapping new memory for activations. PyTorch reads the variable at its first large tensor.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

_HOMES = {
    "backends": "zoo.ops",
    "build": "zoo.recipe",
    "convert": "zoo.checkpoints",
    "describe": "zoo.description",
    "detect": "zoo.checkpoints",
    "list_models": "zoo.shipped",
    "list_parts": "zoo.description",
    "load": "zoo.checkpoints",
    "push": "zoo.integrations.hub",
    "register": "zoo.registry",
    "restore": "zoo.inference",
    "save": "zoo.checkpoints",
    "selective_scan": "zoo.ops",
    "use_backend": "zoo.ops",
}

__all__ = [
    "backends",
    "build",
    "convert",
    "describe",
    "detect",
    "list_models",
    "list_parts",
    "load",
    "push",
    "register",
    "restore",
    "save",
    "selective_scan",
    "use_backend",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("zoo.command").package_version()
    if name not in _HOMES:
        raise AttributeError(f"module 'zoo' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> set[str]:
    return {*globals(), *__all__, "__version__"}
