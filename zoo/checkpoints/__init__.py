"""Loading, saving and converting weights, in our format and in the authors' formats.

Our format is safetensors with the recipe in the metadata, so a file describes itself. The authors'
state dicts are recognised by their keys, below whatever names a trainer has put above them; the key
map of each release is in its own module.
"""

from zoo.checkpoints.detection import detect
from zoo.checkpoints.loading import load, load_state, model_in, state_for
from zoo.checkpoints.releases import OFFICIAL
from zoo.checkpoints.saving import convert, save, save_official
from zoo.key_rules import Rule, flat, kernel
from zoo.shipped import WEIGHTS, shipped_weights

__all__ = [
    "OFFICIAL",
    "WEIGHTS",
    "Rule",
    "convert",
    "detect",
    "flat",
    "kernel",
    "load",
    "load_state",
    "model_in",
    "save",
    "save_official",
    "shipped_weights",
    "state_for",
]
