"""Scores on linear values against independent ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from zoo.errors import ImageError
from zoo.metrics.burst import aligned, aligned_psnr, linear_psnr, linear_ssim, quantise_14
from zoo.ops.deformable import warp


def pair(height, width, brightness=1.0):
    clean = brightness * torch.rand(3, height, width)
    return clean + 0.05 * brightness * (torch.randn(3, height, width) + 1), clean


def test_predictions_are_cut_to_14_bits():
    values = torch.tensor([[[-0.2, 0.9 / 2**14, 1.9 / 2**14, 1.7]]])
    assert (quantise_14(values) * 2**14).flatten().tolist() == [0, 0, 1, 2**14]


@pytest.mark.parametrize("border", [0, 40])
@pytest.mark.parametrize("brightness", [1.0, 0.02])  # peak and constants do not follow the image
def test_psnr_and_ssim_equal_scikit_image(border, brightness):
    restored, clean = pair(100, 120, brightness)
    inside = np.s_[:, border : 100 - border, border : 120 - border]
    x = np.floor(np.clip(restored.double().numpy(), 0, 1) * 16384)[inside] / 16384
    y = clean.double().numpy()[inside]
    expected = peak_signal_noise_ratio(y, x, data_range=1.0)
    assert linear_psnr(restored, clean, border=border) == pytest.approx(expected, abs=1e-6)
    ssim = structural_similarity(
        y, x, data_range=1.0, channel_axis=0, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False,
    )  # fmt: skip
    # scikit-image leaves out the same 5 pixels where windows reach over the border
    assert linear_ssim(restored, clean, border=border) == pytest.approx(ssim, abs=1e-6)


def test_equal_images_and_the_border():
    clean = quantise_14(torch.rand(3, 100, 100))
    assert linear_psnr(clean, clean) == math.inf
    assert linear_ssim(clean, clean) == pytest.approx(1)
    spoilt = clean.clone()
    spoilt[:, :40] = 0
    assert linear_psnr(spoilt, clean) == math.inf
    with pytest.raises(ImageError, match="leaves nothing"):
        linear_psnr(clean, clean, border=50)
    with pytest.raises(ImageError, match="has shape"):
        linear_psnr(clean, clean[:, 1:])
    with pytest.raises(ImageError, match="needs at least 11 pixels"):
        linear_ssim(clean, clean, border=46)


@pytest.mark.parametrize(("height", "fitted"), [(24, 18 * 24), (25, 9 * 14)])
def test_colours_are_fitted_inside_of_what_blur_and_motion_reach(monkeypatch, height, fitted):
    """Without 3 pixels per side, and 5 more where there are enough."""
    seen, solve = [], torch.linalg.lstsq

    def noted(a, b):
        seen.append((a.shape, b.shape))
        return solve(a, b)

    monkeypatch.setattr(torch.linalg, "lstsq", noted)
    clean, reference = torch.rand(3, 2 * height, 60), torch.rand(3, height, 30)
    aligned(clean, clean, reference, border=4, flow=lambda a, b: torch.zeros(2, 2 * height, 60))
    assert seen == [((fitted, 3), (fitted, 3))]


def test_aligned_psnr_forgives_place_and_colour_and_nothing_else():
    torch.manual_seed(2)
    clean = F.interpolate(torch.rand(1, 3, 24, 24), size=(192, 192), mode="bicubic")[0].clamp(0, 1)
    moved = warp(clean[None], torch.full((1, 2, 192, 192), 1.7))[0]
    color = torch.tensor([[0.7, 0.1, 0.0], [0.05, 0.6, 0.1], [0.0, 0.1, 0.8]])
    restored = torch.einsum("ij,jhw->ihw", color, moved)
    reference = F.interpolate(restored[None], size=(48, 48), mode="bilinear", antialias=True)[0]
    plain = linear_psnr(restored, clean)
    aligned = aligned_psnr(restored, clean, reference)
    assert aligned > 35 > plain + 10
    blurred = F.avg_pool2d(restored[None], 9, 1, 4)[0]
    assert aligned_psnr(blurred, clean, reference) < aligned - 3
    still = aligned_psnr(restored, clean, reference, flow=lambda a, b: torch.zeros(2, 192, 192))
    assert still < aligned - 3


def still(restored, clean):
    return torch.zeros(2, *clean.shape[1:])


def scene():
    """A smooth clean image, and its reference frame of a quarter of the size."""
    coarse = torch.rand(1, 3, 24, 30)
    clean = F.interpolate(coarse, size=(192, 240), mode="bicubic")[0].clamp(0, 1) * 0.6 + 0.2
    return clean, F.interpolate(clean[None], size=(48, 60), mode="bilinear", antialias=True)[0]


def test_aligned_psnr_of_a_known_error_inside_the_border():
    clean, reference = scene()
    signs = (torch.arange(192)[:, None] + torch.arange(240)) % 2 * 2 - 1
    restored = clean + 0.02 * signs
    restored[:, :40] += 0.2
    restored[:, :, -40:] = 0
    found = aligned_psnr(restored, clean, reference, flow=still)
    assert found == pytest.approx(-20 * math.log10(0.02), abs=0.02)
    assert aligned_psnr(restored, clean, reference, border=30, flow=still) < found - 3


def test_shapes_are_compared_before_images_are_aligned():
    """A search for the motion takes seconds, and fails with words that name no image."""
    clean, reference = scene()
    for options, message in (({}, "has shape"), ({"border": 10**4}, "leaves nothing")):
        restored = clean[..., 1:] if not options else clean
        with pytest.raises(ImageError, match=message):
            aligned_psnr(
                restored, clean, reference, **options, flow=lambda *_: pytest.fail("a search")
            )


def test_aligned_psnr_leaves_out_what_the_reference_does_not_show():
    clean, reference = scene()
    restored, reference_too = clean + 0.02, reference.clone()
    clean[:, 80:110, 90:130] += 0.15  # came into view in the clean shot alone
    found = aligned_psnr(restored, clean, reference_too, flow=still)
    assert 30 < found < 34  # 27 with the part that came into view, 34 without its edges
    elsewhere = torch.rand(3, 48, 60)
    with pytest.raises(ImageError, match="no pixel can be compared"):
        aligned_psnr(restored, 1 - clean.round(), elsewhere, border=90, flow=still)


def test_the_flow_leads_from_the_restored_to_the_clean_image_both_as_bright_as_can_be():
    clean, reference = scene()
    seen = []
    aligned_psnr(
        0.5 * clean, clean, reference, flow=lambda a, b: seen.extend((a, b)) or still(a, b)
    )
    torch.testing.assert_close(seen[0], clean / clean.max())
    torch.testing.assert_close(seen[1], clean / clean.max())
    aligned_psnr(
        clean.flip(2), clean, reference, flow=lambda a, b: seen.extend((a, b)) or still(a, b)
    )
    torch.testing.assert_close(seen[2], clean.flip(2) / clean.max())


def test_colours_that_are_off_by_less_than_20_levels_are_compared():
    """What is added is against the reference's symmetry, so the fitted matrix stays the unit's."""
    half = torch.rand(3, 40, 20)
    reference = torch.cat([half, half.flip(2)], dim=2) * 0.4 + 0.3
    sides = torch.ones(40, 40)
    sides[:, 20:] = -1
    for levels, sure in ((19.99, True), (20.01, False)):
        clean = reference.clone()
        clean[1] += levels / 255 * sides
        valid_HW = aligned(clean, clean, reference, border=0, flow=still).valid_1HW[0]
        assert valid_HW[10:30, 18:22].all()  # where one side is blurred into the other
        assert bool(valid_HW[10:30, 5:15].all()) is bool(valid_HW[10:30, 5:15].any()) is sure


def test_pixels_are_compared_where_nine_tenths_of_what_is_around_them_can_be():
    clean, reference = scene()
    found = aligned(clean, clean, reference, border=0, flow=still)
    assert found.clean_3HW.dtype == found.restored_3HW.dtype == torch.float64
    valid_HW = found.valid_1HW[0]
    expected = torch.zeros(192, 240)
    expected[14:-14, 14:-14] = 1  # three pixels of the reference are blurred away, of 4 each
    assert torch.equal(valid_HW.float(), expected)


def test_the_brightness_of_images_to_align_counts_as_a_millionth_at_least():
    clean, reference = scene()

    def flow(*images):
        for image, peak in zip(images, (0.1, 0.2), strict=True):
            assert float(image.max()) == pytest.approx(peak)
        raise ImageError("seen")

    dark = torch.full_like(clean, 1e-7)
    with pytest.raises(ImageError, match="seen"):
        aligned_psnr(dark, 2 * dark, reference, flow=flow)
