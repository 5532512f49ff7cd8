"""``zoo doctor --gpu`` with a CPU in place of the GPU: what the report says, right or wrong."""

from __future__ import annotations

import pytest
import torch

from tests.helpers.broken_backends import BACKENDS, Right, run_in_this_process
from zoo.commands import gpu_probes, gpu_report, gpu_timings
from zoo.commands.doctor import main
from zoo.ops.scan import dispatch, native
from zoo.ops.scan.self_check import processes

CPU = torch.device("cpu")
PLANS = {
    "short": "tests.helpers.broken_backends:ONE_GROUP",
    "long": "tests.helpers.broken_backends:SHORT_PLAN",
    "models": (),
}


@pytest.fixture
def examined(monkeypatch, tmp_path):
    """Examine a backend of the CPU; return whether all was right, and the report."""
    run_in_this_process(monkeypatch)
    fewer = {name: gpu_probes.PROBES[name] for name in ("a restored picture, fp32",)}
    monkeypatch.setattr(gpu_probes, "PROBES", fewer)
    monkeypatch.setattr(gpu_timings, "tables", lambda *_: ["some times"])

    def examine(backend):
        monkeypatch.setattr(gpu_report, "gpu", lambda: gpu_report.Subject(CPU, backend, **PLANS))
        monkeypatch.setitem(dispatch.BACKENDS, "triton", backend)
        code = main(["--gpu", "-o", str(tmp_path / "found.txt")])
        return code, (tmp_path / "found.txt").read_text()

    return examine


def test_all_is_right(examined, capsys):
    code, text = examined(BACKENDS["right"])
    assert code == 0 and text.endswith("result: all is right\n")
    assert "torch " in text and "processor " in text and "FAILED" not in text
    assert "ok     2 cases in" in text and "3 of 3 cases are right" in text
    assert "ok     a restored picture, fp32" in text and "some times" in text
    assert text.strip() in capsys.readouterr().out


def test_every_fault_is_told_and_the_rest_goes_on(examined):
    code, text = examined(BACKENDS["wrong_gradient"])
    assert code == 1 and text.endswith("result: 4 FAILED\n")
    case = "float32 B2-L7-K2-E5-R2-N4-full-low-sum"
    wrong = "the gradient of A deviates by "
    assert "FAILED 2 cases in" in text and f"FAILED {case}: {wrong}" in text
    assert f"FAILED {case}-each: {wrong}" in text and f"FAILED bf{case[5:]}" not in text
    assert "FAILED bfloat16 B2-L7" in text and "0 of 3 cases are right" in text


def test_a_report_that_ends_early_is_written(examined, monkeypatch, tmp_path):
    def fail(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(gpu_timings, "tables", fail)
    code, text = examined(BACKENDS["right"])
    assert code == 130 and text.endswith("the report ends here: KeyboardInterrupt:\n")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_there_is_nothing_to_examine(capsys, tmp_path):
    assert main(["--gpu"]) == 2
    assert "there is nothing to examine: " in capsys.readouterr().err
    assert main(["-o", str(tmp_path / "x")]) == 2
    assert "-o is for the report of --gpu" in capsys.readouterr().err


class Shifted(Right):
    """All of y is one token late. A factor would not do: networks normalise what they scan."""

    def y(self, inputs, reduce):
        return super().y(inputs, reduce).roll(1, 1)


def test_a_picture_that_deviates_is_found(monkeypatch):
    name = "a restored picture, fp32"
    monkeypatch.setattr(gpu_probes, "PROBES", {name: gpu_probes.PROBES[name]})
    for backend, right in ((Right(), True), (Shifted(), False)):
        monkeypatch.setitem(dispatch.BACKENDS, "triton", backend)
        [(told, wrong)] = gpu_probes.outcomes(CPU, "triton")
        assert told == name and (wrong is None) == right
        assert right or "a pixel deviates by" in wrong


def test_an_exception_in_a_probe_is_its_outcome(monkeypatch):
    monkeypatch.setattr(gpu_probes, "PROBES", {"one": lambda *_: 1 / 0})
    assert list(gpu_probes.outcomes(CPU, "chunked")) == [
        ("one", "ZeroDivisionError: division by zero")
    ]


def test_times_are_those_of_each_path(monkeypatch):
    monkeypatch.setattr(gpu_timings, "CALLS", 1)
    head, *rows = gpu_timings.tables(CPU, "chunked", ("mambair_tiny_x2",))
    assert head.split() == ["milliseconds", "chunked", "chunked"]
    assert len(rows) == 8 + 2 and all(float(word) > 0 for row in rows for word in row.split()[-2:])
    assert rows[0].startswith("operator, E 72, L 64, fp32, forward ")
    assert rows[-1].startswith("mambair_tiny_x2, 16 x 16, bf16")


@pytest.mark.skipif(native.unavailable() is not None, reason="needs the C++ kernel")
def test_a_tiny_kernel_needs_triton_and_a_gpu():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert processes.tiny_kernel_fails(CPU)  # Triton finds no driver, and its error is told
