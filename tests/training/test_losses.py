"""Losses against their definitions, and sums of them from recipes."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from zoo.errors import RecipeError, ZooError
from zoo.metrics.image import rgb_to_y
from zoo.schema import resolve
from zoo.training.burst_task import _aligned_loss
from zoo.training.losses import (
    L1,
    LOSSES,
    Charbonnier,
    CharbonnierBasicSR,
    Fourier,
    Loss,
    Luma,
    NegativePSNR,
    WeightedSum,
    loss_of_scales,
)


def images():
    return torch.rand(2, 3, 4, 6, dtype=torch.float64), torch.rand(2, 3, 4, 6, dtype=torch.float64)


def by_sums(difference):
    """Mean of |real| and |imaginary| over the half plane of frequencies that a real image has."""
    height, width = difference.shape[2:]
    rows, columns = torch.arange(height)[:, None], torch.arange(width)[None]
    parts = []
    for v in range(height):
        for u in range(width // 2 + 1):
            angle = 2 * math.pi * (v * rows / height + u * columns / width)
            parts.append((difference * angle.cos()).sum((2, 3)).abs())
            parts.append((difference * angle.sin()).sum((2, 3)).abs())
    return torch.stack(parts).mean()


def test_the_fourier_loss_is_the_mean_over_frequencies_without_normalisation():
    output, clean = images()
    torch.testing.assert_close(Fourier()(output, clean), by_sums(output - clean))
    low = Fourier()(output.bfloat16(), clean.bfloat16())
    assert low.dtype == torch.float32
    assert low == pytest.approx(float(by_sums(output - clean)), rel=0.05)


@pytest.mark.parametrize("epsilon", [1e-3, 0.2, 1e-12])
def test_the_charbonnier_loss_of_basicsr_does_not_square_epsilon(epsilon):
    output, clean = images()
    found = CharbonnierBasicSR(epsilon=epsilon)(output, clean)
    differences = (output - clean).flatten().tolist()
    expected = sum(math.sqrt(d * d + epsilon) for d in differences) / len(differences)
    assert float(found) == pytest.approx(expected, rel=1e-12)
    same = Charbonnier(epsilon=math.sqrt(epsilon))(output, clean)
    assert float(found) == pytest.approx(float(same), rel=1e-9)
    assert CharbonnierBasicSR().epsilon == Charbonnier().epsilon == 1e-3
    for wrong in (0.0, 1.0, 1e-320, math.nan):
        with pytest.raises(RecipeError, match="at least 1e-18 and below 1"):
            CharbonnierBasicSR(epsilon=wrong)


@pytest.mark.parametrize("epsilon", [1e-4, 0.3, 1e-12])
def test_the_psnr_loss_is_the_mean_of_the_images(epsilon):
    output, clean = images()
    output[1] = clean[1] + 0.01  # 40 dB; its mean squared error hardly changes that of both
    found = NegativePSNR(epsilon=epsilon)(output, clean)
    errors = [(a - b).square().mean().item() for a, b in zip(output, clean, strict=True)]
    expected = sum(10 * math.log10(error + epsilon) for error in errors) / 2
    assert float(found) == pytest.approx(expected, rel=1e-12)
    assert float(NegativePSNR()(clean, clean)) == pytest.approx(-40)
    for wrong in (0.0, 1.0, 1e-13, math.nan):
        with pytest.raises(RecipeError, match="at least 1e-12 and below 1"):
            NegativePSNR(epsilon=wrong)


def test_the_luma_loss_compares_y_as_metrics_do():
    output, clean = images()
    found = Luma(loss=NegativePSNR(epsilon=1e-12))(output, clean)
    pairs = zip(output, clean, strict=True)
    ys = [[rgb_to_y(image.permute(1, 2, 0).numpy()) for image in pair] for pair in pairs]
    expected = sum(10 * math.log10(((a - b) ** 2).mean()) for a, b in ys) / 2
    assert float(found) == pytest.approx(expected, rel=1e-9)

    seen = []
    luma = Luma(loss=Watcher(seen))
    luma(torch.ones(2, 3, 4, 6), torch.zeros(2, 3, 4, 6))
    luma(torch.ones(2, 1, 4, 6), torch.zeros(2, 1, 4, 6))  # gray stays as it is
    assert [(tuple(image.shape), round(float(image.mean() * 255), 3)) for image in seen] == [
        ((2, 1, 4, 6), level) for level in (235.0, 16.0, 255.0, 0.0)
    ]


class Watcher(Loss):
    """Notes images, and for how many channels it was prepared."""

    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def prepare(self, channels):
        self.seen.append(channels)

    def forward(self, output_BIHW, clean_BIHW):
        self.seen += [output_BIHW, clean_BIHW]
        return output_BIHW.sum()


def test_the_luma_loss_prepares_its_loss_for_one_channel():
    seen = []
    luma = Luma(loss=Watcher(seen))
    luma.prepare(3)
    luma.prepare(1)
    assert seen == [1, 1]
    with pytest.raises(RecipeError, match="gray and RGB images, not 4 channels"):
        luma.prepare(4)
    error = r"loss\.loss: unknown loss 'l2'"
    with pytest.raises(RecipeError, match=error):
        resolve(Loss, {"type": "luma", "loss": "l2"}, "loss")


def test_the_losses_of_several_scales_are_summed():
    small, full, target = torch.rand(1, 3, 2, 2), torch.rand(1, 3, 4, 4), torch.rand(1, 3, 4, 4)
    apart = (small - F.avg_pool2d(target, 2)).abs().mean() + (full - target).abs().mean()
    torch.testing.assert_close(loss_of_scales(L1(), (small, full), target), apart)


def test_a_sum_weighs_its_losses():
    output, clean = images()
    both = resolve(Loss, {"type": "sum", "losses": ["l1", "fourier"], "weights": [2, 0.1]}, "loss")
    expected = 2 * L1()(output, clean) + 0.1 * Fourier()(output, clean)
    torch.testing.assert_close(both(output, clean), expected)
    plain = WeightedSum(losses=(L1(), Charbonnier()))
    expected = L1()(output, clean) + Charbonnier()(output, clean)
    torch.testing.assert_close(plain(output, clean), expected)


def test_a_part_with_parameters_moves_with_the_sum():
    class Scaled(Loss):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(()))

        def forward(self, output_BIHW, clean_BIHW):
            return (output_BIHW - clean_BIHW).abs().mean() * self.scale

    both = WeightedSum(losses=(L1(), Scaled())).double()
    assert [p.dtype for p in both.parameters()] == [torch.float64]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"losses": []}, "losses is empty"),
        ({"losses": ["l1"], "weights": [1, 2]}, "weights has 2 numbers for 1 losses"),
        ({"losses": ["l1"], "weights": [0]}, r"weights is \[0.0\]; .* one above 0"),
        ({"losses": ["l1", "l1"], "weights": [2, -1]}, r"weights is \[2.0, -1.0\]; .* at least 0"),
        ({"losses": ["l2"]}, r"loss\.losses\[0\]: unknown loss 'l2'; known: .*charbonnier"),
    ],
)
def test_a_wrong_sum_is_named(options, message):
    with pytest.raises(RecipeError, match=message):
        resolve(Loss, {"type": "sum", **options}, "loss")


def test_every_loss_is_compared_somewhere():
    here = {"l1", "charbonnier", "charbonnier_basicsr", "psnr", "fourier", "luma", "sum"}
    assert set(LOSSES.names()) == here | {"perceptual"}  # test_perceptual.py


class Unreduced(Loss):
    """The mistake of a loss of one's own: no mean."""

    def forward(self, output_BIHW, clean_BIHW):
        return (output_BIHW - clean_BIHW).abs()


class Number(Loss):
    def forward(self, output_BIHW, clean_BIHW):
        return 1.0


class OneInAList(Loss):
    def forward(self, output_BIHW, clean_BIHW):
        return (output_BIHW - clean_BIHW).abs().mean()[None]


@pytest.mark.parametrize("through", ["alone", "sum", "luma", "aligned"])
@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (Unreduced, r"a tensor of shape \(1, \d, 32, 32\)"),
        (OneInAList, r"a tensor of shape \(1,\)"),
        (Number, "a value of type float"),
    ],
)
def test_a_loss_that_is_not_one_number_is_named(kind, told, through):
    """It would be summed, and the sum of a batch depends on the parts that it is computed in."""
    LOSSES.register("mine")(kind)
    image, clean = torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32)
    message = rf"^train\.loss: the loss 'mine' returned {told}; it must return one number, a tensor"
    with pytest.raises(ZooError, match=message):
        if through == "aligned":
            _aligned_loss(kind(), image, clean, torch.rand(1, 4, 16, 16), 0)
        else:
            options = {"sum": {"losses": ["l1", "mine"]}, "luma": {"loss": "mine"}}
            chosen = {"type": through, **options[through]} if through != "alone" else "mine"
            loss_of_scales(resolve(Loss, chosen, "loss"), image, clean)


def test_a_loss_that_is_not_registered_is_named_by_its_class():
    with pytest.raises(ZooError, match="the loss 'Unreduced' returned"):
        loss_of_scales(Unreduced(), torch.rand(1, 3, 4, 4), torch.rand(1, 3, 4, 4))
