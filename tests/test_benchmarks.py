"""What we compare with computes what we compute."""

from __future__ import annotations

import json
import shutil

import gpu
import network_limits
import pytest
import tensorrt_plugin
import torch
from authors_scan import authors_path

import zoo
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
