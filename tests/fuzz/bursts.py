"""Damaged bursts of every layout: frames, npz files, and the facts beside them."""

from __future__ import annotations

import functools
import io
import json
import os
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import cv2
import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

import zoo
from tests.fuzz.frame import ACCEPTED, FaultError, refusal
from tests.fuzz.images import declaring, reason
from tests.helpers.damage import HOSTILE_FACTS, PLACES, Change, changed, changes, put
from zoo.data.burst import camera
from zoo.data.images import read_photo
from zoo.limits import PIXELS_VARIABLE
from zoo.networks import Network
from zoo.registry import Capabilities

COUNT, SLICE = 4_000, 80

LOOKS = ("auto", "auto", "camera", "plain", "linear")

FACTS = ("rgb2cam", "rgb_gain", "red_gain", "blue_gain", "black_level")

VALUES: tuple[Any, ...] = (
    0, -1, 1, 3, 2**70, 1e-30, 1e300, float("nan"), float("inf"), True, None, "1", "x" * 3000, [],
    {}, [1, 2], [[1]] * 9, [[0] * 3] * 3, [[1, 0, 0], [0, 1, 0], [0, 0, 1]], [["a"] * 3] * 3, 1j,
    10**3000, [10**400] * 9,
)  # fmt: skip
"""Values of facts: right ones and wrong ones."""

DTYPES = ("<f4", ">f8", "<f2", "<u2", "|u1", "<i8", "|b1", "<c8", "<U3", "|O", "<M8[s]", "<V4")

MOST_PIXELS = 100_000
"""The limit on the size of bursts here."""

LARGE = (1, 4, 500, 1000)  # twenty bytes are allowed for each pixel of the limit


SHAPES = ((2, 4, 3, 3), (2, 3, 3, 3), (2, 4, 3, 4), (2, 5, 3, 3), (0, 4, 3, 3), (2, 4, 3), (),
          (2, 4, 10**7, 10**6), (-2, 4, 3, 3), (2**40,) * 4)  # fmt: skip


class Case(NamedTuple):
    """A burst.

    Attributes:
        layout: "planes", "phone", "rgb" or "npz".
        facts: facts beside the frames, by name.
        facts_file: name of the file with the facts, or of hostile facts, or "" for none.
        arrays: dtype, shape and white level of an npz file; for others, of no meaning.
        declared: shape in the header of an npz file, or side of an image in its header; or None.
        damaged: which of the files is changed.
        damage: changes of its bytes.
        place: what is at its path.
        look: how the burst becomes a picture.
    """

    layout: str
    facts: Mapping[str, Any]
    facts_file: str
    arrays: tuple[str, tuple[int, ...], Any]
    declared: tuple[int, ...] | None
    damaged: int
    damage: tuple[Change, ...]
    place: str
    look: str


def cases() -> SearchStrategy[Case]:
    value = st.sampled_from(VALUES)
    right = st.just(RIGHT_FACTS)
    some = right.flatmap(
        lambda facts: st.dictionaries(st.sampled_from(FACTS), value, max_size=2).map(
            lambda wrong: {**facts, **wrong}
        )
    )
    usual = st.sampled_from(
        [("<f4", SHAPES[0], None), ("<u2", SHAPES[0], 1023), ("|u1", LARGE, 255)]
    )
    arrays = st.tuples(st.sampled_from(DTYPES), st.sampled_from(SHAPES[:7]), value)
    return st.builds(
        Case,
        st.sampled_from(["planes", "phone", "rgb", "npz", "npz"]),
        some | st.dictionaries(st.text(max_size=5), value, max_size=3),
        st.sampled_from(["", "meta.json", "meta_info.pkl", "nested.json", "list.json"])
        | st.sampled_from(sorted(HOSTILE_FACTS)),
        usual | arrays,
        st.none() | st.sampled_from(SHAPES) | st.tuples(st.just(20_000), st.just(20_000)),
        st.integers(0, 5),
        changes(),
        st.sampled_from(PLACES),
        st.sampled_from(LOOKS),
    )


class First(Network):
    """Returns the first frame: the colours R, G, B of a RAW frame."""

    scale = 1
    capabilities = Capabilities(input="burst")

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.unit = torch.nn.Parameter(torch.ones(()))

    def forward(self, burst_BTIHW: torch.Tensor, flow_BT2HW: object = None) -> torch.Tensor:
        first_BIHW = burst_BTIHW[:, 0]
        return first_BIHW if self.channels == 3 else first_BIHW[:, [0, 1, 3]]


def attempt(case: Case, folder: Path) -> str:
    burst, output = folder / "burst", folder / "picture.png"
    burst.mkdir()
    files = content(case)
    damaged = sorted(files)[case.damaged % len(files)]
    for name, data in files.items():
        hit = name == damaged
        put(
            burst / name, changed(data, case.damage) if hit else data, case.place if hit else "file"
        )
    network = First(3 if case.layout == "rgb" else 4)
    with mock.patch.dict(os.environ, {PIXELS_VARIABLE: str(MOST_PIXELS)}):
        said = refusal(
            lambda: zoo.restore(network, burst, output, look=case.look, tile=0, progress=False)  # type: ignore[arg-type]
        )
    if said is None:
        if case.layout == "npz" and case.arrays[1] == LARGE:
            raise FaultError("a burst above the limit is read")
        picture = read_photo(output).color_HWC
        if picture.shape[2] != 3 or not np.isfinite(picture).all():
            raise FaultError(f"the picture has shape {picture.shape}")
        return f"{ACCEPTED} {case.layout}"
    if output.exists():
        raise FaultError("a refused burst has a picture")
    return f"refused: {reason(said)}"


def planted() -> AbstractContextManager[object]:
    return mock.patch.object(camera, "numbers", lambda value, *counts: [float(value)])


def content(case: Case) -> dict[str, bytes]:
    """Files of a burst by name."""
    if case.layout == "npz":
        files = {"burst.npz": archive(*case.arrays, declared=case.declared)}
    else:
        files = dict(FRAMES[case.layout]())
        if case.declared is not None and len(case.declared) == 2:
            first = min(files)
            files[first] = declaring(files[first], *case.declared)
    if case.facts_file:
        where = "samsung_00/" if case.layout == "phone" else ""
        name = "meta.json" if case.facts_file.endswith(".json") else "meta_info.pkl"
        files[where + name] = facts(case.facts_file, case.facts)
    return files


def facts(name: str, values: Mapping[str, Any]) -> bytes:
    """A file of facts."""
    if name == "nested.json":
        return b'{"rgb2cam": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    if name == "list.json":
        return b"[1, 2]"
    if name in HOSTILE_FACTS:
        return HOSTILE_FACTS[name]
    if name == "meta_info.pkl":
        return pickle.dumps(
            {key: torch.tensor(value) if value == 3 else value for key, value in values.items()}
        )
    try:
        return json.dumps(values).encode()
    except TypeError:  # complex numbers
        return b'{"rgb_gain": ' + b"9" * 6000 + b"}"


def archive(
    dtype: str, shape: Sequence[int], white: Any, declared: Sequence[int] | None = None
) -> bytes:
    """An npz file with frames, a white level and a flow."""
    frames = np.zeros(shape, dtype) if dtype == "|O" else np.ones(shape).astype(dtype)
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as file:
        data = npy(frames)
        if declared is not None:
            data = redeclared(data, shape, declared)
        file.writestr("frames.npy", data)
        if white is not None:
            file.writestr("white_level.npy", npy(np.array(white, _dtype_of(white))))
        file.writestr("flow.npy", npy(np.zeros((2, 2, 30, 30))))
    return held.getvalue()


def _dtype_of(value: Any) -> Any:
    return object if isinstance(value, (dict, list)) or value == 10**3000 else None


def npy(array: np.ndarray) -> bytes:
    held = io.BytesIO()
    np.lib.format.write_array(held, array, allow_pickle=True)
    return held.getvalue()


def redeclared(data: bytes, shape: Sequence[int], declared: Sequence[int]) -> bytes:
    """An npy file with another shape in its header, of the same length."""
    end = 10 + int.from_bytes(data[8:10], "little")
    header = data[10:end].decode().replace(str(tuple(shape)), str(tuple(declared))).rstrip()
    return data[:10] + (header.ljust(end - 11)[: end - 11] + "\n").encode() + data[end:]


def png(samples_HWI: np.ndarray) -> bytes:
    return cv2.imencode(".png", samples_HWI)[1].tobytes()


@functools.cache
def _planes() -> dict[str, bytes]:
    random = np.random.default_rng(0)
    return {
        f"im_raw_{number:02d}.png": png(random.integers(0, 2**14, (4, 5, 4)).astype(np.uint16))
        for number in range(3)
    }


@functools.cache
def _phone() -> dict[str, bytes]:
    frames = list(_planes().values())
    return {f"samsung_{n:02d}/im_raw.png": frame for n, frame in enumerate(frames)}


@functools.cache
def _rgb() -> dict[str, bytes]:
    random = np.random.default_rng(0)
    return {f"{n}.png": png(random.integers(0, 256, (4, 5, 3)).astype(np.uint8)) for n in range(3)}


FRAMES = {"planes": _planes, "phone": _phone, "rgb": _rgb}

RIGHT_FACTS = {
    "rgb2cam": [[1.6, -0.5, -0.1], [-0.2, 1.4, -0.2], [0.0, -0.6, 1.6]],
    "rgb_gain": 1.2, "red_gain": 2.0, "blue_gain": 1.7, "black_level": [60, 61, 62, 63],
}  # fmt: skip
