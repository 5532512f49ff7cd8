"""The selective scan on NVIDIA GPUs, in Triton: parallel over the sequence, forward and backward.

An image has few channels and many tokens, so one walk over all tokens would leave most of a GPU
idle. The sequence is cut into chunks that are walked in parallel; see ``kernels.py``. Sums of
several programs are added in the order in which they finish, so results may differ in the last bits
from run to run. ``torch.use_deterministic_algorithms(True)`` makes them equal but slower.

``TRITON_INTERPRET=1``, set before Python starts, runs the same kernels on the CPU, very slowly. Use
it for tests.
"""

from __future__ import annotations

import functools
import importlib.util
import os

import torch
from torch import Tensor

from zoo.ops.scan.contract import ScanGradients, ScanInputs

NAME = "triton"

OLDEST = (7, 5)
"""Compute capability of the oldest GPU that Triton compiles for."""


@functools.cache
def _installed() -> bool:
    """Asked at every call: a search for what is not there takes as long as a small scan."""
    return importlib.util.find_spec("triton") is not None


def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


def summary() -> str:
    if _interpreted():
        return "Triton kernels in Triton's interpreter, for tests"
    return "Triton kernels, parallel over the sequence, NVIDIA GPUs"


def unavailable() -> str | None:
    if not _installed():
        return (
            "Triton is not installed; it comes with CUDA builds of PyTorch for Linux, "
            "or pip install triton"
        )
    if _interpreted():
        return None
    if not torch.cuda.is_available():
        return "it needs an NVIDIA GPU, and this PyTorch sees none"
    if torch.cuda.get_device_capability() < OLDEST:
        name = torch.cuda.get_device_name()
        return f"Triton needs compute capability 7.5 or later, and {name} has less"
    return None


def declines(inputs: ScanInputs) -> str | None:
    device = inputs.u.device.type
    if device != ("cpu" if _interpreted() else "cuda"):
        return f"it runs on CUDA devices, and the tokens are on {inputs.u.device}"
    if inputs.u.dtype == torch.float64:
        return f"it computes in float32, and the tokens are {inputs.u.dtype}"
    return None


def forward(inputs: ScanInputs, reduce: bool) -> Tensor:
    from zoo.ops.scan.triton import launch

    return launch.forward(inputs, reduce)


def backward(inputs: ScanInputs, grad_y: Tensor, reduce: bool) -> ScanGradients:
    from zoo.ops.scan.triton import launch

    return launch.backward(inputs, grad_y, reduce)
