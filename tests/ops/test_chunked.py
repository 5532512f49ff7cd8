"""``chunked`` with chunks of any length, and how long it makes them."""

from __future__ import annotations

import pytest
import torch

from tests.helpers.scan_cases import Case, make_inputs, relative, run
from zoo.ops.scan import chunked
from zoo.ops.scan.contract import ScanInputs

CASES = [
    Case(order="padded", K=3),
    Case(order="short", reduce=False, per_image=True),
    Case(low_rank=False, order="skipping"),
]


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_chunks_of_any_length_give_the_same(case, steps, monkeypatch):
    inputs = make_inputs(case, torch.float64)
    expected = run(inputs, case, "reference")
    monkeypatch.setattr(chunked, "STATE_ELEMENTS", steps * case.B * case.K * case.E * case.N)
    for ours, theirs in zip(run(inputs, case, "chunked"), expected, strict=True):
        assert relative(ours, theirs) <= 1e-12


@pytest.mark.parametrize(
    ("elements", "lengths"), [(10, (1, 3)), (80, (1, 3)), (399, (4, 4)), (10**6, (11, 11))]
)
def test_a_chunk_is_as_long_as_its_states_have_room(elements, lengths, monkeypatch):
    """A gradient has no more chunks than a chunk has steps, and no buffer is too long."""
    made = []

    class Noting(chunked._Walk):
        def __init__(self, *given):
            super().__init__(*given)
            made.append(self)

    monkeypatch.setattr(chunked, "_Walk", Noting)
    monkeypatch.setattr(chunked, "STATE_ELEMENTS", elements)
    inputs = ScanInputs(*make_inputs(Case(B=2, L=11, K=2, E=5, N=4), torch.float32))
    y = chunked.forward(inputs, True)
    chunked.backward(inputs, torch.ones_like(y), True)
    assert tuple(walk.length for walk in made) == lengths
    assert all(len(walk.h_TKBNE) == len(walk.decay_TKBNE) == walk.length for walk in made)


def test_only_paths_with_gaps_are_masked_and_no_device_is_waited_for():
    inputs = {
        order: ScanInputs(*make_inputs(Case(L=6, order=order), torch.float32))
        for order in ("full", "short")
    }
    assert not chunked._Walk(inputs["full"], 4).padded
    assert chunked._Walk(inputs["short"], 4).padded
    # A look at a value would fail there.
    meta = ScanInputs(*(tensor.to("meta") for tensor in inputs["full"]))
    assert chunked._Walk(meta, 4).padded
