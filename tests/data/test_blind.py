"""The blind degradation: what it draws, how often, and the filters that it makes."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from zoo.data import Blind, blind
from zoo.data.blind import (
    _FIRST,
    _SECOND,
    _bell,
    _degrade_once,
    _noisy,
    _random_blur,
    _random_power,
    _random_size,
    _sinc,
)

SEEDS = 400


class Recorder(np.random.Generator):
    """Draws as any generator does, and keeps the ranges of its uniform draws."""

    def __init__(self, seed):
        super().__init__(np.random.PCG64(seed))
        self.drawn = []

    def uniform(self, low=0.0, high=1.0, size=None):
        self.drawn.append((round(low, 6), round(high, 6)))
        return super().uniform(low, high, size)


@pytest.fixture(scope="module")
def chains():
    """What 400 chains draw and do: ranges, calls of the parts, sizes."""
    calls = Counter()
    kept = {
        "sizes": set(),
        "quality": [],
        "filters": [],
        "steps": [],
        "sincs": [],
        "interpolations": set(),
        "shapes": set(),
    }

    def watched(name, keep):
        original = getattr(blind, name)

        def call(*arguments):
            keep(*arguments)
            calls[name] += 1
            return original(*arguments)

        return call

    def compressed(image, quality):
        kept["quality"].append(quality)
        kept["steps"][-1].append("jpeg")

    def resized(image, size, rng):
        kept["steps"][-1].append("resize")
        kept["shapes"].add(size)

    def bell(size, across, along, angle, shape, power):
        kept["sizes"].add(size)
        kept["filters"].append((shape, across == along and angle == 0, power))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blind, "compress", watched("compress", compressed))
        patch.setattr(blind, "_resized", watched("_resized", resized))
        patch.setattr(blind, "_bell", watched("_bell", bell))
        patch.setattr(blind, "_sinc", watched("_sinc", lambda *given: kept["sincs"].append(given)))
        image, drawn = torch.rand(3, 12, 20), Counter()
        resize = cv2.resize

        def noted(source, size, interpolation):
            kept["interpolations"].add(interpolation)
            return resize(source, size, interpolation=interpolation)

        patch.setattr(cv2, "resize", noted)
        for seed in range(SEEDS):
            kept["steps"].append([])
            rng = Recorder(seed)
            Blind(scale=2)(image, rng)
            drawn.update(rng.drawn)
    return drawn, calls, kept


PI, THIRD, FIFTH = (round(math.pi / n, 6) for n in (1, 3, 5))
RATES = {
    (1, 1.5): 0.2, (0.15, 1): 0.7,  # enlarged and shrunk, at first
    (1, 1.2): 0.3, (0.3, 1): 0.4,  # and then
    (1, 30): 0.5, (1, 25): 0.5,  # Gaussian noise
    (0.05, 3.0): 0.5, (0.05, 2.5): 0.5,  # Poisson noise
    (THIRD, PI): 0.8 + 1.8 * 0.1 * 3 / 8, (FIFTH, PI): 1.8 * 0.1 * 5 / 8,  # sinc filters
    # Widths of bells: along as well, where they are not round.
    (0.2, 3.0): 0.9 * (1 + 0.25 + 0.3 * 0.2), (0.2, 1.5): 0.8 * 0.9 * (1 + 0.25 + 0.3 * 0.2),
    (-PI, PI): 1.8 * 0.9 * (0.25 + 0.3 * 0.2),  # angles of those
    (0.5, 1): 1.8 * 0.9 * 0.15 / 2, (1, 4.0): 1.8 * 0.9 * 0.15 / 2,  # generalised bells
    (1, 2.0): 1.8 * 0.9 * 0.15,  # plateaus
}  # fmt: skip
"""How often a chain draws from a range, on average (Real-ESRGAN, Sec. 3 and its settings)."""


def test_every_range_of_the_chain_is_drawn_from_as_often_as_published(chains):
    drawn, _, _ = chains
    assert set(drawn) == set(RATES)
    for limits, rate in RATES.items():
        # Four standard errors of a sum of rare events.
        assert abs(drawn[limits] / SEEDS - rate) < 4 * math.sqrt(rate / SEEDS), limits


class Scripted(Recorder):
    """Decides by these numbers first; keeps how many things it chose among, and their rates."""

    def __init__(self, *numbers, shape=None):
        super().__init__(0)
        self.numbers, self.shape, self.chosen = list(numbers), shape, []

    def random(self, *arguments):
        return self.numbers.pop(0) if self.numbers else super().random(*arguments)

    def choice(self, things, *arguments, p=None):
        self.chosen.append((len(things), p))
        return super().choice(things, *arguments, p=p) if p is None else self.shape


GRAY_PIXELS = np.full((8, 8, 3), 0.5, np.float32)
SIZES = (8, None)


def size_of(ranges, number):
    return _random_size(ranges, (100, 100), Scripted(number))[0]


def blurs(number):
    _degrade_once(GRAY_PIXELS, _SECOND, (8, 8), rng := Scripted(number, shape="gaussian"))
    return SIZES in rng.chosen


def is_sinc(number):
    _random_blur((1.0, 2.0), rng := Scripted(number, shape="gaussian"))
    assert rng.chosen in ([SIZES], [SIZES, (3, (0.7, 0.15, 0.15))])
    return rng.chosen == [SIZES]


def is_round(shape):
    def check(number):
        _random_blur((1.0, 2.0), rng := Scripted(0.5, number, shape=shape))
        return (-PI, PI) not in rng.drawn

    return check


def is_gray(number):
    noise = _noisy(GRAY_PIXELS, _FIRST, Scripted(number, 0.0))
    return np.array_equal(noise[..., 0], noise[..., 2])


def is_gaussian(number):
    _noisy(GRAY_PIXELS, _FIRST, rng := Scripted(0.9, number))
    return rng.drawn == [_FIRST.noise]


def end_of_chain(*numbers):
    """The generator after a chain without its two passes, and the size at the last JPEG."""
    seen = []

    def compressed(image, quality):
        seen.append(len(image))
        return image

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blind, "_degrade_once", lambda image, *_: image)
        patch.setattr(blind, "compress", compressed)
        Blind(scale=2)(torch.from_numpy(GRAY_PIXELS).permute(2, 0, 1), rng := Scripted(*numbers))
    return rng, seen[-1]


CHOICES = {
    "enlarged at first": (0.2, lambda u: size_of(_FIRST, u) > 100),
    "resized at first": (0.2 + 0.7, lambda u: size_of(_FIRST, u) != 100),
    "enlarged then": (0.3, lambda u: size_of(_SECOND, u) > 100),
    "resized then": (0.3 + 0.4, lambda u: size_of(_SECOND, u) != 100),
    "blurred then": (0.8, blurs),
    "sinc filter": (0.1, is_sinc),
    "round gaussian": (0.45 / 0.7, is_round("gaussian")),
    "round generalised": (0.8, is_round("generalised")),
    "round plateau": (0.8, is_round("plateau")),
    "power below 1": (0.5, lambda u: _random_power("generalised", Scripted(u)) < 1),
    "gray noise": (0.4, is_gray),
    "gaussian noise": (0.5, is_gaussian),
    "ringing at the end": (0.8, lambda u: (THIRD, PI) in end_of_chain(u, 0.9)[0].drawn),
    "resized before the last jpeg": (0.5, lambda u: end_of_chain(0.9, u)[1] == 4),
}
"""Probabilities (Real-ESRGAN, its settings), and whether a number from 0 to 1 decides so."""


@pytest.mark.parametrize(("rate", "decided"), CHOICES.values(), ids=CHOICES)
def test_each_choice_of_the_chain_is_as_probable_as_published(rate, decided):
    """Counting draws would not notice a tenth more or less."""
    assert decided(rate - 1e-6) and not decided(rate + 1e-6)


def test_the_chain_compresses_twice_and_resizes_before_or_after_the_last_time(chains):
    _, calls, kept = chains
    assert calls["compress"] == 2 * SEEDS and calls["_resized"] == 3 * SEEDS
    orders = Counter(map(tuple, kept["steps"]))
    first = ("resize", "jpeg", "resize")
    assert set(orders) == {(*first, "jpeg", "resize"), (*first, "resize", "jpeg")}
    assert all(0.4 < count / SEEDS < 0.6 for count in orders.values())
    assert kept["interpolations"] == {cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC}


def test_quality_sizes_and_shapes_are_drawn_from_all_that_is_published(chains):
    _, _, kept = chains
    assert set(kept["quality"]) == set(range(30, 96))
    assert kept["sizes"] == {7, 9, 11, 13, 15, 17, 19, 21}
    shapes = Counter(shape for shape, _, _ in kept["filters"])
    total = sum(shapes.values())
    for shape, rate in (("gaussian", 0.7), ("generalised", 0.15), ("plateau", 0.15)):
        assert shapes[shape] / total == pytest.approx(rate, abs=0.06)
        powers = [power for name, _, power in kept["filters"] if name == shape]
        low, high = {"gaussian": (1, 1), "generalised": (0.5, 4), "plateau": (1, 2)}[shape]
        assert low <= min(powers) < low + 0.1 and high - 0.4 < max(powers) <= high
    assert 0.56 < sum(round_ for _, round_, _ in kept["filters"]) / total < 0.82


def test_height_and_width_are_resized_alike(chains):
    """Of 12 x 20 pixels, by one factor for both; at last to a half."""
    _, _, kept = chains
    assert (6, 10) in kept["shapes"] and len(kept["shapes"]) > 30
    for height, width in kept["shapes"]:
        assert abs(height / 12 - width / 20) <= 0.5 / 12 + 0.5 / 20


def test_only_large_sinc_filters_take_away_the_most(chains):
    """Cutoffs down to a fifth of pi need 13 pixels, as the small ones would hardly have a shape."""
    _, _, kept = chains
    small = [cutoff for size, cutoff in kept["sincs"] if size < 13]
    large = [cutoff for size, cutoff in kept["sincs"] if size >= 13]
    assert math.pi / 5 < min(large) < math.pi / 3.5 and math.pi / 3 < min(small)


class Fixed:
    """Draws what it is told: a filter of this size that is a sinc filter, in its middle."""

    def __init__(self, size):
        self.size, self.limits = size, ()

    def choice(self, *_):
        return self.size

    def random(self):
        return 0.0

    def uniform(self, low, high):
        self.limits = (low, high)
        return (low + high) / 2


@pytest.mark.parametrize("size", [7, 9, 11, 13, 15, 17, 19, 21])
def test_sinc_filters_cut_down_to_a_fifth_of_pi_from_13_pixels_on(size):
    drawn = Fixed(size)
    kernel = blind._random_blur((1.0, 1.0), drawn)
    assert drawn.limits == (math.pi / (3 if size < 13 else 5), math.pi)
    np.testing.assert_array_equal(kernel, _sinc(size, sum(drawn.limits) / 2))


def test_the_last_sinc_filter_is_in_both_sequences_right_after_the_size(monkeypatch):
    done = []

    def told(name, result):
        monkeypatch.setattr(blind, name, lambda image, *given: done.append(name) or result(image))

    told("_degrade_once", lambda image: image)
    told("_resized", lambda image: image[::2, ::2])
    told("compress", lambda image: image)
    monkeypatch.setattr(
        blind,
        "_filtered",
        lambda image, kernel: done.append("none" if kernel is None else "sinc") or image,
    )
    found = set()
    for seed in range(60):
        done.clear()
        Blind(scale=2)(torch.rand(3, 4, 4), np.random.default_rng(seed))
        assert done[:3] == ["_degrade_once", "compress", "_degrade_once"]
        found.add(tuple(done[3:]))
    last = [("_resized", kernel) for kernel in ("none", "sinc")]
    assert found == {(*pair, "compress") for pair in last} | {("compress", *pair) for pair in last}


def test_grain_is_around_each_pixel_and_stronger_where_it_is_brighter():
    image = np.full((80, 160, 3), 0.2, np.float32)
    image[:, 80:] = 0.7
    ranges = blind._Pass(
        blur=0, sigma=(1, 1), grow=0, shrink=0, sizes=(1, 1), noise=(0, 0), grain=(1, 1)
    )
    found = [_noisy(image, ranges, np.random.default_rng(seed)) - image for seed in range(12)]
    grain = [noise for noise in found if noise.any()]
    assert 1 < len(grain) < 11
    for noise in grain:
        for half, level in ((noise[:, :80], 0.2), (noise[:, 80:], 0.7)):
            assert abs(half.mean()) < 0.003
            assert half.std() == pytest.approx(math.sqrt(level / 255), rel=0.05)


def test_noise_is_gray_or_coloured_and_as_strong_as_its_pass_says():
    """On an even image: Gaussian of 20 levels, or the excess of photons counted at 255 a unit."""
    image = np.full((80, 80, 3), 0.5, np.float32)
    ranges = blind._Pass(
        blur=0, sigma=(1, 1), grow=0, shrink=0, sizes=(1, 1), noise=(20, 20), grain=(1, 1)
    )
    gaussian, poisson = 20 / 255, math.sqrt(0.5 / 255)
    found = Counter()
    for seed in range(200):
        noise = _noisy(image, ranges, np.random.default_rng(seed)) - image
        gray = np.array_equal(noise[..., 0], noise[..., 2])
        kind = min((gaussian, poisson), key=lambda sigma: abs(noise.std() - sigma))
        assert noise.std() == pytest.approx(kind, rel=0.05) and abs(noise.mean()) < 0.006
        found[kind, gray] += 1
    for kind in (gaussian, poisson):
        count = found[kind, True] + found[kind, False]
        assert count / 200 == pytest.approx(0.5, abs=0.12)
        assert found[kind, True] / count == pytest.approx(0.4, abs=0.14)


@pytest.mark.parametrize(
    ("shape", "power", "profile"),
    [
        ("gaussian", 1.0, lambda d: math.exp(-0.5 * d)),
        ("generalised", 0.6, lambda d: math.exp(-0.5 * d**0.6)),
        ("plateau", 1.7, lambda d: 1 / (1 + d**1.7)),
    ],
)
def test_bells_equal_their_formula(shape, power, profile):
    """Of the distance x^T S^-1 x, where S turns the squares of both widths by the angle."""
    across, along, angle = 2.5, 0.8, 0.4
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    inverse = np.linalg.inv(turn @ np.diag([across**2, along**2]) @ turn.T)
    expected = np.array(
        [
            [profile(float(np.array([x, y]) @ inverse @ [x, y])) for x in range(-4, 5)]
            for y in range(-4, 5)
        ]
    )
    found = _bell(9, across, along, angle, shape, power)
    np.testing.assert_allclose(found, expected / expected.sum(), rtol=1e-4)


def bessel_j1(x):
    """By its integral, the mean of cos(t - x sin t) from 0 to pi."""
    t = (np.arange(2000) + 0.5) * np.pi / 2000
    return float(np.cos(t - x * np.sin(t)).mean())


def test_the_sinc_filter_equals_its_formula():
    cutoff = 1.3
    radii = [[math.hypot(x, y) for x in range(-3, 4)] for y in range(-3, 4)]
    expected = np.array(
        [[cutoff * bessel_j1(cutoff * max(r, 1e-4)) / max(r, 1e-4) for r in row] for row in radii]
    )
    np.testing.assert_allclose(_sinc(7, cutoff), expected / expected.sum(), atol=1e-6)


def test_the_sinc_filter_is_a_low_pass():
    kernel = _sinc(21, np.pi / 3)
    response = np.abs(np.fft.fft2(kernel, (64, 64)))
    assert kernel.sum() == pytest.approx(1, abs=1e-5)
    assert response[0, 4] == pytest.approx(1, abs=0.1) and response[0, 20] < 0.1


def test_test_images_are_degraded_by_their_seed():
    image = torch.rand(1, 16, 16)
    first, again, other = (Blind(scale=1).for_test(image, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_noise_of_a_level_is_a_255th(monkeypatch):
    rng = Scripted(0.9, 0.0)  # coloured and Gaussian
    monkeypatch.setattr(rng, "standard_normal", np.ones, raising=False)
    found = _noisy(GRAY_PIXELS, replace(_FIRST, noise=(51.0, 51.0)), rng)
    np.testing.assert_allclose(found, 0.7, rtol=1e-6)


def test_grain_is_what_whole_photons_add():
    """Strength 1 shows counts of photons, which are whole, whatever the mean is."""
    ranges = replace(blind._FIRST, noise=(0.0, 0.0), grain=(1.0, 1.0))
    image_HWC = np.full((16, 16, 1), 20.3 / 255, np.float32)
    shown = [_noisy(image_HWC, ranges, np.random.default_rng(seed)) for seed in range(20)]
    noisy = [255 * noisy_HWC for noisy_HWC in shown if noisy_HWC.std() > 0]
    assert len(noisy) > 4
    assert all(np.abs(counts - counts.round()).max() < 1e-3 for counts in noisy)


def test_noise_never_leaves_black_and_white():
    image_HWC = np.array([0.0, 1.0, -0.2, 1.3], np.float32).repeat(192).reshape(16, 16, 3)
    for seed in range(8):
        noisy_HWC = _noisy(image_HWC, blind._FIRST, np.random.default_rng(seed))
        assert noisy_HWC.min() == 0 and noisy_HWC.max() == 1 and noisy_HWC.dtype == np.float32
