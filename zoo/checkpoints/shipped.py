"""The weights that ship with the package, by the name of their model."""

from __future__ import annotations

from pathlib import Path

from zoo.errors import CheckpointError, nearest
from zoo.recipe import list_models

WEIGHTS = Path(__file__).resolve().parents[1] / "weights"
"""Folder of the weights that ship with the package."""


def shipped_weights() -> list[str]:
    """Return the sorted names of the models with weights in the package."""
    return sorted(path.stem for path in WEIGHTS.glob("*.safetensors"))


def located(source: str | Path) -> Path:
    """Return the file of a source: a path, or the name of a model whose weights ship.

    Raises:
        CheckpointError: if it is neither; the message says which names there are.
    """
    path = Path(source)
    name = str(source)
    if path.suffix or path.is_file():
        return path
    if name in shipped_weights():
        return WEIGHTS / f"{name}.safetensors"
    if name in list_models():
        raise CheckpointError(
            f"no weights ship for {name!r}: pass a weights file, or use zoo.build({name!r}) for a "
            f"randomly initialised network; shipped: {', '.join(shipped_weights()) or 'none'}"
        )
    raise CheckpointError(f"unknown model or file {name!r}{nearest(name, list_models())}")
