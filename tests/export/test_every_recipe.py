"""Every published recipe at full size: it exports, verifies, and its table is printed.

Half an hour and more: ``pytest -m slow tests/export -s``, part of ``make test-full``.
"""

from __future__ import annotations

import pytest
import torch

import zoo
from export.onnx import export
from export.verify import verify


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.list_models())
def test_a_published_recipe_exports_and_verifies(name, tmp_path):
    network = zoo.build(name).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.data += 0.002 * torch.randn(parameter.shape, generator=generator)
    path = export(network, tmp_path / "network.onnx")
    report = verify(network, path)
    print(f"\n| `{name}` | {path.stat().st_size / 2**20:.1f} | {report.worst:.1e} |")  # noqa: T201
    assert report.passed, str(report)
