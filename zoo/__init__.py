"""Mamba networks for image restoration that can be installed, mixed, trained and deployed.

    import zoo

    network = zoo.load("mambair_tiny_x2")
    zoo.restore(network, "photo.png", "restored.png")

Names are loaded when they are first used, so that ``import zoo`` costs little.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.checkpoints import convert, load, save
    from zoo.description import describe, list_parts
    from zoo.inference import restore
    from zoo.ops import backends, selective_scan, use_backend
    from zoo.recipe import build, list_models
    from zoo.registry import register

    __version__: str

# Activations of large images come in fresh memory. With small pages PyTorch spends a third of the
# time of a 512-pixel image on mapping it, on Linux; it asks once, at its first large tensor.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

_HOMES = {
    "backends": "zoo.ops",
    "build": "zoo.recipe",
    "convert": "zoo.checkpoints",
    "describe": "zoo.description",
    "list_models": "zoo.recipe",
    "list_parts": "zoo.description",
    "load": "zoo.checkpoints",
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
    "list_models",
    "list_parts",
    "load",
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


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
