"""The authors' tiling, step by step and as recipes ask for it."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch

import zoo
from tests.helpers.evaluation import photo_file, run, weights_in
from zoo.data import (
    Bicubic,
    read_photo,
)
from zoo.data.pixels import to_array, to_tensor
from zoo.evaluation.official_tiling import tiled
from zoo.evaluation.settings import TilingSettings, evaluate_settings
from zoo.metrics import psnr_y
from zoo.recipe import load_recipe


@pytest.fixture
def weights(tmp_path):
    return weights_in(tmp_path)


def by_slices(run, image, scale, limit, shave):
    """The authors' procedure step by step, on a padded image."""
    height, width = image.shape[2:]
    rows, columns = height // limit + 1, width // limit + 1
    below, right = -height % rows, -width % columns
    padded = torch.nn.functional.pad(image, (0, right, 0, below), mode="reflect")
    h, w = padded.shape[2] // rows, padded.shape[3] // columns
    dy, dx = h // shave, w // shave
    result = torch.zeros(1, image.shape[1], padded.shape[2] * scale, padded.shape[3] * scale)
    for i in range(rows):
        for j in range(columns):
            top = i * h - (dy if i else 0)
            bottom = (i + 1) * h + (dy if i < rows - 1 else 0)
            left = j * w - (dx if j else 0)
            end = (j + 1) * w + (dx if j < columns - 1 else 0)
            out = run(padded[:, :, top:bottom, left:end])
            y, x = (dy * scale if i else 0), (dx * scale if j else 0)
            part = out[:, :, y : y + h * scale, x : x + w * scale]
            result[
                :, :, i * h * scale : (i + 1) * h * scale, j * w * scale : (j + 1) * w * scale
            ] = part
    return result[:, :, : height * scale, : width * scale]


@pytest.mark.parametrize("size", [(19, 23), (20, 61), (45, 33)])
def test_the_authors_tiling(size):
    seen = []

    def run(image):
        seen.append(tuple(image.shape[2:]))
        # Not local: what is in a tile changes all of it.
        return torch.nn.functional.interpolate(image, scale_factor=2) + image.mean()

    image = torch.rand(1, 3, *size)
    settings = TilingSettings(limit=20, shave=4)
    assert torch.equal(tiled(run, image, 2, settings), by_slices(run, image, 2, 20, 4))
    seen.clear()
    tiled(run, image, 2, TilingSettings(limit=20, shave=4, grid=8))
    # At least one mirrored pixel, up to the next multiple: a tile of 16 becomes one of 24.
    assert all(height % 8 == 0 and width % 8 == 0 for height, width in seen)


@pytest.mark.parametrize("size", [(16, 16), (9, 20), (3, 5), (2, 1)])
def test_tiles_are_continued_by_their_mirror_image_beyond_the_next_multiple(size):
    """Up to twice the tile, which is all that a mirror shows."""
    seen = []

    def run(image):
        seen.append(image)
        return image.repeat_interleave(2, 2).repeat_interleave(2, 3)

    image = torch.rand(1, 1, *size)
    found = tiled(run, image, 2, TilingSettings(limit=100, shave=4, grid=8))
    assert torch.equal(found, image.repeat_interleave(2, 2).repeat_interleave(2, 3))
    whole = np.pad(image[0, 0].numpy(), [(0, side) for side in size], mode="symmetric")
    height, width = (min((side // 8 + 1) * 8, 2 * side) for side in size)
    assert np.array_equal(seen[0][0, 0].numpy(), whole[:height, :width])


def test_defaults_of_the_authors_tiling_are_those_of_mambair():
    assert TilingSettings() == TilingSettings(limit=200, shave=10, grid=0)


def test_official_tiling_cuts_images_as_the_recipe_says(tmp_path, weights):
    """Limit 12 and a quarter of overlap, mirrored: not whole, and not as by default."""
    recipe = weights[0]
    recipe.write_text(
        recipe.read_text()[:-2].rstrip() + ", tiling: {limit: 12, shave: 4, grid: 8}}\n"
    )
    path = photo_file(tmp_path / "data" / "Set5" / "a.png", size=(40, 28))
    options = [*weights, "--data", tmp_path / "data", "-o", tmp_path / "out"]
    assert run(*options, "--official-tiling") == 0
    [row] = csv.DictReader((tmp_path / "out" / "images.csv").open())
    network = zoo.load(tmp_path / "a.safetensors")
    clean = read_photo(path).color_HWC
    small = Bicubic(scale=2)(to_tensor(clean), np.random.default_rng(0))[None]

    def mirrored(tile):
        height, width = tile.shape[2:]
        below, right = 8 - height % 8, 8 - width % 8
        padded = np.pad(tile[0].numpy(), ((0, 0), (0, below), (0, right)), mode="symmetric")
        with torch.inference_mode():
            return network(torch.from_numpy(padded)[None])[:, :, : 2 * height, : 2 * width]

    restored = by_slices(mirrored, small, 2, 12, 4)[0].clamp(0, 1)
    expected = psnr_y(to_array(restored), clean, crop_border=2)
    assert float(row["psnr"]) == pytest.approx(expected, abs=1e-4)
    with torch.inference_mode():
        whole = network(small)[0].clamp(0, 1)
    assert abs(psnr_y(to_array(whole), clean, crop_border=2) - expected) > 1e-3
    assert "tiled as in the authors' code" in (tmp_path / "out" / "summary.md").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tile", "16"], "two ways to cut images"),
        ([], "small states no tiling of its authors"),
    ],
)
def test_official_tiling_is_refused_where_it_is_not_the_authors(
    words, message, tmp_path, weights, capsys
):
    if not words:
        recipe = weights[0]
        recipe.write_text(recipe.read_text()[:-2].rstrip() + ", tiling: null}\n")
    photo_file(tmp_path / "data" / "Set5" / "a.png")
    options = [*weights, "--data", tmp_path / "data", "-o", tmp_path / "out"]
    assert run(*options, "--official-tiling", *words) == 2
    assert message in capsys.readouterr().err


def test_who_states_a_tiling():
    """The authors of the U-Net's code restore images whole, as do those of EAMamba and others."""
    whole = ("mambair_realdn", "eamamba_dn50", "vmambair_x4", "wavemamba_lol")
    for name in whole:
        assert evaluate_settings(load_recipe(name)).tiling is None
    for name in ("mambair_dn50", "mambair_car10", "mair_dn15", "mambairv2_light_x4"):
        assert evaluate_settings(load_recipe(name)).tiling == TilingSettings()
