"""Every published recipe at full size: it exports and agrees with PyTorch.

Hours on a small machine: ``pytest -m slow tests/export/test_every_recipe.py -s`` prints the rows of
the table in docs/onnx.md; ``python benchmarks/onnx_files.py`` does the same and goes on where it
was stopped.
"""

from __future__ import annotations

import pytest
from onnx_files import SIZES, measure, table_row

import zoo


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.list_models())
def test_a_published_recipe_exports_and_verifies(name):
    row = measure(name)
    print(f"\n{table_row(row)}")  # noqa: T201
    assert row["passed"], row
    assert row["runs"] >= len(SIZES)
    if row["scans"] == 0:
        assert name in ("qmambabsr_abl_base",)
