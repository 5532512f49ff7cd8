"""``zoo doctor``: the versions, devices, scan backends and image formats of this installation.

``--gpu`` examines the Triton kernels on the GPU at length: see :mod:`zoo.commands.gpu_report`.
"""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from zoo.command import package_version, run_command
from zoo.commands import gpu_advice
from zoo.data.formats import FORMATS
from zoo.errors import ZooError
from zoo.ops import backends
from zoo.ops.passes import self_check as passes
from zoo.ops.precision import SLOW_BFLOAT16, bfloat16_is_slow
from zoo.ops.scan import chunked, native, triton
from zoo.ops.scan.dispatch import ENVIRONMENT, check_environment
from zoo.ops.scan.self_check import ENVIRONMENT as CHECK
from zoo.ops.scan.self_check import (
    kept_verdict,
    kept_verdict_on_cpu,
    processes,
    setting,
    toolchain,
)
from zoo.shipped import PACKAGES, altered_files, check_not_hidden, list_models, shipped_weights


def main(arguments: Sequence[str] | None = None, prog: str = "zoo doctor") -> int:
    """Run the command under the name ``prog`` and return its exit code; 2 means bad input."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Check the installation, its backends and image formats.",
        epilog="examples: %(prog)s; %(prog)s --gpu -o report.txt",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--gpu",
        action="store_true",
        help="examine the kernels of this machine's GPU for some minutes, measure them, and write "
        "a report",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="with --gpu: the report to write [zoo-gpu-report.txt]",
    )
    return run_command(parser, _run, arguments)


def advice() -> Iterator[str]:
    """What is wasted or slow in this installation: a sentence with the fix for each."""
    for package in PACKAGES:
        try:
            check_not_hidden(package)
        except ZooError as error:
            yield str(error)
    told = {f"{package}/__init__.py" for package in PACKAGES}  # by the check above
    if altered := [name for name in altered_files() if name not in told]:
        names = ", ".join(altered[:3]) + (", ..." if len(altered) > 3 else "")
        yield (
            f"files that are not as they were installed: {len(altered)} ({names}); another package "
            "has overwritten them, or they are damaged; install mamba-restoration-zoo again, in an "
            "environment of its own: pip install --force-reinstall --no-deps --no-cache-dir"
        )
    gpu = torch.cuda.is_available()
    built_for = "CUDA" if torch.version.cuda else "ROCm" if torch.version.hip else ""
    if missed := gpu_advice.gpu_that_pytorch_misses():
        yield missed
    elif built_for and not gpu:
        yield (
            f"this PyTorch is built for {built_for}, but finds no GPU; without one, the build for "
            "CPUs saves gigabytes: pip install torch --index-url "
            "https://download.pytorch.org/whl/cpu in a new environment, because the libraries for "
            "GPUs would stay in this one; with one, install its driver"
        )
    if why_not := native.unavailable():
        yield f"the C++ kernel cannot be used, so restoring on the CPU is slow: {why_not}"
    else:
        yield from _wrong_on_this_cpu()
    if bfloat16_is_slow("cpu"):
        yield f"{SLOW_BFLOAT16}; use --precision fp32"
    if gpu and not os.environ.get(ENVIRONMENT) and (why_not := _why_not_triton()):
        yield f"scans on the GPU run on the backend {chunked.NAME!r}, which is slower: {why_not}"


def _wrong_on_this_cpu() -> Iterator[str]:
    """What the self-check of the C++ library has found to be wrong; a sentence for each part."""
    if os.environ.get(CHECK) == "0":
        return
    for part in (native.NAME, passes.PART):
        verdict = kept_verdict_on_cpu(part)
        if verdict is not None and not verdict.passed:
            yield (
                f"the C++ library ({part}) with the instruction set {native.level()} has failed "
                f"its self-check, so what serves instead is slower: case {verdict.case}: "
                f"{verdict.error}; report it with this text; {CHECK}=force checks again"
            )


def _why_not_triton() -> str | None:
    """Say why the Triton kernels do not serve on the GPU; None if they do or will."""
    if why_not := triton.unavailable():
        return why_not
    device = torch.device("cuda", torch.cuda.current_device())
    verdict = kept_verdict(triton, device)
    if verdict is not None:
        return None if verdict.passed else f"their self-check has failed: {verdict.error}"
    if lacks := toolchain.missing():
        return lacks
    if wrong := processes.tiny_kernel_fails(device):
        return f"Triton cannot run a kernel of three lines: {wrong}"
    if setting() == "0":
        return f"{CHECK}=0 in the environment, and no self-check has been made"
    return None


def _run(options: argparse.Namespace) -> int:
    if options.gpu:
        from zoo.commands import gpu_report

        right = gpu_report.make_report(gpu_report.gpu(), options.output or gpu_report.REPORT)
        return 0 if right else 1
    if options.output is not None:
        raise ZooError("-o is for the report of --gpu: give both, or leave it out")
    _print_installation()
    return 0


def _print_installation() -> None:
    print(f"zoo {package_version()}, Python {platform.python_version()}, torch {torch.__version__}")
    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    threads = torch.get_num_threads()
    print(f"{platform.system()} {platform.machine()}, {threads} threads, CUDA {cuda}")
    print(f"{len(list_models())} models; weights ship for {', '.join(shipped_weights()) or 'none'}")
    print("selective-scan backends, best first:")
    for status in backends():
        print(f"  {'yes' if status.available else 'no ':<4} {status.name:<10} {status.note}")
    print("image files:")
    width = max(len(each.name) for each in FORMATS)
    for each in FORMATS:
        work, missing = "read and written" if each.encode else "read", each.missing()
        note = f"{work}: {', '.join(each.extensions)}" + (f"; {missing}" if missing else "")
        print(f"  {'no' if missing else 'yes':<4} {each.name:<{width}} {note}")
    for sentence in advice():
        print(f"warning: {sentence}")
    if requested := os.environ.get(ENVIRONMENT, ""):
        print(f"{ENVIRONMENT}={requested} requests a backend")
    check_environment()
    setting()
