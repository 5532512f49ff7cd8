"""What a network computes, in three numbers, as it always has.

Other tests compare parts with their equations. These numbers hold what no equation states: which
layers have a bias, how parameters begin, which eps and which slope. They were not derived from
anything: a change on purpose replaces its row in ``fingerprints.yaml``, which the failing test
shows.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from zoo.registry import kinds

SEED = 0
"""Of ``torch.manual_seed``, before the network is built."""

TABLE = yaml.safe_load(Path(__file__).with_name("fingerprints.yaml").read_text())


def has_row(name: str) -> bool:
    """Whether a network such as ``block-res`` has a row; parts from elsewhere have none."""
    part = name.rpartition("-")[2]
    entries = [e for registry in kinds().values() for e in registry.entries() if e.name == part]
    return all(entry.target.__module__.startswith("zoo.") for entry in entries)


def waves(shape):
    """Numbers from -1 to 1 without a pattern, so that no two places are alike."""
    count = torch.Size(shape).numel()
    return torch.sin(1.7 * torch.arange(count, dtype=torch.float64) ** 1.1).view(shape)


@torch.no_grad()
def check_fingerprint(name: str, network) -> None:
    """Compare what a network has and computes with its row; its parameters are changed.

    The numbers are how many parameters there are, what they begin as, and what comes out once all
    have changed a little. In float64, so that all machines agree.
    """
    if not has_row(name):
        return
    network.eval().double()
    generator, begun, count = torch.Generator().manual_seed(1), 0.0, 0
    for parameter in network.parameters():
        begun += float((parameter * (1 + waves(parameter.shape) / 2)).abs().mean())
        count += parameter.numel()
        parameter += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    shape = (network.channels, 6, 5)
    shape = (2, 3, *shape) if network.capabilities.input == "burst" else (2, *shape)
    output = network(waves(shape) / 2 + 0.5)
    found = [count, begun, float((output * (1 + waves(output.shape))).mean())]
    shown = f"{name}: [{found[0]}, {found[1]:.7g}, {found[2]:.7g}]"
    assert found == pytest.approx(TABLE.get(name, [0, 0, 0]), rel=1e-5, abs=1e-5), shown
