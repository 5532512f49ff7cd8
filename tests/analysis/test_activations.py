"""Activations of channels, against the formula on outputs that are known."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import zoo
from tests.helpers.seen_through import ThreeByThree
from zoo.analysis import ChannelActivations, channel_activations
from zoo.blocks import Block, Mixer
from zoo.errors import ImageError, ZooError
from zoo.networks import Network


class Shifted(Mixer):
    """Adds a number to each channel."""

    def __init__(self, shifts):
        super().__init__()
        self.shifts = torch.tensor(shifts)

    def forward(self, x_BHWC):
        return x_BHWC + self.shifts


class Residual(Block):
    def __init__(self, mixer):
        super().__init__()
        self.mixer = mixer

    def forward(self, x_BHWC):
        return 2 * self.mixer(x_BHWC)


class Row(Network):
    """Two blocks on the pixels themselves; the second runs first."""

    def __init__(self):
        super().__init__()
        self.scale, self.channels = 1, 3
        self.late, self.early = Residual(Shifted([0.0, -9.0, 0.0])), Residual(Shifted([-0.5] * 3))
        self.scalar = nn.Parameter(torch.zeros(()))

    def forward(self, image_BIHW):
        return self.late(self.early(image_BIHW.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)


def images():
    random = torch.Generator().manual_seed(5)
    return [torch.rand(3, height, 4, generator=random) for height in (2, 7)]


def test_activations_are_means_over_all_pixels_of_what_is_above_zero():
    seen = []
    early, late = channel_activations(Row(), images(), seen=lambda: seen.append(1))
    assert (early.place, late.place) == ("early.mixer", "late.mixer")  # as they run
    pixels_IP = torch.cat([image.flatten(1) for image in images()], 1).double()
    mixed_IP = pixels_IP - 0.5
    torch.testing.assert_close(early.value_C, mixed_IP.clamp(min=0).mean(1), rtol=1e-5, atol=1e-7)
    second_IP = 2 * mixed_IP + torch.tensor([[0.0], [-9.0], [0.0]])
    torch.testing.assert_close(late.value_C, second_IP.clamp(min=0).mean(1), rtol=1e-5, atol=1e-7)
    assert float(late.value_C[1]) == 0 and late.active == pytest.approx(2 / 3)
    assert len(seen) == 2


def test_outputs_of_blocks_are_another_choice():
    _, late = channel_activations(Row(), images(), layer="block")
    assert late.place == "late"
    mixer = channel_activations(Row(), images())[1]
    torch.testing.assert_close(late.value_C, 2 * mixer.value_C)


def test_active_channels_have_a_tenth_of_the_largest():
    value_C = torch.tensor([10.0, 1.0, 0.99, 0.0])
    assert ChannelActivations("x", value_C).active == 0.5
    assert ChannelActivations("x", torch.zeros(3)).active == 0


def test_every_mixer_of_a_real_network_is_there_and_hooks_are_gone():
    network = zoo.load("mambair_tiny_x2")
    found = channel_activations(network, [torch.rand(3, 9, 8)])
    assert [layer.place for layer in found] == [
        f"groups.{group}.blocks.{block}.mixer" for group in (0, 1) for block in (0, 1)
    ]
    assert all(len(layer.value_C) == 48 for layer in found)
    assert not any(module._forward_hooks for module in network.modules())


def test_what_cannot_be_shown_is_said():
    with pytest.raises(ZooError, match="has no mixer"):
        channel_activations(ThreeByThree(), images())
    with pytest.raises(ImageError, match="no image"):
        channel_activations(Row(), [])
