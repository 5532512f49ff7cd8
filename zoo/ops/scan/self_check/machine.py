"""What a verdict depends on: the device, its driver, the software that compiles, and our code."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import platform
import secrets
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from zoo.ops.scan import native

_CODE = Path(__file__).parents[2]
"""The folder of the operators: all backends of the scan, the passes, and these checks."""

_TRITONS = ("triton", "pytorch-triton", "pytorch-triton-rocm", "triton-windows")
"""Names under which Triton is installed."""


def of_gpu(device: torch.device) -> dict[str, str]:
    """What a verdict on a GPU depends on, by name."""
    major, minor = torch.cuda.get_device_capability(device)
    toolkit = f"ROCm {torch.version.hip}" if torch.version.hip else f"CUDA {torch.version.cuda}"
    return {
        "device": torch.cuda.get_device_name(device),
        "compute capability": f"{major}.{minor}",
        "driver": driver(),
        "torch": f"{torch.__version__}, {toolkit}",
        "triton": triton(),
        "our code": our_code(),
    }


def allocator() -> str:
    """How PyTorch gets memory of a GPU: another allocator may give it back otherwise."""
    names = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_NO_CUDA_MEMORY_CACHING")
    return "; ".join(f"{name}={os.environ[name]}" for name in names if name in os.environ)


def of_cpu(level: str) -> dict[str, str]:
    """What a verdict on an instruction set of the C++ kernel depends on, by name."""
    return {
        "device": processor(),
        "instruction set": level,
        "library": _digest(_content(native.LIBRARY)),
        "torch": torch.__version__,
        "our code": our_code(),
    }


def driver() -> str:
    """The version of the GPU's driver: of its module in Linux, and of the CUDA that it runs.

    Jetsons have no nvidia-smi, and ROCm and WSL no such module: there the second is all.
    """
    parts = []
    with contextlib.suppress(OSError):
        parts.append(Path("/sys/module/nvidia/version").read_text(encoding="utf-8").strip())
    ask = getattr(torch._C, "_cuda_getDriverVersion", None)  # ROCm builds have none
    if ask is not None:
        with contextlib.suppress(RuntimeError):
            parts.append(f"CUDA {ask()}")
    return ", ".join(parts) or "unknown"


def triton() -> str:
    """Name and version of Triton, without importing it."""
    found = []
    for name in _TRITONS:
        with contextlib.suppress(PackageNotFoundError):
            found.append(f"{name} {version(name)}")
    return ", ".join(found) or "none"


def processor() -> str:
    """The model of the processor."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            # The first processor is enough: a machine with hundreds takes a while to list them.
            lines = [line for line, _ in zip(file, range(40), strict=False)]
    except OSError:
        lines = []
    names = (line.partition(": ")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


@functools.cache
def our_code() -> str:
    """A digest of the Python of the operators, which changes whenever they compute otherwise."""
    return _digest_of(_CODE)


@functools.cache
def package_code() -> str:
    """A digest of all Python of the package."""
    return _digest_of(_CODE.parent)


def _digest_of(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + _content(path))
    return digest.hexdigest()[:16]


def _content(path: Path) -> bytes:
    """The bytes of a file; of one that is gone, others each time, so that no verdict holds."""
    try:
        return path.read_bytes()
    except OSError:
        return secrets.token_bytes()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
