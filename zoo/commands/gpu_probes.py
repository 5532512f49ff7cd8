"""What a report of a GPU tries beside single scans: graphs, compilation, wrong orders, networks.

Each probe says what is wrong, or None. They run in the process of the command, after the cases of
the operator have run in processes of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from zoo.checkpoints import load
from zoo.inference import RestoreSettings, restore_tensor
from zoo.ops import selective_scan, use_backend
from zoo.ops.precision import Precision
from zoo.ops.scan.self_check.cases import TOLERANCE, Case, make_inputs, relative
from zoo.ops.scan.self_check.comparison import in_one_line

CASE = Case(B=1, L=300, K=4, E=72, R=4, N=16)
MODEL = "mambair_tiny_x2"
ALLOWED: dict[Precision, float] = {"fp32": 1e-4, "bf16": 3e-2, "fp16": 3e-2}
"""Largest difference of a restored pixel from the CPU's, where white is 1: float32 sums in another
sequence, and 8 or more mantissa bits through some dozen layers."""

Probe = Callable[[torch.device, str], str | None]


def outcomes(device: torch.device, backend: str) -> Iterator[tuple[str, str | None]]:
    """Run all probes of a device; yield the name of each and what is wrong, or None."""
    for name, probe in PROBES.items():
        if device.type != "cuda" and probe in _OF_A_GPU:
            continue
        try:
            wrong = probe(device, backend)
        except Exception as error:
            wrong = in_one_line(error)
        yield name, wrong


def _inputs(device: torch.device) -> list[Any]:
    return [None if t is None else t.to(device) for t in make_inputs(CASE, torch.float32)]


def graph_of_the_operator(device: torch.device, backend: str) -> str | None:
    """A CUDA graph replays the operator on new values."""
    inputs = _inputs(device)

    def scan() -> Tensor:
        return selective_scan(*inputs, reduce=True, backend=backend)

    with torch.inference_mode():
        replay, y = captured(scan)
        inputs[0].mul_(2)
        replay()
        return _far(y, scan())


def graph_of_a_network(device: torch.device, backend: str) -> str | None:
    """A CUDA graph replays a network on another image."""
    network = load(MODEL).to(device)
    image = torch.rand(1, network.channels, 32, 32, device=device)
    with torch.inference_mode(), use_backend(backend):
        network(image)  # builds its orders
        replay, found = captured(lambda: network(image))
        image.copy_(image.flip(3) * 0.5)
        replay()
        return _far(found, network(image), 1e-4)


def captured(function: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    """Record a function as a CUDA graph: return its replay, and where it writes its result."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        function()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = function()
    return graph.replay, found


def wrong_entries(device: torch.device, backend: str) -> str | None:
    """An order is followed without waiting, and a direction with a wrong entry is NaN."""
    given = _inputs(device)
    bad = [*given[:-1], given[-1].clone()]
    bad[-1][1, 4] = 50_000_000
    selective_scan(*given, backend=backend)  # compiles
    selective_scan(*bad, backend=backend)
    torch.cuda.set_sync_debug_mode("error")
    try:
        right = selective_scan(*given, backend=backend)
        found = selective_scan(*bad, backend=backend)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    if not found[:, :, 1].isnan().any():
        return "a direction with a wrong entry is not NaN"
    return _far(found[:, :, [0, 2, 3]], right[:, :, [0, 2, 3]])


def compiled(device: torch.device, backend: str) -> str | None:
    """torch.compile agrees, outputs and gradients."""
    *tensors, order = _inputs(device)
    leaves: list[Any] = [t.detach().requires_grad_() for t in tensors]

    def loss(*leaves: Any) -> Tensor:
        given: list[Any] = [*leaves, order]
        return (2 * selective_scan(*given, reduce=True, backend=backend)).square().mean()

    compiler = "inductor" if device.type == "cuda" else "aot_eager"
    faster = torch.compile(loss, fullgraph=True, backend=compiler)
    results = []
    for function in (faster, loss):
        value = function(*leaves)
        results.append([value, *torch.autograd.grad(value, leaves)])
    return next((wrong for pair in zip(*results, strict=True) if (wrong := _far(*pair))), None)


def restored(precision: Precision) -> Probe:
    """A restored picture is that of the CPU."""

    def probe(device: torch.device, backend: str) -> str | None:
        network = load(MODEL)
        image = torch.rand(1, 3, 50, 61, generator=torch.Generator().manual_seed(0))
        with use_backend("chunked"):
            expected = restore_tensor(network, image)
        with use_backend(backend):
            settings = RestoreSettings(precision=precision)
            found = restore_tensor(network.to(device), image, settings)
        most = float((found - expected).abs().max())
        return None if most <= ALLOWED[precision] else f"a pixel deviates by {most:.1e}"

    return probe


def _far(found: Tensor, expected: Tensor, allowed: float = TOLERANCE[torch.float32]) -> str | None:
    deviation = relative(found, expected)
    if deviation <= allowed:
        return None
    return f"it deviates by {deviation:.1e}, and {allowed:.1e} is allowed"


PROBES: dict[str, Probe] = {
    "a CUDA graph of the operator": graph_of_the_operator,
    "a CUDA graph of a network": graph_of_a_network,
    "wrong entries of an order": wrong_entries,
    "torch.compile": compiled,
    **{f"a restored picture, {each}": restored(each) for each in ALLOWED},
}
_OF_A_GPU = (graph_of_the_operator, graph_of_a_network, wrong_entries)
