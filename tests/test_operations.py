"""Operations and parameters are counted as papers count them, in both of their ways."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import zoo
from zoo.cli import main
from zoo.networks import Network
from zoo.networks.operations import count_operations, layer_parameters
from zoo.ops import selective_scan

PUBLISHED = [
    # The first arXiv version, Table 3, and ECCV, Table 4: layers only. 1280 x 720 pixels.
    ("mambair_light_x4_gen_a", (180, 320), None, 31.6, 549),
    ("mambair_light_x4_gen_b", (180, 320), None, 50.6, 879),
    # MambaIRv2, Table 3: all parameters.
    ("mambair_light_x4", (180, 320), 84.6, None, None),
    *[
        pytest.param(*row, marks=pytest.mark.slow)
        for row in [
            ("mambair_light_x2_gen_a", (360, 640), None, 122.1, 530),
            ("mambair_light_x3_gen_a", (240, 427), None, 55.0, 538),
            ("mambair_light_x2_gen_b", (360, 640), None, 198.1, 859),
            ("mambair_light_x3_gen_b", (240, 427), None, 88.7, 867),
            ("mambair_light_x2", (360, 640), 334.2, None, None),
            ("mambair_light_x3", (240, 427), 148.5, None, None),
        ]
    ],
]
"""Model, size of the input, GMACs, those in layers, thousands of parameters in layers."""


@pytest.mark.parametrize(("name", "size", "macs", "layer_macs", "thousands"), PUBLISHED)
def test_counts_are_those_of_the_papers(name, size, macs, layer_macs, thousands):
    found = zoo.describe(name, height=size[0], width=size[1])
    if macs is not None:
        assert found.gigamacs == pytest.approx(macs, rel=0.006)  # 1280 x 720 is no multiple of 3
    if layer_macs is not None:
        assert found.layer_gigamacs == pytest.approx(layer_macs, rel=0.002)
        assert round(found.layer_parameters / 1000) == thousands
    assert found.layer_gigamacs < found.gigamacs < found.gigaflops


class ByHand(Network):
    """A convolution, a linear layer, a product that is no layer, a norm and a mean."""

    def __init__(self):
        super().__init__()
        self._set_sizes(scale=1, channels=3, out_channels=None)
        self.first, self.linear, self.norm = nn.Conv2d(3, 8, 3), nn.Linear(8, 5), nn.LayerNorm(5)
        self.bare = nn.Parameter(torch.ones(5, 7))

    def forward(self, image_BIHW):
        x_BHWC = self.norm(self.linear(self.first(image_BIHW).permute(0, 2, 3, 1)))
        return (x_BHWC.flatten(0, 2) @ self.bare).mean(0)


def test_counts_by_hand():
    network = ByHand().requires_grad_(False)
    found = count_operations(network, (torch.zeros(1, 3, 6, 7),))
    pixels = 4 * 5
    layers, products = pixels * (8 * 27 + 8 * 5), pixels * 5 * 7
    assert found.flops * 1e9 == pytest.approx(2 * (layers + products))
    assert found.macs * 1e9 == pytest.approx(layers + products + pixels * (5 * 5 + 7))
    assert found.layer_macs * 1e9 == pytest.approx(layers + pixels * (4 * 5 + 7))
    assert layer_parameters(network) == (27 + 1) * 8 + 9 * 5 + 10


def test_the_scan_counts_its_states_and_its_rank():
    def counted(d_state):
        network = zoo.build("mambair_tiny_x2", depths=[1], **{"block.mixer.d_state": d_state})
        return count_operations(network.requires_grad_(False), (torch.zeros(1, 3, 8, 8),))

    few, many = counted(4), counted(5)
    steps = (
        8 * 8 * 4 * zoo.build("mambair_tiny_x2").groups[0].blocks[0].mixer.out_norm.weight.numel()
    )
    projection = 2 * steps  # B and C of the further state, from every channel
    assert (many.macs - few.macs) * 1e9 == pytest.approx(9 * steps + projection)
    assert many.layer_macs == few.layer_macs


class OneScan(Network):
    """A scan of 12 steps of 5 channels in 2 directions, with 3 states and rank 4."""

    def __init__(self):
        super().__init__()
        self._set_sizes(scale=1, channels=3, out_channels=None)

    def forward(self, u_BLE):
        L, K, E, R, N = 12, 2, 5, 4, 3
        order_KS = torch.arange(L, dtype=torch.int32).expand(K, L)
        shapes = [(1, L, K, R), (K, E, R), (K, E), (K, E, N), (1, L, K, N), (1, L, K, N), (K, E)]
        return selective_scan(u_BLE, *(torch.ones(shape) for shape in shapes), order_KS)


def test_a_scan_alone_is_counted_by_its_sizes():
    found = count_operations(OneScan(), (torch.zeros(1, 12, 5),))
    assert found.flops * 1e9 == pytest.approx(12 * 2 * 5 * (7 * 3 + 2 * 4 + 5))
    assert found.macs * 1e9 == pytest.approx(12 * 2 * 5 * (9 * 3 + 1 + 4))
    assert found.layer_macs == 0


def test_show_counts_as_asked(capsys):
    assert main(["show", "mambair_tiny_x2", "--size", "16x24", "--count", "macs"]) == 0
    text = capsys.readouterr().out
    assert "GMACs for 16 x 24, as papers count" in text and "GFLOPs" not in text
    assert "parameters, as papers counted before" in text
    assert main(["show", "mambair_tiny_x2", "--size", "16x24", "--count", "flops"]) == 0
    assert "GFLOPs for 16 x 24" in (text := capsys.readouterr().out) and "GMACs" not in text
