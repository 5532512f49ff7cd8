"""The layout of what a backend returns, and gradients that nobody asked for."""

from __future__ import annotations

import pytest
import torch

from tests.helpers.scan_cases import BACKENDS, Case, make_inputs
from zoo.ops import selective_scan
from zoo.ops.registration import register_burst


@pytest.mark.parametrize("reduce", [False, True])
@pytest.mark.parametrize("backend", [*BACKENDS, "reference"])
def test_an_output_is_contiguous(backend, reduce):
    for case in (Case(B=2, L=6, order="padded"), Case(B=1, L=6, K=1, order="skipping")):
        y = selective_scan(*make_inputs(case, torch.float32), reduce=reduce, backend=backend)
        assert y.is_contiguous()


def test_registration_is_no_part_of_a_gradient():
    burst = torch.rand(1, 2, 1, 16, 16, requires_grad=True)
    assert not register_burst(burst).requires_grad
