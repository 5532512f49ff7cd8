"""The cases that ``scan_check.c`` runs on other platforms, with the results of ``reference``.

    python -m tests.kernel.stored_cases     writes tests/kernel/cases.bin

The layout is the order in which ``read_case`` of the program reads.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import torch

from tests.helpers.scan_cases import TOLERANCE, Case, make_inputs, run

FILE = Path(__file__).with_name("cases.bin")
MAGIC = b"ZOOSCAN1"
DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}

CASES = [
    (Case(), torch.float32),
    (Case(reduce=False), torch.float32),
    (Case(low_rank=False, order="padded"), torch.float32),
    (Case(order="skipping", K=3, reduce=False), torch.float32),
    (Case(B=1, L=1, K=1, E=1, R=1, N=1), torch.float32),
    (Case(B=1, L=33, K=3, E=17, R=3, N=16), torch.float32),
    (Case(L=12, K=2, E=3, N=33, order="short"), torch.float32),
    (Case(per_image=True), torch.float32),
    # Enough work for three threads: a second and a third one each need 100,000 exponentials.
    (Case(B=1, L=52, K=4, E=64, R=3, N=16, order="padded"), torch.float32),
    (Case(B=2, L=9, K=2, E=19, R=2, N=5, order="padded"), torch.bfloat16),
    (Case(B=2, L=9, K=2, E=19, low_rank=False, N=5, reduce=False), torch.bfloat16),
    (Case(B=2, L=9, K=2, E=19, R=2, N=5, order="padded"), torch.float16),
    (Case(B=2, L=9, K=2, E=19, low_rank=False, N=5, reduce=False), torch.float16),
]


def content(cases: Sequence[tuple[Case, torch.dtype]] = CASES) -> bytes:
    return MAGIC + struct.pack("<i", len(cases)) + b"".join(_packed(*case) for case in cases)


def _packed(case: Case, dtype: torch.dtype) -> bytes:
    inputs = make_inputs(case, dtype)
    u, delta, weight, bias, A, B, C, D, order = inputs
    exact = [t if t is None or t.dtype == torch.int32 else t.double() for t in inputs]
    y, *gradients = run(exact, case, "reference")
    if weight is None:
        gradients.insert(2, torch.empty(0))
    gu, gdelta, gweight, gbias, gA, gB, gC, gD = gradients
    grad_y = torch.sin(torch.arange(y.numel(), dtype=torch.float64)).reshape(y.shape).to(dtype)
    name = f"{case}-{str(dtype).removeprefix('torch.')}"
    sizes = (case.B, case.L, case.K, order.shape[-1], case.E, delta.shape[-1], case.N)
    head = struct.pack(
        "<64sd4i7q",
        name.encode()[:63],
        TOLERANCE[dtype],
        *(DTYPES[dtype], case.reduce, weight is not None, case.per_image),
        *sizes,
    )
    given = [u, delta, B, C, weight, bias, A, D, order, grad_y]
    expected = [t.float() for t in (y, gu, gdelta, gB, gC, gweight, gbias, gA, gD)]
    return head + b"".join(_raw(t) for t in (*given, *expected) if t is not None)


def _raw(tensor: torch.Tensor) -> bytes:
    return tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()


if __name__ == "__main__":
    FILE.write_bytes(content())
