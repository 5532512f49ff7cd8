"""Merging a burst on the grid of the result: by hand, on synthetic bursts, and in a network."""

from __future__ import annotations

import math

import pytest
import torch

import zoo
from zoo.data.burst import BurstSynthesis
from zoo.errors import RecipeError
from zoo.networks.frame_merge import WIDTH, MergedSkip
from zoo.networks.phase import enlarge_frame

# Where planes R, Gr, Gb, B begin, in pixels of a plane, and their colours.
RAW = ((0.0, 0.0, 0), (0.0, 0.5, 1), (0.5, 0.0, 1), (0.5, 0.5, 2))
RGB = ((0.0, 0.0, 0), (0.0, 0.0, 1), (0.0, 0.0, 2))


def by_hand(burst, shift_T2, scale, y, x, color):
    """One pixel of the result, where every frame moved as a whole."""
    frames, channels, height, width = burst.shape
    weighted = total = 0.0
    for t in range(frames):
        for i, (down, along, of_color) in enumerate(RAW if channels == 4 else RGB):
            if of_color != color:
                continue
            row = y / scale - down + float(shift_T2[t, 0])
            column = x / scale - along + float(shift_T2[t, 1])
            for r in (math.floor(row), math.floor(row) + 1):
                for c in (math.floor(column), math.floor(column) + 1):
                    r_in, c_in = min(max(r, 0), height - 1), min(max(c, 0), width - 1)
                    squared = (row - r_in) ** 2 + (column - c_in) ** 2
                    weight = math.exp(-squared / (2 * WIDTH**2))
                    weighted += weight * float(burst[t, i, r_in, c_in])
                    total += weight
    return weighted / total


@pytest.mark.parametrize(("channels", "scale"), [(4, 8), (3, 4), (4, 2)])
def test_every_pixel_is_the_weighted_mean_of_the_samples_around_it(channels, scale):
    burst = torch.rand(3, channels, 4, 5)
    shift_T2 = torch.tensor([[0.0, 0.0], [0.3, -0.8], [-1.2, 0.55]])
    flow = shift_T2[:, :, None, None].expand(-1, -1, 4, 5)
    merged = MergedSkip(channels, scale=scale)(burst[None], flow[None])
    assert merged.shape == (1, 3, 4 * scale, 5 * scale)
    for y, x in ((0, 0), (scale, 2 * scale), (2 * scale + 1, scale + 1), (4 * scale - 1, 3)):
        for color in range(3):
            expected = by_hand(burst, shift_T2, scale, y, x, color)
            assert float(merged[0, color, y, x].detach()) == pytest.approx(expected, rel=1e-4)


def test_frames_that_moved_show_more_than_the_reference():
    make = BurstSynthesis(frames=8, noise=False, max_rotation=0.0)
    side = make.window(192)
    coarse = torch.rand(1, 3, side // 5, side // 5)
    photo = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic")
    burst = make(photo[0].clamp(0, 1), torch.Generator().manual_seed(0))

    def error(image):
        return float((image - burst.clean)[:, 24:-24, 24:-24].square().mean())

    merge = MergedSkip(4, scale=8)
    with torch.no_grad():
        merged = error(merge(burst.frames[None], burst.flow[None])[0])
        backwards = error(merge(burst.frames[None], -burst.flow[None])[0])
    alone = error(enlarge_frame(burst.frames[:1], 8, "corner")[0])
    # At least 2 dB each; backwards is worse than the reference alone.
    assert merged < 0.63 * alone < alone < backwards


def test_a_network_merges_and_says_what_it_needs():
    network = {"type": "burst", "dim": 8, "burst": 3, "stages": [1], "scale": 2, "align": "none",
               "body": {"heads": 2}, "skip": "merged"}  # fmt: skip
    with pytest.raises(RecipeError, match=r"skip is 'merged'.*set flow_prior"):
        zoo.build({"network": network})
    built = zoo.build({"network": {**network, "flow_prior": "given"}})
    burst, flow = torch.rand(1, 3, 4, 4, 4), torch.rand(1, 3, 2, 4, 4)
    merged = built.skip(burst, flow)
    zeros = {k: torch.zeros_like(v) for k, v in built.head.last.state_dict().items()}
    built.head.last.load_state_dict(zeros)
    torch.testing.assert_close(built(burst, flow), merged)
    merged.square().mean().backward()
    assert built.skip.log_width.grad.all()
