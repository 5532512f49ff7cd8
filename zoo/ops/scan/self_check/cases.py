"""The cases that every backend of the selective scan is held to, and how close it must come.

The tests use them, and so does the self-check on the user's machine. All numbers are drawn on the
CPU from a seed, so they are the same on every device.

Shape suffixes: see :mod:`zoo.ops.scan.contract`.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# float64: rounding of sums of some hundred terms. Others: the tokens' own rounding, which enters
# each backend alike, and that of the result; float32 sums in another sequence add a few ulp.
TOLERANCE = {
    torch.float64: 1e-12,
    torch.float32: 2e-5,
    torch.bfloat16: 1.6e-2,
    torch.float16: 2e-3,
}


@dataclass(frozen=True)
class Case:
    """Sizes of one call; ``order`` is "full", "padded", "skipping" or "short".

    With ``per_image``, each image has an order of its own.
    """

    B: int = 2
    L: int = 7
    K: int = 2
    E: int = 5
    R: int = 2
    N: int = 4
    order: str = "full"
    low_rank: bool = True
    reduce: bool = True
    per_image: bool = False

    def __str__(self) -> str:
        kind = "low" if self.low_rank else "full"
        return (
            f"B{self.B}-L{self.L}-K{self.K}-E{self.E}-R{self.R}-N{self.N}-{self.order}-{kind}"
            f"{'-sum' if self.reduce else ''}{'-each' if self.per_image else ''}"
        )


CASES = [
    Case(),
    Case(reduce=False),
    Case(low_rank=False),
    Case(low_rank=False, reduce=False, order="padded"),
    Case(order="padded"),
    Case(order="padded", reduce=False, K=3),
    Case(order="skipping"),
    Case(order="skipping", reduce=False),
    Case(order="short"),
    Case(B=1, L=1, K=1, E=1, R=1, N=1),
    Case(B=1, L=33, K=8, E=17, R=3, N=16),
    Case(B=3, L=40, K=4, E=31, R=2, N=10, order="padded"),
    Case(L=12, K=5, E=3, N=64),
    Case(L=12, K=7, E=72, N=8),
    Case(L=20, K=6, E=90, R=4, N=17, order="skipping"),
    Case(B=0),
    Case(L=300, K=4, E=6, N=3, order="padded"),
    Case(per_image=True),
    Case(B=3, K=3, order="padded", reduce=False, per_image=True),
    Case(B=3, L=40, K=1, E=31, R=3, N=10, order="skipping", per_image=True),
    Case(B=1, low_rank=False, order="short", per_image=True),
]


def random_case(draw: random.Random, **largest: int) -> Case:
    """A case with sizes up to ``largest``, of any order and kind."""
    sizes = {name: draw.randint(1, size) for name, size in largest.items()}
    order = draw.choice(["full", "padded", "skipping", "short"])
    chance = draw.random
    return Case(
        **sizes,
        order=order,
        low_rank=chance() < 0.7,
        reduce=chance() < 0.6,
        per_image=chance() < 0.3,
    )


def make_order(case: Case, generator: torch.Generator) -> Tensor:
    if not case.per_image:
        return make_paths(case, generator)
    orders = [make_paths(case, generator) for _ in range(case.B)]
    return torch.stack(orders) if orders else make_paths(case, generator)[None][:0]


def make_paths(case: Case, generator: torch.Generator) -> Tensor:
    """An order of one image or for all, (K, S)."""
    paths = []
    for k in range(case.K):
        path = torch.randperm(case.L, generator=generator)
        if case.order == "skipping":
            path = path[: max(1, case.L // 2)]
        if case.order == "padded":
            gaps = torch.full((case.L // 2 + 1,), -1)
            path = torch.cat([path, gaps])[torch.randperm(case.L + len(gaps), generator=generator)]
        if case.order == "short":
            path = path[: max(1, case.L - k)]
        paths.append(path)
    steps = max(map(len, paths), default=0)
    padded = [torch.cat([p, torch.full((steps - len(p),), -1)]) for p in paths]
    return torch.cat([torch.empty(0), *padded]).view(case.K, steps).to(torch.int32)


def make_inputs(case: Case, dtype: torch.dtype, seed: int = 0, spread: float = 1.0) -> list[Any]:
    """The nine tensors; delta, B and C are strided views of one projection, as in a network."""
    generator = torch.Generator().manual_seed(seed)
    state = torch.float64 if dtype == torch.float64 else torch.float32

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    rank = case.R if case.low_rank else case.E
    projected = normal(case.B, case.L, case.K, rank + 2 * case.N).to(dtype)
    delta, B, C = projected.split([rank, case.N, case.N], dim=-1)
    weight = normal(case.K, case.E, case.R).to(state) if case.low_rank else None
    return [
        normal(case.B, case.L, 2 * case.E).to(dtype)[..., : case.E],
        delta,
        weight,
        normal(case.K, case.E).to(state),
        (-spread * torch.rand(case.K, case.E, case.N, generator=generator).double()).to(state),
        B,
        C,
        normal(case.K, case.E).to(state),
        make_order(case, generator),
    ]


def relative(found: Tensor, expected: Tensor) -> float:
    """Deviation from what is expected, relative to its norm."""
    return ((found.double() - expected.double()).norm() / (expected.double().norm() + 1e-30)).item()


def cotangent(y: Tensor) -> Tensor:
    """A gradient of y with values of its own everywhere, in the dtype and on the device of y."""
    waves = torch.sin(torch.arange(y.numel(), dtype=torch.float64)).reshape(y.shape)
    return waves.to(y.dtype).to(y.device)
