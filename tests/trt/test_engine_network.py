"""Engines as networks: sizes, batches, bursts and tiles, with a session that repeats pixels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from zoo.cli import main as zoo_main
from zoo.data import Photo, read_photo, write_photo
from zoo.data.burst.reading import BurstFiles
from zoo.errors import ZooError
from zoo.inference import RestoreSettings
from zoo.inference.burst import restore_burst
from zoo.integrations import tensorrt
from zoo.integrations.engine_sample import MOST_VALUES, Sample, read_sample
from zoo.integrations.exported import ExportedNetwork, Range
from zoo.integrations.tensorrt import (
    EngineError,
    EngineNetwork,
    load_engine,
)
from zoo.registry import Capabilities, capabilities_of


class Doubling:
    """A session that enlarges by repeating pixels and keeps what it was given."""

    def __init__(self):
        self.seen = []

    def run(self, inputs):
        image = inputs["input"]
        self.seen.append({name: tuple(value.shape) for name, value in inputs.items()})
        image = image[:, 0, :3] if image.dim() == 5 else image
        return image.repeat_interleave(2, -1).repeat_interleave(2, -2).half()


def sidecar(*, low=16, high=24, batch=(1, 2), burst=False, flow=False, flat=False):
    frames = ([12] if flat else [3, 4]) if burst else [3]
    sizes = {
        kind: [b, *frames, *(side if isinstance(side, tuple) else (side, side))]
        for kind, b, side in zip(("min", "max"), batch, (low, high), strict=True)
    }
    facts = {"model": "m", "scale": "2", "size_multiple": "8"}
    facts["channels"] = "4" if burst else "3"
    facts |= {"input": "burst", "frames": "3"} if burst else {"input": "image"}
    profile = {"input": sizes} | ({"flow": {}} if flow else {})
    return {"facts": facts, "profile": profile}


def test_an_opened_engine_is_in_evaluation_mode_and_its_session_gets_every_option(monkeypatch):
    opened, known = [], sidecar()

    def session(*words, **options):
        opened.append((words, options))
        return Doubling()

    monkeypatch.setattr(tensorrt, "read_sidecar", lambda path: known)
    monkeypatch.setattr(tensorrt, "EngineSession", session)
    network = load_engine("a.engine", plugin="p.so", trusted=True)
    assert opened == [((Path("a.engine"), known), {"plugin": "p.so", "trusted": True})]
    assert isinstance(network, EngineNetwork) and not network.training
    assert network.name == "a.engine"


def test_images_are_brought_to_sizes_that_an_engine_takes():
    session = Doubling()
    network = EngineNetwork(session, sidecar(), "e")
    image = torch.rand(5, 3, 9, 20)
    found = network(image)
    assert [call["input"] for call in session.seen] == [(2, 3, 16, 20)] * 2 + [(1, 3, 16, 20)]
    expected = image.repeat_interleave(2, -1).repeat_interleave(2, -2)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)
    with pytest.raises(EngineError, match="the largest side is 24 pixels; use tiles: -t 24"):
        network(torch.rand(1, 3, 9, 25))
    least_two = EngineNetwork(session, sidecar(batch=(2, 2)), "e")
    with pytest.raises(EngineError, match="needs a batch of 2"):
        least_two(torch.rand(3, 3, 20, 20))


def test_height_and_width_have_least_and_most_of_their_own():
    session = Doubling()
    network = EngineNetwork(session, sidecar(low=(16, 8), high=(24, 40)), "e")
    for size, taken in (((9, 30), (16, 30)), ((20, 5), (20, 8)), ((3, 2), (16, 8))):
        image = torch.rand(1, 3, *size)
        found = network(image)
        assert session.seen[-1]["input"] == (1, 3, *taken)
        expected = image.repeat_interleave(2, -1).repeat_interleave(2, -2)
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)
    assert network(torch.rand(1, 3, 24, 40)).shape == (1, 3, 48, 80)
    for size in ((25, 8), (16, 41)):
        with pytest.raises(EngineError, match="the largest side is 24 pixels"):
            network(torch.rand(1, 3, *size))


def test_a_small_image_is_padded_by_its_edge():
    class Keeping(Doubling):
        def run(self, inputs):
            self.given = inputs["input"]
            return super().run(inputs)

    session = Keeping()
    image = torch.rand(1, 3, 9, 20)
    EngineNetwork(session, sidecar(), "e")(image)
    expected = torch.cat([image, image[:, :, -1:].expand(-1, -1, 7, -1)], dim=2)
    assert torch.equal(session.given, expected) and session.given.is_contiguous()


def test_what_tools_ask_of_a_network_is_what_the_file_says():
    image = EngineNetwork(Doubling(), sidecar(), "e")
    burst = EngineNetwork(Doubling(), sidecar(burst=True), "e")
    assert (image.scale, image.channels, image.burst, image.largest_side) == (2, 3, 1, 24)
    assert (burst.scale, burst.channels, burst.burst) == (2, 4, 3)
    assert capabilities_of(image) == Capabilities(input="image", size_multiple=8)
    assert capabilities_of(burst) == Capabilities(input="burst", size_multiple=8)
    assert not image.takes_burst and not image.takes_flow and not burst.takes_flow
    assert sum(weight.numel() for weight in image.parameters()) == 0


def test_a_flat_burst_goes_in_with_frames_beside_each_other():
    class Keeping(Doubling):
        def run(self, inputs):
            self.given = inputs["input"]
            return super().run({"input": self.given})

    session = Keeping()
    burst = torch.rand(1, 3, 4, 20, 20)
    network = EngineNetwork(session, sidecar(burst=True, flat=True), "e")
    assert network.takes_burst and network(burst).shape[-2:] == (40, 40)
    assert torch.equal(session.given, torch.cat([*burst[0]])[None])


def test_a_burst_goes_in_with_its_flow():
    session = Doubling()
    network = EngineNetwork(session, sidecar(burst=True, flow=True), "e")
    assert network.takes_flow and not network.needs_flow and network.takes_burst
    network(torch.rand(1, 3, 4, 10, 10), torch.zeros(1, 3, 2, 10, 10))
    assert session.seen[0] == {"input": (1, 3, 4, 16, 16), "flow": (1, 3, 2, 16, 16)}
    with pytest.raises(EngineError, match="bursts of 3 frames, not 2"):
        network(torch.rand(1, 2, 4, 16, 16), torch.zeros(1, 2, 2, 16, 16))


def test_zoo_restores_a_burst_in_tiles():
    session = Doubling()
    network = EngineNetwork(session, sidecar(burst=True), "e")
    frames = torch.rand(3, 4, 40, 30)
    settings = RestoreSettings(tile=24, overlap=4)
    found = restore_burst(network, BurstFiles("b", frames), settings)
    expected = frames[0, :3].repeat_interleave(2, -1).repeat_interleave(2, -2)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)
    assert {call["input"] for call in session.seen} == {(1, 3, 4, 24, 24)}


def test_zoo_restore_tiles_what_an_engine_restores(tmp_path, monkeypatch):
    session = Doubling()
    network = EngineNetwork(session, sidecar(low=8, high=80), "e")
    monkeypatch.setattr("zoo.integrations.tensorrt.load_engine", lambda *a, **k: network)
    write_photo(tmp_path / "a.png", Photo(np.full((100, 90, 3), 0.5, np.float32)))
    words = ["restore", str(tmp_path / "a.png"), "-o", str(tmp_path / "b.png"), "--engine", "e"]
    assert zoo_main(words) == 0
    found = read_photo(tmp_path / "b.png").color_HWC
    assert found.shape == (200, 180, 3) and np.abs(found - 0.5).max() < 0.01
    assert {call["input"] for call in session.seen} == {(1, 3, 72, 64)} and len(session.seen) == 4


@pytest.mark.parametrize("wrong", ["", "pixel", "nan", "shape"])
def test_zoo_restore_checks_the_stored_tile_before_the_first_photo(
    wrong, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("ZOO_SELF_CHECK", "1")
    image = torch.rand(1, 3, 16, 16).half().float()
    output = image.repeat_interleave(2, -1).repeat_interleave(2, -2)
    if wrong == "pixel":
        output[0, 0, 3, 5] += 0.02
    known = sidecar(low=8, high=80) | {"sample": Sample((image,), output, 1e-2).facts()}
    known = json.loads(json.dumps(known))
    session = Doubling()
    run = session.run
    if wrong == "nan":
        session.run = lambda inputs: run(inputs) * float("nan")
    if wrong == "shape":
        session.run = lambda inputs: run(inputs)[..., :-1]
    network = EngineNetwork(session, known, "e")
    monkeypatch.setattr("zoo.integrations.tensorrt.load_engine", lambda *a, **k: network)
    write_photo(tmp_path / "a.png", Photo(np.full((20, 30, 3), 0.5, np.float32)))
    words = ["restore", str(tmp_path / "a.png"), "-o", str(tmp_path / "b.png"), "--engine", "e"]
    assert zoo_main(words) == (2 if wrong else 0)
    assert session.seen[0]["input"] == (1, 3, 16, 16)
    assert len(session.seen) == (1 if wrong else 2)
    assert (tmp_path / "b.png").exists() == (not wrong)
    if wrong:
        said = capsys.readouterr().err
        assert "e: on this GPU it restores the tile in its JSON file otherwise than PyTorch" in said
        assert ("by inf of" in said) == (wrong != "pixel") and "where 1e-02 is allowed" in said
        monkeypatch.setenv("ZOO_SELF_CHECK", "0")
        network.check()


def test_a_sample_is_kept_exactly_unless_it_is_too_large():
    sample = Sample((torch.rand(2, 3, 5, 7), torch.rand(2, 1)), torch.rand(2, 3, 10, 14), 0.5)
    found = read_sample(json.loads(json.dumps(sample.facts())))
    assert all(map(torch.equal, found.inputs, sample.inputs))
    assert len(found.inputs) == 2 and torch.equal(found.output, sample.output)
    assert found.tolerance == 0.5 and read_sample(None) is None
    assert Sample((torch.zeros(1),), torch.zeros(MOST_VALUES), 0.5).facts() is None
    assert Sample((torch.zeros(1),), torch.zeros(MOST_VALUES - 1), 0.5).facts() is not None
    half = Sample((torch.rand(2, 3).half(),), torch.rand(1, 2), 0.5)
    assert torch.equal(read_sample(half.facts()).inputs[0], half.inputs[0].float())


def test_an_error_is_a_part_of_the_range_of_the_output():
    sample = Sample((torch.zeros(1),), torch.tensor([7.0, 9.0]), 0.5)
    assert sample.error(torch.tensor([7.5, 8.0])) == 0.5
    flat = Sample((torch.zeros(1),), torch.ones(2), 0.5)
    assert flat.error(torch.ones(2)) == 0 and flat.error(torch.ones(2) * 1.5) == 0.5 / 1e-12


@pytest.mark.parametrize(
    "damage",
    [
        lambda facts: facts.pop("output"),
        lambda facts: facts.update(tolerance=float("nan")),
        *(lambda facts, x=x: facts.update(tolerance=x) for x in (0.0, 1.0, -0.1)),
        lambda facts: facts.update(inputs=[]),
        lambda facts: facts["output"].update(shape=[1, 2]),
        lambda facts: facts["output"].update(shape=[-1, -3]),
        lambda facts: facts["output"].update(float32="?"),
        lambda facts: facts.update(inputs=3),
        lambda facts: facts["output"].update(shape=[float("inf"), 3]),
        lambda facts: facts["output"].update(float32="AADAfwAAwH8AAMB/"),
        lambda facts: facts["output"].update(float32=facts["output"]["float32"] + "!"),
    ],
    ids=[
        *(
            "none",
            "nan",
            "nothing is allowed",
            "all is allowed",
            "less than nothing",
            "empty",
            "size",
            "negative",
            "text",
            "number",
        ),
        *("endless", "values that are NaN", "a letter too many"),
    ],
)
def test_a_damaged_sample_is_told(damage):
    facts = Sample((torch.rand(1, 3),), torch.rand(1, 3), 0.5).facts()
    damage(facts)
    with pytest.raises(EngineError, match="e: the stored sample is damaged"):
        EngineNetwork(Doubling(), sidecar() | {"sample": facts}, "e")


def test_a_file_that_does_not_say_what_it_is():
    with pytest.raises(ZooError, match="no model metadata"):
        ExportedNetwork("f", {}, Range(), Range(), Range())
