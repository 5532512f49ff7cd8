"""Blocks that are traced once for all that are alike: what is alike, and that nothing is lost."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import export.graph
from export.blocks import Call, blocks_stood_for
from export.onnx import export as export_file
from export.verify import verify
from zoo.blocks import RSSB, Block
from zoo.errors import ZooError
from zoo.heads import ResidualHead
from zoo.networks import SingleImage
from zoo.scans import Raster, Window

ANY = (None, None, None, 8)


def call(block, sizes=ANY, dtype=torch.float32):
    return Call("path", block.eval(), sizes, dtype)


def plain(**settings):
    return RSSB(8, branch=None, **settings)


def test_weights_and_dropping_do_not_matter():
    assert call(plain(drop_path=0.0)).is_like(call(plain(drop_path=0.3)))


@pytest.mark.parametrize(
    "other",
    [
        lambda: call(plain(scan=Window(size=4))),
        lambda: call(RSSB(16, branch=None), (None, None, None, 16)),
        lambda: call(plain(), (1, None, None, 8)),
        lambda: call(plain(), dtype=torch.float16),
        lambda: call(copy.deepcopy(plain()).half()),
        lambda: call(with_setting(plain(), 2.0)),
        lambda: call(with_setting(plain(), torch.zeros(3))),
        lambda: call(with_hook(plain())),
    ],
)
def test_everything_else_does(other):
    assert not call(plain(scan=Raster())).is_like(other())


def test_settings_that_cannot_be_compared_are_never_alike():
    first, second = (with_setting(plain(), torch.zeros(3)) for _ in range(2))
    assert not call(first).is_like(call(second))


def with_setting(block, value):
    block.norm.factor = value
    return block


def with_hook(block):
    block.norm.register_forward_hook(lambda *_: None)
    return block


def test_a_block_of_several_blocks_is_taken_apart_and_all_is_put_back():
    network = network_of(Scaled, depths=[2, 1])
    before = dict(network.named_modules())
    with blocks_stood_for(network):
        names = [n for n, m in network.named_modules() if type(m).__name__ == "StandIn"]
    assert names == ["groups.0.blocks.0", "groups.0.blocks.1", "groups.1"]
    assert dict(network.named_modules()) == before


class Scaled(Block):
    """The smallest block; ``even`` asks more of its input than that it has a size."""

    def __init__(self, dim, *, scan=None, drop_path=0.0, factor=0.5, even=False):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(dim))
        self.factor, self.even = factor, even

    def forward(self, x_BHWC):
        if self.even:
            x_BHWC = x_BHWC.unflatten(1, (-1, 2)).flip(2).flatten(1, 2)
        return x_BHWC * self.weight + self.factor


class Doubled(SingleImage):
    """Shows its blocks images of even height only."""

    def _restore(self, image_BIHW):
        return super()._restore(torch.cat([image_BIHW, image_BIHW], dim=2))


class Counting(SingleImage):
    """Takes the batch for a number that never varies."""

    def _restore(self, image_BIHW):
        return super()._restore(image_BIHW).expand(len(image_BIHW), -1, -1, -1)


class Twice(SingleImage):
    """Uses its blocks on one image and on two."""

    def _restore(self, image_BIHW):
        both = torch.cat([image_BIHW, image_BIHW.flip(2)])
        return super()._restore(image_BIHW) + super()._restore(both)[:1]


def network_of(block, network=SingleImage, **settings):
    torch.manual_seed(0)
    return network(scale=1, dim=8, block=block, head=ResidualHead, **settings).eval()


def test_a_block_that_needs_the_network_around_it(tmp_path, monkeypatch):
    """It is not traced alone: then the network is traced as a whole."""

    def even(dim, **settings):
        return Scaled(dim, even=True, **settings)

    wholes = []
    whole = export.graph._traced_whole
    monkeypatch.setattr(export.graph, "_traced_whole", lambda *a: wholes.append(1) or whole(*a))
    network = network_of(even, Doubled, depths=[2])
    path = export_file(network, tmp_path / "n.onnx")
    assert len(wholes) == 2
    report = verify(network, path)
    assert report.passed, str(report)


def test_a_block_that_is_used_at_two_sizes(tmp_path, caplog):
    network = network_of(Scaled, Twice, depths=[1])
    with caplog.at_level("DEBUG"):
        path = export_file(network, tmp_path / "n.onnx", shape="1x3xHxW")
    assert "tracing blocks separately failed" not in caplog.text
    report = verify(network, path)
    assert report.passed, str(report)


def test_a_size_that_is_taken_for_a_number_is_said(tmp_path):
    """The exporter's other ways of tracing would take it, and take blocks for one another."""
    network = network_of(Scaled, Counting, depths=[2])
    with pytest.raises(ZooError, match=r"use x\.shape there, not len\(x\)"):
        export_file(network, tmp_path / "n.onnx")
    report = verify(network, export_file(network, tmp_path / "n.onnx", shape="2x3xHxW"))
    assert report.passed, str(report)
