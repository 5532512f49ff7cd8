"""Options of networks that had other names in earlier versions; recipes with them still work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def with_current_options(network: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ``network`` section of a recipe with the current names of its options.

    Args:
        network: type and options, as plain data.
    """
    found = dict(network)
    kind = found.get("type")
    if kind == "single_image" and isinstance(found.get("mirror_pad"), int):
        found["pad_to"] = found.pop("mirror_pad")
        found["padding"] = "replicate" if found["pad_to"] == 1 else "mirror"
    if kind == "wavelet" and "grid" in found:
        grid = found.pop("grid")
        found["pad_to"] = 1 if grid is None else grid
    return found


__all__ = ["with_current_options"]
