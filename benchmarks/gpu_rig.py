"""The machine for ``benchmarks/gpu.py``: an NVIDIA GPU, or a CPU that only runs the code."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
from authors_scan import Scan, strided_scan
from torch import Tensor

import zoo

Path_: TypeAlias = Callable[[], object]
"""One of the ways that are compared to compute the same thing."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes to measure.

    Attributes:
        lengths: numbers of tokens L of the operator.
        images: sides of the images in pixels.
        widths: inner channels E of the operator, by name.
        mixers: channels and expansion factor of an SS2D, by name.
        models: whole networks, by name.
        crop: number and side of the images in a training batch; None for those of the recipe.
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
        device: PyTorch device.
        names: backends to compare, ours first.
        sizes: sizes to measure.
    """

    device: str
    names: list[str]
    sizes: Sizes

    def scan_of_authors(self) -> Scan:
        """The scan of permuted copies that ``mamba_ssm`` stands for."""
        ...

    def title(self) -> str:
        """Machine and versions, for the title of the tables."""
        ...

    def milliseconds(self, function: Path_) -> float:
        """Time of one call in milliseconds, including all kernels that it launches."""
        ...

    def peak(self, function: Path_) -> float:
        """Peak memory of a call in MiB, minus the memory held before."""
        ...

    def bandwidth(self) -> float:
        """Bytes per second that a large copy reads and writes."""
        ...

    def exponentials(self) -> float:
        """Exponentials per second of a kernel that computes nothing else, in registers."""
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
                print(f"{name} is not measured: {known[name].note}")
        self.names = [n for n in ("triton", "mamba_ssm", "chunked") if known[n].available]

    def scan_of_authors(self) -> Scan:
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

        def scan(*tensors: Tensor) -> Tensor:
            *others, bias = tensors
            y: Tensor = selective_scan_fn(*others, delta_bias=bias, delta_softplus=True)
            return y

        return scan

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
            f"{torch.cuda.get_device_name()}; driver, current and maximum clock: {first}; torch "
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
        """Shortest of 20 times in milliseconds, because the floor is the best possible time."""
        function()
        return min(self.milliseconds(function) for _ in range(20))


class DryRun:
    """A CPU with tiny sizes and backends that need no GPU: to find errors in the script only."""

    device = "cpu"
    names = ["chunked", "mamba_ssm"]  # noqa: RUF012
    sizes = Sizes(
        lengths=(16,),
        images=(8,),
        widths={"light": 8},
        mixers={"light": (8, 1.2)},
        models={"light": "mambair_tiny_x2"},
        crop=(1, 8),
    )

    def scan_of_authors(self) -> Scan:
        return lambda *tensors: strided_scan(*(t.float() for t in tensors))

    def title(self) -> str:
        return "DRY RUN on a CPU with tiny sizes: these numbers mean nothing"

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
