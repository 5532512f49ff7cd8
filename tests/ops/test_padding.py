"""Padding to a grid and cropping back."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from zoo.ops.padding import Margin, crop, margin_to_grid, pad


@pytest.mark.parametrize("shape", [(3, 5, 7), (2, 3, 5, 7), (2, 4, 3, 5, 7), (1, 1, 8, 4)])
@pytest.mark.parametrize("mode", ["replicate", "reflect"])
def test_an_image_fills_whole_cells_and_comes_back(shape, mode):
    image = torch.rand(shape)
    margin = margin_to_grid(image, 4)
    padded = pad(image, margin, mode=mode)
    height, width = shape[-2:]
    assert padded.shape[:-2] == image.shape[:-2]
    assert padded.shape[-2:] == (-(-height // 4) * 4, -(-width // 4) * 4)
    flat = image.reshape(-1, 1, height, width)
    expected = F.pad(flat, (0, -width % 4, 0, -height % 4), mode=mode)
    assert torch.equal(padded.reshape(expected.shape), expected)
    assert torch.equal(crop(padded, margin), image)


def test_sides_may_have_grids_of_their_own_and_the_margin_grows_with_the_scale():
    image = torch.rand(1, 1, 5, 7)
    margin = margin_to_grid(image, 3, 4)
    assert margin == Margin(below=1, right=1)
    enlarged = pad(image, margin).repeat_interleave(2, 2).repeat_interleave(2, 3)
    expected = image.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.equal(crop(enlarged, margin, 2), expected)


@pytest.mark.parametrize("side", [1, 2, 3, 5])
def test_a_reflection_goes_there_and_back_where_the_margin_is_larger_than_the_image(side):
    row = torch.arange(float(side)).expand(1, 1, 2, side)
    walk = [*range(side), *reversed(range(1, side - 1))] or [0]
    expected = [float(walk[n % len(walk)]) for n in range(side + 12)]
    assert pad(row, Margin(below=0, right=12), "reflect")[0, 0, 1].tolist() == expected
    assert pad(row.mT, Margin(below=12, right=0), "reflect")[0, 0, :, 1].tolist() == expected


class _Padded(torch.nn.Module):
    def __init__(self, mode):
        super().__init__()
        self.mode = mode

    def forward(self, image):
        margin = margin_to_grid(image, 4)
        wide = pad(image, margin, self.mode).repeat_interleave(2, -1)
        return crop(wide, margin._replace(below=0), 2)


@pytest.mark.parametrize("shape", [(1, 3, 13, 19), (1, 2, 3, 13, 19)])
@pytest.mark.parametrize(
    ("strict", "mode"), [(False, "replicate"), (True, "replicate"), (False, "reflect")]
)
def test_a_traced_graph_holds_for_any_size(shape, strict, mode):
    sizes = {len(shape) - 2: torch.export.Dim.DYNAMIC, len(shape) - 1: torch.export.Dim.DYNAMIC}
    traced = torch.export.export(
        _Padded(mode), (torch.rand(shape),), dynamic_shapes=(sizes,), strict=strict
    ).module()
    for height, width in ((13, 19), (16, 8), (5, 4)):
        image = torch.rand(*shape[:-2], height, width)
        assert torch.equal(traced(image), _Padded(mode)(image))


def test_an_empty_margin_is_not_known_to_be_empty_while_tracing(monkeypatch):
    """Comparing the size there would make the graph one for this size only."""
    assert Margin(0, 0).is_empty and not Margin(0, 1).is_empty
    monkeypatch.setattr(torch.compiler, "is_dynamo_compiling", lambda: True)
    assert not Margin(0, 0).is_empty
