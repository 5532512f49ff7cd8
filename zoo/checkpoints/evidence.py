"""What the keys and shapes of a state dict say about the network that it belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from zoo.checkpoints.keymap import KeyMap, MissingKeyError
from zoo.checkpoints.mambair import PARTS
from zoo.errors import shown

SIMILAR = 0.5
"""Share of known keys from which a file is nearly that of a release."""


class Evidence(dict[str, Tensor]):
    """A state dict that a format looks at; it remembers the last key, for error messages."""

    last = ""

    def __getitem__(self, key: str) -> Tensor:
        self.last = key
        if key not in self:
            raise MissingKeyError(f"the key {key!r} is missing; the file may be incomplete")
        return super().__getitem__(key)

    def fault(self) -> str:
        """Say that the tensor that was looked at last has an impossible shape."""
        found = self.get(self.last)
        shape = None if found is None else tuple(found.shape)
        return f"{self.last} has the shape {shape}, which does not fit the other tensors"


class Named(Protocol):
    """A release: its name, a published recipe of it, and all keys of its files."""

    name: str
    published: str
    every_key: KeyMap


def difference(state: Mapping[str, Tensor], releases: tuple[Named, ...]) -> str | None:
    """Say in which part a file differs from the release that it is nearly one of.

    Args:
        state: tensors by the authors' key names.
        releases: the known releases.

    Returns:
        The second half of a sentence, with the way to describe the part in a recipe; None if all
        keys are known, or fewer than half of them.
    """
    if not state:
        return None
    unknown = {r: [key for key in state if not r.every_key.knows(key)] for r in releases}
    release, strange = min(unknown.items(), key=lambda item: len(item[1]))
    if not strange or len(strange) > SIMILAR * len(state):
        return None
    first = strange[0]
    part, line = next(((p, text) for piece, p, text in PARTS if piece in first), ("network", "..."))
    return (
        f"{len(state) - len(strange)} of its {len(state)} keys are those of {release.name}, but "
        f"not {shown(first)}, so its {part} differs; register that part and pass recipe="
        f"{{extends: {release.published}, network: {{{line}}}}}; if it is no part of the network, "
        "remove it from the file"
    )
