"""Synthetic bursts: geometry, what varies between frames, determinism."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.helpers.synthetic import photo, rng
from zoo.data.burst import (
    BurstDataset,
    BurstSynthesis,
    ValidationBursts,
    bayer_flip,
    mosaic,
)
from zoo.data.burst.dataset import random_square
from zoo.data.patches import TrainingPhoto
from zoo.errors import ImageError, RecipeError
from zoo.ops.deformable import warp

CROP = 96


def smooth(side, seed=0):
    """Waves of at least a third of the side, without kinks."""
    waves = torch.linspace(0, 2 * math.pi, side)
    phases = 6 * torch.rand(3, 4, 1, 1, generator=rng(seed))
    rows, columns = waves[:, None], waves[None]
    angles = [rows + 2 * columns, 3 * rows - columns, 2 * rows, 3 * columns]
    return 0.4 + 0.06 * sum(torch.sin(a + phases[:, i]) for i, a in enumerate(angles))


def clean(**changes):
    return BurstSynthesis(**{"noise": False, "quantize": "none", "frames": 4, **changes})


def psnr(a, b):
    return float(-10 * (a - b).square().mean().log10())


@pytest.mark.parametrize(("mode", "channels", "side"), [("raw", 4, 12), ("rgb", 3, 24)])
def test_shapes(mode, channels, side):
    make = BurstSynthesis(frames=5, mode=mode)
    burst = make(smooth(make.window(CROP)), rng())
    assert burst.frames.shape == (5, channels, side, side)
    assert burst.clean.shape == (3, CROP, CROP) and burst.flow.shape == (5, 2, side, side)
    assert all(t.dtype == torch.float32 for t in burst[:3])
    assert burst.frames.min() >= 0 and burst.frames.max() <= 1
    assert not burst.flow[0].any()


def test_planes_are_rggb():
    rgb = torch.arange(3 * 16.0).reshape(3, 4, 4)
    red, green_r, green_b, blue = mosaic(rgb)
    assert red[1, 0] == rgb[0, 2, 0] and green_r[1, 0] == rgb[1, 2, 1]
    assert green_b[1, 0] == rgb[1, 3, 0] and blue[1, 0] == rgb[2, 3, 1]


@pytest.mark.parametrize("mode", ["raw", "rgb"])
def test_the_flow_brings_frames_onto_the_reference(mode):
    make = clean(mode=mode)
    burst = make(smooth(make.window(192)), rng(3))
    margin = 4
    inside = (..., slice(margin, -margin), slice(margin, -margin))
    for t in range(1, 4):
        frame, flow = burst.frames[t : t + 1], burst.flow[t : t + 1]
        right = psnr(warp(frame, flow)[0][inside], burst.frames[0][inside])
        wrong = psnr(warp(frame, -flow)[0][inside], burst.frames[0][inside])
        still = psnr(frame[0][inside], burst.frames[0][inside])
        assert right > 45 and right > still + 10 > wrong


def test_a_natural_burst_is_aligned_by_its_flow(sample):
    make = clean(mode="rgb")
    burst = make(random_square(sample, make.window(192), rng(1)), rng(2))
    inside = (..., slice(8, -8), slice(8, -8))
    aligned = warp(burst.frames[1:], burst.flow[1:])
    before = psnr(burst.frames[1:][inside], burst.frames[:1].expand(3, -1, -1, -1)[inside])
    after = psnr(aligned[inside], burst.frames[:1].expand(3, -1, -1, -1)[inside])
    assert after > before + 5


@pytest.fixture
def sample():
    from zoo.data.pixels import quantise
    from zoo.data.samples import load_sample

    return quantise(load_sample("astronaut").color_HWC)


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_pixel_i_of_the_reference_lies_on_clean_pixel_factor_i(factor):
    make = clean(mode="rgb", factor=factor)
    burst = make(smooth(make.window(CROP)), rng())
    nearest = burst.clean[:, ::factor, ::factor]
    shifted = F.avg_pool2d(burst.clean[None], factor)[0]
    inside = (..., slice(1, -1), slice(1, -1))
    error = (burst.frames[0] - nearest)[inside].abs().max()
    assert error < 1 / 255 and error < (burst.frames[0] - shifted)[inside].abs().max() / 3


def test_raw_planes_and_reference_enlargement_share_phases():
    from zoo.networks.phase import enlarge_frame

    make = clean()
    burst = make(smooth(make.window(CROP)), rng())
    inside = (..., slice(12, -12), slice(12, -12))
    right = enlarge_frame(burst.frames[:1], 8, "corner")[0]
    centred = enlarge_frame(burst.frames[:1], 8, "centre")[0]
    assert psnr(right[inside], burst.clean[inside]) > 45
    assert psnr(right[inside], burst.clean[inside]) > psnr(centred[inside], burst.clean[inside]) + 2


@pytest.mark.parametrize("registration", ["corner", "centre"])
@pytest.mark.parametrize("channels", [3, 4])
def test_enlargement_is_exact_on_a_ramp(registration, channels):
    from zoo.networks.phase import enlarge_frame

    def at(scale, row, column, pitch):
        shift = 0.0 if registration == "corner" else (pitch - 1) / 2
        rows = torch.arange(6.0) * scale + row + shift
        columns = torch.arange(7.0) * scale + column + shift
        return 2 * rows[:, None] - columns

    if channels == 4:
        scale = 8
        frame = torch.stack([at(8, r, c, 4) for r, c in ((0, 0), (0, 4), (4, 0), (4, 4))])
    else:
        scale = 4
        frame = torch.stack([at(4, 0, 0, 4)] * 3)
    ramp = 2 * torch.arange(6.0 * scale)[:, None] - torch.arange(7.0 * scale)
    found = enlarge_frame(frame[None], scale, registration)[0]
    inside = (..., slice(2 * scale, -2 * scale), slice(2 * scale, -2 * scale))
    torch.testing.assert_close(found[inside], ramp.expand(3, -1, -1)[inside])


def test_official_rounding_is_to_8_bits_and_a_little_darker():
    image = smooth(clean().window(CROP))
    rounded = BurstSynthesis(frames=6, noise=False)(image, rng()).frames
    exact = BurstSynthesis(frames=6, noise=False, quantize="none")(image, rng()).frames
    torch.testing.assert_close(rounded * 255, (rounded * 255).round(), atol=1e-3, rtol=0)
    assert 0.1 < 255 * float((exact - rounded).mean()) < 0.6
    assert 255 * float((exact - rounded).abs().max()) < 2.1


def test_srgb_frames_look_like_the_photo():
    make = clean(mode="rgb", space="srgb")
    image = smooth(make.window(CROP))
    burst = make(image, rng())
    border = make.border(CROP)
    original = image[:, border : border + CROP, border : border + CROP]
    assert psnr(burst.clean, original) > 35


def test_motion_shrinks_with_the_crop():
    make = clean(frames=40, max_rotation=0.0)
    for crop in (96, 192):
        flow = make(smooth(make.window(crop)), rng()).flow
        largest = float(flow.abs().max()) * make.scale
        # the reference itself is moved by a pixel and a half
        assert 0.8 * make.translation(crop) < largest <= make.translation(crop) + 1.5


def test_a_moving_object_and_jitter_and_dropout_are_off_unless_asked_for():
    image = smooth(clean().window(CROP))
    plain = clean(frames=6)(image, rng())
    for change in ({"moving_object": 1.0}, {"exposure_jitter": 0.3}, {"frame_dropout": 1.0}):
        other = clean(frames=6, **change)(image, rng())
        assert not torch.equal(other.frames, plain.frames)
        assert torch.equal(other.clean, plain.clean)
        assert torch.equal(other.frames[0], plain.frames[0])
    dropped = clean(frames=6, frame_dropout=1.0)(image, rng())
    assert torch.equal(dropped.frames, dropped.frames[:1].expand(6, -1, -1, -1))
    assert not dropped.flow.any()


def test_a_share_of_the_bursts_has_a_moving_object(monkeypatch):
    image, drawn = smooth(clean().window(CROP)), []
    monkeypatch.setattr(
        BurstSynthesis, "_with_object", lambda _, source, moved, *__: drawn.append(0) or moved
    )
    make, random = clean(frames=2, moving_object=0.3), rng()
    for _ in range(40):
        make(image, random)
    assert 4 < len(drawn) < 22  # 12 are expected, with a deviation of 2.9


def test_the_challenge_rounds_a_photo_down_to_8_bits():
    make, motion = BurstSynthesis(frames=1, max_translation=0), torch.eye(3).double()[None]
    for level in (0.99, 1.5, 100.9, 254.99, 255.0):
        photo_3HW = torch.full((3, 8, 8), level / 255)
        found = make._sample(photo_3HW, motion, 8, rng())
        torch.testing.assert_close(found * 255, torch.full_like(found, math.floor(level)))


def test_the_moving_object_is_a_square_that_moves_steadily_and_shows_another_part():
    synthesis, side = clean(frames=5, moving_object=1.0), 48
    source_3HW = 1 + torch.rand(3, side, side)
    row, column = torch.meshgrid(*[torch.arange(side).double()] * 2, indexing="ij")
    position = torch.stack([column, row], -1).expand(5, -1, -1, -1)
    moves, middles = [], []
    for seed in range(8):
        found = synthesis._with_object(
            source_3HW, torch.zeros(5, 3, side, side), position, rng(seed)
        )
        shown = found[:, 0] > 0
        assert not shown[0].any()
        places = [frame.nonzero().double() for frame in shown[1:]]
        for at_N2 in places:
            lengths = at_N2.amax(0) - at_N2.amin(0) + 1
            assert torch.all(lengths >= 11) and torch.all(lengths <= 13)
            assert len(at_N2) == lengths.prod()
        centres = torch.stack([at_N2.mean(0) for at_N2 in places])
        steps = centres.diff(dim=0)
        assert (steps - steps.mean(0)).abs().max() <= 1
        torch.testing.assert_close(found[2][:, shown[2]], source_3HW.flip(-1)[:, shown[2]])
        moves.append(2 * (centres[3] - centres[0]) / 3)
        middles.append(centres[1])
    largest = torch.stack(moves).abs().amax(0)
    assert torch.all(largest > 2.2) and torch.all(largest <= 3 + 1)  # 24 pixels of 384
    middle = torch.stack(middles)
    assert torch.all(middle.amin(0) < 18) and torch.all(middle.amin(0) >= 11)
    assert torch.all(middle.amax(0) > 30) and torch.all(middle.amax(0) <= 37)


def test_jitter_changes_the_brightness_of_each_frame_and_dropout_of_each_alone():
    image = smooth(clean().window(CROP))
    plain = clean(frames=30)(image, rng())
    other = clean(frames=30, exposure_jitter=0.3)(image, rng())
    inside = (plain.frames > 0.05) & (plain.frames < 0.7)
    ratios = [a[at] / b[at] for a, b, at in zip(other.frames, plain.frames, inside, strict=True)]
    assert all(ratio.max() - ratio.min() < 1e-4 for ratio in ratios)
    changes = torch.stack([ratio.mean() - 1 for ratio in ratios])
    assert torch.all(changes[1:] != 0)
    assert changes[0] == 0 and -0.3 <= changes.min() < -0.25 and 0.25 < changes.max() <= 0.3
    some = clean(frames=30, frame_dropout=0.3)(image, rng())
    dropped = [torch.equal(frame, some.frames[0]) for frame in some.frames]
    torch.manual_seed(1)  # the state of all others
    assert torch.equal(clean(frames=30, frame_dropout=0.3)(image, rng()).frames, some.frames)
    assert 4 <= sum(dropped) <= 15
    for at, gone in enumerate(dropped[1:], 1):
        assert torch.equal(
            some.flow[at], torch.zeros_like(some.flow[at]) if gone else plain.flow[at]
        )
        assert gone or torch.equal(some.frames[at], plain.frames[at])


def test_a_frame_that_is_dropped_has_the_noise_of_the_reference():
    synthesis = clean(noise=True, frame_dropout=1.0)
    frames = synthesis(smooth(synthesis.window(32)), rng()).frames
    assert all(torch.equal(frame, frames[0]) for frame in frames)


def test_the_same_seed_is_the_same_burst_and_another_is_another():
    def items(seed):
        data = BurstDataset(
            [photo(0), photo(1)], synthesis=BurstSynthesis(frames=3), patch=8, length=4, seed=seed
        )
        return [data[i] for i in (3, 0)]

    for first, second in zip(items(5), items(5), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(items(5)[0].frames, items(6)[0].frames)
    assert not torch.equal(items(5)[0].frames, items(5)[1].frames)


def test_the_standard_synthesis_is_that_of_the_challenge():
    assert BurstSynthesis() == BurstSynthesis(
        frames=14, factor=4, mode="raw", space="linear", max_translation=24.0, max_rotation=1.0,
        quantize="official", noise=True, exposure_jitter=0.0, moving_object=0.0, frame_dropout=0.0,
    )  # fmt: skip


def test_frames_are_turned_and_neither_sheared_nor_scaled():
    """Whatever the angle: a camera in a hand keeps all distances and angles."""
    synthesis = clean(max_rotation=40.0, frames=6)
    photo_3HW = smooth(synthesis.window(CROP))
    flow_T2HW = synthesis(photo_3HW, rng()).flow.double()
    identity = torch.eye(2, dtype=torch.float64)
    down, across = (flow_T2HW.diff(dim=axis).mean((2, 3)) for axis in (2, 3))
    matrix_T22 = torch.stack([down, across], -1) + identity
    torch.testing.assert_close(
        matrix_T22 @ matrix_T22.mT, identity.expand(6, 2, 2), atol=1e-4, rtol=0
    )
    torch.testing.assert_close(torch.linalg.det(matrix_T22), torch.ones(6).double())
    assert matrix_T22[1:, 0, 1].abs().max() > 0.1  # some are turned far


def test_motions_are_drawn_from_their_whole_ranges_about_the_middle():
    """Shifts of both directions and signs, rotations of both, in degrees about the centre."""
    make = BurstSynthesis(frames=400)
    side = make.window(384)
    maps = make._motions(side, 384, rng())[1:].numpy()
    turns = np.degrees(np.arctan2(maps[:, 1, 0], maps[:, 0, 0]))
    middle = np.array([side / 2, side / 2, 1])
    # The rotation is about the centre of the shifted photo: undo it to see the shift.
    back = np.stack([np.linalg.inv(m[:2, :2]) for m in maps])
    shifts = np.einsum("tij,tj->ti", back, (maps @ middle)[:, :2] - middle[:2])
    for values, limit in ((turns, 1.0), (shifts[:, 0], 24.0), (shifts[:, 1], 24.0)):
        assert -limit <= values.min() < -0.97 * limit and 0.97 * limit < values.max() <= limit
        assert abs(values.mean()) < 0.1 * limit
    assert abs(np.corrcoef(shifts.T)[0, 1]) < 0.2


@pytest.mark.parametrize("options", [{}, {"augment": True}])
def test_all_eight_flips_and_turns_and_every_photo_and_place_are_drawn(options):
    class Plain(BurstSynthesis):
        """Gives the piece of the photo itself."""

        def window(self, crop):
            return crop

        def __call__(self, srgb_3HW, rng):
            return srgb_3HW

    def drawn(photos, **options):
        data = BurstDataset(
            photos, synthesis=Plain(factor=1, mode="rgb"), patch=3, length=300, seed=1, **options
        )
        return [
            tuple((data.burst(i)[0] * 255).round().int().flatten().tolist()) for i in range(300)
        ]

    numbers = np.arange(20, dtype=np.uint8).reshape(4, 5, 1)
    square = numbers[:3, :3]
    turns = [np.rot90(view, n) for view in (square, square[:, ::-1]) for n in range(4)]
    found = Counter(drawn([TrainingPhoto("a", square)], **options))
    assert set(found) == {tuple(turn.flatten().tolist()) for turn in turns}
    assert min(found.values()) > 18  # 37 on average
    photos = [TrainingPhoto("a", numbers), TrainingPhoto("b", numbers + 100)]
    places = {
        tuple((numbers[y : y + 3, x : x + 3] + more).flatten().tolist())
        for y in range(2) for x in range(3) for more in (0, 100)
    }  # fmt: skip
    assert set(drawn(photos, augment=False)) == places


def test_validation_bursts_are_upright_and_each_photo_has_draws_of_its_own():
    made = ValidationBursts(
        [photo(0), photo(0)], synthesis=BurstSynthesis(frames=2), patch=8, per_photo=1
    )
    assert not any(data.augment for data in made.sets)
    assert not torch.equal(made[0].frames, made[1].frames)


def test_jitter_changes_the_brightness_of_all_frames_but_the_reference():
    image = smooth(clean().window(CROP))
    plain = clean(frames=30, quantize="none")(image, rng())
    other = clean(frames=30, quantize="none", exposure_jitter=0.3)(image, rng())
    change = (other.frames.mean((1, 2, 3)) / plain.frames.mean((1, 2, 3)) - 1).numpy()
    assert abs(change[0]) < 1e-6 and -0.3 <= change.min() < -0.2 and 0.2 < change.max() < 0.301


def test_a_small_photo_is_enlarged_and_a_validation_set_is_frozen():
    data = BurstDataset(
        [photo(0, 40, 30)], synthesis=BurstSynthesis(frames=2), patch=16, length=1, seed=0
    )
    assert data[0].clean.shape == (3, 128, 128)
    sets = [
        ValidationBursts([photo(0), photo(1)], synthesis=BurstSynthesis(frames=2), patch=8,
                         per_photo=2)
        for _ in range(2)
    ]  # fmt: skip
    assert len(sets[0]) == 4
    assert all(torch.equal(sets[0][i].frames, sets[1][i].frames) for i in range(4))
    assert not torch.equal(sets[0][0].frames, sets[0][1].frames)
    with pytest.raises(IndexError):
        data[1]


@pytest.mark.parametrize(("name", "least"), [("patch", 1), ("length", 1), ("seed", 0)])
def test_settings_of_bursts_start_at_the_least_that_makes_sense(name, least):
    given = {"synthesis": BurstSynthesis(), "patch": 8, "length": 2, "seed": 3}
    BurstDataset([photo(0)], **{**given, name: least})
    with pytest.raises(RecipeError, match=f"{name} must be at least {least}, not {least - 1}"):
        BurstDataset([photo(0)], **{**given, name: least - 1})


def test_motion_may_be_as_large_as_the_standard_image_and_half_a_turn():
    most = {"max_translation": 384, "max_rotation": 180}
    BurstSynthesis(**most)
    for name, value in most.items():
        with pytest.raises(RecipeError, match=f"{name} is {value + 1}; it must be from 0 to"):
            BurstSynthesis(**{name: value + 1})


def test_each_of_eight_turns_of_a_photo_is_drawn(monkeypatch):
    seen = []
    synthesis = BurstSynthesis(frames=1, max_translation=0)
    monkeypatch.setattr(BurstSynthesis, "__call__", lambda self, piece_3HW, rng: piece_3HW)
    data = BurstDataset([photo(0, 64, 64)], synthesis=synthesis, patch=8, length=1, seed=0)
    for turn in range(8):
        draws = []

        def drawn(bound, rng, draws=draws, turn=turn):
            draws.append(bound)
            return turn if len(draws) == 4 else 0

        monkeypatch.setattr("zoo.data.burst.dataset.below", drawn)
        seen.append(data.burst(0))
        assert draws == [1, 1, 1, 8]  # photo, row, column, turn
    whole = seen[0]
    turned = [whole.rot90(k, (1, 2)) for k in range(4)]
    expected = turned + [image.flip(2) for image in turned]
    assert all(torch.equal(a, b) for a, b in zip(seen, expected, strict=True))


@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("columns", [False, True])
def test_flips_keep_rggb(rows, columns):
    colors = torch.tensor([0.0, 1.0, 2.0, 3.0])[:, None, None].expand(4, 5, 6)
    assert torch.equal(bayer_flip(colors, rows=rows, columns=columns), colors)
    flat = torch.arange(80.0).reshape(1, 8, 10)
    flipped = F.pixel_shuffle(bayer_flip(F.pixel_unshuffle(flat, 2), rows=rows, columns=columns), 2)
    expected = flat
    if rows:
        expected = expected.flip(1)[:, 1:-1]
    if columns:
        expected = expected.flip(2)[:, :, 1:-1]
    assert torch.equal(flipped[:, : expected.shape[1], : expected.shape[2]], expected)
    assert flipped.shape == flat.shape


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"frames": 0}, "from 1 to 1000"),
        ({"factor": 10**9}, "from 1 to 64"),
        ({"max_rotation": float("nan")}, "from 0 to 180"),
        ({"max_translation": -1.0}, "must be from 0 to 384"),
        ({"exposure_jitter": 1.5}, "must be in"),
        ({"moving_object": 2.0}, r"must be in \[0, 1\]"),
        ({"space": "srgb"}, "must be 'linear'"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(RecipeError, match=message):
        BurstSynthesis(**settings)


def test_pieces_that_do_not_fit():
    with pytest.raises(ImageError, match=r"square piece of .* multiple of 8, not 108x101 pix"):
        BurstSynthesis()(torch.rand(3, 101, 108), rng())
    with pytest.raises(ImageError, match="no photo"):
        BurstDataset([], synthesis=BurstSynthesis(), patch=8, length=1, seed=0)
    with pytest.raises(RecipeError, match="patch must be"):
        BurstDataset([photo()], synthesis=BurstSynthesis(), patch=0, length=1, seed=0)


def test_the_challenge_rounds_down_first_and_then_to_the_nearest():
    """An even picture of 128.9 levels becomes 128, not 129; the exact one stays."""
    linear = torch.full((3, 56, 56), 128.9 / 255)
    for quantize, expected in (("official", 128 / 255), ("none", 128.9 / 255)):
        make = BurstSynthesis(frames=2, quantize=quantize, max_translation=0.0, max_rotation=0.0)
        motions = make._motions(56, 56, rng())
        frames = make._sample(linear, motions, 56, rng())[..., 1:-1, 1:-1]
        torch.testing.assert_close(frames, torch.full_like(frames, expected), atol=1e-5, rtol=0)
