"""The weights that ship: which they are, what they do on a crop, and the numbers of their cards."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import re
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors import safe_open

import zoo
from zoo.checkpoints import WEIGHTS, shipped_weights
from zoo.data.burst import BurstDataset, BurstSample, BurstSynthesis
from zoo.data.degradations import DEGRADATIONS
from zoo.data.photos import TrainingPhoto
from zoo.data.pixels import quantise, to_tensor
from zoo.data.samples import load_sample
from zoo.errors import ZooError
from zoo.evaluation import Protocol, restore_clean, score
from zoo.evaluation.burst import score_burst
from zoo.recipe import load_recipe
from zoo.schema import resolve_part

PHOTOS = Path(__file__).parents[1] / "examples" / "photos"
HELD_OUT = Path(os.environ.get("ZOO_PHOTOS", "photos")) / "held_out"
CASES = yaml.safe_load((PHOTOS / "cases.yaml").read_text())
CROPS = yaml.safe_load((Path(__file__).parent / "shipped_weights.yaml").read_text())
"""Digest, and PSNR of input and result on a crop of a sample, of each model."""
BURST = CROPS.pop("qmambabsr_tiny")
"""Digest, and linear PSNR of a burst: its reference, the result of that alone, the result."""


def digest(tensors):
    """SHA-256 over names, types, shapes and bytes of tensors, in the sequence of their names."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.view(torch.uint8).numpy().tobytes() if tensor.dim() else b"")
    return found.hexdigest()


@pytest.fixture(scope="module")
def scores():
    sys.path.insert(0, str(PHOTOS))
    try:
        yield importlib.import_module("scores")
    finally:
        sys.path.remove(str(PHOTOS))
        del sys.modules["scores"]


def test_all_weights_together_are_small():
    sizes = [path.stat().st_size for path in WEIGHTS.glob("*.safetensors")]
    assert len(sizes) == len(shipped_weights()) >= 9
    assert max(sizes) < 2e6 and sum(sizes) < 12e6


@pytest.mark.parametrize("name", shipped_weights())
def test_a_file_holds_what_its_metadata_and_the_list_say(name):
    with safe_open(WEIGHTS / f"{name}.safetensors", "pt") as file:
        metadata = file.metadata()
        found = digest({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118
    assert found == metadata["sha256"] == CROPS.get(name, BURST)["sha256"]
    written, ours = zoo.load(name).recipe, load_recipe(name)
    assert (written.name, written.network) == (ours.name, ours.network)


@pytest.mark.parametrize("name", CROPS)
def test_a_crop_is_restored_as_well_as_ever(name):
    """128 x 128 pixels of the coffee; better than bicubic, or the input, on every input."""
    network = zoo.load(name).eval()
    clean_CHW = to_tensor(load_sample("coffee").color_HWC[100:228, 200:328])
    assert set(CROPS[name]["psnr"]) == set(CASES[name])
    for case, described in CASES[name].items():
        degradation = resolve_part(DEGRADATIONS, described, case)(scale=network.scale)
        found = restore_clean(network, clean_CHW, degradation)
        ours = score(case, found, network.scale, Protocol(channel="y"))
        assert [ours.baseline_psnr, ours.psnr] == pytest.approx(
            CROPS[name]["psnr"][case], abs=0.01
        ), case
        assert ours.psnr > ours.baseline_psnr


def test_a_burst_is_restored_as_well_as_ever():
    """One synthetic burst of the coffee: far more is won than what the frames are merged from."""
    photo = TrainingPhoto("coffee", quantise(load_sample("coffee").color_HWC))
    network = zoo.load("qmambabsr_tiny")
    bursts = BurstDataset(
        [photo],
        synthesis=BurstSynthesis(frames=network.burst),
        patch=32,
        length=1,
        seed=3,
        augment=False,
    )
    ours = score_burst(network, BurstSample(*bursts.burst(0)[:3]), border=16)
    found = [ours.baseline, ours.all_reference, ours.restored]
    assert found == pytest.approx(BURST["psnr"], abs=0.01)


def table(name):
    """The rows of the card's table of the held-out photos: cells by the name of the input."""
    card = (WEIGHTS / f"{name}.md").read_text()
    [lines] = re.findall(r"^\| input \|.*\n\|[-|]+\n((?:\|.*\n)+)", card, re.MULTILINE)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines.splitlines()]
    return {row[0]: row for row in rows}


@pytest.mark.parametrize("name", CASES)
def test_a_card_tells_of_every_input(name):
    assert list(table(name)) == list(CASES[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_card_tells_what_the_held_out_photos_give(name, scores):
    """All thirteen photos. Collect them once: python examples/photos/collect.py photos."""
    if not HELD_OUT.is_dir():
        pytest.skip(f"{HELD_OUT} is not there: run examples/photos/collect.py, or set ZOO_PHOTOS")
    network = zoo.load(name).eval()
    images = scores.photos(str(HELD_OUT), network.scale)
    assert len(images) == 13
    for case, described in scores.cases_of(name).items():
        row = scores.means(case, scores.measured(network, images, described))
        for told, found in zip(table(name)[case][1:], list(row.values())[1:], strict=True):
            assert float(told) == pytest.approx(float(found), abs=0.0101), (case, row)


def test_the_table_of_a_model(scores, capsys, monkeypatch):
    monkeypatch.setattr(scores, "CENTRE", 32)
    words = ["mambair_tiny_denoise", "samples", "--cases", "noise 25"]
    assert scores.main(words) == 0
    head, rule, row = capsys.readouterr().out.splitlines()
    assert head == (
        "| input | as it is | non-local means | mambair_tiny_denoise | gain | "
        "least gain of a photo |"
    )
    assert rule == "|" + "---|" * 6 and row.startswith("| noise 25 | 2")
    noisy, means, ours, gain, least = (float(cell) for cell in row.split("|")[2:-1])
    assert (
        noisy < means < ours and gain == pytest.approx(ours - noisy, abs=0.011) and 0 < least < gain
    )
    assert scores.main(["mambair_tiny_jpeg", "samples", "--cases", "JPEG 5"]) == 2
    assert "has no input 'JPEG 5'; it has JPEG 10" in capsys.readouterr().err
    assert scores.main(["other", "samples"]) == 2
    assert "has no model 'other'" in capsys.readouterr().err


def test_weights_of_another_size_are_refused(scores, capsys, monkeypatch):
    words = ["mambair_tiny_x2", "samples", "-w", "mambair_tiny_x4"]
    monkeypatch.setattr(scores, "measured", None)
    assert scores.main(words) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line == (
        "scores: error: mambair_tiny_x4: these weights are for scale 4, mambair_tiny_x2 for scale 2"
    )
    gray = zoo.build("mambair_tiny_x2", channels=1)
    with pytest.raises(ZooError, match="return 1 and 1 channels, mambair_tiny_x2 3 and 3"):
        scores.check_same_sizes(gray, "gray", "mambair_tiny_x2")


def test_a_file_for_scores_is_checked_before_they_are_measured(
    scores, capsys, monkeypatch, tmp_path
):
    def measured(*_):
        raise AssertionError

    (tmp_path / "file").touch()
    words = ["mambair_tiny_denoise", "samples", "--json", str(tmp_path / "file" / "scores.json")]
    with monkeypatch.context() as patch:
        patch.setattr(scores, "measured", measured)
        assert scores.main(words) == 2
    assert "scores.json" in capsys.readouterr().err
    monkeypatch.setattr(scores, "CENTRE", 32)
    path = tmp_path / "missing" / "scores.json"
    words = ["mambair_tiny_denoise", "samples", "--cases", "noise 25", "--json", str(path)]
    assert scores.main(words) == 0
    assert list(json.loads(path.read_text())) == ["noise 25"]
