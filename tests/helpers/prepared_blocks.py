"""Blocks to prepare, and how they are compared with their layers."""

from __future__ import annotations

import torch

from zoo.blocks import RSSB
from zoo.blocks import prepared as module_of_prepared
from zoo.blocks.channel_attention import LightCAB
from zoo.ops import passes

DIM = 30


def built(branch=LightCAB, **options):
    torch.manual_seed(0)
    block = RSSB(DIM, branch=branch, **options).eval()
    for parameter in block.parameters():
        if parameter.dim() == 1:
            parameter.data += 0.2 * torch.randn(parameter.shape)
    return block


def features(*shape):
    return torch.randn(*shape, DIM, generator=torch.Generator().manual_seed(sum(shape)))


def counted_runs(monkeypatch):
    """How often a prepared call has run."""
    runs, run = [], module_of_prepared._Call.run

    def counted(call, x):
        runs.append(call)
        return run(call, x)

    monkeypatch.setattr(module_of_prepared._Call, "run", counted)
    return runs


def comparison(monkeypatch, prepared):
    """Compares a block with its layers, and tells whether it was a prepared call."""

    def compare(block, x):
        prepared.clear()
        with torch.no_grad():
            found = block(x)
            ran = bool(prepared)
            monkeypatch.setenv(passes.ENVIRONMENT, "0")
            expected = block(x)
            monkeypatch.delenv(passes.ENVIRONMENT)
            assert len(prepared) == ran
        span = float(expected.max() - expected.min())
        assert float((found - expected).abs().max()) <= 1e-5 * span
        return ran

    return compare
