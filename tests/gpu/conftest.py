"""What all tests on a GPU share."""

from __future__ import annotations

import pytest

from zoo.ops.precision import float32_products


@pytest.fixture(autouse=True)
def _float32():
    """Tolerances for float32 are for float32, not for the TF32 of PyTorch's convolutions."""
    with float32_products():
        yield
