"""What the self-check runs: its cases, their tensors, and the comparison."""

from __future__ import annotations

import itertools
import random

import pytest
import torch

from zoo.ops.scan import chunked
from zoo.ops.scan.self_check import cases, comparison, plans
from zoo.ops.scan.self_check.cases import CASES, Case, make_inputs, make_order
from zoo.ops.scan.self_check.comparison import Check

CPU = torch.device("cpu")

DTYPES = (torch.float32, torch.bfloat16, torch.float16)

ON_A_GPU = """
float32 B2-L300-K4-E72-R4-N16-full-low-sum
float32 B2-L300-K4-E72-R4-N16-full-low
float32 B2-L90-K4-E72-R4-N16-padded-low-sum
float32 B2-L90-K4-E72-R4-N16-skipping-low
float32 B1-L41-K4-E72-R4-N16-short-low-sum
float32 B3-L50-K4-E72-R4-N16-full-low-sum-each
float32 B2-L70-K3-E70-R3-N10-padded-low-sum-each
float32 B1-L1-K4-E72-R4-N16-full-low-sum

float32 B2-L150-K4-E72-R4-N16-full-low-sum deterministic
float32 B2-L60-K4-E72-R4-N16-padded-low-sum-each deterministic
float32 B2-L60-K4-E72-R4-N16-skipping-low-sum deterministic

float32 B2-L150-K4-E72-R4-N16-full-full-sum
float32 B2-L60-K4-E72-R4-N16-padded-full
float32 B2-L33-K4-E72-R4-N16-short-full-sum-each

bfloat16 B1-L150-K4-E360-R12-N16-full-low-sum
bfloat16 B1-L60-K4-E360-R12-N16-padded-low
bfloat16 B2-L40-K4-E360-R12-N16-skipping-low-sum-each

float16 B2-L150-K4-E72-R4-N16-full-low-sum
float16 B2-L60-K4-E72-R4-N16-padded-low
float16 B2-L60-K4-E72-R4-N16-short-low-sum-each

float32 norm T300-C72-gated
float32 norm T41-C60
bfloat16 norm T90-C360-gated
"""
"""Groups that share kernels, with an empty line between."""

ON_A_CPU = """
float32 B2-L11-K4-E35-R3-N16-full-low-sum
float32 B2-L9-K2-E35-R2-N10-padded-low
float32 B1-L9-K3-E19-R2-N7-skipping-full-sum
float32 B2-L7-K2-E33-R3-N16-short-low-sum-each
bfloat16 B1-L9-K2-E35-R3-N16-padded-low-sum
float16 B1-L9-K2-E35-R3-N16-full-low-sum
"""

OF_ALL_BACKENDS = """
B2-L7-K2-E5-R2-N4-full-low-sum
B2-L7-K2-E5-R2-N4-full-low
B2-L7-K2-E5-R2-N4-full-full-sum
B2-L7-K2-E5-R2-N4-padded-full
B2-L7-K2-E5-R2-N4-padded-low-sum
B2-L7-K3-E5-R2-N4-padded-low
B2-L7-K2-E5-R2-N4-skipping-low-sum
B2-L7-K2-E5-R2-N4-skipping-low
B2-L7-K2-E5-R2-N4-short-low-sum
B1-L1-K1-E1-R1-N1-full-low-sum
B1-L33-K8-E17-R3-N16-full-low-sum
B3-L40-K4-E31-R2-N10-padded-low-sum
B2-L12-K5-E3-R2-N64-full-low-sum
B2-L12-K7-E72-R2-N8-full-low-sum
B2-L20-K6-E90-R4-N17-skipping-low-sum
B0-L7-K2-E5-R2-N4-full-low-sum
B2-L300-K4-E6-R2-N3-padded-low-sum
B2-L7-K2-E5-R2-N4-full-low-sum-each
B3-L7-K3-E5-R2-N4-padded-low-each
B3-L40-K1-E31-R3-N10-skipping-low-sum-each
B1-L7-K2-E5-R2-N4-short-full-sum-each
"""


def test_what_is_examined_is_changed_on_purpose_only():
    assert [[str(check) for check in group] for group in plans.ON_A_GPU] == [
        group.split("\n") for group in ON_A_GPU.strip().split("\n\n")
    ]
    assert [str(check) for check in plans.ON_A_CPU] == ON_A_CPU.strip().split("\n")
    assert [str(case) for case in CASES] == OF_ALL_BACKENDS.strip().split("\n")


def test_the_long_form_has_every_case_in_every_dtype_and_random_ones():
    assert [len(group) for group in plans.LONG_FORM] == [10] * 17
    checks = [check for group in plans.LONG_FORM for check in group]
    norms, checks = checks[140:], checks[:140]
    assert {(check.channels, check.gated, check.dtype) for check in norms} == set(
        itertools.product((8, 33, 60, 180, 1000), (True, False), DTYPES)
    )
    whole = [case for case in CASES if case.B]
    for start, dtype in ((0, torch.float32), (20, torch.bfloat16), (40, torch.float16)):
        assert checks[start : start + 20] == [Check(case, dtype) for case in whole]
    assert checks[60:80] == [Check(case, torch.float32, fixed=True) for case in whole]
    drawn = checks[80:]
    assert {check.dtype for check in drawn} == {torch.float32, torch.bfloat16, torch.float16}
    assert str(drawn[50]) == "float16 B1-L12-K1-E125-R5-N1-padded-low"
    assert str(drawn[51]) == "float32 B3-L135-K4-E130-R5-N4-padded-low-sum"


def test_random_cases_are_of_all_kinds_and_sizes():
    draw = random.Random(1)
    found = [cases.random_case(draw, B=2, L=3) for _ in range(400)]
    assert {case.B for case in found} == {1, 2} and {case.L for case in found} == {1, 2, 3}
    assert {case.order for case in found} == {"full", "padded", "skipping", "short"}
    for field, share in (("low_rank", 0.7), ("reduce", 0.6), ("per_image", 0.3)):
        assert abs(sum(getattr(case, field) for case in found) / 400 - share) < 0.08


def test_orders_are_of_the_kind_that_they_are_called():
    generator = torch.Generator().manual_seed(0)
    full = make_order(Case(L=9, K=3), generator)
    assert full.dtype == torch.int32 and full.shape == (3, 9)
    assert all(path.sort()[0].tolist() == list(range(9)) for path in full)
    assert full[0].tolist() != full[1].tolist()
    padded = make_order(Case(L=9, order="padded"), generator)
    assert all(path.sort()[0].tolist() == [-1] * 5 + list(range(9)) for path in padded)
    assert padded[0, -5:].tolist() != [-1] * 5  # gaps anywhere
    skipping = make_order(Case(L=9, order="skipping"), generator)
    assert skipping.shape == (2, 4) and (skipping >= 0).all()
    short = make_order(Case(L=3, K=4, order="short"), generator)
    assert (short >= 0).sum(1).tolist() == [3, 2, 1, 1] and (short[3, 1:] == -1).all()
    each = make_order(Case(B=3, L=9, per_image=True), generator)
    assert each.shape == (3, 2, 9) and not torch.equal(each[0], each[1])
    assert make_order(Case(B=0, L=9, per_image=True), generator).shape == (0, 2, 9)


def test_tensors_are_views_of_a_projection_and_drawn_from_a_seed():
    case = Case(B=2, L=50, K=2, E=40, R=3, N=30)
    u, delta, weight, bias, A, B, C, D, _ = make_inputs(case, torch.bfloat16)
    assert u.stride() == (50 * 80, 80, 1) and delta.stride() == (50 * 2 * 63, 2 * 63, 63, 1)
    assert [t.storage_offset() for t in (delta, B, C)] == [0, 3, 33]
    assert delta.data_ptr() + 6 == B.data_ptr() == C.data_ptr() - 60
    assert {t.dtype for t in (u, delta, B, C)} == {torch.bfloat16}
    assert {t.dtype for t in (weight, bias, A, D)} == {torch.float32}
    assert weight.shape == (2, 40, 3) and bias.shape == D.shape == (2, 40)
    assert A.shape == (2, 40, 30) and -1 <= A.min() < -0.99 and -0.01 < A.max() <= 0
    wide = make_inputs(case, torch.float64, spread=4)[4]
    assert wide.dtype == torch.float64 and -4 <= wide.min() < -3.9
    assert torch.equal(make_inputs(case, torch.bfloat16)[0], u)
    assert not torch.equal(make_inputs(case, torch.bfloat16, seed=1)[0], u)
    assert make_inputs(Case(low_rank=False), torch.float32)[1].shape == (2, 7, 2, 5)
    assert make_inputs(Case(low_rank=False), torch.float32)[2] is None


class Spoilt:
    """``chunked``, with something done to what it gives."""

    def __init__(self, y=lambda y: y, gradients=lambda found: found):
        self.y, self.gradients = y, gradients

    def forward(self, inputs, reduce):
        return self.y(chunked.forward(inputs, reduce))

    def backward(self, inputs, grad_y, reduce):
        return self.gradients(chunked.backward(inputs, grad_y, reduce))


@pytest.mark.parametrize(
    ("backend", "says"),
    [
        (Spoilt(), None),
        (Spoilt(gradients=lambda g: g._replace(B=None)), "the gradient of B is missing"),
        (
            Spoilt(gradients=lambda g: g._replace(A=g.A.bfloat16())),
            "the gradient of A has dtype torch.bfloat16, not torch.float32",
        ),
        (
            Spoilt(gradients=lambda g: g._replace(D=g.D[:1])),
            "the gradient of D has shape (1, 5), not (2, 5)",
        ),
        (Spoilt(lambda y: y / 0), "y has 70 of 70 values that are infinite or NaN"),
        (Spoilt(lambda y: y * 2), "y deviates by 1.0e+00, and 1.6e-02 is allowed"),
        (Spoilt(lambda y: y * 1.005), None),
    ],
    ids=["right", "missing", "dtype", "shape", "infinite", "far", "near"],
)
def test_every_output_is_held_to_the_definition(backend, says):
    assert comparison.fault(backend, Check(Case(), torch.bfloat16), CPU) == says


def test_deterministic_mode_is_on_in_a_fixed_check_alone_and_then_as_it_was():
    seen = []

    def note(y):
        seen.append(torch.get_deterministic_debug_mode())
        return y

    torch.set_deterministic_debug_mode("warn")
    try:
        for fixed in (True, False):
            check = Check(Case(), torch.float32, fixed=fixed)
            assert comparison.fault(Spoilt(note), check, CPU, runs=2) is None
        assert torch.get_deterministic_debug_mode() == 1
    finally:
        torch.set_deterministic_debug_mode("default")
    assert seen == [2, 2, 1, 1]


def test_the_first_fault_is_told_and_an_exception_is_one():
    checks = [Check(Case(), torch.float32), Check(Case(order="short"), torch.float32)]
    assert comparison.first_fault(Spoilt(), checks, CPU) is None

    def fail(y):
        raise RuntimeError("an\n  illegal " + "x" * 400)

    check, wrong = comparison.first_fault(Spoilt(fail), checks, CPU)
    assert check is checks[0] and wrong.startswith("RuntimeError: an illegal xx")
    assert len(wrong) == 300
    runs = iter([False, False, False, True])
    spoilt = Spoilt(lambda y: y * 2 if next(runs) else y)
    assert comparison.first_fault(spoilt, checks, CPU)[0] is checks[1]
