"""Recipes with hostile values, damaged text and overrides."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
import yaml
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

import zoo
from tests.fuzz.frame import ACCEPTED, refusal
from tests.helpers.damage import PLACES, Change, changed, changes, put
from zoo import recipe
from zoo.evaluation.settings import evaluate_settings
from zoo.limits import use_max_parameters
from zoo.recipe import load_recipe, parse_overrides
from zoo.training.settings import train_settings

COUNT, SLICE = 10_000, 60

LIMIT = 2_000_000
"""Parameters of the largest network that is built, so that a case is quick."""

SINGLE: dict[str, Any] = {
    "network": {
        "type": "single_image", "scale": 2, "dim": 16, "depths": [1, 2], "conv": "1conv",
        "drop_path": 0.1, "channels": 3, "patch_norm": True, "img_range": 1.0,
        "block": {
            "type": "rssb",
            "mixer": {"type": "ss2d", "expand": 1.2, "d_state": 2, "d_conv": 3, "dt_rank": 1},
            "branch": {"type": "cab", "compress": 2, "squeeze": 4},
        },
        "scans": ["raster", {"type": "window", "size": 2, "directions": ["row", "column"]}],
        "head": {"type": "pixelshuffle", "hidden": 8},
    },
}  # fmt: skip
COARSE = copy.deepcopy(SINGLE)
COARSE["network"] |= {
    "coarse": {"depths": [1], "fusion": {"scan": {"size": 4}, "mlp_ratio": 2.0}},
    "block": {"type": "rlmb", "mixer": {"merge": {"type": "gated", "reduction": 2}}},
}
BASES: tuple[dict[str, Any], ...] = (
    SINGLE,
    COARSE,
    {"network": {"type": "unet", "dim": 16, "depths": [1] * 4, "refinement": 1, "block": "rssb"}},
    {"extends": "mambair_tiny_x2", "network": {"block": {"branch": {"squeeze": 8}}}},
    {"extends": "mambacsr_tiny_x2", "train": {"optimizer": {"lr": 1e-3}}, "paper": {"title": "x"}},
    {"extends": "qmambabsr_tiny", "network": {"stages": [1], "align": {"groups": 2}}},
)

VALUES: tuple[Any, ...] = (
    0, -1, 1, 2, 7, 64, 1000, 10**6, 10**9, 2**31, 2**63, 10**30, 0.0, -0.5, 1e-30, 1e300,
    float("inf"), float("nan"), True, None, "", "x", "raster", "hilbert", "rssb", "mlp", "a" * 3000,
    [], {}, [0], [1, 1], [10**8], [[1]], {"type": "window", "size": 10**6}, {"type": "x"},
    {"type": "shuffled", "count": 3}, {"type": "compose", "orders": ["raster"]}, {"x": {"y": 1}},
)  # fmt: skip

FRAGMENTS = (
    "&a ", "*a", "<<: *a\n", "[", "]" * 3, "{" * 40, "- " * 40, "!!float ", "!!python/name:os ",
    "0x_", "2001-13-45", "1" * 5000, ".inf", "? ", "|\n", "\0", "\u2028", "\x1b[2J", '"\\ud800"',
    "extends: fuzz.yaml\n", "extends: /dev/zero\n", "type: single_image\n", "\t", "%YAML 2.0\n",
    "&a [*a]", "k: 1\n" * 30, "é" * 2000, "on: off\n", "1: 2\n", "---\n", "[" * 5000, "a: " * 9,
)  # fmt: skip
"""Pieces of YAML that are put into the text."""


class Case(NamedTuple):
    """A recipe.

    Attributes:
        base: number of the recipe in ``BASES``.
        values: seeds of the places that change, and their new values.
        fragments: places of the text, as fractions, and what is put there.
        changes: changes of the bytes.
        words: settings of a command line.
        place: what is at the path.
    """

    base: int
    values: tuple[tuple[int, Any], ...]
    fragments: tuple[tuple[float, str], ...]
    changes: tuple[Change, ...]
    words: tuple[str, ...]
    place: str


def cases() -> SearchStrategy[Case]:
    value = st.tuples(st.integers(0, 999), st.sampled_from(VALUES))
    fragment = st.tuples(st.floats(0, 1), st.sampled_from(FRAGMENTS))
    keys = st.sampled_from(
        ("network.dim", "network.scans[0]", "network.scans.9.size", "train.x", "network", "", ".",
         "network.block.mixer.d_state", "network.head", "name", "network.depths[0]", "a.b.c")
    )  # fmt: skip
    texts = st.sampled_from(("0", "-1", "1e9", "[", "{type: x}", ".nan", "x", "*a", "[1, 2]", ""))
    return st.builds(
        Case,
        st.integers(0, len(BASES) - 1),
        st.lists(value, max_size=3).map(tuple),
        st.just(()) | st.lists(fragment, max_size=2).map(tuple),
        st.just(()) | st.just(()) | changes(),
        st.just(()) | st.lists(st.builds("{}={}".format, keys, texts), max_size=2).map(tuple),
        st.sampled_from((*["file"] * 20, *PLACES)),
    )


def attempt(case: Case, folder: Path) -> str:
    path = folder / "fuzz.yaml"
    put(path, text_of(case), case.place)
    message = refusal(lambda: use(path, case.words))
    return ACCEPTED if message is None else reason(message)


def use(path: Path, words: tuple[str, ...]) -> None:
    """Do with a recipe what the commands do, apart from training."""
    loaded = load_recipe(path, parse_overrides(words, "a=1"))
    with use_max_parameters(LIMIT):
        network = zoo.build(loaded).eval()
    evaluate_settings(loaded)
    if loaded.train:
        train_settings(loaded)
    if not network.takes_burst and sum(p.numel() for p in network.parameters()) < LIMIT / 10:
        with torch.inference_mode():
            network(network.example(3, 5))


def text_of(case: Case) -> bytes:
    """The content of the recipe's file."""
    data = copy.deepcopy(BASES[case.base])
    for seed, value in case.values:
        chosen = random.Random(seed).choice(list(places(data)))
        chosen[0][chosen[1]] = copy.deepcopy(value)
    text = yaml.safe_dump(data, allow_unicode=True, sort_keys=False)
    for place, fragment in case.fragments:
        at = round(place * len(text))
        text = text[:at] + fragment + text[at:]
    return changed(text.encode(), case.changes)


def places(data: Any) -> Iterator[tuple[Any, Any]]:
    """All places of plain data, as container and key."""
    pairs = data.items() if isinstance(data, dict) else enumerate(data)
    for key, value in list(pairs):
        yield data, key
        if isinstance(value, (dict, list)):
            yield from places(value)


def reason(message: str) -> str:
    """The words that tell one reason of a refusal from another."""
    known = (
        "not valid YAML", "cannot read", "unknown option", "unknown", "expected", "must be",
        "too much for the limit", "cannot be built", "would be empty", "nested", "not text", "is a",
        "given twice", "override",
    )  # fmt: skip
    return next((words for words in known if words in message), "other")


def planted() -> AbstractContextManager[object]:
    return mock.patch.object(recipe, "read_yaml", yaml.safe_load)
