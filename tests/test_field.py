"""VmambaIR, MaIR, EAMamba and Wave-Mamba, small: they learn, and restore images of any size."""

from __future__ import annotations

import pytest
import torch

import zoo
from zoo.registry import capabilities_of

SMALL = {
    "vmambair_derain": {"dim": 16, "depths": [1, 1], "refinement": 1},
    "mair_light_t_x2": {"dim": 24, "depths": [2]},
    "eamamba_derain": {"dim": 16, "depths": [1, 1], "refinement": 0},
    "wavemamba_lol": {"dim": 16, "depths": [1], "high_depths": [1]},
}


def small(name):
    return zoo.build(name, **SMALL[name])


@pytest.mark.parametrize("name", SMALL)
def test_twenty_steps_lower_the_loss(name):
    network = small(name)
    degraded = torch.rand(2, 3, 8, 8)
    clean = degraded.repeat_interleave(network.scale, 2).repeat_interleave(network.scale, 3) ** 2
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = (network(degraded) - clean).abs().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("name", SMALL)
def test_odd_sizes_are_padded_by_reflection_and_cropped(name):
    """The authors' code refuses these sizes, but for MaIR, which pads nothing."""
    network, size = small(name).eval(), (5, 9)
    scale, grid = network.scale, capabilities_of(network).size_multiple
    image = torch.rand(1, 3, *size)
    margin = (0, -size[1] % grid, 0, -size[0] % grid)
    padded = torch.nn.functional.pad(image, margin, mode="reflect")
    with torch.no_grad():
        expected = network(padded)[..., : scale * size[0], : scale * size[1]]
        assert torch.equal(network(image), expected)
    assert grid == (1 if name.startswith("mair") else 2)
