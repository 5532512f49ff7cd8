"""Synthetic bursts: cameras, colours, and noise."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tests.helpers.synthetic import rng
from zoo.data.burst import (
    Camera,
    Noise,
)

CAMERAS = """
1.0234 -0.2969 -0.2266 -0.5625 1.6328 -0.0469 -0.0703 0.2188 0.6406
0.4913 -0.0541 -0.0202 -0.6130 1.3513 0.2906 -0.1564 0.2151 0.7183
0.8380 -0.2630 -0.0639 -0.2887 1.0725 0.2496 -0.0627 0.1427 0.5438
0.6596 -0.2079 -0.0562 -0.4782 1.3016 0.1933 -0.0970 0.1581 0.5181
"""
"""Matrices from XYZ to four cameras, published with Brooks et al., CVPR 2019."""


def test_the_published_cameras_are_mixed_and_white_is_kept():
    cameras = np.array(CAMERAS.split(), float).reshape(4, 3, 3)
    to_xyz = [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
    for seed in range(3):
        weights = torch.rand(4, 1, 1, generator=rng(seed)).double().numpy()
        matrix = (weights * cameras).sum(0) / weights.sum() @ to_xyz
        expected = matrix / matrix.sum(axis=1, keepdims=True)
        found = Camera.draw(rng(seed)).rgb_to_camera.numpy()
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_brightness_and_gains_are_drawn_as_published():
    cameras = [Camera.draw(rng(seed)) for seed in range(300)]
    seen = np.array([1 / camera.brightness for camera in cameras])
    assert seen.mean() == pytest.approx(0.8, abs=0.025) and seen.std() == pytest.approx(
        0.1, rel=0.15
    )
    for name, low, high in (("red", 1.9, 2.4), ("blue", 1.5, 1.9)):
        values = [getattr(camera, name) for camera in cameras]
        assert low <= min(values) < low + 0.02 and high - 0.02 < max(values) <= high


def test_processing_is_gains_matrix_gamma_and_tone_curve():
    camera = Camera(
        torch.tensor([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.0, 0.3, 0.7]]), 1.5, 2.0, 1.6
    )
    linear = torch.rand(3, 9, 10, generator=rng())  # gains and matrix leave [0, 1] at both ends
    balanced = linear.numpy() * np.array([2.0, 1, 1.6])[:, None, None] * 1.5
    inverse = np.linalg.inv(camera.rgb_to_camera.numpy())
    colours = np.einsum("ij,jhw->ihw", inverse, balanced.clip(0, 1))
    assert balanced.max() > 1 and colours.max() > 1.2 and colours.min() < -0.05
    srgb = np.clip(colours, 0, 1) ** (1 / 2.2)
    expected = 3 * srgb**2 - 2 * srgb**3
    np.testing.assert_allclose(camera.process(linear).numpy(), expected, atol=1e-4)


def test_highlights_fade_out_of_white_balance_from_a_mean_of_nine_tenths():
    camera = Camera(torch.eye(3), 1.25, 2.0, 1.6)
    gray = torch.tensor([0.5, 0.9, 0.95, 1.0])
    srgb = 0.5 - torch.sin(torch.asin(1 - 2 * gray.clamp(0, 1) ** 1.0) / 3)
    found = camera.unprocess(gray.expand(3, 1, 4))[:, 0].numpy()
    linear = srgb.numpy() ** 2.2
    for value, (red, green, blue) in zip(linear, found.T, strict=True):
        fade = (max(0.0, value - 0.9) / 0.1) ** 2
        for gain, color in ((2.0, red), (1.0, green), (1.6, blue)):
            plain = 1 / gain / 1.25
            assert color == pytest.approx(value * (fade + (1 - fade) * plain), abs=1e-4)


def test_cameras_keep_white_white():
    for seed in range(20):
        camera = Camera.draw(rng(seed))
        torch.testing.assert_close(camera.rgb_to_camera.sum(1), torch.ones(3))
        assert 1.9 <= camera.red <= 2.4 and 1.5 <= camera.blue <= 1.9
        assert 1 / 1.2 <= camera.brightness <= 1 / 0.4
        again = Camera.from_data(camera.data())
        torch.testing.assert_close(again.rgb_to_camera, camera.rgb_to_camera)
        assert again.data() == camera.data()


def test_processing_undoes_unprocessing_away_from_highlights():
    photo = torch.rand(3, 40, 40, generator=rng()) * 0.55 + 0.1
    for seed in range(10):
        camera = Camera.draw(rng(seed))
        linear = camera.unprocess(photo)
        inside = ((linear > 0) & (linear < 1)).all(0)  # colours outside the sensor's are clipped
        assert inside.float().mean() > 0.9
        assert (camera.process(linear) - photo)[:, inside].abs().max() < 1e-3


def test_highlights_stay_white():
    camera = Camera.draw(rng())
    white = camera.unprocess(torch.ones(3, 2, 2))
    torch.testing.assert_close(white, torch.ones(3, 2, 2))


def test_noise_has_the_variance_it_says():
    values = torch.linspace(0.05, 0.9, 12)[:, None].expand(-1, 200_000)
    noise = Noise(shot=0.008, read=0.0009)
    variance = (noise.add(values, rng()) - values).var(dim=1).double().numpy()
    slope, intercept = np.polyfit(values[:, 0].numpy(), variance, 1)
    assert slope == pytest.approx(noise.shot, rel=0.05)
    assert intercept == pytest.approx(noise.read, rel=0.05)


def test_noise_levels_follow_the_line_of_real_cameras():
    levels = [Noise.draw(rng(seed)) for seed in range(200)]
    shot, read = (np.log([getattr(n, name) for n in levels]) for name in ("shot", "read"))
    assert np.log(1e-4) <= shot.min() and shot.max() <= np.log(0.012)
    rest = read - 2.18 * shot - 1.20
    assert abs(rest.mean()) < 0.06 and rest.std() == pytest.approx(0.26, rel=0.2)


def test_the_noise_level_is_drawn_along_the_line_in_one_sequence():
    """First the place between 0.0001 and 0.012, then how far beside the line."""
    for seed in range(3):
        draws = rng(seed)
        place, beside = (
            float(torch.rand((), generator=draws)),
            float(torch.randn((), generator=draws)),
        )
        shot = math.exp(math.log(1e-4) + place * math.log(0.012 / 1e-4))
        read = math.exp(2.18 * math.log(shot) + 1.20 + 0.26 * beside)
        found = Noise.draw(rng(seed))
        assert (found.shot, found.read) == pytest.approx((shot, read), rel=1e-4)


def test_colours_a_little_outside_their_range_stay_numbers():
    """As enlarging leaves them."""
    camera = Camera.draw(rng())
    found = camera.unprocess(torch.tensor([-0.1, 1.1]).expand(3, 1, 2))
    torch.testing.assert_close(found, camera.unprocess(torch.tensor([0.0, 1.0]).expand(3, 1, 2)))


def test_a_camera_is_drawn_in_one_sequence():
    """Weights of the matrices, brightness, red and blue, each along its range."""
    for seed in range(3):
        draws = rng(seed)
        torch.rand(4, 1, 1, generator=draws)
        brightness = 0.8 + 0.1 * float(torch.randn((), generator=draws))
        red, blue = (float(torch.rand((), generator=draws)) for _ in range(2))
        found = Camera.draw(rng(seed))
        assert (1 / found.brightness, found.red, found.blue) == pytest.approx(
            (brightness, 1.9 + 0.5 * red, 1.5 + 0.4 * blue), rel=1e-5
        )
