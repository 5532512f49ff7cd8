"""Where ``benchmarks/gpu.py`` measures: an NVIDIA GPU, or a CPU that only walks the code."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch

import zoo

Path_: TypeAlias = Callable[[], object]
"""One way to compute something."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What is measured.

    Attributes:
        lengths: tokens L of the operator.
        images: sides of the images, in pixels.
        widths: inner channels E of the operator, by name.
        mixers: channels and expansion of an SS2D, by name.
        models: whole networks, by name.
        crop: images and side of a training batch, or None for the recipe's.
    """

    lengths: tuple[int, ...] = (4096, 16384, 65536)
    images: tuple[int, ...] = (64, 256, 512)
    widths: dict[str, int]
    mixers: dict[str, tuple[int, float]]
    models: dict[str, str]
    crop: tuple[int, int] | None = None


class Rig(Protocol):
    """A machine to measure on.

    Attributes:
        device: its device in PyTorch.
        names: backends to compare, ours first.
        sizes: what is measured on it.
    """

    device: str
    names: list[str]
    sizes: Sizes

    def title(self) -> str:
        """The machine and versions, for the head of the tables."""
        ...

    def milliseconds(self, function: Path_) -> float:
        """How long one call takes, all that it starts included."""
        ...

    def peak(self, function: Path_) -> float:
        """The most MiB that a call holds beyond what was held before."""
        ...

    def bandwidth(self) -> float:
        """Bytes read and written in a second by a large copy."""
        ...

    def exponentials(self) -> float:
        """Exponentials in a second of a kernel that computes nothing else, on registers."""
        ...


class Gpu:
    """The first NVIDIA GPU."""

    device = "cuda"
    sizes = Sizes(
        widths={"light": 72, "classic": 360},
        mixers={"light": (60, 1.2), "classic": (180, 2.0)},
        models={"light": "mambair_light_x2", "classic": "mambair_classic_x2"},
    )

    def __init__(self) -> None:
        known = {status.name: status for status in zoo.backends()}
        for name in ("triton", "mamba_ssm", "chunked"):
            if not known[name].available:
                print(f"{name} is left out: {known[name].note}")
        self.names = [n for n in ("triton", "mamba_ssm", "chunked") if known[n].available]

    def title(self) -> str:
        import triton

        query = [
            "nvidia-smi",
            "--query-gpu=driver_version,clocks.sm,clocks.max.sm",
            "--format=csv,noheader",
        ]
        try:
            clocks = subprocess.run(query, capture_output=True, text=True, check=True).stdout
        except (OSError, subprocess.CalledProcessError):
            clocks = ""
        first = (clocks.strip().splitlines() or ["unknown"])[0]
        return (
            f"{torch.cuda.get_device_name()}; driver, clock now and at most: {first}; torch "
            f"{torch.__version__}, CUDA {torch.version.cuda}, triton {triton.__version__}, TF32 "
            f"{torch.backends.cuda.matmul.allow_tf32} in products, "
            f"{torch.backends.cudnn.allow_tf32} in convolutions"
        )

    def milliseconds(self, function: Path_) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        function()
        end.record()
        end.synchronize()
        return start.elapsed_time(end)

    def peak(self, function: Path_) -> float:
        torch.cuda.synchronize()
        held = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        function()
        return (torch.cuda.max_memory_allocated() - held) / 2**20

    def bandwidth(self) -> float:
        source = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
        target = torch.empty_like(source)
        return 2 * source.numel() / self._best(lambda: target.copy_(source)) * 1e3

    def exponentials(self) -> float:
        from exponentials import burn

        block, programs, repeat = 1024, 16384, 512
        out = torch.empty(block * programs, device="cuda")
        best = self._best(lambda: burn[(programs,)](out, repeat, BLOCK=block))
        return 2 * block * programs * repeat / best * 1e3

    def _best(self, function: Path_) -> float:
        """The shortest of 20 times: a floor is what the machine can do."""
        function()
        return min(self.milliseconds(function) for _ in range(20))


class DryRun:
    """A CPU, tiny sizes and backends that need no GPU: finds errors in the script, no numbers."""

    device = "cpu"
    names = ["chunked", "reference"]  # noqa: RUF012
    sizes = Sizes(
        lengths=(16,),
        images=(8,),
        widths={"light": 8},
        mixers={"light": (8, 1.2)},
        models={"light": "mambair_tiny_x2"},
        crop=(1, 8),
    )

    def title(self) -> str:
        return "DRY RUN on a CPU with tiny sizes: none of these numbers means anything"

    def milliseconds(self, function: Path_) -> float:
        start = time.perf_counter()
        function()
        return 1e3 * (time.perf_counter() - start)

    def peak(self, function: Path_) -> float:
        function()
        return 0.0

    def bandwidth(self) -> float:
        return 1e12

    def exponentials(self) -> float:
        return 1e12
