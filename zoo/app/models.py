"""The networks that the app offers, loaded when they are first used."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from zoo.checkpoints.choose import choose_network
from zoo.errors import ZooError
from zoo.networks import Network
from zoo.recipe import load_recipe
from zoo.shipped import EVERYDAY, list_models, shipped_weights

DEFAULT = f"{EVERYDAY}_x2"
"""The model that is chosen when the page opens, unless weights are given."""


class Models:
    """Networks by the name that users choose.

    Args:
        weights: files of weights that are on offer beside those that ship. ``MODEL=FILE`` names the
            model of a file that does not say it itself.
        device: where the networks run, as ``torch.device`` takes it.

    Raises:
        ZooError: if a file cannot be loaded, holds a network that does not take one photo, or two
            files have one name.
    """

    def __init__(self, weights: Sequence[str] = (), device: str = "cpu") -> None:
        self.device = device
        self._lock = threading.Lock()
        self._loaded: dict[str, Network] = {}
        for word in weights:
            name, network = self._of_file(word)
            if name in self._loaded:
                raise ZooError(f"two files of weights are named {name!r}; rename one of them")
            self._loaded[name] = network
        own = list(self._loaded)  # first, because somebody named them
        self.names = [*own, *(name for name in _shipped_for_photos() if name not in own)]

    def get(self, name: str) -> Network:
        """Return the network of a name; it is loaded at the first call, in evaluation mode.

        Raises:
            ZooError: if the name is not one of :attr:`names`.
        """
        if name not in self.names:
            raise ZooError(f"model {name!r} is not on offer; choose one of {', '.join(self.names)}")
        with self._lock:
            if name not in self._loaded:
                self._loaded[name] = choose_network(name, None).to(self.device).eval()
            return self._loaded[name]

    def _of_file(self, word: str) -> tuple[str, Network]:
        model, equals, path = word.partition("=")
        if not (equals and model in list_models()):  # a path may hold "=", too
            model, path = "", word
        network = choose_network(model or None, Path(path))
        if network.takes_burst or network.guides:
            needs = "a burst" if network.takes_burst else "guides beside the photo"
            raise ZooError(f"{path}: the network needs {needs}; use zoo restore for it")
        return Path(path).stem, network.to(self.device).eval()


def _shipped_for_photos() -> list[str]:
    """Names of the models whose weights ship and that take one photo, the default one first."""
    names = [name for name in shipped_weights() if not load_recipe(name).takes_burst]
    return sorted(names, key=lambda name: (name != DEFAULT, name))
