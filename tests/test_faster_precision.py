"""``--precision auto``: which precision is chosen, and that the answer is kept."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch

import zoo
from zoo.inference import RestoreSettings, faster_precision, restore_files, restore_tensor
from zoo.inference.faster_precision import faster_precision as choose

SMALL = {"dim": 8, "depths": [1], "block": {"mixer": {"d_state": 2}, "branch": "mlp"}}


@pytest.fixture
def network():
    return zoo.build("mambair_light_x2", **SMALL)


@pytest.fixture(autouse=True)
def answers(tmp_path, monkeypatch):
    """The file of the answers. Every processor counts as one that has bfloat16."""
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(faster_precision, "bfloat16_is_slow", lambda device: False)
    return tmp_path / "cache" / "precisions.json"


@pytest.fixture
def clock(monkeypatch):
    """Sets how long each precision takes, in seconds; returns the precisions that were timed."""
    timed, seconds = [], {}
    state = {"now": 0.0}

    def autocast(device, precision):
        timed.append(precision)
        state["now"] += seconds[precision]
        return torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")

    monkeypatch.setattr(faster_precision, "autocast", autocast)
    monkeypatch.setattr(faster_precision.time, "process_time", lambda: state["now"])

    def takes(**times):
        seconds.update(times)
        return timed

    return takes


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ({"fp32": 1.0, "bf16": 0.6}, "bf16"),
        ({"fp32": 1.0, "bf16": 0.95}, "fp32"),  # not worth the digits
        ({"fp32": 10.0, "bf16": 9.0}, "fp32"),
        ({"fp32": 1.0, "bf16": 2.6}, "fp32"),
    ],
    ids=str,
)
def test_the_clearly_faster_one_is_chosen(times, expected, network, clock):
    clock(**times)
    network.train()
    assert choose(network) == expected
    assert network.training


def test_an_answer_is_kept_for_networks_of_the_same_layers(network, clock, answers, monkeypatch):
    timed = clock(fp32=1.0, bf16=0.5)
    assert choose(network) == "bf16"
    once = len(timed)
    assert once >= 4 and timed.count("fp32") == timed.count("bf16")
    same = zoo.build("mambair_light_x2", **SMALL)
    clock(fp32=1.0, bf16=2.0)
    assert choose(same) == "bf16" and len(timed) == once
    other = zoo.build("mambair_light_x2", **{**SMALL, "dim": 12})
    assert choose(other) == "fp32" and len(timed) == 2 * once
    assert sorted(json.loads(answers.read_text()).values()) == ["bf16", "fp32"]
    # Other threads are another machine.
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    assert choose(network) == "fp32" and len(timed) == 3 * once


@pytest.mark.parametrize(
    "text", ["", "[1]", '{"a": ', "\udcff", '{"KEY": "fp64"}', "[" * 200_000], ids=range(6)
)
def test_a_damaged_file_of_answers_is_replaced(text, network, clock, answers):
    clock(fp32=1.0, bf16=0.5)
    choose(network)
    (key,) = json.loads(answers.read_text())
    answers.write_bytes(text.replace("KEY", key).encode(errors="surrogateescape"))
    clock(fp32=1.0, bf16=2.0)
    assert choose(network) == "fp32"
    assert json.loads(answers.read_text()) == {key: "fp32"}


def test_old_answers_are_forgotten(network, clock, answers):
    answers.parent.mkdir()
    answers.write_text(json.dumps({str(number): "fp32" for number in range(200)}))
    clock(fp32=1.0, bf16=0.5)
    choose(network)
    text = answers.read_text()
    assert text == json.dumps(json.loads(text), indent=1) + "\n"  # for people, too
    kept = list(json.loads(text))
    assert len(kept) == 200 and kept[0] == "1" and kept[-2] == "199"


def test_a_folder_that_cannot_be_written_is_no_error(network, clock, answers):
    answers.parent.write_text("a file in the place of the folder")
    clock(fp32=1.0, bf16=0.5)
    assert choose(network) == "bf16"


def test_a_user_without_a_cache_folder_is_no_error(network, clock, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", "~nobody-has-this-name/cache")
    clock(fp32=1.0, bf16=0.5)
    assert choose(network) == "bf16"
    clock(fp32=1.0, bf16=2.0)
    assert choose(network) == "fp32"  # measured again


def test_processors_without_bfloat16_are_not_measured(network, clock, monkeypatch):
    timed = clock(fp32=1.0, bf16=0.5)
    monkeypatch.setattr(faster_precision, "bfloat16_is_slow", lambda device: True)
    assert choose(network) == "fp32" and not timed


@pytest.mark.parametrize("chosen", ["fp32", "bf16"])
def test_restoring_uses_the_answer(chosen, network, clock, tmp_path):
    clock(fp32=1.0, bf16=0.5 if chosen == "bf16" else 2.0)
    image = torch.rand(1, 3, 12, 9)
    expected = restore_tensor(network, image, RestoreSettings(precision=chosen))
    assert torch.equal(restore_tensor(network, image, RestoreSettings(precision="auto")), expected)
    other = "fp32" if chosen == "bf16" else "bf16"
    assert not torch.equal(
        restore_tensor(network, image, RestoreSettings(precision=other)), expected
    )


def test_files_get_one_answer_from_the_first_process(network, monkeypatch, tmp_path):
    """The others would measure while it works, and might disagree."""
    seen = []

    class Group(zoo.distributed.ProcessGroup):
        def from_first(self, function):
            return "bf16"

    monkeypatch.setattr(
        "zoo.inference.files.restore_images", lambda *given, **_: seen.append(given[3])
    )
    restore_files(network, "in", tmp_path, RestoreSettings(precision="auto"), group=Group())
    assert seen == [RestoreSettings(precision="bf16")]


@pytest.mark.parametrize("tf32", [True, False])
def test_files_are_measured_with_the_tf32_that_they_are_restored_with(
    tf32, network, monkeypatch, tmp_path
):
    asked = []
    monkeypatch.setattr(
        "zoo.inference.files.faster_precision", lambda *given: asked.append(given) or "bf16"
    )
    monkeypatch.setattr("zoo.inference.files.restore_images", lambda *given, **_: None)
    restore_files(network, "in", tmp_path, RestoreSettings(precision="auto", tf32=tf32))
    assert asked == [(network, tf32)]


@pytest.mark.parametrize("tf32", [True, False])
@pytest.mark.parametrize(("second", "turns"), [(1e-3, 9), (0.5, 3), (30.0, 2)])
def test_ratios_are_those_of_turns_after_the_first(tf32, second, turns, network, monkeypatch):
    """A slow network takes fewer turns: those of three seconds, or two."""
    halves = [99, 98, 2, 1, 2, 3, *[2, 2] * 20]
    times = [half * second / 2 for half in halves]
    now, allowed, runs, order = [0.0], [], [], []

    def autocast(device, precision):
        assert device == torch.device("cpu") and torch.is_inference_mode_enabled()
        order.append(precision)
        now[0] += times.pop(0)
        return torch.autocast("cpu", enabled=False)

    real = faster_precision.float32_products
    monkeypatch.setattr(faster_precision, "autocast", autocast)
    monkeypatch.setattr(faster_precision.time, "process_time", lambda: now[0])
    monkeypatch.setattr(
        faster_precision,
        "float32_products",
        lambda **given: allowed.append(given) or real(**given),
    )
    network.register_forward_hook(
        lambda module, inputs, _: runs.append((module.training, inputs[0].shape[-2:]))
    )
    network.train()
    found = faster_precision._ratios(network, tf32)
    assert found == pytest.approx([0.5, 1.5, *[1.0] * 20][:turns])
    assert order == ["fp32", "bf16"] * (1 + turns)
    assert allowed == [{"tf32": tf32}] and network.training
    assert runs == [(False, (64, 64))] * 2 * (1 + turns)


def test_one_turn_that_something_else_disturbs_decides_nothing(network, monkeypatch):
    monkeypatch.setattr(
        faster_precision, "_ratios", lambda *given: [0.2, 1.0, 1.05, 0.5, 1.1, 0.98, 1.02]
    )
    assert choose(network) == "fp32"


def test_an_answer_is_that_of_the_processor_or_the_gpu(network, monkeypatch):
    monkeypatch.setattr(faster_precision, "_processor", lambda: "a processor")
    told = faster_precision._key(network, True)
    threads = torch.get_num_threads()
    assert told.startswith(f"cpu, a processor, {threads} threads, torch {torch.__version__}, ")
    assert told == faster_precision._key(network, False) and len(told.split("network ")[1]) == 16

    class OnGpu(torch.nn.Identity):
        def parameters(self):
            yield SimpleNamespace(device=torch.device("cuda", 1))

    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index}")
    for tf32, words in ((True, "GPU 1, TF32, torch "), (False, "GPU 1, no TF32, torch ")):
        assert faster_precision._key(OnGpu(), tf32).startswith(words)


def test_the_processor_has_the_name_that_linux_tells_or_that_of_python(monkeypatch):
    told = ["flags: a\nmodel name\t: Two: Words\nmodel name\t: Other\n"]
    monkeypatch.setattr(faster_precision.Path, "read_text", lambda path: told[0])
    monkeypatch.setattr(faster_precision.platform, "processor", lambda: "")
    monkeypatch.setattr(faster_precision.platform, "machine", lambda: "aarch64")
    assert faster_precision._processor() == "Two: Words"
    told[0] = "flags: a\n"
    assert faster_precision._processor() == "aarch64"

    def fail(path):
        raise FileNotFoundError

    monkeypatch.setattr(faster_precision.Path, "read_text", fail)
    assert faster_precision._processor() == "aarch64"
    monkeypatch.setattr(faster_precision.platform, "processor", lambda: "arm")
    assert faster_precision._processor() == "arm"


def test_what_was_measured_is_told(network, clock, caplog):
    clock(fp32=1.0, bf16=0.5)
    with caplog.at_level("INFO"):
        choose(network)
    assert caplog.messages[-1].startswith("precision auto: bf16 takes ")
    assert caplog.messages[-1].endswith(" of the time of fp32; bf16 it is")
