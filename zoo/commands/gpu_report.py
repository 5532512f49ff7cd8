"""``zoo doctor --gpu``: examine the Triton kernels on this machine's GPU at length, and report.

The report is a text file that can be attached to a bug report: the machine, what works, every case
that fails with what is wrong, and how long the operator and a network take.
"""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from zoo.command import package_version
from zoo.commands import gpu_probes, gpu_timings
from zoo.errors import ZooError
from zoo.files import check_writable, write_text
from zoo.inference.graphs import PLAN
from zoo.ops.scan import triton
from zoo.ops.scan.contract import Backend
from zoo.ops.scan.self_check import machine, plans, processes, toolchain

REPORT = Path("zoo-gpu-report.txt")
"""Where the report goes, unless told otherwise."""

_VARIABLES = ("ZOO_", "TRITON_", "CUDA_", "HIP_", "ROCR_", "PYTORCH_", "NVIDIA_TF32_", "CC", "OMP_")
"""Beginnings of the environment variables that matter."""


@dataclass(frozen=True)
class Subject:
    """What is examined: Triton on a GPU; tests put something else in its place.

    Attributes:
        device: where it runs.
        backend: the backend.
        short: MODULE:NAME of the cases of the self-check.
        long: MODULE:NAME of the cases of the long form.
        graphs: MODULE:NAME of the networks that are recorded as CUDA graphs.
        models: networks to time.
    """

    device: torch.device
    backend: Backend = triton
    short: str = f"{plans.__name__}:ON_A_GPU"
    long: str = f"{plans.__name__}:LONG_FORM"
    graphs: str = PLAN
    models: tuple[str, ...] = ("mambair_tiny_x2", "mambair_light_x2")


class _Report:
    """Lines that are printed and kept, and how many of them tell a fault."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.faults = 0

    def say(self, line: str = "") -> None:
        tqdm.write(line)
        self.lines.append(line)

    def title(self, text: str) -> None:
        self.say()
        self.say(text)
        self.say("-" * len(text))

    def outcome(self, name: str, wrong: str | None) -> None:
        self.faults += wrong is not None
        self.say(f"{'ok    ' if wrong is None else 'FAILED'} {name}{f': {wrong}' if wrong else ''}")


def gpu() -> Subject:
    """Return the GPU of this machine to examine.

    Raises:
        ZooError: if there is none, or Triton is not for it.
    """
    if why_not := triton.unavailable():
        raise ZooError(f"--gpu: there is nothing to examine: {why_not}")
    return Subject(torch.device("cuda", torch.cuda.current_device()))


def make_report(subject: Subject, path: Path) -> bool:
    """Examine and measure, print what is found, and write it to a file.

    The file is written at the end, also if the command is interrupted or fails.

    Args:
        subject: what is examined.
        path: the file.

    Returns:
        Whether all was right.

    Raises:
        WriteError: if the file cannot be written.
    """
    check_writable(path)
    report = _Report()
    try:
        _examine(report, subject)
    except BaseException as error:
        report.say(f"the report ends here: {type(error).__name__}: {error}")
        raise
    finally:
        write_text(path, "\n".join(report.lines).strip() + "\n")
        tqdm.write(f"\nthe report is in {path}")
    return report.faults == 0


def _examine(report: _Report, subject: Subject) -> None:
    report.say("Report of zoo doctor --gpu")
    for line in describe(subject.device):
        report.say(line)
    report.title("Tool chain")
    report.outcome("a C compiler and Python's headers", toolchain.missing())
    if subject.device.type == "cuda":
        wrong = processes.tiny_kernel_fails(subject.device)
        report.outcome("a kernel of three lines", wrong)
        if wrong is not None:
            return
    report.title("Self-check, as at the first use")
    place = processes.place_of(subject.backend)
    verdict = processes.examine(place, subject.device, subject.short)
    name = f"{_count(subject.short)} cases in {verdict.seconds} s"
    report.outcome(name, None if verdict.passed else f"{verdict.case}: {verdict.error}")
    report.title("Long form")
    _all_of(report, subject, subject.long)
    report.title("Networks as CUDA graphs")
    _all_of(report, subject, subject.graphs)
    report.title("Operator and networks in this process")
    for name, wrong in gpu_probes.outcomes(subject.device, subject.backend.NAME):
        report.outcome(name, wrong)
    report.title("Times")
    for line in gpu_timings.tables(subject.device, subject.backend.NAME, subject.models):
        report.say(line)
    report.say()
    faults = "all is right" if not report.faults else f"{report.faults} FAILED"
    report.say(f"result: {faults}")


def _all_of(report: _Report, subject: Subject, plan: str) -> None:
    """Run all cases of a plan, and go on after faults."""
    begin, ran = time.monotonic(), 0
    with tqdm(total=_count(plan), unit="case") as bar:

        def begun() -> None:
            nonlocal ran
            ran += 1
            bar.update()

        place = processes.place_of(subject.backend)
        found = processes.examine_all(place, subject.device, plan, begun=begun)
    for verdict in found:
        report.outcome(verdict.case or "a process", verdict.error)
    right = ran - sum(bool(verdict.case) for verdict in found)
    rest = f", {_count(plan) - ran} did not run" if ran < _count(plan) else ""
    seconds = time.monotonic() - begin
    report.say(f"{right} of {_count(plan)} cases are right{rest}; {seconds:.0f} s")


def _count(plan: str) -> int:
    return sum(map(len, processes.find(plan)))


def describe(device: torch.device) -> Iterator[str]:
    """Describe the machine, in lines."""
    yield f"zoo {package_version()}, code {machine.our_code()}"
    yield f"Python {platform.python_version()}, {platform.platform()}"
    yield f"processor {machine.processor()}, {os.cpu_count()} threads"
    yield f"torch {torch.__version__}, CUDA {torch.version.cuda}, HIP {torch.version.hip}"
    yield f"{machine.triton()}, driver {machine.driver()}"
    if device.type == "cuda":
        known = torch.cuda.get_device_properties(device)
        yield (
            f"{known.name}, compute capability {known.major}.{known.minor}, "
            f"{known.multi_processor_count} multiprocessors, {known.total_memory / 2**30:.1f} GiB"
        )
        yield from _clocks()
    for name, value in sorted(os.environ.items()):
        if name.startswith(_VARIABLES):
            yield f"{name}={value:.200}"


def _clocks() -> Iterator[str]:
    """What nvidia-smi says, where there is one; Jetsons have none."""
    asked = "driver_version,clocks.sm,clocks.max.sm,clocks.mem,power.limit,memory.used"
    query = ["nvidia-smi", f"--query-gpu={asked}", "--format=csv,noheader"]
    ask: Callable[..., subprocess.CompletedProcess[str]] = subprocess.run
    try:
        told = ask(query, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return
    for line in told.splitlines():
        yield f"{asked}: {line.strip()}"
