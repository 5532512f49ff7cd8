"""Small files in other runtimes than the one installed: the oldest ONNX Runtime by default.

``make test-runtimes`` also runs OpenVINO, onnxruntime-node and onnxruntime-web, which it installs.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import runtimes
from onnx import TensorProto, helper
from runtimes import Case, Runtime, make_environment, run_cases

import zoo
from export.graph import written_out
from export.onnx import export
from tests.helpers.graphs import two_scans
from tests.helpers.oldest_runtime import run_in_oldest_runtime
from zoo.data import Photo, read_photo, write_photo
from zoo.integrations.onnxruntime import open_session

ROOT = Path(__file__).parents[2]

IMAGE = np.random.default_rng(0).random((2, 8, 12, 12), np.float32)


def file_of(path, *, opset=20, inline=False, **settings):
    model = two_scans(opset=opset, **settings)
    model.ir_version = helper.find_min_ir_version_for(model.opset_import, ignore_unknown=True)
    onnx.save(written_out(model) if inline else model, path)
    return path


FORMS = {
    "default": {},
    "opset 18": {"opset": 18},
    "inlined": {"inline": True},
    "float16": {"elements": TensorProto.FLOAT16},
    "an order for each image": {"orders": 2},
    "scans of two sizes": {"fold": True},
}


@pytest.fixture
def cases(tmp_path):
    return [
        Case(file_of(tmp_path / f"{i}.onnx", **settings), {"input": IMAGE})
        for i, settings in enumerate(FORMS.values())
    ]


def assert_right(results, cases):
    assert len(results) == len(cases) > 0
    for result, case, form in zip(results, cases, FORMS, strict=False):
        assert not result.error, (form, result.error)
        session = open_session(case.model, operator=False)
        (expected,) = session.run(None, case.inputs)
        tolerance = 1e-3 if form == "float16" else 1e-6
        assert np.abs(result.output - expected).max() <= tolerance * np.ptp(expected), form


def test_the_oldest_onnx_runtime_reads_every_form_of_a_file(cases):
    assert_right(run_in_oldest_runtime(*cases), cases)


def test_the_oldest_onnx_runtime_refuses_what_it_always_refused(tmp_path):
    """So it is really the old one that runs: it knows no format version after 9."""
    path = file_of(tmp_path / "n.onnx")
    model = onnx.load(path)
    model.ir_version = 11
    onnx.save(model, path)
    (result,) = run_in_oldest_runtime(Case(path, {"input": IMAGE}))
    assert "Unsupported model IR version" in result.error


@pytest.mark.slow
@pytest.mark.parametrize(
    "runtime",
    [
        Runtime("openvino", ("openvino", "openvino-telemetry", "numpy")),
        Runtime("openvino", ("openvino==2025.4.1", "openvino-telemetry", "numpy==2.2.6")),
        Runtime("onnxruntime-node", ("onnxruntime-node",)),
        Runtime("onnxruntime-web", ("onnxruntime-web",)),
        Runtime("onnxruntime-web", ("onnxruntime-web@1.18.0",)),
    ],
    ids=lambda runtime: runtime.packages[0],
)
def test_other_runtimes_read_a_file(runtime, cases):
    chosen = [cases[2]] if runtime.name == "openvino" else cases
    _, results = run_cases(runtime, chosen)
    for result, case in zip(results, chosen, strict=True):
        assert not result.error, result.error
        (expected,) = open_session(case.model, operator=False).run(None, case.inputs)
        assert np.abs(result.output - expected).max() <= 1e-3 * np.ptp(expected)


def test_an_environment_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    monkeypatch.setattr(runtimes, "CACHE", tmp_path / "cache")
    with pytest.raises(RuntimeError, match="no-such-package-for-zoo"):
        make_environment(Runtime("onnxruntime", ("./no-such-package-for-zoo",)))
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.slow
def test_a_photo_restored_in_openvino_has_the_pixels_of_onnx_runtime(tmp_path):
    """The same tiles, the same padding: 8-bit values differ by one where rounding decides."""
    path = tmp_path / "n.onnx"
    export(zoo.load("mambair_tiny_x2"), path, inline=True)
    photo = Photo(np.random.default_rng(0).random((31, 45, 3)).astype(np.float32))
    write_photo(tmp_path / "photo.png", photo)
    packages = make_environment(Runtime("openvino", ("openvino", "openvino-telemetry")))
    seen = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(packages)])}
    found = []
    for runtime in ("onnxruntime", "openvino"):
        output = tmp_path / f"{runtime}.png"
        words = ["restore", tmp_path / "photo.png", "-o", output, "--onnx", path, "-t", 24]
        command = [sys.executable, "-m", "zoo", *map(str, words), "--overlap", "8"]
        subprocess.run([*command, "--runtime", runtime], check=True, env=seen, cwd=tmp_path)
        found.append(read_photo(output).color_HWC)
    assert found[0].shape == (62, 90, 3)
    assert np.abs(found[0] - found[1]).max() <= 1 / 255 + 1e-6
    assert (found[0] != found[1]).mean() < 1e-3
