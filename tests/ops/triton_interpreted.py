"""The Triton kernels in Triton's interpreter: ten small cases, printed as JSON.

Run by test_triton.py in a process of its own, because TRITON_INTERPRET must be set before Triton is
imported, and by hand with ``--full`` for the whole matrix (an hour or so).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
from conformance import CASES, Case, make_inputs, run

FLOAT, BRAIN, HALF = torch.float32, torch.bfloat16, torch.float16
TINY = {"B": 1, "L": 5, "K": 2, "E": 5, "R": 2, "N": 2}
SMALL = [
    (Case(**TINY), FLOAT, False),
    (Case(**TINY), BRAIN, True),
    (Case(**TINY, reduce=False), HALF, False),
    (Case(**TINY, reduce=False, order="padded"), FLOAT, False),
    (Case(**TINY, low_rank=False, order="skipping"), FLOAT, True),
    (Case(**TINY, low_rank=False, reduce=False), BRAIN, False),
    (Case(**TINY, order="short"), HALF, False),
    (Case(B=2, L=1, K=1, E=1, R=1, N=1), FLOAT, False),
    (Case(B=1, L=9, K=1, E=8, R=3, N=1), FLOAT, False),
    (Case(B=0), FLOAT, False),
]
"""Case, dtype, and whether sums must be made in a fixed sequence."""


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


def main() -> int:
    dtypes = (FLOAT, BRAIN, HALF)
    full = [(case, dtype, fixed) for case in CASES for dtype in dtypes for fixed in (False, True)]
    for case, dtype, fixed in full if "--full" in sys.argv else SMALL:
        torch.use_deterministic_algorithms(fixed)
        found = deviations(case, dtype)
        line = json.dumps([str(case), str(dtype).removeprefix("torch."), found])
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
