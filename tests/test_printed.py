"""What commands print when they are done."""

from __future__ import annotations

import runpy
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

import export.onnx
import export.trt
import zoo
from zoo.cli import main
from zoo.errors import CheckpointError
from zoo.inference.jobs import Plan, Report

FOLDER = (
    "images: 2 written, 0 failed, 1 skipped because their output exists, 0 skipped because they "
    "are not read; --overwrite (in Python, overwrite=True) replaces it\n"
)


@pytest.mark.parametrize(
    ("written", "existing", "first", "told"),
    [
        (["out.png"], [], True, "wrote out.png\n"),
        (["out/a.png", "out/b.png"], ["out/c.png"], True, FOLDER),
        (
            [],
            ["out.png"],
            True,
            "out.png exists; --overwrite (in Python, overwrite=True) replaces it\n",
        ),
        (["out.png"], [], False, ""),
    ],
    ids=["one", "many", "none", "another process"],
)
def test_restoring_tells_what_was_written_once(written, existing, first, told, monkeypatch, capsys):
    @contextmanager
    def group():
        yield SimpleNamespace(is_first=first, device=lambda name: name)

    plan = Plan(waiting=[], existing=[Path(p) for p in existing], many=len(written) > 1)
    report = Report(plan=plan, written=[Path(p) for p in written], failed=[], unit="image")
    monkeypatch.setattr("zoo.commands.restore.process_group", group)
    monkeypatch.setattr("zoo.commands.restore.restore_files", lambda *words, **options: report)
    assert main(["restore", "in", "-o", "out", "-n", "mambair_tiny_x2"]) == 0
    assert capsys.readouterr().out == told


def test_converting_tells_the_file_and_its_network(tmp_path, capsys):
    network = zoo.build("mambair_light_x2", dim=30, depths=[1])
    zoo.save(network, tmp_path / "a.safetensors")
    words = ["convert", str(tmp_path / "a.safetensors"), "-o", str(tmp_path / "b.pth")]
    assert main(words) == 0
    assert capsys.readouterr().out == f"wrote {tmp_path / 'b.pth'}: mambair_light_x2, x2\n"


def test_converting_to_an_unknown_format_is_refused_before_anything_is_read(tmp_path):
    with pytest.raises(CheckpointError, match=r"b\.txt: the suffix must be \.safetensors"):
        zoo.checkpoints.convert(tmp_path / "missing.pth", tmp_path / "b.txt")


def test_exporting_tells_the_size_and_the_input(tmp_path, monkeypatch, capsys):
    def write(network, path, **options):
        path.write_bytes(bytes(3 * 2**20 + 100))

    monkeypatch.setattr(export.onnx, "export", write)
    path = tmp_path / "a.onnx"
    assert main(["export", "onnx", "-n", "mambair_tiny_x2", "-o", str(path)]) == 0
    assert capsys.readouterr().out == f"wrote {path}: 3.0 MiB, input Nx3xHxW\n"
    recipe = tmp_path / "guided.yaml"
    guides = "{pan: {channels: 1, scale: 2}, map: {channels: 3}}"
    recipe.write_text(f"extends: mambair_tiny_x2\nnetwork: {{guides: {guides}}}\n")
    assert main(["export", "onnx", "-n", str(recipe), "-o", str(path)]) == 0
    inputs = "input Nx3xHxW, pan of 1 channel, 2 times the size, map of 3 channels"
    assert capsys.readouterr().out == f"wrote {path}: 3.0 MiB, {inputs}\n"


@pytest.mark.parametrize(
    ("facts", "printed", "told"),
    [
        (
            {"plugin": {"layers": 3}, "memory": 1536, "gpu": {"a": 2**30, "b": 2**29}},
            "3 plugin layers",
            [
                "built in 62 s, peak memory 1.5 GiB",
                "it will need 1.5 GiB of GPU memory for the largest input",
            ],
        ),
        ({"plugin": None, "memory": None, "gpu": {}}, "no plugin", ["built in 62 s"]),
    ],
)
def test_building_tells_size_inputs_plugin_and_memory(
    facts, printed, told, tmp_path, capsys, caplog
):
    path = tmp_path / "a.engine"
    path.write_bytes(bytes(3 * 2**19))
    sizes = {"min": (1, 3, 8, 8), "opt": (1, 3, 9, 9), "max": (2, 3, 16, 24)}
    build = {"seconds": 61.7, "peak_memory_mib": facts["memory"]}
    known = {"plugin": facts["plugin"], "gpu_memory_bytes": facts["gpu"]}
    with caplog.at_level("INFO"):
        export.trt._tell(path, {"build": build, "profile": {"input": sizes}, **known})
    size = "1.5 MiB, input 1x3x8x8 to 2x3x16x24"
    assert capsys.readouterr().out == f"wrote {path}: {size}, {printed}\n"
    assert caplog.messages == told


def test_plotting_tells_the_file(tmp_path, capsys):
    path = tmp_path / "a.png"
    assert main(["scans", "plot", "raster", "-o", str(path), "--size", "4x5"]) == 0
    assert capsys.readouterr().out == f"wrote {path}\n" and path.is_file()


def test_the_package_as_a_program_ends_with_the_exit_code(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["zoo", "show", "nothing"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("zoo", run_name="__main__")
    assert stop.value.code == 2 and "nothing" in capsys.readouterr().err
