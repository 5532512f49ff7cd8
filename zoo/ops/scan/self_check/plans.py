"""Which cases a backend must pass before it is trusted.

Each kernel is compiled for the first call of its kind, and that takes nearly all of the time. Cases
are therefore chosen to share kernels: all have 16 states (10 fill the same kernel), and a group of
cases runs in a process of its own, beside the others.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import torch

from zoo.ops.scan.self_check.cases import CASES, Case, random_case
from zoo.ops.scan.self_check.comparison import Check
from zoo.ops.scan.self_check.norms import NormCheck

_Kind = TypeVar("_Kind", Check, NormCheck)

FLOAT, BRAIN, HALF = torch.float32, torch.bfloat16, torch.float16

LIGHT, CLASSIC = Case(K=4, E=72, R=4, N=16), Case(K=4, E=360, R=12, N=16)
"""Directions, channels, rank and states of the networks called light and classic."""

ON_A_GPU: tuple[tuple[Check | NormCheck, ...], ...] = (
    (
        # Many chunks; a few tokens; channels and states that do not fill their blocks.
        Check(replace(LIGHT, B=2, L=300), FLOAT),
        Check(replace(LIGHT, B=2, L=300, reduce=False), FLOAT),
        Check(replace(LIGHT, B=2, L=90, order="padded"), FLOAT),
        Check(replace(LIGHT, B=2, L=90, order="skipping", reduce=False), FLOAT),
        Check(replace(LIGHT, B=1, L=41, order="short"), FLOAT),
        Check(replace(LIGHT, B=3, L=50, per_image=True), FLOAT),
        Check(Case(B=2, L=70, K=3, E=70, R=3, N=10, order="padded", per_image=True), FLOAT),
        Check(replace(LIGHT, B=1, L=1), FLOAT),
    ),
    (
        Check(replace(LIGHT, B=2, L=150), FLOAT, fixed=True),
        Check(replace(LIGHT, B=2, L=60, order="padded", per_image=True), FLOAT, fixed=True),
        Check(replace(LIGHT, B=2, L=60, order="skipping"), FLOAT, fixed=True),
    ),
    (
        Check(replace(LIGHT, B=2, L=150, low_rank=False), FLOAT),
        Check(replace(LIGHT, B=2, L=60, low_rank=False, order="padded", reduce=False), FLOAT),
        Check(replace(LIGHT, B=2, L=33, low_rank=False, order="short", per_image=True), FLOAT),
    ),
    (
        Check(replace(CLASSIC, B=1, L=150), BRAIN),
        Check(replace(CLASSIC, B=1, L=60, order="padded", reduce=False), BRAIN),
        Check(replace(CLASSIC, B=2, L=40, order="skipping", per_image=True), BRAIN),
    ),
    (
        Check(replace(LIGHT, B=2, L=150), HALF),
        Check(replace(LIGHT, B=2, L=60, order="padded", reduce=False), HALF),
        Check(replace(LIGHT, B=2, L=60, order="short", per_image=True), HALF),
    ),
    (
        NormCheck(300, 72, True, FLOAT),
        NormCheck(41, 60, False, FLOAT),
        NormCheck(90, 360, True, BRAIN),
    ),
)
"""Twenty cases and three norms, in groups that share kernels."""

ON_A_CPU: tuple[Check, ...] = (
    # 35 channels: whole vectors of 16, 8 and 4, and a rest. 10 states: a whole vector and a rest.
    Check(Case(B=2, L=11, K=4, E=35, R=3, N=16), FLOAT),
    Check(Case(B=2, L=9, K=2, E=35, R=2, N=10, order="padded", reduce=False), FLOAT),
    Check(Case(B=1, L=9, K=3, E=19, low_rank=False, N=7, order="skipping"), FLOAT),
    Check(Case(B=2, L=7, K=2, E=33, R=3, N=16, order="short", per_image=True), FLOAT),
    Check(Case(B=1, L=9, K=2, E=35, R=3, N=16, order="padded"), BRAIN),
    Check(Case(B=1, L=9, K=2, E=35, R=3, N=16), HALF),
)
"""Cases of the C++ kernel: a few milliseconds each."""

SHAPES, _TOGETHER = 60, 10
"""Random shapes of the long form; cases of a group in it."""


def _long_form() -> tuple[tuple[Check | NormCheck, ...], ...]:
    dtypes, draw = (FLOAT, BRAIN, HALF), random.Random(0)
    whole = [case for case in CASES if case.B]
    checks = [Check(case, dtype) for dtype in dtypes for case in whole]
    checks += [Check(case, FLOAT, fixed=True) for case in whole]
    checks += [
        Check(random_case(draw, B=3, L=150, K=6, E=150, R=12, N=20), draw.choice(dtypes))
        for _ in range(SHAPES)
    ]
    norms = [
        NormCheck(129, channels, gated, dtype)
        for channels in (8, 33, 60, 180, 1000)
        for gated in (True, False)
        for dtype in dtypes
    ]
    return (*_parts(checks), *_parts(norms))


def _parts(checks: Sequence[_Kind]) -> list[tuple[_Kind, ...]]:
    return [tuple(checks[i : i + _TOGETHER]) for i in range(0, len(checks), _TOGETHER)]


LONG_FORM = _long_form()
"""All cases of the test suite in all dtypes, and random ones: for a report."""
