"""The selective scan on a CPU: every backend, the authors' path and the cost of exponentials.

    python benchmarks/operator_cpu.py [--quick] [--seconds 3]

Prints a table for forward, one for forward and backward, and one for kinds of input and threads.
All paths of a row take turns. The limit is the time for N + 1 exponentials for each step and
channel alone, in the kernel's own loop on data in the L1 cache: a scan cannot be faster.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.ops import selective_scan
from zoo.ops.scan import native
from zoo.scans import Raster

if __package__ is None:
    sys.path.insert(0, str(Path(__file__).parent))
from authors_scan import strided_scan
from measure import best_times, machine, table

DIRECTIONS, STATES = 4, 16
LENGTHS = (1024, 4096, 16384, 65536)
CHANNELS = (30, 360)
AUTHORS, LIMIT = "authors", "limit"
MOST_BYTES = 3 << 30
"""Memory limit for the authors' path, which stores decays and inputs of all steps. A row that needs
more omits it."""
MOST_STEPS = {False: 16384, True: 1024}
"""Step limits for the Python loops, forward (False) and with the backward pass (True); longer rows
would take minutes."""


def make_inputs(
    length: int,
    channels: int,
    low_rank: bool = True,
    dtype: torch.dtype = torch.float32,
    *,
    states: int = STATES,
    rank: int | None = None,
) -> list[Tensor | None]:
    """Make the inputs for a scan of a square image in the four raster directions.

    Args:
        length: tokens of the image.
        channels: inner channels E.
        low_rank: whether delta is projected.
        dtype: of the tokens.
        states: states N.
        rank: rank R of a projected delta; None for E / 32.
    """
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    if not low_rank:
        rank = channels
    elif rank is None:
        rank = -(-channels // 32)
    projected = normal(1, length, DIRECTIONS, rank + 2 * states).to(dtype)
    delta, B, C = projected.split([rank, states, states], dim=-1)
    weight = 0.1 * normal(DIRECTIONS, channels, rank) if low_rank else None
    A = -torch.arange(1.0, states + 1).expand(DIRECTIONS, channels, states).contiguous()
    side = int(length**0.5)
    return [
        normal(1, length, channels).to(dtype),
        delta,
        weight,
        normal(DIRECTIONS, channels) - 4.0,
        A,
        B,
        C,
        torch.ones(DIRECTIONS, channels),
        Raster().order(side, side, torch.device("cpu")),
    ]


def ours(inputs: list[Any], backend: str) -> Tensor:
    return selective_scan(*inputs, reduce=True, backend=backend)


def authors(inputs: list[Any]) -> Tensor:
    """Run the authors' path: four permuted copies, the loop, outputs permuted back and summed."""
    u, delta, weight, bias, A, B, C, D, order = inputs
    if weight is not None:
        delta = torch.einsum("blkr,ker->blke", delta, weight)
    index = order.long()
    u_BKEL = torch.stack([u[:, path].transpose(1, 2) for path in index], dim=1)

    def walked(t: Tensor) -> Tensor:
        return torch.stack([t[:, path, k].transpose(1, 2) for k, path in enumerate(index)], dim=1)

    y_BGL = strided_scan(
        u_BKEL.flatten(1, 2),
        walked(delta).flatten(1, 2),
        A.flatten(0, 1),
        walked(B),
        walked(C),
        D.flatten(),
        bias.flatten(),
    )
    y_BKEL = y_BGL.unflatten(1, (len(index), -1))
    parts = [y_BKEL[:, k][..., path.argsort()] for k, path in enumerate(index)]
    return torch.stack(parts).sum(0).transpose(1, 2)


def with_backward(scan: Callable[[list[Any]], Tensor], inputs: list[Any]) -> Callable[[], object]:
    leaves = [None if t is None else t.detach().requires_grad_() for t in inputs[:-1]]

    def step() -> object:
        y = scan([*leaves, inputs[-1]])
        return torch.autograd.grad(y.sum(), [t for t in leaves if t is not None])

    return step


def limit(length: int, channels: int, states: int = STATES) -> Callable[[], object]:
    """Make a function that computes only the exponentials of a forward pass, on one thread."""
    x = -5 * torch.rand(2048)
    out = torch.empty_like(x)
    repeat = length * DIRECTIONS * channels * (states + 1) // x.numel()
    call = native.library().zoo_scan_exp
    return lambda: call(x.data_ptr(), out.data_ptr(), x.numel(), repeat, None)


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def measure_row(length: int, channels: int, backward: bool, seconds: float) -> list[object]:
    """Measure one row of the table: milliseconds on one thread, and ratios."""
    inputs = make_inputs(length, channels)
    paths: dict[str, Callable[[], object]] = {LIMIT: limit(length, channels)}
    scans: dict[str, Callable[[list[Any]], Tensor]] = {
        name: lambda given, name=name: ours(given, name)  # type: ignore[misc]
        for name in ("native", "chunked", "reference")
        if name != "reference" or length <= MOST_STEPS[backward]
    }
    held = 2 * 4 * length * DIRECTIONS * channels * STATES
    if held <= MOST_BYTES and (not backward or length <= MOST_STEPS[backward]):
        scans[AUTHORS] = authors
    for name, scan in scans.items():
        paths[name] = (
            with_backward(scan, inputs) if backward else lambda scan=scan: scan(inputs)  # type: ignore[misc]
        )
    with torch.set_grad_enabled(backward), threads(1):
        best = best_times(paths, seconds)
    shown = [f"{best[n] * 1e3:.1f}" if n in best else "" for n in ("native", "chunked")]
    rest = [f"{best[n] / best['native']:.0f}x" if n in best else "" for n in ("reference", AUTHORS)]
    share = [] if backward else [f"{best[LIMIT] / best['native']:.0%}"]
    return [length, DIRECTIONS * channels, *shown, *rest, *share]


def print_lengths(lengths: tuple[int, ...], seconds: float) -> None:
    for backward in (False, True):
        what = "forward and backward" if backward else "forward"
        print(f"\nOperator, {what}, float32, low-rank delta, one thread, milliseconds\n")
        head = ["L", "K E", "native", "chunked", "reference / native", "authors / native"]
        rows = [
            measure_row(length, channels, backward, seconds)
            for channels in CHANNELS
            for length in lengths
        ]
        print(table(head if backward else [*head, "of the limit"], rows))


def print_kinds(seconds: float) -> None:
    """Compare kinds of input at one size: share of the limit, two threads, backward pass."""
    length, channels = 4096, CHANNELS[-1]
    kinds = {
        "delta given": make_inputs(length, channels, low_rank=False),
        "low-rank delta": make_inputs(length, channels),
        "low-rank delta, bfloat16": make_inputs(length, channels, dtype=torch.bfloat16),
        "low-rank delta, float16": make_inputs(length, channels, dtype=torch.float16),
    }
    print(f"\nL = {length}, K E = {DIRECTIONS * channels}, N = {STATES}: native, milliseconds\n")
    paths: dict[str, Callable[[], object]] = {LIMIT: limit(length, channels)}
    for name, inputs in kinds.items():
        for count in (1, 2):

            def forward(inputs: list[Any] = inputs, count: int = count) -> None:
                with torch.no_grad(), threads(count):
                    ours(inputs, "native")

            paths[f"{name} {count}"] = forward
        step = with_backward(lambda given: ours(given, "native"), inputs)

        def backward_too(step: Callable[[], object] = step) -> None:
            with threads(1):
                step()

        paths[f"{name} both"] = backward_too
    best = best_times(paths, seconds)
    rows = []
    for name in kinds:
        one, two, both = (best[f"{name} {kind}"] for kind in ("1", "2", "both"))
        rows.append(
            [
                name,
                *(f"{x * 1e3:.1f}" for x in (one, two, both)),
                f"{best[LIMIT] / one:.0%}",
                f"{one / two:.2f}x",
                f"{both / one:.1f}x",
            ]
        )
    head = ["input", "1 thread", "2 threads", "forward + backward", "of the limit"]
    print(table([*head, "2 threads faster", "both / forward"], rows))
    print(
        f"\nThe limit is {best[LIMIT] * 1e3:.1f} ms on one thread. Two threads compute "
        f"{exponentials_on_two():.2f}x the exponentials in the same time."
    )


def exponentials_on_two() -> float:
    """Throughput of two threads that compute only exponentials, relative to one thread."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(2) as pool:
        one = limit(4096, CHANNELS[-1])
        both = limit(4096, CHANNELS[-1])
        best = best_times(
            {"one": one, "two": lambda: [f.result() for f in [pool.submit(one), pool.submit(both)]]}
        )
    return 2 * best["one"] / best["two"]


def main() -> int:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=3.0, help="time per measurement [3]")
    parser.add_argument("--quick", action="store_true", help="L up to 4096 only")
    options = parser.parse_args()
    print(f"{machine()}; instruction set {native.level()}")
    ours(make_inputs(64, 8), "native")  # a warm-up, because PyTorch loads modules in the first call
    print_kinds(options.seconds)
    print_lengths(LENGTHS[:2] if options.quick else LENGTHS, options.seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
