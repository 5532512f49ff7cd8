"""The discriminator and the adversarial losses against plain formulas."""

from __future__ import annotations

import math
import re

import pytest
import torch
import torch.nn.functional as F

from zoo.errors import CheckpointError, RecipeError
from zoo.training.discriminators import DISCRIMINATORS, UNetSpectral, load_discriminator
from zoo.training.losses.adversarial import ADVERSARIAL_LOSSES


def official_state(dim=4, channels=3, seed=0):
    """Tensors as Real-ESRGAN's code saves them: conv0 to conv9, spectral norm in the old names."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(dim, channels, 3)]
    shapes += [(2 * dim, dim, 4), (4 * dim, 2 * dim, 4), (8 * dim, 4 * dim, 4)]
    shapes += [(4 * dim, 8 * dim, 3), (2 * dim, 4 * dim, 3), (dim, 2 * dim, 3)]
    shapes += [(dim, dim, 3), (dim, dim, 3), (1, dim, 3)]
    state = {}
    for number, (outputs, inputs, side) in enumerate(shapes):
        weight = torch.randn(outputs, inputs, side, side, generator=generator) / 10
        if number in (0, 9):
            state[f"conv{number}.weight"] = weight
            state[f"conv{number}.bias"] = torch.randn(outputs, generator=generator) / 10
            continue
        state[f"conv{number}.weight_orig"] = weight
        for name, length in (("u", outputs), ("v", inputs * side * side)):
            vector = torch.randn(length, generator=generator)
            state[f"conv{number}.weight_{name}"] = vector / vector.norm()
    return state


def plain(state, image, skip=True):
    """Real-ESRGAN's network, layer by layer; no step of the power method in evaluation."""

    def weight(n):
        w = state[f"conv{n}.weight_orig"]
        u, v = state[f"conv{n}.weight_u"], state[f"conv{n}.weight_v"]
        return w / (u @ w.flatten(1) @ v)

    def act(x):
        return torch.where(x > 0, x, 0.2 * x)

    levels = [act(F.conv2d(image, state["conv0.weight"], state["conv0.bias"], padding=1))]
    for n in (1, 2, 3):
        levels.append(act(F.conv2d(levels[-1], weight(n), stride=2, padding=1)))
    x = levels.pop()
    for n in (4, 5, 6):
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        x = act(F.conv2d(x, weight(n), padding=1))
        below = levels.pop()
        x = x + below if skip else x
    for n in (7, 8):
        x = act(F.conv2d(x, weight(n), padding=1))
    return F.conv2d(x, state["conv9.weight"], state["conv9.bias"], padding=1)


@pytest.mark.parametrize("skip", [True, False])
def test_the_discriminator_is_that_of_real_esrgan(skip, tmp_path):
    state = official_state()
    torch.save({"params": state}, tmp_path / "netD.pth")
    discriminator = UNetSpectral(3, dim=4, skip=skip)
    load_discriminator(discriminator, tmp_path / "netD.pth")
    image = torch.rand(2, 3, 24, 16, dtype=torch.float64)
    wide = {name: value.double() for name, value in state.items()}
    torch.testing.assert_close(discriminator.double().eval()(image), plain(wide, image, skip))


def test_each_pass_in_training_takes_one_step_of_the_power_method():
    discriminator = UNetSpectral(1, dim=2)
    layer = discriminator.ups[0].parametrizations.weight
    matrix = layer.original.detach().flatten(1)
    vectors = {name: getattr(layer[0], name).clone() for name in ("_u", "_v")}
    u = F.normalize(matrix @ vectors["_v"], dim=0)
    v = F.normalize(matrix.T @ u, dim=0)
    discriminator(torch.rand(1, 1, 8, 8))
    torch.testing.assert_close(layer[0]._u, u, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(layer[0]._v, v, rtol=1e-5, atol=1e-6)
    for _ in range(200):
        discriminator(torch.rand(1, 1, 8, 8))
    norm = torch.linalg.matrix_norm(discriminator.ups[0].weight.detach().flatten(1), 2)
    assert float(norm) == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_spectral_norm_is_computed_in_float32_whatever_the_precision(dtype):
    torch.manual_seed(0)
    both = [UNetSpectral(3, dim=4) for _ in range(2)]
    both[1].load_state_dict(both[0].state_dict())
    image = torch.rand(2, 3, 16, 16)
    exact = both[0](image)
    with torch.autocast("cpu", dtype):
        rough = both[1](image)
    assert rough.dtype == dtype
    torch.testing.assert_close(rough.float(), exact, atol=2e-2, rtol=5e-2)
    for name, value in both[0].state_dict().items():
        assert torch.equal(value, both[1].state_dict()[name]), name  # vectors, too
    rough.float().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in both[1].parameters())


@pytest.mark.parametrize("size", [(8, 8), (9, 13), (31, 17)])
def test_odd_sizes_are_judged_pixel_by_pixel(size):
    assert UNetSpectral(3, dim=2)(torch.rand(2, 3, *size)).shape == (2, 1, *size)


def test_the_published_size():
    # UNetDiscriminatorSN with 64 features, counted layer by layer.
    layers = [(3, 64, 9), (64, 128, 16), (128, 256, 16), (256, 512, 16), (512, 256, 9)]
    layers += [(256, 128, 9), (128, 64, 9), (64, 64, 9), (64, 64, 9), (64, 1, 9)]
    expected = sum(a * b * side for a, b, side in layers) + 64 + 1
    found = sum(p.numel() for p in UNetSpectral(3).parameters())
    assert found == expected == 4_376_897


def test_wrong_sizes_and_files_are_named(tmp_path):
    assert DISCRIMINATORS.names() == ["unet_spectral"]
    with pytest.raises(RecipeError, match="dim is 0; it must be from 1 to 1024"):
        UNetSpectral(3, dim=0)
    for size in ((7, 30), (30, 7)):
        told = re.escape(f"at least 8 pixels a side, not {size}")
        with pytest.raises(RecipeError, match=told):
            UNetSpectral(3, dim=2)(torch.rand(1, 3, *size))
    file = tmp_path / "d.pth"
    torch.save(official_state(dim=4), file)
    with pytest.raises(CheckpointError, match=r"has first\.weight of shape \(4, 3, 3, 3\) in"):
        load_discriminator(UNetSpectral(3, dim=8), file)
    torch.save({"a": torch.zeros(2)}, file)
    with pytest.raises(CheckpointError, match=r"has no first\.weight, so it is of another"):
        load_discriminator(UNetSpectral(3, dim=8), file)


REAL, MADE = [-1.5, 0.2, 3.0], [-0.7, 0.0, 2.5]


def mean(values):
    return sum(values) / len(values)


def log1p_exp(x):
    return math.log1p(math.exp(x))


def relu(x):
    return max(0.0, x)


FORMULAS = {
    # -log sigmoid(x) is log(1 + exp(-x)).
    "vanilla": (
        mean([log1p_exp(-m) for m in MADE]),
        mean([log1p_exp(-r) for r in REAL]) + mean([log1p_exp(m) for m in MADE]),
    ),
    "least_squares": (
        mean([(m - 1) ** 2 for m in MADE]),
        mean([(r - 1) ** 2 for r in REAL]) + mean([m**2 for m in MADE]),
    ),
    "hinge": (
        -mean(MADE),
        mean([relu(1 - r) for r in REAL]) + mean([relu(1 + m) for m in MADE]),
    ),
    "wasserstein": (-mean(MADE), mean(MADE) - mean(REAL)),
}


@pytest.mark.parametrize("name", ADVERSARIAL_LOSSES.names())
def test_adversarial_losses_are_their_formulas(name):
    loss = ADVERSARIAL_LOSSES.get(name).target()
    of_network, of_discriminator = FORMULAS[name]
    real, made = torch.tensor(REAL), torch.tensor(MADE)
    assert float(loss.of_network(made)) == pytest.approx(of_network, rel=1e-6)
    assert float(loss.of_discriminator(real, made)) == pytest.approx(of_discriminator, rel=1e-6)
