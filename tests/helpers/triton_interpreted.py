"""The Triton kernels in Triton's interpreter, printed as JSON.

Run by tests/ops/test_triton.py in a process of its own, because TRITON_INTERPRET must be set before
Triton is imported, with some of these words: ``small``, ``long-chunks``, a part of ``MATRIX``,
``random``, ``hostile``, ``tiny``, ``norms``. After ``long-chunks``, it tells the shapes of what the
kernels got as memory, and how many numbers they did not write. The interpreter takes some tenths of
a second for a step of a block of channels. Chunks have four steps here and blocks four channels, so
that small cases pass every boundary; large ones are for tests/gpu.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import sys
from collections.abc import Callable
from dataclasses import replace

import torch

from tests.helpers.scan_cases import CASES, Case, make_inputs, random_case, run
from zoo.ops.scan.contract import ScanInputs

FLOAT, BRAIN, HALF = torch.float32, torch.bfloat16, torch.float16
TINY = {"B": 1, "L": 5, "K": 2, "E": 5, "R": 2, "N": 2}
SMALL = [
    (Case(**{**TINY, "B": 2}), FLOAT, False),
    (Case(**TINY), BRAIN, True),
    (Case(**TINY, reduce=False), HALF, False),
    (Case(**TINY, low_rank=False, order="skipping"), FLOAT, True),
    (Case(**TINY, low_rank=False, reduce=False), BRAIN, False),
    (Case(B=2, L=13, K=2, E=1, R=3, N=2, order="short", per_image=True), FLOAT, False),
]
"""Case, dtype, and whether sums must be made in a fixed sequence. In the last one there are several
images, directions, states and boundaries between chunks at once."""

LONG_CHUNKS = [(Case(B=1, L=7, K=2, E=5, R=2, N=2, order="padded"), FLOAT, False)]
"""With chunks of six steps: the gradient kernel keeps two steps at once, so that a chunk has more
than two groups of them, and the groups in the middle are neither the first nor the last. Two
programs share the chunks of each direction and block of channels."""

KINDS = [
    *(case for case in CASES if case.L <= 7),
    Case(B=1, L=6, K=8, E=9, R=3, N=16),
    Case(B=3, L=9, K=2, E=5, R=2, N=10, order="padded"),
    Case(B=1, L=5, K=5, E=3, N=33),
    Case(B=1, L=4, K=7, E=18, N=8, low_rank=False),
    Case(B=1, L=6, K=3, E=10, R=5, N=17, order="skipping"),
    Case(B=1, L=70, K=1, E=2, N=1, order="padded"),
]
"""The conformance cases, the large ones with smaller numbers of the same kind."""

MATRIX = {
    "float32": [(case, FLOAT, False) for case in KINDS],
    "float32-fixed": [(case, FLOAT, True) for case in KINDS],
    "bfloat16": [(case, BRAIN, False) for case in KINDS[:12]],
    "float16-fixed": [(case, HALF, True) for case in KINDS[:12]],
}
"""Half precision differs in what is loaded and stored alone, so it takes fewer cases, and each way
to sum once."""

RANDOM = 20
"""Random cases; a GPU takes a thousand."""


def random_cases() -> list[tuple[Case, torch.dtype, bool]]:
    draw = random.Random(0)
    return [
        (random_case(draw, B=2, L=12, K=3, E=9, R=5, N=5), draw.choice((FLOAT, BRAIN, HALF)), False)
        for _ in range(RANDOM)
    ]


def deviations(case: Case, dtype: torch.dtype) -> list[float]:
    """Relative deviation from the reference in float64, of the output and of each gradient."""
    inputs = make_inputs(case, dtype)
    exact = [t if t is None or t.dtype == torch.int32 else t.double() for t in inputs]
    found, expected = run(inputs, case, "triton"), run(exact, case, "reference")
    assert found[0].dtype == dtype
    pairs = list(zip(found, expected, strict=True))
    assert all(ours.shape == theirs.shape for ours, theirs in pairs)
    return [
        float((ours.double() - theirs).norm() / (theirs.norm() + 1e-30))
        for ours, theirs in pairs
        if ours.numel()
    ]


def wrong_entries() -> list[list[int]]:
    """Tokens with y = NaN in each direction; all but the last have an entry that is no token."""
    case = Case(B=1, L=6, K=4, E=2, R=1, N=1, reduce=False)
    inputs = ScanInputs(*make_inputs(case, FLOAT))
    order = torch.arange(6, dtype=torch.int32).repeat(4, 1)
    order[:3, 3] = torch.tensor([6, -2, 50_000_000])
    inputs = inputs._replace(order=order)
    # Not through the operator, which on a CPU could refuse the order before the kernels see it.
    from zoo.ops.scan.triton import launch

    found = launch.backward(inputs, torch.ones(1, 6, 4, 2), False)
    assert found.delta_bias[:3].isnan().all() and found.A[:3].isnan().all()
    assert found.delta_bias[3].isfinite().all() and found.A[3].isfinite().all()
    y = launch.forward(inputs, False)
    return [y[0, :, k].isnan().all(-1).nonzero().flatten().tolist() for k in range(4)]


def norms() -> list[str | None]:
    """What the self-check says of norms of few and many channels, with and without a gate."""
    from zoo.ops.scan.self_check.norms import NormCheck

    checks = [(37, 8, True, FLOAT), (70, 60, False, FLOAT), (33, 72, True, BRAIN),
              (5, 1000, True, HALF), (9, 33, False, HALF)]  # fmt: skip
    return [*(NormCheck(*sizes).fault(torch.device("cpu"), 1) for sizes in checks), _odd_layouts()]


def _odd_layouts() -> str | None:
    """Whether a norm of views, with weights that are spread or repeated, is that of PyTorch."""
    from zoo.ops.scan.triton import norm

    x, grad = torch.randn(2, 6, 5, 7).transpose(1, 2)[:, ::2]
    weight, bias = torch.randn(7, 2)[:, 0], torch.randn(1).expand(7)
    leaves = [t.detach().requires_grad_() for t in (x, weight, bias)]
    right = torch.nn.functional.layer_norm(leaves[0], (7,), *leaves[1:], 0.1)
    y, mean, scale = norm.forward(x, weight, bias, None, 0.1, FLOAT, keep=True)
    found = norm.backward(x, weight, bias, None, mean, scale, grad)
    pairs = zip((y, *found[:3]), (right, *torch.autograd.grad(right, leaves, grad)), strict=True)
    return None if all(torch.allclose(a, b, 1e-4, 1e-4) for a, b in pairs) else "it is wrong"


def kernel_of_three_lines() -> list[object]:
    """What the process of the self-check tells of it: where it runs, fails, and does nothing."""
    from zoo.ops.scan.self_check import tiny

    class Idle:
        def __getitem__(self, grid: tuple[int]) -> Callable[..., None]:
            return lambda *given, **named: None

    told = []
    for device, kernel in (("cpu", tiny.add_one), ("meta", tiny.add_one), ("cpu", Idle())):
        sys.stdin = io.StringIO(json.dumps({"device": device}) + "\n")
        tiny.add_one = kernel
        with contextlib.redirect_stdout(io.StringIO()) as output:
            tiny.main()
        told.append(json.loads(output.getvalue())["wrong"])
    return told


def hand_out_nan() -> list[torch.Tensor]:
    """Have the memory that kernels get hold NaN, so that none is read before it is written."""
    from zoo.ops.scan.triton import launch

    handed: list[torch.Tensor] = []

    def floats(call: launch._Call, *shape: int) -> torch.Tensor:
        handed.append(torch.full(shape, float("nan")))
        return handed[-1]

    launch._Call.floats = floats
    return handed


def main(*words: str) -> int:
    from zoo.ops.scan.triton import configurations

    handed = hand_out_nan()
    parts = {"small": SMALL, "long-chunks": LONG_CHUNKS, "random": random_cases(), **MATRIX}
    usual = configurations.INTERPRETED
    for word in words:
        length = 6 if word == "long-chunks" else usual.longest
        configurations.INTERPRETED = replace(
            usual,
            shortest=length,
            longest=length,
            gradient_longest=length,
            gradient_warps=8 if word == "long-chunks" else usual.gradient_warps,
        )
        if word == "norms":
            _print(norms())
            continue
        if word in ("hostile", "tiny"):
            _print(wrong_entries() if word == "hostile" else kernel_of_three_lines())
            continue
        for case, dtype, fixed in parts[word]:
            torch.use_deterministic_algorithms(fixed)
            found = deviations(case, dtype)
            _print([str(case), str(dtype).removeprefix("torch."), found])
        if word == "long-chunks":
            _print([[list(given.shape), int(given.isnan().sum())] for given in handed])
        handed.clear()
    return 0


def _print(line: object) -> None:
    sys.stdout.write(f"{json.dumps(line)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
