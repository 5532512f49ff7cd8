"""Damaged and hostile weights files: safetensors, and pickles in both formats of PyTorch."""

from __future__ import annotations

import argparse
import collections
import functools
import io
import json
import warnings
from contextlib import AbstractContextManager
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from safetensors.torch import save
from torch import Tensor

import zoo
from tests.fuzz.frame import ACCEPTED, refusal
from tests.helpers.damage import (
    HOSTILE_PICKLES,
    PLACES,
    Change,
    changed,
    changes,
    legacy_file,
    put,
    zip_file,
)
from zoo.checkpoints import files, model_in
from zoo.limits import use_max_parameters

COUNT, SLICE = 10_000, 60

RECIPE: dict[str, Any] = {
    "network": {
        "type": "single_image", "scale": 2, "dim": 8, "depths": [1], "head": "pixelshuffle_direct",
        "block": {"mixer": {"d_state": 2}, "branch": {"compress": 2, "squeeze": 4}},
    },
}  # fmt: skip

SUFFIXES = (".safetensors", ".SAFETENSORS", ".pth", ".pt")

RECIPES: tuple[str, ...] = (
    "", "{", "null", "[]", "5", '"x"', "[" * 100_000, '{"a":' * 40 + "1" + "}" * 40, "1" * 6000,
    '{"extends": "/etc/hostname"}', '{"extends": "base.yaml"}', '{"extends": "mambair_tiny_x2"}',
    '{"extends": ["x"]}', '{"network": 5}', '{"network": {"type": "single_image", "dim": 1e999}}',
    '{"network": {"type": "single_image", "dim": 1000000000}}', '{"network": {"type": "x"}}',
    '{"network": {"type": "single_image", "depths": [100000000]}}', '{"name": 5, "network": {}}',
    '{"network": {"type": "burst"}, "name": "\\ud800"}', '{"train": "' + "x" * 99_000 + '"}',
)  # fmt: skip
"""Recipes in the metadata of a file."""

WORDS = ("conv_blk.cab", "self_attention", "upsample", "skip_scale", "A_logs", "residual_group",
         "blocks", "groups", "head", "layers", "weight", "norm", "module.")  # fmt: skip


WRAPPERS = (
    "params",
    "params_ema",
    "state_dict",
    "other",
    "list",
    "average",
    "twice",
    "names",
    "options",
)
"""Keys under which the tensors are, or other places for them."""


class Case(NamedTuple):
    """A weights file.

    Attributes:
        source: whose key names it has, "ours" or "theirs".
        suffix: its format.
        tensors: numbers of the tensors that change, and what they become.
        words: words in all keys that are replaced, and by what.
        metadata: recipe in the metadata, or None for the right one.
        wrapper: one of ``WRAPPERS``, or None.
        legacy: whether a pickle has the format of before PyTorch 1.6.
        program: name of a hostile pickle in place of the tensors, or None.
        changes: changes of the bytes.
        told: whether the recipe is passed, too.
        place: what is at the path.
    """

    source: str
    suffix: str
    tensors: tuple[tuple[int, str], ...]
    words: tuple[tuple[str, str], ...]
    metadata: str | None
    wrapper: str | None
    legacy: bool
    program: str | None
    changes: tuple[Change, ...]
    told: bool
    place: str


def cases() -> SearchStrategy[Case]:
    tensor = st.tuples(st.integers(0, 99), st.sampled_from(tuple(KINDS)))
    word = st.tuples(
        st.sampled_from(WORDS), st.sampled_from(("", "x", "eca", "é", "5", "..", "\n"))
    )
    return st.builds(
        Case,
        st.sampled_from(("ours", "theirs")),
        st.sampled_from(SUFFIXES),
        st.just(()) | st.lists(tensor, max_size=3).map(tuple),
        st.just(()) | st.just(()) | st.lists(word, max_size=2).map(tuple),
        st.none() | st.none() | st.sampled_from(RECIPES),
        st.none() | st.sampled_from(WRAPPERS),
        st.booleans(),
        st.sampled_from((*[None] * 60, *HOSTILE_PICKLES)),
        st.just(()) | changes(),
        st.booleans(),
        st.sampled_from((*["file"] * 20, *PLACES)),
    )


KINDS = {
    "removed": lambda t: None,
    "scalar": lambda t: torch.tensor(1.0),
    "empty": lambda t: torch.zeros(0),
    "no rows": lambda t: torch.zeros(0, *t.shape[1:]),
    "integer": lambda t: torch.zeros(t.shape, dtype=torch.int64),
    "half": lambda t: t.half(),
    "flag": lambda t: torch.zeros(t.shape, dtype=torch.bool),
    "complex": lambda t: t.to(torch.complex64),
    "turned": lambda t: t.mT.contiguous() if t.dim() > 1 else t,
    "flat": lambda t: t.flatten(),
    "longer": lambda t: torch.cat([t, t]),
    "deeper": lambda t: t[None, None],
    "huge": lambda t: torch.zeros(1).expand(10**6, 10**6),
    "huge columns": lambda t: torch.zeros(1).expand(3, 10**9),
    "sparse": lambda t: t.to_sparse(),
    "sparse rows": lambda t: torch.eye(4).to_sparse_csr(),
    "quantized": lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8),
    "meta": lambda t: t.to("meta"),
    "parameter": torch.nn.Parameter,
    "text": lambda t: "text",
    "list": lambda t: [1],
    "not a number": lambda t: t * float("nan"),
}
"""What a tensor may become."""


def attempt(case: Case, folder: Path) -> str:
    path = folder / f"weights{case.suffix}"
    put(path, content(case), case.place)
    message = refusal(lambda: use(path, case.told))
    return ACCEPTED if message is None else reason(message)


def use(path: Path, told: bool) -> None:
    """Do with a file what the commands do."""
    with use_max_parameters(1_000_000), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = zoo.load(path, recipe=RECIPE if told else None)
        model_in(path)
        with torch.inference_mode():
            network(network.example(3, 2))


def content(case: Case) -> bytes:
    """The bytes of the file."""
    whole = states()[case.source]
    state: dict[str, Any] = dict(whole)
    for number, kind in case.tensors:
        name = list(whole)[number % len(whole)]
        state[name] = KINDS[kind](whole[name])
    for word, other in case.words:
        state = {key.replace(word, other): value for key, value in state.items()}
    state = {key: value for key, value in state.items() if value is not None}
    if case.suffix.lower() == ".safetensors":
        return changed(safetensors(state, case.metadata), case.changes)
    if case.program is not None:
        written = legacy_file if case.legacy else zip_file
        return changed(written(HOSTILE_PICKLES[case.program]), case.changes)
    state = placed(state, case.wrapper)
    buffer = io.BytesIO()
    torch.save(state, buffer, _use_new_zipfile_serialization=not case.legacy)
    return changed(buffer.getvalue(), case.changes)


def placed(state: dict[str, Any], wrapper: str | None) -> dict[str, Any]:
    """What a trainer that uses this wrapper would save."""
    if wrapper is None:
        return state
    below = {f"module.net.{key}": value for key, value in state.items()}
    dotless = {f"model_ema.{key.replace('.', '')}": value for key, value in state.items()}
    return {
        "list": {"params": list(state.values())},
        "average": {"state_dict": {**{f"model.{k}": v for k, v in state.items()}, **dotless}},
        "twice": {"a": state, "b": {"c": state}, "n_averaged": torch.zeros(())},
        "names": below,
        "options": {
            "args": argparse.Namespace(path=PurePosixPath("a"), scores=[np.float64(1)] * 9),
            "meters": collections.defaultdict(list, a=[1]),
            "model": state,
        },
    }.get(wrapper, {"epoch": 5, wrapper: state})


def safetensors(state: dict[str, Any], recipe: str | None) -> bytes:
    """A file in our format, of the tensors that it can hold."""
    plain = {
        key: value.detach().clone().contiguous()
        for key, value in state.items()
        if isinstance(value, Tensor)
        and value.layout is torch.strided
        and not (value.is_meta or value.is_quantized)
        and value.numel() < 10**6
    }
    metadata = {"format": "zoo", "recipe": json.dumps(RECIPE) if recipe is None else recipe}
    return save(plain, metadata)


@functools.cache
def states() -> dict[str, dict[str, Tensor]]:
    """A tiny network with our key names, and with the authors'."""
    network = zoo.build(RECIPE)
    buffer = io.BytesIO()
    with mock.patch.object(
        zoo.checkpoints.saving, "write_pickled", lambda _, c: torch.save(c, buffer)
    ):
        zoo.checkpoints.save_official(network, "weights.pth")
    buffer.seek(0)
    theirs = torch.load(buffer, weights_only=True)["params"]
    return {"ours": dict(network.state_dict()), "theirs": theirs}


def reason(message: str) -> str:
    """The words that tell one reason of a refusal from another."""
    known = (
        "not a readable", "not a PyTorch", "is a folder", "does not exist", "is not a file",
        "not a state dict", "other objects", "does not match", "not recognised", "is damaged",
        "is missing", "has the shape", "its recipe", "save the dense", "text, not weights",
        "web page", "Git LFS", "is empty", "tensor",
    )  # fmt: skip
    return next((words for words in known if words in message), "other")


def planted() -> AbstractContextManager[object]:
    return mock.patch.object(files, "_fault", lambda tensor: None)
