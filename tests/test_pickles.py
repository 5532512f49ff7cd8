"""Pickles that would crash or hang Python are refused before they are loaded."""

from __future__ import annotations

import io
import pickle
import pickletools
import random
import struct
from collections import Counter

import numpy as np
import pytest
import torch

from tests.fuzz.frame import time_limit
from tests.helpers.damage import HOSTILE_FACTS, HOSTILE_PICKLES, legacy_file, zip_file
from zoo.checkpoints.files import read_state
from zoo.data.burst.facts import load_facts, numbers
from zoo.errors import CheckpointError, ImageError
from zoo.pickles import check_pickle, check_tensors, load_tensors
from zoo.training.checkpoint import latest_checkpoint


@pytest.mark.parametrize("written", [legacy_file, zip_file])
@pytest.mark.parametrize("name", HOSTILE_PICKLES)
def test_a_hostile_pickle_is_no_weights_file(tmp_path, name, written):
    path = tmp_path / "weights.pth"
    path.write_bytes(written(HOSTILE_PICKLES[name]))
    with time_limit(4), pytest.raises(CheckpointError):
        read_state(path)


@pytest.mark.parametrize("name", HOSTILE_PICKLES)
def test_a_hostile_pickle_is_no_checkpoint(tmp_path, name):
    (tmp_path / "checkpoint-00000001.pt").write_bytes(zip_file(HOSTILE_PICKLES[name]))
    with time_limit(4), pytest.raises(CheckpointError):
        latest_checkpoint(tmp_path)


@pytest.mark.parametrize("name", HOSTILE_FACTS)
def test_a_hostile_pickle_is_no_file_of_facts(tmp_path, name):
    path = tmp_path / "meta_info.pkl"
    path.write_bytes(HOSTILE_FACTS[name])
    with time_limit(4), pytest.raises(ImageError):
        load_facts(path)


def test_steps_of_storages_count_together(tmp_path):
    held = legacy_file(pickle.dumps(list(range(2000)), 2))
    load = (
        b"\x80\x02]ctorch.storage\n_load_from_bytes\nq\x00B" + struct.pack("<I", len(held)) + held
    )
    data = load + b"\x85q\x01R0" + b"h\x00h\x01R0" * 2000 + b"."
    path = tmp_path / "meta_info.pkl"
    path.write_bytes(data)
    with time_limit(4), pytest.raises(ImageError, match="too many values"):
        load_facts(path)


def test_a_list_that_holds_itself_or_another_often_is_not_counted_for_ever():
    often: object = 1.0
    for _ in range(50):
        often = [often, often]
    itself: list[object] = []
    itself.append(itself)
    array = np.zeros(10**6)
    for value in (often, itself, [[]] * 10**6, [array] * 10**5):
        with time_limit(1), pytest.raises(ValueError, match="finite number"):
            numbers(value, 9)
    assert numbers([np.float32(1), torch.tensor([2, 3]), 4][:1], 1) == [1]


def _state(count: int) -> dict[str, object]:
    weight = torch.nn.Parameter(torch.zeros(2, 3))
    shared = torch.zeros(5)
    return {f"layers.{n}.weight": weight if n % 2 else shared for n in range(count)}


@pytest.mark.parametrize("code", [b"(q\0.", b"(2..", b"(\x94."])
def test_a_mark_is_no_value(code):
    with pytest.raises(ValueError, match="a mark is used as a value"):
        check_pickle(io.BytesIO(code), 100)


@pytest.mark.parametrize("zipped", [False, True])
def test_all_that_training_writes_is_loaded(tmp_path, zipped):
    values = {
        "state": _state(20),
        "python": random.getstate(),
        "bytes": b"abc",
        "steps": {"milestones": Counter([3, 5])},  # of MultiStepLR
        "long": 2**100,
        "size": torch.Size([2, 3]),
        "type": torch.bfloat16,
    }
    held = io.BytesIO()
    torch.save(values, held, _use_new_zipfile_serialization=zipped)
    path = tmp_path / "checkpoint-00000001.pt"
    path.write_bytes(held.getvalue())
    assert load_tensors(path).keys() == values.keys()


@pytest.mark.parametrize("protocol", range(6))
def test_the_check_follows_every_protocol_to_its_end(protocol):
    shared = ["a", ("b", 2.5, None)]
    value = [shared, shared, {"x": {1, 2}, "y": b"abc", (1, (2, 3)): frozenset([4])}, 2**70, True]
    data = pickle.dumps(value, protocol)
    file = io.BytesIO(data + b"rest")
    assert check_pickle(file, 200) > 10
    assert file.read() == b"rest"
    with pytest.raises(pickle.UnpicklingError, match="too many values"):
        check_pickle(io.BytesIO(data), 10)


@pytest.mark.parametrize("protocol", range(6))
def test_every_step_of_a_pickle_counts_once(protocol):
    data = pickle.dumps([1, "a", {"b": (2,)}], protocol)
    steps = len(list(pickletools.genops(data)))
    assert check_pickle(io.BytesIO(data), steps) == steps
    with pytest.raises(pickle.UnpicklingError, match="too many values"):
        check_pickle(io.BytesIO(data), steps - 1)


def test_the_steps_of_all_pickles_of_a_legacy_file_count_together():
    file = io.BytesIO(legacy_file(pickle.dumps({"a": [1, 2, 3]}, 2)))
    steps = sum(len(list(pickletools.genops(file))) for _ in range(5))
    assert file.read() == b""
    file.seek(0)
    assert check_tensors(file, steps) == steps and file.tell() == 0
    with pytest.raises(pickle.UnpicklingError, match="too many values"):
        check_tensors(file, steps - 1)


def test_so_many_levels_and_long_numbers_and_no_more():
    def check(value):
        return check_pickle(io.BytesIO(pickle.dumps(value, 2)), 10_000)

    value: object = []
    for _ in range(100):
        value = [value]
    assert check(value) > 100
    with pytest.raises(pickle.UnpicklingError, match="nested too deeply"):
        check([value])
    assert check([2**64 - 1] * 1001 + [2**64 + n for n in range(1000)]) > 2001
    with pytest.raises(pickle.UnpicklingError, match="too many long numbers"):
        check([2**64 + n for n in range(1001)])


class Made:
    """Any object: of arguments, and with a state."""

    def __init__(self, *arguments, state=None):
        self.reduced = (Made, arguments, state)

    def __reduce__(self):
        return self.reduced


DOUBLED = {
    "list": lambda value: [value, value],
    "list of one": lambda value: [(value, value)],
    "mapping": lambda value: {"a": value, "b": value},
    "mapping of one": lambda value: {"a": [value, value]},
    "pair": lambda value: (value, value),
    "three": lambda value: (value, value, 0),
    "four": lambda value: (value, value, 0, 0),
    "made": lambda value: Made(value, value),
    "state": lambda value: Made(state={"a": value, "b": value}),
}
"""Ways to put a value twice into another."""


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("way", DOUBLED)
def test_a_value_that_is_used_twice_counts_twice_wherever_it_is(way, protocol):
    value: object = 1.0
    for _ in range(28):
        value = DOUBLED[way](value)
    data = pickle.dumps(value, protocol)
    with pytest.raises(pickle.UnpicklingError, match="too many values, by repeating some"):
        check_pickle(io.BytesIO(data), 10_000)


def test_what_functions_are_called_with_counts_even_if_the_result_is_dropped():
    text = b"X" + struct.pack("<I", 2**20) + b"x" * 2**20
    start, call = b"\x80\x02cmine\nmade\nq\x00" + text + b"q\x010", b"h\x00h\x01\x85R0"
    assert check_pickle(io.BytesIO(start + call * 63 + b"N."), 1000) > 63
    with pytest.raises(pickle.UnpicklingError, match="too many values, by repeating some"):
        check_pickle(io.BytesIO(start + call * 65 + b"N."), 1000)
