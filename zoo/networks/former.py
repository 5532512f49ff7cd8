"""Options of networks that had other names in earlier versions; recipes with them still work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo.errors import RecipeError


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


def check_names_of_one_time(network: Mapping[str, Any]) -> None:
    """Check that one ``network`` section has not both the former and the current name of an option.

    Raises:
        RecipeError: if it has; one of the values would have no effect.
    """
    for former, current in {"mirror_pad": ("pad_to", "padding"), "grid": ("pad_to",)}.items():
        for name in current:
            if former in network and name in network:
                raise RecipeError(
                    f"network.{former} is the former name of {' and '.join(current)}, and "
                    f"network.{name} is given, too; leave {former} out"
                )


__all__ = ["check_names_of_one_time", "with_current_options"]
