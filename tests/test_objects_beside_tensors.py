"""Files of weights that hold other objects: what is left out, and what is never called."""

from __future__ import annotations

import argparse
import collections
import contextlib
import datetime
import logging
import operator
import pathlib
import pickle
import subprocess
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import zoo
from tests.helpers.small_weights import holds, small_network, their_names
from zoo.errors import CheckpointError


@pytest.fixture(scope="module")
def plain():
    """The authors' state dict."""
    return their_names(small_network())


class Harm:
    """Calls a function when it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Options(dict):
    """Options by name and by attribute, as of YACS and EasyDict."""


def beside():
    """What trainers save beside the tensors."""
    options = Options(lr=1e-4)
    options.frozen = True
    return {
        "args": argparse.Namespace(name="x", path=pathlib.PurePosixPath("a/b"), sizes=[1, 2]),
        "best_psnr": np.float64(33.1),
        "losses": np.arange(3.0),
        "meters": collections.defaultdict(list, a=[1.0]),
        "cfg": options,
        "date": datetime.datetime(2024, 5, 6),
    }


def test_options_and_scores_beside_the_tensors_are_left_out(tmp_path, plain, caplog):
    torch.save({"model": plain, **beside()}, tmp_path / "w.pth")
    with caplog.at_level(logging.INFO):
        assert holds(zoo.load(tmp_path / "w.pth"), plain)
    assert "w.pth: left out what is no tensor, such as 'argparse.Namespace'" in caplog.text
    with pytest.raises(pickle.UnpicklingError):  # elsewhere it is as before
        torch.load(tmp_path / "w.pth", weights_only=True)


@pytest.mark.parametrize(
    "harm",
    [
        Harm(eval, "open('harm', 'w')"),
        Harm(exec, "open('harm', 'w')"),
        Harm(open, "harm", "w"),
        Harm(pathlib.Path.touch, pathlib.Path("harm")),
        Harm(subprocess.run, ["touch", "harm"]),
        Harm(np.save, "harm", [1]),
    ],
    ids=range(6),
)
def test_functions_in_a_file_are_never_called(tmp_path, monkeypatch, plain, harm):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": plain, "harm": harm, "again": {"a": [harm]}}, "w.pth")
    with contextlib.suppress(CheckpointError):
        assert holds(zoo.load("w.pth"), plain)
    assert [path.name for path in tmp_path.iterdir()] == ["w.pth"]


def test_a_tensor_that_an_unknown_function_makes_is_missing(tmp_path, plain):
    state = {**plain, "conv_first.bias": Harm(np.ones, 8)}
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"missing 1: shallow\.bias"):
        zoo.load(tmp_path / "w.pth")
    torch.save({**plain, "norm.bias": Harm(torch.ones, 8)}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="other objects than tensors"):
        zoo.load(tmp_path / "w.pth")


def test_objects_of_very_many_classes_are_refused(tmp_path, plain):
    made = {name: Harm(getattr(operator, name), 1) for name in operator.__all__}
    torch.save({"model": plain, **made}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="other objects than tensors"):
        zoo.load(tmp_path / "w.pth")


# -------------------------------------------------------------------------------- hostile files


def test_mappings_that_hold_each_other_often_are_refused():
    often = {"a": torch.zeros(1)}
    for _ in range(4):
        often = {f"k{number}": often for number in range(30)}
    with pytest.raises(CheckpointError, match="too many entries"):
        zoo.load(often)
    itself: dict[str, object] = {}
    itself["again"] = itself
    with pytest.raises(CheckpointError, match="entry 'again' is not a tensor"):
        zoo.load(itself)


def test_threads_do_not_take_each_others_stand_ins_away(tmp_path, plain):
    paths = []
    for number, name in enumerate(["best_psnr", "args", "date"]):
        paths.append(tmp_path / f"{number}.pth")
        torch.save({"params": plain, name: beside()[name]}, paths[-1])
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda number: zoo.detect(paths[number % 3]).name, range(60)))
    assert found == [str(number % 3) for number in range(60)]


def test_what_counts_operations_is_left_out(tmp_path, plain):
    counted = {f"{key.rpartition('.')[0]}.total_ops": torch.zeros(1) for key in plain}
    torch.save({**plain, **counted, "total_params": torch.zeros(1)}, tmp_path / "thop.pth")
    assert holds(zoo.load(tmp_path / "thop.pth"), plain)
