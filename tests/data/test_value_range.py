"""Which values are black and white, and the bits that they keep from a file to its output."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import zoo
from tests.helpers.bands import Remembers, get, put, values
from tests.helpers.networks import Nearest
from zoo.data import Bicubic, PatchDataset, Photo, load_training_photos, read_photo, write_photo
from zoo.data.photo import Saving
from zoo.data.pixels import quantise
from zoo.data.testsets import find_test_set
from zoo.data.value_range import check_range, in_range, range_of, scaled
from zoo.errors import ImageError, RecipeError
from zoo.recipe import Recipe


@pytest.mark.parametrize("suffix", [".npy", ".tif"])
def test_a_stated_range_is_black_and_white_and_is_written_back(tmp_path, suffix, caplog):
    array = np.array([[[-100.0, 0, 9900.0, 20000.0]]], np.float32)
    path = put(tmp_path / f"a{suffix}", array)
    photo = read_photo(path, (-100, 9900))
    np.testing.assert_allclose(photo.color_HWC, [[[0, 0.01, 1, 1]]], atol=1e-6)
    assert "25 % of the values are outside (-100, 9900)" in caplog.text
    assert (photo.bit_depth, photo.value_range) == (32, (-100, 9900))
    write_photo(tmp_path / f"b{suffix}", photo)
    found = get(tmp_path / f"b{suffix}").reshape(-1)
    np.testing.assert_allclose(found, [-100, 0, 9900, 9900], atol=1e-3)  # clipped to the range


def test_levels_may_have_a_range_of_their_own(tmp_path):
    """12 bits in a file of 16, and reflectances up to 10000; also in a PNG."""
    levels = np.array([[0, 1000, 4095]], np.uint16)
    for path in (put(tmp_path / "a.npy", levels), tmp_path / "a.png"):
        if path.suffix == ".png":
            cv2.imwrite(str(path), levels)
        photo = read_photo(path, (0, 4095))
        np.testing.assert_allclose(photo.color_HWC[..., 0], levels / 4095, atol=1e-6)
        write_photo(tmp_path / f"out{path.suffix}", photo)
        found = read_photo(tmp_path / f"out{path.suffix}").color_HWC[..., 0] * 65535
        np.testing.assert_array_equal(found.round(), levels)


def test_floats_of_an_unstated_range_are_an_error_that_names_what_they_are(tmp_path):
    path = put(tmp_path / "a.npy", np.array([[-3.0, 4523.0]]))
    message = r"a\.npy' has values from -3 to 4523; state which values are black and white"
    with pytest.raises(ImageError, match=message):
        read_photo(path)
    put(path, np.array([[0.0, 1.0005]]))
    assert read_photo(path).bit_depth == 32
    put(path, np.array([[0, 5]], np.int32))
    with pytest.raises(ImageError, match="state which values"):
        read_photo(path)
    np.testing.assert_allclose(read_photo(path, (0, 10)).color_HWC[..., 0], [[0, 0.5]])


@pytest.mark.parametrize("wrong", [(1, 1), (2, 1), (0, float("nan")), (0, float("inf"))])
def test_a_range_is_two_numbers_with_the_smaller_one_first(wrong):
    with pytest.raises(RecipeError, match=r"range is .*such as"):
        check_range(wrong)


@pytest.mark.parametrize("wrong", ["text", [1], [1, "2"], {"a": 1}])
def test_a_wrong_range_in_a_file_of_weights_is_one_sentence(wrong):
    recipe = trained_with({"range": wrong})
    with pytest.raises(RecipeError, match="must be two numbers"):
        range_of(recipe)
    assert range_of(None) is None
    assert range_of(trained_with({"range": [0, 5]})) == (0, 5)
    assert range_of(trained_with({})) is None


def trained_with(data):
    return Recipe(name="a", network={"type": "single_image"}, train={"data": data})


def test_the_range_of_the_training_is_used_unless_another_is_given(tmp_path):
    path = put(tmp_path / "a.npy", np.full((4, 4), 50.0))
    network = Remembers(1, 1)
    network.recipe = trained_with({"range": [0, 100]})
    zoo.restore(network, path, tmp_path / "b.npy", progress=False)
    assert network.seen.unique().tolist() == [0.5]
    zoo.restore(network, path, tmp_path / "c.npy", value_range=(0, 200), progress=False)
    assert network.seen.unique().tolist() == [0.25]
    assert np.load(tmp_path / "c.npy").max() == 50


def test_a_float_image_of_three_channels_becomes_a_picture(tmp_path):
    array = values((4, 5, 3), "float32") * 100
    path = put(tmp_path / "a.npy", array)
    write_photo(tmp_path / "a.png", read_photo(path, (0, 100)))
    found = read_photo(tmp_path / "a.png")
    assert found.bit_depth == 16
    np.testing.assert_allclose(found.color_HWC, array / 100, atol=0.6 / 65535)


def test_training_keeps_floats_as_they_are_and_reads_them_again_alike(tmp_path):
    arrays = {f"{n}.npy": values((12, 12, 8), "float32", n) * 10_000 for n in range(2)}
    for name, array in arrays.items():
        put(tmp_path / name, array)
    for memory in (1.0, 0.0):  # kept, and read at each use
        photos = load_training_photos(tmp_path, memory=memory, value_range=(0, 10_000))
        data = PatchDataset(
            photos, degradation=Bicubic(scale=1, rounded=False), patch=4, channels=8,
            augment=False, length=4, seed=0,
        )  # fmt: skip
        _, clean = data[0]
        known = [torch.from_numpy(array / 10_000).permute(2, 0, 1) for array in arrays.values()]
        assert any(contains(image, clean) for image in known)


def contains(image_CHW, patch_CHW):
    side = patch_CHW.shape[1]
    windows = image_CHW.unfold(1, side, 1).unfold(2, side, 1).permute(1, 2, 0, 3, 4)
    return bool(((windows - patch_CHW).abs().amax((2, 3, 4)) < 1e-6).any())


def test_floats_have_16_bits_where_levels_are_needed():
    assert quantise(np.array([0, 0.5, 1.0]), 32).tolist() == [0, 32768, 65535]


def test_bicubic_rounds_to_8_bits_only_if_it_should():
    clean = torch.rand(2, 8, 8)
    rng = np.random.default_rng(0)
    rounded = Bicubic(scale=2)(clean, rng) * 255
    assert torch.equal(rounded, rounded.round())
    exact = Bicubic(scale=2, rounded=False)(clean, rng)
    assert (exact * 255 - (exact * 255).round()).abs().max() > 0.1
    torch.testing.assert_close(exact, rounded / 255, atol=1.2 / 255, rtol=0)  # rounded twice


def test_a_range_also_holds_in_memory():
    photo = Photo(np.array([[[0.2, 0.6]]], np.float32), bit_depth=16)
    found = in_range(Path("a"), photo, (0, 32767.5))
    np.testing.assert_allclose(found.color_HWC, [[[0.4, 1.0]]], rtol=1e-6)


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".bmp"])
def test_a_range_of_more_levels_than_the_output_is_shown_from_black_to_white(
    tmp_path, suffix, caplog
):
    """12 bits became the 8 highest of 16: nearly black."""
    levels = np.full((16, 16, 3), 4095, np.uint16)
    levels[:8] = 0
    path = put(tmp_path / "a.npy", levels)
    zoo.restore(Nearest(), path, tmp_path / f"b{suffix}", value_range=(0, 4095), progress=False)
    found = cv2.imread(str(tmp_path / f"b{suffix}"))
    assert found[:8].max() < 9 and found[-8:].min() > 246
    assert f"16 bits become 8 bits, because {suffix} cannot hold it" in caplog.text


@pytest.mark.parametrize("suffix", [".webp", ".bmp"])
def test_lossless_refuses_to_lose_bits_and_alpha(tmp_path, suffix):
    deep = Photo(np.zeros((4, 4, 3), np.float32), bit_depth=16)
    with pytest.raises(ImageError, match="without loss: 16 bits become 8 bits"):
        write_photo(tmp_path / f"a{suffix}", deep, Saving(lossless=True))
    floats = Photo(np.zeros((4, 4, 3), np.float32), bit_depth=32)
    with pytest.raises(ImageError, match="without loss: floating-point values become 8 bits"):
        write_photo(tmp_path / f"a{suffix}", floats, Saving(lossless=True))
    with pytest.raises(ImageError, match="without loss: floating-point values become 16 bits"):
        write_photo(tmp_path / "a.png", floats, Saving(lossless=True))
    clear = Photo(np.zeros((4, 4, 3), np.float32), np.ones((4, 4), np.float32))
    if suffix == ".bmp":
        with pytest.raises(ImageError, match="without loss: alpha is dropped"):
            write_photo(tmp_path / f"a{suffix}", clear, Saving(lossless=True))
    write_photo(tmp_path / "a.png", deep, Saving(lossless=True))
    assert not (tmp_path / f"a{suffix}").exists()


def test_another_range_than_that_of_the_weights_is_said(tmp_path, caplog):
    small = {"type": "single_image", "dim": 30, "depths": [1], "block": "rlmb"}

    def of_range(*stated):
        data = {"data": {"range": list(stated)}} if stated else {}
        return {"name": "a", "network": small, "train": data}

    zoo.save(zoo.build(of_range(0, 4095)), tmp_path / "a.safetensors")
    zoo.load(tmp_path / "a.safetensors", recipe=of_range(0, 4095))
    assert "data.range" not in caplog.text
    zoo.load(tmp_path / "a.safetensors", recipe=of_range())
    assert "was trained with data.range [0, 4095], but a, which is used, has None" in caplog.text


def test_more_than_one_value_in_a_hundred_outside_the_range_is_said(caplog):
    values_N = np.linspace(0, 1, 100)
    for outside, said in ((1, False), (2, True)):
        given = values_N.copy()
        given[:outside] = -5
        assert scaled(Path("a"), given, (0.0, 1.0)).min() == 0
        assert ("a: 2 % of the values are outside (0.0, 1.0)" in caplog.text) == said
    assert caplog.text.count("outside") == 1


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".mat", ".tif"])
@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_values_of_a_network_that_has_diverged_are_not_written(tmp_path, suffix, wrong):
    """NaN would be taken for pixels without data."""
    array = values((4, 5, 2), "float32")
    array[1, 2, 0] = wrong
    with pytest.raises(ImageError, match="the result has NaN or infinite values; the network"):
        write_photo(tmp_path / f"a{suffix}", Photo(array, bit_depth=32))
    assert list(tmp_path.iterdir()) == []


def test_the_range_of_a_test_set_is_that_of_its_levels_too(tmp_path):
    """12 bits in a file of 16; of guides it is that of floating-point values only."""
    levels = np.arange(48, dtype=np.uint16).reshape(6, 8) * 85
    for folder in ("HR", "input", "pan"):
        (tmp_path / "Set" / folder).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "Set" / folder / "a.png"), levels)
    [image] = find_test_set(tmp_path, "Set", None, 1, guides=["pan"], value_range=(0, 4095))
    for found in (image.read_clean(), image.read_degraded()):
        np.testing.assert_allclose(found[0].numpy(), levels / 4095, atol=1e-6)
    [guide] = image.read_guides()
    np.testing.assert_allclose(guide[..., 0], levels / 65535, atol=1e-6)
