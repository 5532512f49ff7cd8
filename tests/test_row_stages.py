"""Which layers are stages of a pass over rows, and which are left to PyTorch."""

from __future__ import annotations

import torch
from torch import nn

from zoo.blocks.layers import Conv2d
from zoo.blocks.norm import LayerNorm
from zoo.blocks.row_stages import depthwise_stage, norm_stage, product_stage, stages_of
from zoo.ops.passes import DepthwiseStage, NormStage, ProductStage


def hooked(layer):
    layer.register_forward_hook(lambda *given: None)
    return layer


def of_pixels(**options):
    return Conv2d(4, 6, 1, **options)


def of_each_channel(**options):
    return Conv2d(4, 4, 3, padding=1, groups=4, **options)


def test_norms_over_channels_are_stages():
    gate = torch.rand(1, 2, 3, 4)
    for norm in (LayerNorm(4, eps=0.1), nn.LayerNorm(4, eps=0.1)):
        assert norm_stage(norm, gate) == NormStage(norm.weight, norm.bias, 0.1, gate)
        assert norm_stage(norm).gate is None

    class Other(LayerNorm):
        def forward(self, x):
            return 2 * super().forward(x)

    for other in (Other(4), nn.LayerNorm((3, 4)), nn.Identity(), hooked(LayerNorm(4))):
        assert norm_stage(other) is None


def test_products_of_single_pixels_are_stages():
    linear, conv = nn.Linear(4, 6), of_pixels(bias=False)
    assert product_stage(linear) == ProductStage(linear.weight, linear.bias)
    found = product_stage(conv)
    assert torch.equal(found.weight, conv.weight[:, :, 0, 0]) and found.bias is None
    for other in (
        *(of_pixels(stride=2), of_pixels(groups=2), Conv2d(4, 6, 3, padding=1)),
        *(nn.Conv2d(4, 6, 1), hooked(nn.Linear(4, 6)), nn.Identity()),
    ):
        assert product_stage(other) is None


def test_depthwise_convolutions_are_stages():
    conv = of_each_channel()
    assert depthwise_stage(conv, "silu") == DepthwiseStage(conv.weight, conv.bias, 1, "silu")
    wide = Conv2d(4, 4, 3, padding=2, groups=4, dilation=2)
    assert depthwise_stage(wide, "none").dilation == 2
    for other in (nn.Conv2d(4, 4, 3, padding=1, groups=4), hooked(of_each_channel()), of_pixels()):
        assert depthwise_stage(other, "none") is None


def test_gelu_joins_the_convolution_or_product_before_it():
    norm, linear, conv = LayerNorm(4), nn.Linear(4, 4), of_each_channel()
    found = stages_of([norm, linear, conv, nn.GELU(), conv, linear, nn.GELU(), linear])
    kinds = [NormStage, ProductStage, DepthwiseStage, DepthwiseStage, ProductStage, ProductStage]
    assert [type(stage) for stage in found] == kinds
    activations = [stage.activation for stage in found[1:]]
    assert activations == ["none", "gelu", "none", "gelu", "none"]
    assert stages_of([]) == []
    for other in (nn.GELU("tanh"), nn.SiLU(), hooked(nn.GELU())):
        assert stages_of([linear, other]) is None
    assert stages_of([norm, nn.GELU()]) is None  # nothing that it could join
    assert stages_of([conv, nn.GELU("tanh")]) is None
    assert stages_of([conv, hooked(nn.GELU())]) is None
