"""``--precision fp32`` is float32 on a GPU, too: TF32 is off unless ``--tf32`` allows it.

The settings are PyTorch's for the whole process, so they can be read without a GPU.
"""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest
import torch

import zoo
from recipes import compare, evaluate, train
from tests.helpers.training import make_photos, words
from zoo.cli import main
from zoo.inference import RestoreSettings, faster_precision, restore_tensor
from zoo.inference.faster_precision import faster_precision as choose
from zoo.ops.precision import float32_products

SMALL = {"dim": 8, "depths": [1], "block": {"mixer": {"d_state": 2}, "branch": "mlp"}}


def allowed():
    """Whether convolutions and products may use TF32, by PyTorch's older and newer settings."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    flags = [cudnn.allow_tf32, matmul.allow_tf32]
    if hasattr(matmul, "fp32_precision"):
        names = [place.fp32_precision for place in (cudnn.conv, cudnn.rnn, matmul)]
        assert set(names) <= {"ieee", "tf32"}
        flags += [name == "tf32" for name in names]
    assert len(set(flags)) == 1
    return flags[0]


@pytest.fixture(autouse=True)
def usual():
    """What PyTorch has at its start; each test must leave it so."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    start = (cudnn.allow_tf32, matmul.allow_tf32, torch.get_float32_matmul_precision())
    assert start == (True, False, "highest")
    yield
    assert start == (cudnn.allow_tf32, matmul.allow_tf32, torch.get_float32_matmul_precision())


@pytest.fixture
def seen(monkeypatch):
    """Whether TF32 was allowed at each call of a network, and at each backward pass."""
    found = []

    def note(*_):
        found.append(allowed())

    class Noting(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            note()
            return x.view_as(x)

        @staticmethod
        def backward(ctx, grad):
            note()
            return grad

    forward = zoo.networks.SingleImage.forward
    monkeypatch.setattr(
        zoo.networks.SingleImage, "forward", lambda *given: Noting.apply(forward(*given))
    )
    return found


def test_it_is_off_in_a_block_and_as_before_after_it():
    with float32_products():
        assert allowed() is False
        with float32_products(tf32=True):
            assert allowed() is False  # the stricter block counts
        assert allowed() is False
    with float32_products(tf32=True):
        assert allowed() is True
        with float32_products():
            assert allowed() is False
        assert allowed() is True
    with pytest.raises(KeyError), float32_products():
        raise KeyError


def test_blocks_of_several_threads_do_not_undo_each_other():
    entered, leave, after = threading.Event(), threading.Event(), []

    def other():
        with float32_products():
            entered.set()
            leave.wait(20)
            after.append(allowed())

    thread = threading.Thread(target=other)
    with float32_products():
        thread.start()
        assert entered.wait(20)
    assert allowed() is False  # the first block has ended, the other has not
    leave.set()
    thread.join()
    assert after == [False]


@pytest.mark.skipif(
    not hasattr(torch.backends.cuda.matmul, "fp32_precision"), reason="PyTorch 2.8 has no names"
)
@pytest.mark.parametrize("place", ["all", "conv", "matmul"])
def test_the_newer_settings_are_heeded_and_come_back(place):
    """PyTorch's flags have no value where its newer settings differ; reading them raises."""
    places = {
        "all": torch.backends,
        "conv": torch.backends.cudnn.conv,
        "rnn": torch.backends.cudnn.rnn,
        "matmul": torch.backends.cuda.matmul,
    }
    places[place].fp32_precision = "ieee" if place == "conv" else "tf32"
    chosen = {name: each.fp32_precision for name, each in places.items()}
    try:
        with float32_products():
            assert allowed() is False
        assert {name: each.fp32_precision for name, each in places.items()} == chosen
    finally:
        torch.backends.fp32_precision = "none"
        torch.backends.cudnn.allow_tf32 = True
        torch.set_float32_matmul_precision("highest")


def test_restoring_allows_it_only_if_asked(seen, tmp_path):
    network, image = zoo.build("mambair_light_x2", **SMALL), torch.rand(1, 3, 40, 9)
    restore_tensor(network, image, RestoreSettings(tile=32, overlap=4))
    assert seen == [False, False]
    zoo.restore(network, image)
    zoo.restore(network, image, tf32=True)
    assert seen[2:] == [False, True]
    photos = make_photos(tmp_path / "photos")
    line = ["restore", str(photos / "0.png"), "-o", str(tmp_path / "x.png"), "--overwrite"]
    line += ["-n", "mambair_tiny_x2", "--random-weights"]
    assert main(line) == 0 and main([*line, "--tf32"]) == 0
    assert seen[4:] == [False, True]


def test_auto_compares_bfloat16_with_what_will_run(seen, tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    monkeypatch.setattr(faster_precision, "bfloat16_is_slow", lambda device: False)
    network = zoo.build("mambair_light_x2", **SMALL)
    choose(network)
    assert seen and not any(seen)
    (tmp_path / "precisions.json").unlink()
    seen.clear()
    choose(network, tf32=True)
    assert seen and all(seen)


@pytest.mark.parametrize("option", [[], ["--tf32"]])
def test_training_and_evaluation_allow_it_only_if_asked(option, seen, tmp_path, monkeypatch):
    """Forward and backward; validation measures what restoring gives by default, in float32."""
    photos, run = make_photos(tmp_path / "photos"), tmp_path / "run"
    chosen = ["iterations=2", "save_every=2", *option]
    assert train.main(words(photos, run, *chosen)) == 0
    steps, validation = seen[:4], seen[4:]
    assert steps == [bool(option)] * 4 and validation == [False] * 2
    seen.clear()
    line = ["mambair_tiny_x2", "--data", str(photos), "--device", "cpu"]
    line += ["-o", str(tmp_path / "results")]
    assert evaluate.main([*line, *option]) == 0
    assert seen and set(seen) == {bool(option)}
    summary = (tmp_path / "results" / "summary.md").read_text()
    assert ("TF32 was allowed." in summary) is bool(option)


def test_a_comparison_hands_it_on(monkeypatch):
    handed = []
    monkeypatch.setattr(compare, "run_study", lambda *_, tf32, **__: handed.append(tf32) or [])
    study = SimpleNamespace(name="a", reference="b")
    monkeypatch.setattr(compare, "load_study", lambda _: study)
    for option in ([], ["--tf32"]):
        assert compare.main(["scan", "--device", "cpu", *option]) == 0
    assert handed == [False, True]
