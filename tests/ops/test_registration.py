"""Registration of a burst: signs, axes, frames and batches in place, and what moves by itself."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from zoo.ops import registration
from zoo.ops.deformable import deformable_conv, deformable_gather, warp
from zoo.ops.registration import register_burst


def scene(height, width, seed=0, cell=4):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 1, height // cell, width // cell, generator=generator)
    return F.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 1)[0]


def burst_of(large, shifts, height, width):
    """Frames (T, 1, H, W); frame t sampled at position + shift shows what the first shows."""
    top, left = ((a - b) // 2 for a, b in zip(large.shape[1:], (height, width), strict=True))
    return torch.stack(
        [large[:, top - r : top - r + height, left - c : left - c + width] for r, c in shifts]
    )


def test_every_frame_of_every_burst_has_its_own_shift():
    shifts = [[(0, 0), (3, -2), (-4, 1)], [(0, 0), (1, 5), (0, -3)]]
    bursts = [burst_of(scene(96, 112, seed), s, 64, 72) for seed, s in enumerate(shifts)]
    found = register_burst(torch.stack(bursts))
    assert found.shape == (2, 3, 2, 64, 72) and found.dtype == torch.float32
    expected = torch.tensor(shifts, dtype=torch.float32)[..., None, None].expand_as(found)
    assert (found - expected)[..., 6:-6, 6:-6].abs().max() < 0.15
    assert not found[:, 0].any()


def test_a_large_image_is_registered_from_coarse_to_fine(monkeypatch):
    """Beyond what the search of the finest level reaches, to a part of a pixel."""
    burst = burst_of(scene(200, 240), [(0, 0), (11, -13)], 140, 160)
    found = register_burst(burst[None])[0, 1]
    expected = torch.tensor([11.0, -13.0])[:, None, None]
    assert (found - expected)[:, 16:-16, 16:-16].abs().max() < 0.15


def test_shifts_up_to_a_tenth_of_the_shorter_side_are_searched_for():
    """Of fine texture, which has no slope that leads so far."""
    burst = burst_of(scene(96, 112, cell=2), [(0, 0), (6, -6)], 64, 72)
    found = register_burst(burst[None])[0, 1]
    expected = torch.tensor([6.0, -6.0])[:, None, None]
    assert (found - expected)[:, 8:-8, 8:-8].abs().max() < 0.15


def test_what_moves_by_itself_is_given_little_weight(monkeypatch):
    """A sixth of the second frame shows something else. Least squares would be far off."""
    burst = burst_of(scene(96, 112), [(0, 0), (2, -3)], 64, 72)
    burst[1, :, 20:46, 20:48] = burst[1, :, 20:46, 20:48].flip(-1) * 0.5 + 0.5
    expected = torch.tensor([2.0, -3.0])[:, None, None]

    def error():
        found = register_burst(burst[None])[0, 1]
        return float((found - expected).norm(dim=0).mean())

    robust = error()
    monkeypatch.setattr(registration, "HUBER", 1e6)
    assert robust < 0.3 and robust < 0.5 * error()


def test_brightness_of_a_frame_and_of_its_channels_does_not_matter():
    burst = burst_of(scene(96, 112), [(0, 0), (3, -2)], 64, 72)
    colours = torch.cat([burst * 0.2, burst * 0.9, burst * 0.4], dim=1)
    darker = colours * torch.tensor([1.0, 0.3])[:, None, None, None]
    expected = register_burst(burst[None])
    for changed in (colours, darker):
        assert (register_burst(changed[None]) - expected).abs().max() < 0.05


def test_pairs_that_are_registered_apart_are_the_same(monkeypatch):
    burst = burst_of(scene(64, 64), [(0, 0), (1, -2), (2, 0)], 40, 44)[None]
    expected = register_burst(burst)
    monkeypatch.setattr(registration, "PIXELS_AT_ONCE", 1)
    torch.testing.assert_close(register_burst(burst), expected, atol=1e-3, rtol=0)


def test_one_frame_does_not_move():
    assert not register_burst(torch.rand(2, 1, 3, 20, 24)).any()


@pytest.mark.parametrize("outside", ["border", "zeros"])
def test_a_warp_samples_rows_then_columns_and_what_it_is_told_outside(outside):
    x = torch.arange(20.0).reshape(1, 1, 4, 5) + 1
    flow = torch.zeros(1, 2, 4, 5)
    flow[:, 0], flow[:, 1] = 1, -2
    given = {} if outside == "border" else {"outside": outside}
    found = warp(x, flow, **given)
    assert torch.allclose(found[0, 0, :3, 2:], x[0, 0, 1:, :3])
    if outside == "zeros":
        assert not found[0, 0, 3].any() and not found[0, 0, :, :2].any()
    else:
        assert torch.allclose(found[0, 0, 3, 2:], x[0, 0, 3, :3])
        assert torch.allclose(found[0, 0, :3, 0], x[0, 0, 1:, 0])
    half = warp(x, torch.full((1, 2, 4, 5), 0.5))
    assert torch.allclose(half[0, 0, 0, 0], x[0, 0, :2, :2].mean())


@pytest.mark.parametrize("upright", [False, True], ids=["columns", "rows"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_positions_are_float32_whatever_the_images_are(dtype, upright):
    """In half precision they are off by a quarter of a pixel and more at this size."""
    x = (torch.arange(2048) % 2).to(dtype).expand(1, 1, 2, 2048)
    shape = (2048, 2) if upright else (2, 2048)
    x = x.mT if upright else x
    flow = torch.zeros(1, 2, *shape)
    flow[:, 0 if upright else 1] = 0.25
    expected = 0.75 * x.float() + 0.25 * (1 - x.float())
    found = warp(x, flow)
    assert found.dtype == dtype
    inner = (..., slice(-1), slice(None)) if upright else (..., slice(None), slice(-1))
    assert (found.float() - expected)[inner].abs().max() < 2e-2
    offset, mask = flow.to(dtype), torch.ones(1, 1, *shape, dtype=dtype)
    found = deformable_gather(x, offset, mask, kernel=1)
    assert found.dtype == dtype and (found.float() - expected)[inner].abs().max() < 2e-2


def test_offsets_that_do_not_fit_the_kernel_are_refused():
    x = torch.rand(1, 4, 5, 6)
    for offset, mask in ((18, 8), (20, 9), (36, 9)):
        with pytest.raises(ValueError, match="a kernel of 3 needs 18 and 9 for each group"):
            deformable_gather(x, torch.zeros(1, offset, 5, 6), torch.ones(1, mask, 5, 6), kernel=3)
    with pytest.raises(ValueError, match="4 channels cannot be split into 3 offset groups"):
        deformable_gather(x, torch.zeros(1, 54, 5, 6), torch.ones(1, 27, 5, 6), kernel=3)


def test_taps_lie_side_by_side_unless_told_otherwise():
    x, offset, mask = torch.rand(1, 4, 6, 7), torch.randn(1, 18, 6, 7), torch.rand(1, 9, 6, 7)
    weight = torch.randn(4, 4, 3, 3)
    gathered = deformable_gather(x, offset, mask, kernel=3)
    assert torch.equal(gathered, deformable_gather(x, offset, mask, kernel=3, dilation=1))
    found = deformable_conv(x, offset, mask, weight)
    assert torch.equal(found, deformable_conv(x, offset, mask, weight, groups=1, dilation=1))
    assert not torch.allclose(found, deformable_conv(x, offset, mask, weight, dilation=2))


@pytest.mark.filterwarnings("error")
def test_displacements_and_a_program_in_double_precision_change_nothing():
    x, offset, mask = torch.rand(1, 4, 6, 7), torch.randn(1, 18, 6, 7), torch.rand(1, 9, 6, 7)
    flow, burst = torch.randn(1, 2, 6, 7), torch.rand(1, 2, 3, 16, 18)

    def results(dtype):
        given = offset.to(dtype), mask.to(dtype)
        gathered = deformable_gather(x, *given, kernel=3, base_flow_N2HW=flow.to(dtype))
        return [gathered, warp(x, flow.to(dtype)), register_burst(burst)]

    expected = results(torch.float32)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        found = results(torch.float64)
    finally:
        torch.set_default_dtype(before)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_black_frames_do_not_move():
    assert not register_burst(torch.zeros(1, 2, 1, 12, 14)).any()


def test_a_search_ends_at_a_tenth_of_the_shorter_side_or_at_one_pixel():
    def found(shift, height, width):
        wide = torch.rand(1, 1, height + 20, width + 20, generator=torch.Generator().manual_seed(1))
        still, moved = (
            wide[..., 10 - s : 10 - s + height, 10 + s : 10 + s + width] for s in (0, shift)
        )
        return registration._searched(still, moved)[0].tolist()

    assert found(4, 40, 60) == found(4, 60, 40) == [4, -4]
    assert max(map(abs, found(5, 40, 60) + found(5, 60, 40))) <= 4
    assert found(1, 9, 30) == found(1, 30, 9) == [1, -1]
    assert max(map(abs, found(2, 9, 30) + found(2, 30, 9))) <= 1


@pytest.mark.parametrize(
    ("height", "width", "levels"), [(63, 90, 1), (64, 90, 2), (90, 64, 2), (160, 128, 3)]
)
def test_the_coarsest_image_is_blurred_more_at_first(height, width, levels, monkeypatch):
    seen = []

    def refine(still, moved, motion, prior, shrink, blur):
        assert still.shape == moved.shape
        seen.append((*still.shape[2:], shrink, blur))
        return motion

    monkeypatch.setattr(registration, "COARSEST", 32)
    monkeypatch.setattr(registration, "_refine", refine)
    registration._register(torch.rand(1, 1, height, width), torch.rand(1, 1, height, width))
    sizes = [(height // 2**level, width // 2**level, 2**level) for level in range(levels)]
    assert seen == [(*sizes[-1], 2.0), *((*size, 1.0) for size in reversed(sizes))]


@pytest.mark.parametrize(
    ("pixels", "batches"), [(2**20, [4]), (3 * 30, [3, 1]), (2 * 30 - 1, [1] * 4), (1, [1] * 4)]
)
def test_pairs_are_registered_in_batches_of_so_many_pixels(pixels, batches, monkeypatch):
    seen = []

    def register(still, moved):
        assert still.shape == moved.shape
        seen.append(len(still))
        return torch.zeros(len(still), 2, 5, 6)

    monkeypatch.setattr(registration, "PIXELS_AT_ONCE", pixels)
    monkeypatch.setattr(registration, "_register", register)
    assert register_burst(torch.rand(2, 3, 1, 5, 6)).shape == (2, 3, 2, 5, 6)
    assert seen == batches


def test_a_frame_that_shows_nothing_of_the_first_keeps_a_finite_motion():
    still, motion = torch.rand(1, 1, 8, 9), torch.zeros(1, 2, 3).double()
    motion[:, :, 0] = 1000
    prior = torch.tensor([0.8, 0.08, 0.08]).double()
    assert registration._refine(still, still, motion, prior, 1, 1.0).isfinite().all()


def test_the_motion_of_a_hard_burst_is_known_to_a_hundredth_of_a_pixel(monkeypatch):
    """Noise, black levels below zero, something that moves by itself, a turn, and flat frames.

    Every step of the search has a part in these numbers; changed on purpose only.
    """
    monkeypatch.setattr(registration, "COARSEST", 32)  # two levels, and small images
    generator = torch.Generator().manual_seed(3)
    large = scene(100, 112, seed=5) * 0.3
    burst = burst_of(large, [(0, 0), (3, -5), (-5, 2), (0, 0)], 70, 82)
    burst[1, :, 24:44, 20:46] = burst[1, :, 24:44, 20:46].flip(-1) * 0.5 + 0.1
    turned = torch.tensor([[1.0, 0.03, 0.01], [-0.02, 0.98, 0.02]])[None]
    grid = F.affine_grid(turned, [1, 1, 70, 82], align_corners=False)
    burst[2:3] = F.grid_sample(burst[2:3], grid, padding_mode="border", align_corners=False)
    burst[3] = 0.1  # no structure: the prior decides
    burst = burst.expand(-1, 3, -1, -1) + 0.03 * torch.randn(4, 3, 70, 82, generator=generator)
    found = register_burst(burst[None])[0]
    corners = found[1:, :, ::69, ::81].flatten(2)
    assert (corners - torch.tensor(CORNERS)).abs().max() < 0.01


CORNERS = [
    [[2.9622, 2.9866, 2.9454, 2.9699], [-5.0270, -5.0489, -4.9720, -4.9940]],
    [[-7.1954, -5.7670, -5.8352, -4.4068], [3.1010, 3.0327, 0.5928, 0.5245]],
    [[4.3076, 4.2268, 3.9332, 3.8525], [3.7738, 3.6622, 3.8162, 3.7046]],
]
