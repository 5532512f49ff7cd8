"""Times of the operator and of networks on a device, for a report; ``benchmarks/gpu.py`` has more.

Each time is the median of some calls, without the first, which compiles.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from zoo.ops import selective_scan, use_backend
from zoo.ops.precision import DTYPES, Precision, autocast
from zoo.ops.scan import chunked
from zoo.ops.scan.self_check.cases import Case, make_inputs
from zoo.recipe import build

LENGTHS, SIDES = (4096, 65536), (64, 256)
"""Tokens of the operator; sides of the images in pixels."""
CALLS, FEW_CALLS = 7, 2
"""How often a path is timed, and how often one that is slow."""
LONGEST_CHUNKED = 4096
"""Tokens up to which ``chunked`` is timed beside; it takes a launch for each of them."""
_PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")


def tables(device: torch.device, backend: str, models: Sequence[str]) -> Iterator[str]:
    """Time the operator and networks; yield lines of a table."""
    lengths, sides = (LENGTHS, SIDES) if device.type == "cuda" else ((64,), (16,))
    yield f"{'milliseconds':<52} {backend:>10} {chunked.NAME:>10}"
    for channels, length, precision in (
        (channels, length, precision)
        for channels in (72, 360)
        for length in lengths
        for precision in _PRECISIONS
    ):
        case = Case(B=1, L=length, K=4, E=channels, R=max(4, channels // 30), N=16)
        inputs = [None if t is None else t.to(device) for t in make_inputs(case, DTYPES[precision])]
        for what, path in (("forward", _forward), ("forward + backward", _backward)):
            name = f"operator, E {channels}, L {length}, {precision}, {what}"
            names = (backend, chunked.NAME) if length <= LONGEST_CHUNKED else (backend,)
            yield _row(name, [_time(path(inputs, each), device, each) for each in names])
    for model in models:
        network = build(model).to(device).eval()
        for side in sides:
            image = torch.rand(1, network.channels, side, side, device=device)
            for precision in _PRECISIONS:

                def restore(network: Any = network, image: Tensor = image,
                            precision: Precision = precision) -> object:  # fmt: skip
                    with torch.inference_mode(), autocast(device, precision):
                        return network(image)

                names = (backend, chunked.NAME) if side == sides[0] else (backend,)
                times = []
                for each in names:
                    with use_backend(each):
                        times.append(_time(restore, device, each))
                yield _row(f"{model}, {side} x {side}, {precision}", times)


def _row(name: str, times: Sequence[float]) -> str:
    return f"{name:<52} " + " ".join(f"{each:10.2f}" for each in times)


def _forward(inputs: Sequence[Any], backend: str) -> Callable[[], object]:
    def call() -> object:
        with torch.no_grad():
            return selective_scan(*inputs, reduce=True, backend=backend)

    return call


def _backward(inputs: Sequence[Any], backend: str) -> Callable[[], object]:
    leaves: list[Any] = [t.detach().requires_grad_() for t in inputs[:-1]]
    given: list[Any] = [*leaves, inputs[-1]]

    def call() -> object:
        y = selective_scan(*given, reduce=True, backend=backend)
        return torch.autograd.grad(y, leaves, torch.ones_like(y))

    return call


def _time(function: Callable[[], object], device: torch.device, backend: str) -> float:
    """Median time of a call in milliseconds."""
    function()
    took = []
    for _ in range(FEW_CALLS if backend == chunked.NAME else CALLS):
        if device.type != "cuda":
            start = time.perf_counter()
            function()
            took.append(1e3 * (time.perf_counter() - start))
            continue
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        function()
        last.record()
        last.synchronize()
        took.append(first.elapsed_time(last))
    return statistics.median(took)
