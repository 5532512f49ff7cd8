"""Every parameter of every network begins as the papers and the authors' code say.

Bounds follow from the number of samples: a mean or a second moment of n values may be five
standard errors off. Seeds are fixed, so a test that passes once passes always.

Sources: Mamba (Gu and Dao, 2023), Sec. 3.6, for steps and A; the authors' code for the rest.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import zoo
from zoo.blocks import ChannelScan
from zoo.blocks.attentive_layer import Half
from zoo.blocks.feature_alignment import FeatureAlignment
from zoo.heads import AdaUp, Transposed
from zoo.heads.upsamplers import init_double


def assert_moments(values, mean, variance, fourth):
    """Mean and variance within five standard errors; ``fourth`` is the fourth central moment."""
    values = values.detach().double().flatten()
    assert values.isfinite().all()
    count = len(values)
    assert (values.mean() - mean).abs() <= 5 * math.sqrt(variance / count)
    found = (values - mean).square().mean()
    # A few values say nothing of their spread but that it is not far more.
    error = 5 * math.sqrt((fourth - variance**2) / count)
    assert abs(float(found) - variance) <= error


def uniform(bound, low=None):
    low = -bound if low is None else low
    half, middle = (bound - low) / 2, (bound + low) / 2

    def check(values):
        assert low - 1e-6 <= values.min() and values.max() <= bound + 1e-6
        assert_moments(values, middle, half**2 / 3, half**4 / 5)

    return check


def normal(std):
    return lambda values: assert_moments(values, 0, std**2, 3 * std**4)


def constant(value):
    return lambda values: torch.testing.assert_close(
        values.detach(), torch.full_like(values, value)
    )


def steps(bias):
    """Steps are log-uniform from 0.001 to 0.1, and no two alike."""
    step = torch.nn.functional.softplus(bias.detach().double())
    uniform(math.log(0.1), math.log(0.001))(step.log())
    assert len(bias.unique()) == bias.numel()


def one_to_states(A_log):
    expected = torch.arange(1.0, A_log.shape[-1] + 1).expand_as(A_log)
    torch.testing.assert_close(A_log.detach().exp(), expected)


def by_fan_in(parameter):
    """PyTorch's default of convolutions and linear layers: by the inputs of an output."""
    return lambda values: uniform(parameter[0].numel() ** -0.5)(values)


LEAVES = {
    "dt_proj_bias": lambda p: steps,
    "A_log": lambda p: one_to_states,
    "D": lambda p: constant(1.0),
    # (K, X, E) and (K, E, R): one linear layer for each direction.
    "x_proj_weight": lambda p: uniform(p.shape[2] ** -0.5),
    "query_weight": lambda p: uniform(p.shape[2] ** -0.5),
    "C_weight": lambda p: uniform(p.shape[2] ** -0.5),
    "dt_proj_weight": lambda p: uniform(p.shape[2] ** -0.5),
    "conv_weight": lambda p: uniform(p.shape[1] ** -0.5),
    "skip_scale": lambda p: constant(1.0),
    "branch_scale": lambda p: constant(1.0),
    "mlp_scale": lambda p: constant(1.0),
    "temperature_G": lambda p: constant(1.0),
    "temperature": lambda p: constant(1.0),
    "weights": lambda p: constant(1 / p.numel()),
    "log_width": lambda p: constant(math.log(0.2)),
    # MambaIRv2 code: embeddings by the number of their rows, the bias of windows as in Swin.
    "prompt_classes": lambda p: uniform(1 / p.shape[0]),
    "prompt_states": lambda p: uniform(1 / p.shape[0]),
    "bias_table": lambda p: normal(0.02),
}
"""What a parameter of this name begins as, in whatever module."""

SMALL = {"dim": 60, "depths": [1, 1], "scans": ["raster"]}
NETWORKS = {
    "mambair": ("mambair_classic_x2", SMALL, True),
    "mambair, 1D": ("mambair_light_x2", {**SMALL, "block.mixer": "mamba1d"}, True),
    "mambairv2": ("mambairv2_x2", {**SMALL, "block.mixer.d_state": 4, "scans": ["by_class"]}, True),
    "mambairv2, light": ("mambairv2_light_x2", {"depths": [1, 1]}, True),
    "dvmsr": ("dvmsr_x4", {"depths": [1, 1]}, True),
    "mambacsr": ("mambacsr_final", {**SMALL, "scale": 2, "coarse.depths": [1]}, True),
    "unet": ("mambair_realdn", {"dim": 30, "depths": [1, 1, 1, 1], "refinement": 1}, False),
    "vmambair": (
        {
            "type": "unet",
            "dim": 16,
            "depths": [1, 1],
            "block": {"skip_scale": False, "mixer": "omni_scan", "branch": "gdfn"},
        },
        {},
        False,
    ),
    "mair": (
        {
            "type": "single_image",
            "dim": 40,
            "depths": [1],
            "block": {"mixer": {"merge": "shuffle_attention"}, "branch": "mlp"},
        },
        {},
        True,
    ),
    "wavelet": (
        {"type": "wavelet", "depths": [1], "high_depths": [1], "block": {"branch": "gdfn"}},
        {},
        False,
    ),
    "burst": (
        "qmambabsr",
        {"dim": 32, "burst": 4, "stages": [1], "skip": "merged", "flow_prior": "registration"},
        False,
    ),
}


@pytest.mark.parametrize(("model", "changes", "linear_002"), NETWORKS.values(), ids=NETWORKS)
def test_every_parameter_begins_as_its_paper_says(model, changes, linear_002):
    torch.manual_seed(3)
    network = zoo.build({"network": model} if isinstance(model, dict) else model, **changes)
    # The upsamplers of the head: by themselves below.
    unchecked = {n: p for n, p in network.named_parameters() if not n.startswith("head.ups.")}

    def check(name, how):
        parameter = unchecked.pop(name)
        try:
            how(parameter)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error

    for place, module in network.named_modules():
        own = {name: f"{place}.{name}" for name, _ in module.named_parameters(recurse=False)}
        if place.startswith("head.ups."):
            continue
        if isinstance(module, nn.LayerNorm):
            check(own["weight"], constant(1.0))
            check(own["bias"], constant(0.0))
        elif isinstance(module, FeatureAlignment) and "weight" in own:
            check(own["weight"], by_fan_in(module.weight))
        elif isinstance(module, Half):
            check(own["skip_scale"], constant(1e-4))
        elif place.endswith(".offset"):
            check(own["weight"], constant(0.0))
            check(own["bias"], constant(0.0))
        elif isinstance(module, ChannelScan):
            for name, full in own.items():
                normally = name in ("A_log", "dt_proj_weight", "dt_proj_bias")
                check(full, normal(1.0) if normally else LEAVES[name](module.get_parameter(name)))
        elif isinstance(module, nn.PReLU):
            check(own["weight"], constant(0.25))
        elif isinstance(module, nn.Linear) and linear_002:
            check(own["weight"], normal(0.02))
            if "bias" in own:
                check(own["bias"], constant(0.0))
        elif isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            check(own["weight"], by_fan_in(module.weight))
            if "bias" in own:
                check(own["bias"], uniform(module.weight[0].numel() ** -0.5))
        else:
            for name, full in own.items():
                if name == "conv_bias":
                    check(full, uniform(module.conv_weight.shape[1] ** -0.5))
                else:
                    check(full, LEAVES[name](module.get_parameter(name)))
    assert not unchecked


@pytest.mark.parametrize("kernel", [3, 4])
@pytest.mark.parametrize("kind", [Transposed, AdaUp])
def test_enlargement_begins_bilinear_with_a_little_noise(kind, kernel):
    """Of std^2 = 2 / (I * kernel^2 / 4) "bilinear" takes 0.3, and enlarges each channel."""
    taps = torch.tensor({3: [0.5, 1, 0.5], 4: [0.25, 0.75, 0.75, 0.25]}[kernel])
    std = (2 / (40 * kernel**2 / 4)) ** 0.5
    normal(std)(kind(40, out=24, kernel=kernel, init="normal").weight)
    part = kind(40, out=24, kernel=kernel)
    weight = part.weight.detach().clone()
    weight[range(24), range(24)] -= taps[:, None] * taps
    normal(0.3 * std)(weight)
    normal(0.3 * std)(weight[range(24), range(24)])
    constant(0.0)(part.bias)


@pytest.mark.parametrize("sizes", [(2, 5), (5, 2)])
def test_channels_without_a_partner_begin_as_noise_alone(sizes):
    weight = torch.zeros(*sizes, 4, 4)
    init_double(weight, "bilinear")
    large = {tuple(place) for place in (weight.mean((2, 3)) > 0.15).nonzero().tolist()}
    assert large == {(0, 0), (1, 1)}


def test_adaup_begins_with_no_say_of_the_output_channels():
    part = AdaUp(8, out=5)
    constant(0.0)(part.to_out.weight), constant(0.0)(part.to_out.bias)
    into, out = part.scales(torch.randn(2, 3, 4, 8))
    assert (out == 1).all() and not (into == 1).any()
    raw = AdaUp(8, out=5, gate="raw").to_out
    uniform(8**-0.5)(raw.weight), uniform(8**-0.5)(raw.bias)


def test_bounds_notice_what_they_are_for():
    """Each check refuses what stands beside the truth."""
    with pytest.raises(AssertionError):
        normal(0.02)(0.03 * torch.randn(1000))
    with pytest.raises(AssertionError):
        uniform(1.0)(0.8 * (2 * torch.rand(1000) - 1))
    with pytest.raises(AssertionError):
        steps(torch.full((500,), 0.01).expm1().log())
    with pytest.raises(AssertionError):
        one_to_states(torch.arange(2.0, 6).log()[None])
