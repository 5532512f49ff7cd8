"""What we compare with computes what we compute."""

from __future__ import annotations

import contextlib
import gc
import json
import shutil
from pathlib import Path

import cpu
import gpu
import network_limits
import networks
import old
import pytest
import tensorrt_plugin
import torch
import turns
from authors_scan import authors_path
from torch.utils._python_dispatch import TorchDispatchMode

import zoo
from zoo.inference import kept
from zoo.ops.scan.triton import configurations


def test_the_authors_path_gives_our_result():
    network = zoo.build("mambair_light_x2", dim=36, depths=[2]).eval()
    image = torch.rand(2, 3, 6, 9)
    with torch.no_grad():
        ours = network(image)
        with authors_path():
            theirs = network(image)
        assert torch.equal(network(image), ours)
    torch.testing.assert_close(theirs, ours, atol=2e-5, rtol=1e-4)
    assert not torch.equal(theirs, ours)


def test_the_authors_operator_gives_our_result():
    rig = gpu.DryRun()
    inputs = gpu.inputs_on(rig, 16, 8, torch.float32)
    ours, theirs = (gpu.scan_path(rig, inputs, name, True)() for name in ("chunked", "mamba_ssm"))
    for a, b in zip(theirs, ours, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("options", [[], ["--tune"]], ids=["tables", "tune"])
def test_the_gpu_benchmark_walks_through(options, tmp_path, capsys, monkeypatch):
    known = dict(configurations.CONFIGURATIONS)  # tuning adds those that it tries
    monkeypatch.setattr(configurations, "CONFIGURATIONS", known)
    words = ["--dry-run", "--rounds", "1", "--save", str(tmp_path / "gpu.json"), *options]
    assert gpu.main(words) == 0
    printed = capsys.readouterr().out
    assert "these numbers mean nothing" in printed
    if options:
        assert "forward + backward ms" in printed
        return
    saved = json.loads((tmp_path / "gpu.json").read_text())
    parts = {"Operator", "SS2D core, forward", "Whole networks, forward", "Training step"}
    parts |= {"Networks recorded as CUDA graphs"}
    assert set(saved) == parts | {"head"} and all(saved[part] for part in parts)


def test_a_dry_run_fills_no_document(tmp_path, capsys):
    with pytest.raises(SystemExit):
        gpu.main(["--dry-run", "--write", str(tmp_path / "benchmarks.md")])
    assert "measures nothing" in capsys.readouterr().err


def test_tables_replace_their_section_of_the_document(tmp_path):
    document = tmp_path / "benchmarks.md"
    document.write_text(f"# All\n\n{gpu.HEADING}\n\nNot measured.\n\n## Next\n\nmore\n")
    gpu.put_into(document, "### Operator\n\n| a |")
    expected = f"# All\n\n{gpu.HEADING}\n\n### Operator\n\n| a |\n\n## Next\n\nmore\n"
    assert document.read_text() == expected


def test_the_benchmark_of_the_tensorrt_plugin_walks_through_on_a_cpu(capsys):
    if not any(map(shutil.which, ("c++", "g++", "clang++"))):
        pytest.skip("no C++ compiler: the plugin's kernels cannot be built for this CPU")
    assert tensorrt_plugin.main(["--dry-run", "--rounds", "1"]) == 0
    printed = capsys.readouterr().out
    assert "the plugin agrees with the definition" in printed
    assert "| light | 16 | fp16 |" in printed


def test_the_limit_of_a_network_counts_its_scans_and_products():
    network = zoo.build("mambair_light_x2", dim=30, depths=[2]).eval()
    mixer = network.groups[0].blocks[0].mixer
    directions, inner, states = mixer.A_log.shape
    work = network_limits.work_of(network, torch.rand(1, 3, 4, 5))
    assert work.exponentials == 2 * directions * 20 * inner * (states + 1)
    # The two blocks' products for 20 tokens, and the convolutions around them.
    weights = [p for p in network.parameters() if p.dim() > 1 and p is not mixer.A_log]
    assert 0 < work.products < 2 * 20 * 4 * sum(map(torch.numel, weights))
    assert work.products > 2 * 20 * 2 * sum(p.numel() for p in mixer.in_proj.parameters())


def test_the_benchmark_of_limits_compares_with_and_without_passes(monkeypatch):
    monkeypatch.setenv("ZOO_CPU_PASSES", "1")  # restored after the test
    network = zoo.build("mambair_light_x2", dim=30, depths=[1]).eval()
    image = torch.rand(1, 3, 6, 5)
    outputs = [network_limits.forward(network, image, joined)() for joined in (True, False)]
    torch.testing.assert_close(*outputs)


def test_the_table_of_a_cpu_walks_through(capsys, monkeypatch):
    """With sizes that take seconds; a version is compared with itself."""
    monkeypatch.setattr(cpu, "NETWORKS", {"mambair_tiny_x2": "1.7"})
    monkeypatch.setattr(cpu, "TRAINED", (("mambair_tiny_x2", 1, 16),))
    sizes = {"LENGTH": 64, "CHANNELS": 8, "SIDE": 64, "SIZE": 16, "AUTHORS_SIZE": 4}
    for name, value in {**sizes, "SMALL": 16, "LARGE": (72, 80), "TILE": 64}.items():
        monkeypatch.setattr(cpu, name, value)
    before, root = torch.get_num_threads(), Path(zoo.__file__).parents[1]
    try:
        assert cpu.main(["--rounds", "1", "--photos", "2", "--before", str(root)]) == 0
    finally:
        torch.set_num_threads(before)
    head, line, *rows = capsys.readouterr().out.strip().splitlines()[2:]
    assert head == "| what | relative to | ratio | goal |" and set(line) <= set("|- ")
    cells = [row.strip("| ").split(" | ") for row in rows]
    assert all(float(ratio) > 0 for _, _, ratio, *_ in cells)
    compared = {(what, other) for what, other, *_ in cells}
    assert {
        ("scan, E = 360, N = 16", "limit"),
        ("mambair_tiny_x2", "version before"),
        ("training step, mambair_tiny_x2, 1 x 16 x 16", "version before"),
        ("mambair_tiny_x2, 72 x 72, a pixel", "a pixel of 16 x 16"),
        ("mambair_tiny_x2, 80 x 80, a pixel", "a pixel of 16 x 16"),
        ("mambair_tiny_x2, 80 x 80, tiles of 64", "the whole"),
        ("2 photos of 128 x 128, threads: 1", "computing alone"),
    } <= compared


def test_what_is_compiled_is_measured_when_asked_for(capsys, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda network: compiled.append(network) or network)
    monkeypatch.setattr(cpu, "COMPILED", ("mambair_tiny_x2",))
    monkeypatch.setattr(cpu, "SIZE", 16)
    before = torch.get_num_threads()
    try:
        assert cpu.main(["--rounds", "1", "--only", "compiled"]) == 0
    finally:
        torch.set_num_threads(before)
    [row] = capsys.readouterr().out.strip().splitlines()[4:]
    assert row.startswith("| mambair_tiny_x2 | torch.compile | ") and len(compiled) == 1


def test_ratios_are_of_the_same_round():
    taken = iter([9.0, 9.0, 1.0, 2.0, 10.0, 30.0, 100.0, 100.0])
    path = lambda: next(taken)  # noqa: E731
    times = turns.in_turns({"a": path, "b": path}, 3)
    assert times == {"a": [1.0, 10.0, 100.0], "b": [2.0, 30.0, 100.0]}
    assert turns.ratio(times, "a", "b") == 0.5


def test_the_floor_of_a_network_has_no_scans():
    network = zoo.build("mambair_tiny_x2").eval()
    seen = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(func)
            return func(*args, **(kwargs or {}))

    image = torch.rand(1, 3, 16, 16)
    with torch.inference_mode():
        right = network(image)
        with networks.floor_path():
            assert not torch.equal(network(image), right)
            with Watch():
                network(image)
        assert torch.equal(network(image), right)
    assert seen and torch.ops.zoo.selective_scan.default not in seen


def test_a_training_step_keeps_memory_until_its_process_ends(monkeypatch):
    before = kept._depth
    with contextlib.ExitStack() as end:
        monkeypatch.setattr(old, "_until_the_end", end)
        old.step("mambair_tiny_x2", 1, 8)
        gc.collect()
        assert kept._depth == before + (kept._library() is not None)
    assert kept._depth == before
