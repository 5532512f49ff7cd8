"""``zoo doctor --gpu`` with a CPU in place of the GPU: what the report says, right or wrong."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import zoo
from tests.helpers.broken_backends import BACKENDS, Right, run_in_this_process
from tests.helpers.case_names import case_name
from zoo.commands import gpu_probes, gpu_report, gpu_timings
from zoo.commands.doctor import main
from zoo.ops import selective_scan
from zoo.ops.scan import dispatch, native
from zoo.ops.scan.self_check import processes
from zoo.ops.scan.self_check.cases import Case, make_inputs
from zoo.shipped import shipped_weights

CPU = torch.device("cpu")
PLANS = {
    "short": "tests.helpers.broken_backends:ONE_GROUP",
    "long": "tests.helpers.broken_backends:SHORT_PLAN",
    "graphs": "tests.helpers.broken_backends:ONE_GROUP",
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
    titles = ["Self-check, as at the first use", "Long form", "Networks as CUDA graphs", "Times"]
    for title in ("Tool chain", *titles):
        assert f"\n\n{title}\n{'-' * len(title)}\n" in text
    assert "ok     2 cases in" in text and "3 of 3 cases are right" in text
    assert "ok     a restored picture, fp32" in text and "some times" in text
    said = capsys.readouterr()
    assert text.strip() in said.out and " 3/3 [" in said.err  # each case moves the bar on
    assert re.search(r"\n\nthe report is in .*found\.txt\n$", said.out)


def test_every_fault_is_told_and_the_rest_goes_on(examined):
    code, text = examined(BACKENDS["wrong_gradient"])
    assert code == 1 and text.endswith("result: 6 FAILED\n")
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


def replayed(function):
    """In place of a CUDA graph: a replay writes the result of a new call where the first one is."""
    assert torch.is_inference_mode_enabled()
    found = function()
    return lambda: found.copy_(function()), found


def not_replayed(function):
    """A graph that does nothing."""
    return lambda: None, function()


class Doubling:
    """In place of a network: it scans with the backend that serves, and doubles an image."""

    channels = 3
    calls = 0

    def to(self, device):
        return self

    def __call__(self, image):
        self.calls += 1
        selective_scan(*make_inputs(Case(), torch.float32), reduce=True)
        return image * 2


@pytest.mark.parametrize(
    "probe", [gpu_probes.graph_of_the_operator, gpu_probes.graph_of_a_network], ids=case_name
)
def test_a_graph_must_replay_on_new_values(probe, monkeypatch):
    backend = Right()
    monkeypatch.setitem(dispatch.BACKENDS, "triton", backend)
    network, before = Doubling(), []
    monkeypatch.setattr(gpu_probes, "load", lambda name: network)

    def captured(function):
        before.append(network.calls)
        return replayed(function)

    monkeypatch.setattr(gpu_probes, "captured", captured)
    assert probe(CPU, "triton") is None and backend.served
    # A network that has run before has its orders: a graph cannot record how they are made.
    assert before == [int(probe is gpu_probes.graph_of_a_network)]
    monkeypatch.setattr(gpu_probes, "captured", not_replayed)
    assert probe(CPU, "triton").startswith("it deviates by ")


@pytest.mark.parametrize("fault", ["", "is not NaN", "it deviates by"])
def test_an_order_with_a_wrong_entry_makes_its_direction_nan_without_waiting(fault, monkeypatch):
    modes, served = [], []

    def scan(*given, backend):
        served.append((backend, modes[-1:]))
        y = torch.ones(1, 9, 4, 5)
        if given[-1].max() >= given[0].shape[1]:
            y[:, 3:, 2 if fault == "it deviates by" else 1] = float("nan")
            y[:, 3:, 1] = 1 if fault == "is not NaN" else float("nan")
        return y

    monkeypatch.setattr(gpu_probes, "selective_scan", scan)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    wrong = gpu_probes.wrong_entries(CPU, "triton")
    assert wrong is None if not fault else fault in wrong
    assert modes == ["error", "default"]
    assert served == [("triton", [])] * 2 + [("triton", ["error"])] * 2


@pytest.mark.parametrize("fault", [0, 1, 2])
def test_what_is_compiled_must_have_the_same_value_and_gradients(fault, monkeypatch):
    """Fault 1 is of a gradient, 2 of the value."""

    def compiled(function, **options):
        assert options == {"fullgraph": True, "backend": "aot_eager"}

        def other(*leaves):
            more = leaves[0].sum() if fault == 1 else torch.ones(())
            return function(*leaves) + (more - (more.detach() if fault == 1 else 0)) * bool(fault)

        return other

    backend = Right()
    monkeypatch.setitem(dispatch.BACKENDS, "triton", backend)
    monkeypatch.setattr(torch, "compile", compiled)
    wrong = gpu_probes.compiled(CPU, "triton")
    assert wrong is None if not fault else wrong.startswith("it deviates by ")
    assert {"forward", "backward"} == set(backend.served)


def test_each_time_is_of_what_its_row_names(monkeypatch):
    scans, images = [], []
    scan = gpu_timings.selective_scan

    def seen_scan(*given, **options):
        scans.append((given[0].shape[2], given[0].dtype, options, given[0].requires_grad))
        return scan(*given, **options)

    class Seen(Doubling):
        def eval(self):
            self.is_evaluated = True
            return self

        def __call__(self, image):
            dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None
            images.append((tuple(image.shape), dtype, torch.is_inference_mode_enabled()))
            assert self.is_evaluated
            return super().__call__(image)

    backend = Right()
    monkeypatch.setitem(dispatch.BACKENDS, "triton", backend)
    monkeypatch.setattr(gpu_timings, "selective_scan", seen_scan)
    monkeypatch.setattr(gpu_timings, "build", lambda name: Seen())
    timed = []

    def time(function, device, name):
        backend.served.clear()
        function()
        timed.append((name, list(backend.served)))
        return len(timed)

    monkeypatch.setattr(gpu_timings, "_time", time)
    head, *rows = gpu_timings.tables(CPU, "triton", ("mambair_tiny_x2",))
    assert head.split() == ["milliseconds", "triton", "chunked"]
    assert [row.split()[-2:] for row in rows] == [
        [f"{n}.00", f"{n + 1}.00"] for n in range(1, 20, 2)
    ]
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16}
    expected = [
        (f"operator, E {E}, L 64, {precision}, {what} ", E, dtypes[precision], what != "forward")
        for E in (72, 360)
        for precision in dtypes
        for what in ("forward", "forward + backward")
    ]
    for (start, *facts), row, *pair in zip(
        expected, rows[:8], scans[::2], scans[1::2], strict=True
    ):
        assert row.startswith(start)
        for name, (channels, dtype, options, learns) in zip(
            ("triton", "chunked"), pair, strict=True
        ):
            assert options == {"reduce": True, "backend": name}
            assert [channels, dtype, learns] == facts
    forward, both = ["forward"], ["forward", "backward"]
    served = [forward, both] * 4 + [forward] * 2  # chunked is not this one
    assert timed == [pair for kind in served for pair in (("triton", kind), ("chunked", []))]
    assert rows[8].startswith("mambair_tiny_x2, 16 x 16, fp32 ")
    assert rows[9].startswith("mambair_tiny_x2, 16 x 16, bf16 ")
    assert images == [
        ((1, 3, 16, 16), dtype, True) for dtype in (None, torch.bfloat16) for _ in "ab"
    ]


class Clock:
    """A clock, and a GPU's events, that run only within the work: longer with each call."""

    def __init__(self):
        self.now = self.calls = 0

    def work(self):
        self.calls += 1
        self.now += self.calls

    def perf_counter(self):
        return self.now

    def event(self, *, enable_timing):
        clock = self

        class Event:
            def record(self):
                self.at = clock.now if enable_timing else None

            def synchronize(self):
                self.is_over = True

            def elapsed_time(self, last):
                assert last.is_over
                return last.at - self.at

        return Event()


def test_a_time_is_the_median_of_calls_without_the_first(monkeypatch):
    for device, unit in ((CPU, 1e3), (torch.device("cuda"), 1)):
        for backend, calls, median in (("triton", 7, 5), ("chunked", 2, 2.5)):
            clock = Clock()
            monkeypatch.setattr(gpu_timings, "time", clock)
            monkeypatch.setattr(torch.cuda, "Event", clock.event)
            assert gpu_timings._time(clock.work, device, backend) == pytest.approx(median * unit)
            assert clock.calls == 1 + calls


def test_a_report_tells_the_variables_that_matter(monkeypatch):
    for name in list(os.environ):
        if name.startswith(gpu_report._VARIABLES):
            monkeypatch.delenv(name)
    names = [
        *("CC", "CUDA_HOME", "HIP_PATH", "NVIDIA_TF32_OVERRIDE", "OMP_NUM_THREADS"),
        *(
            "PYTORCH_NO_CUDA_MEMORY_CACHING",
            "ROCR_VISIBLE_DEVICES",
            "TRITON_CACHE_DIR",
            "ZOO_CACHE",
        ),
    ]
    for name in [*names[::-1], "MY_SECRET"]:
        monkeypatch.setenv(name, name[:2] * 150)
    lines = list(gpu_report.describe(CPU))
    assert lines[-len(names) :] == [f"{name}={name[:2] * 100}" for name in names]
    assert "MY_SECRET" not in "".join(lines)
    for line, start in zip(lines, ("zoo ", "Python ", "processor ", "torch "), strict=False):
        assert line.startswith(start)


def test_a_report_tells_what_nvidia_smi_says_of_each_gpu(monkeypatch):
    def told(query, *, check, timeout, **options):
        assert check and timeout <= 20 and query[0] == "nvidia-smi"
        assert query[1].startswith("--query-gpu=driver_version,")
        return subprocess.CompletedProcess(query, 0, stdout="one, 2\n other \n")

    properties = SimpleNamespace(
        name="GB", major=12, minor=1, multi_processor_count=48, total_memory=3 * 2**29
    )
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    platform.platform()  # it may run a program at its first call
    monkeypatch.setattr(subprocess, "run", told)
    monkeypatch.setattr(gpu_report.machine, "driver", lambda: "580")
    cuda = torch.device("cuda")
    lines = list(gpu_report.describe(cuda))
    known = "GB, compute capability 12.1, 48 multiprocessors, 1.5 GiB"
    asked, other = lines[lines.index(known) + 1 :][:2]
    assert asked.startswith("driver_version,") and asked.endswith(",memory.used: one, 2")
    assert other.endswith(",memory.used: other")
    for error in (FileNotFoundError(), subprocess.TimeoutExpired("nvidia-smi", 20)):

        def failing(*arguments, error=error, **options):
            raise error

        monkeypatch.setattr(subprocess, "run", failing)
        assert len(list(gpu_report.describe(cuda))) == len(lines) - 2


def test_the_report_has_a_name_of_its_own_if_none_is_given(monkeypatch):
    made = []
    monkeypatch.setattr(gpu_report, "gpu", lambda: "the GPU")
    monkeypatch.setattr(gpu_report, "make_report", lambda *asked: made.append(asked) or True)
    assert main(["--gpu"]) == 0 and made == [("the GPU", Path("zoo-gpu-report.txt"))]


def test_what_is_examined_and_tried_is_there():
    subject = gpu_report.Subject(CPU)
    assert {*subject.models, gpu_probes.MODEL} <= {*zoo.list_models()}
    assert gpu_probes.MODEL in shipped_weights()
    assert all(
        gpu_report._count(plan) > 5 for plan in (subject.short, subject.long, subject.graphs)
    )
    graphs = ["a CUDA graph of the operator", "a CUDA graph of a network"]
    pictures = [f"a restored picture, {precision}" for precision in ("fp32", "bf16", "fp16")]
    names = [*graphs, "wrong entries of an order", "torch.compile", *pictures]
    assert list(gpu_probes.PROBES) == names


def test_a_report_that_cannot_be_written_is_told_before_the_work(examined, tmp_path, capsys):
    (tmp_path / "found.txt").mkdir()
    with pytest.raises(IsADirectoryError):
        examined(BACKENDS["right"])
    said = capsys.readouterr()
    assert "found.txt: cannot write" in said.err and "Report of" not in said.out


@pytest.mark.skipif(native.unavailable() is not None, reason="needs the C++ kernel")
def test_a_tiny_kernel_needs_triton_and_a_gpu():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert processes.tiny_kernel_fails(CPU)  # Triton finds no driver, and its error is told
