"""Restoring photographs: modes, sizes, tiles, ranges, memory."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import zoo
from tests.helpers.networks import Nearest
from zoo.data import Photo, read_photo, resize_bicubic, write_photo
from zoo.data.photo import Saving
from zoo.data.pixels import bleed_colors
from zoo.distributed import ProcessGroup
from zoo.errors import ZooError
from zoo.inference import RestoreSettings, restore_photo, restore_tensor
from zoo.inference.jobs import Plan, Report
from zoo.inference.outputs import Outputs
from zoo.inference.runner import _smaller, check_range
from zoo.registry import Capabilities

SMALL = {"network": {"type": "single_image", "dim": 32, "depths": [1], "scale": 2}}


@settings(max_examples=10, deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    tile=st.integers(4, 30),
    overlap=st.integers(0, 8),
    scale=st.integers(1, 3),
)
def test_tiles_of_a_local_network_give_the_whole(height, width, tile, overlap, scale):
    network = Nearest(scale)
    image = torch.rand(1, 3, height, width)
    chosen = RestoreSettings(tile=tile, overlap=min(overlap, tile // 2))
    found = restore_tensor(network, image, chosen)
    torch.testing.assert_close(found, network(image))
    assert max(max(size) for size in network.sizes[:-1]) <= max(tile, 1)


def test_tiles_follow_the_grid_of_the_network():
    network = zoo.build(
        {"network": {"type": "unet", "dim": 32, "depths": [1] * 4, "refinement": 0}}
    )
    seen = []
    network.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0].shape[2:]))
    restore_tensor(network, torch.rand(1, 3, 40, 30), RestoreSettings(tile=21, overlap=4))
    assert set(map(tuple, seen)) == {(16, 16)}


def test_the_ensemble_of_an_equivariant_network_changes_nothing():
    network, image = Nearest(), torch.rand(1, 3, 5, 8)
    found = restore_tensor(network, image, RestoreSettings(ensemble=True))
    torch.testing.assert_close(found, network(image))
    assert set(network.sizes) == {(5, 8), (8, 5)}


def test_the_ensemble_averages_eight_views():
    network = zoo.build(SMALL).eval()
    image = torch.rand(1, 3, 5, 6)
    views = []
    with torch.no_grad():
        for flip in (False, True):
            for turn in range(4):
                view = (image.flip(3) if flip else image).rot90(turn, (2, 3))
                back = network(view).rot90(-turn, (2, 3))
                views.append(back.flip(3) if flip else back)
    found = restore_tensor(network, image, RestoreSettings(ensemble=True))
    torch.testing.assert_close(found, torch.stack(views).mean(0).clamp(0, 1))


class Slope(Nearest):
    """Rises from -1 to 1 from the left to the right of whatever it is given."""

    def forward(self, image_BIHW):
        return torch.linspace(-1, 1, image_BIHW.shape[-1]).expand_as(image_BIHW)


def test_values_are_clipped_after_the_views_of_the_ensemble_are_averaged():
    found = restore_tensor(Slope(1), torch.rand(1, 3, 5, 8), RestoreSettings(tile=0, ensemble=True))
    torch.testing.assert_close(found, torch.zeros(1, 3, 5, 8))  # a slope and its mirror image


def test_values_are_clipped_after_tiles_are_blended():
    found = restore_tensor(Slope(1), torch.rand(1, 3, 8, 12), RestoreSettings(tile=8, overlap=4))
    rise, part = torch.linspace(-1, 1, 8), (torch.arange(4) + 0.5) / 4
    blended = rise[4:].lerp(rise[:4], part)
    expected = torch.cat([rise[:4], blended, rise[4:]]).clamp(0, 1)
    torch.testing.assert_close(found, expected.expand(1, 3, 8, 12))


def test_the_views_of_the_ensemble_are_turned_back_exactly():
    """A network that marks each image's top left corner: each view leaves one mark."""

    class Corner(Nearest):
        def forward(self, image_BIHW):
            mark = torch.zeros_like(super().forward(image_BIHW))
            mark[..., 0, 1] = 1
            return mark

    found = restore_tensor(Corner(1, 1), torch.rand(1, 1, 4, 6), RestoreSettings(ensemble=True))
    expected = torch.zeros(4, 6)
    for y, x in ((0, 1), (1, 0), (0, 4), (1, 5), (3, 1), (2, 0), (3, 4), (2, 5)):
        expected[y, x] = 1 / 8
    assert torch.equal(found[0, 0], expected)


def test_restored_values_are_clipped_and_no_gradient_is_kept():
    class Contrast(Nearest):
        def forward(self, image_BIHW):
            return super().forward(image_BIHW) * 3 - 1

    image = torch.rand(1, 3, 9, 7)
    for chosen in (RestoreSettings(), RestoreSettings(tile=4, overlap=1)):
        found = restore_tensor(Contrast(1), image, chosen)
        torch.testing.assert_close(found, (image * 3 - 1).clamp(0, 1))
        assert found.min() == 0 and found.max() == 1 and not found.requires_grad


@pytest.mark.parametrize("training", [True, False])
def test_restoring_drops_no_path_and_leaves_the_mode_as_it_was(training):
    network = zoo.build({"network": {**SMALL["network"], "depths": [3], "drop_path": 0.9}})
    for parameter in network.parameters():  # so that a path that is dropped is missed
        torch.nn.init.normal_(parameter, std=0.2)
    image = torch.rand(1, 3, 6, 5)
    with torch.no_grad():
        expected = network.eval()(image).clamp(0, 1)
    network.train(training)
    torch.testing.assert_close(restore_tensor(network, image), expected)
    assert network.training is training and network.groups.training is training
    network.head = None  # an error must not change the mode either
    with pytest.raises(TypeError):
        restore_tensor(network, image)
    assert network.training is training


def test_a_network_of_range_255_is_restored_in_0_to_1():
    """Its parts see 255 times the image less the mean; what they add is divided by 255."""
    network = zoo.build(
        {"network": {"type": "single_image", "dim": 32, "depths": [1], "img_range": 255.0}}
        | {"name": "range"},
        head="residual",
    )
    seen = {}
    network.shallow.register_forward_pre_hook(lambda _m, x: seen.update(given=x[0]))
    network.head.register_forward_hook(lambda _m, x, y: seen.update(made=y))
    image = torch.rand(1, 3, 6, 5)
    found = restore_tensor(network, image)
    mean = torch.tensor([0.4488, 0.4371, 0.4040])
    given = seen["given"]
    given = given if given.shape[-1] == 3 else given.permute(0, 2, 3, 1)
    torch.testing.assert_close(given, (image.permute(0, 2, 3, 1) - mean) * 255)
    made = (seen["made"] / 255 + mean).permute(0, 3, 1, 2)
    assert (made.clamp(0, 1) != made).any()
    torch.testing.assert_close(found, made.clamp(0, 1))


def test_a_network_of_another_dtype_takes_and_gives_float32():
    found = restore_tensor(zoo.build(SMALL).double(), torch.rand(1, 3, 4, 5))
    assert found.dtype == torch.float32


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_stays_near(precision):
    network, image = zoo.build(SMALL), torch.rand(1, 3, 12, 9)
    full = restore_tensor(network, image)
    found = restore_tensor(network, image, RestoreSettings(precision=precision))
    assert found.dtype == torch.float32 and not torch.equal(found, full)
    # Rounding to 8 mantissa bits in a few layers.
    assert (found - full).abs().max() < 0.03


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("gray", [False, True])
@pytest.mark.parametrize("bit_depth", [8, 16])
def test_modes_are_kept(tmp_path, channels, gray, bit_depth):
    color = np.random.default_rng(0).random((4, 5, 1 if gray else 3)).astype(np.float32)
    photo = Photo(color, None, bit_depth)
    result = restore_photo(Nearest(channels=channels), photo)
    assert result.bit_depth == bit_depth
    np.testing.assert_allclose(result.color_HWC, color.repeat(2, 0).repeat(2, 1), atol=1e-6)


def test_alpha_is_enlarged_by_bicubic():
    random = np.random.default_rng(0)
    color, alpha = random.random((4, 5, 3)), random.random((4, 5))
    photo = Photo(color.astype(np.float32), alpha.astype(np.float32), 8)
    found = restore_photo(Nearest(), photo).alpha_HW
    expected = resize_bicubic(torch.from_numpy(alpha), 2).numpy()
    np.testing.assert_allclose(found, expected.clip(0, 1), atol=1e-5)


def test_a_file_is_restored_to_the_bytes_that_the_network_computes(tmp_path):
    """Gray, 16 bits, alpha: the file read back is what restoring by hand gives, rounded once."""
    network = zoo.build(SMALL, channels=1).eval()
    random = np.random.default_rng(3)
    color, alpha = random.random((7, 5, 3), np.float32), random.random((7, 5), np.float32)
    source, output = tmp_path / "a.png", tmp_path / "b.png"
    write_photo(source, Photo(color, alpha, 16))
    zoo.restore(network, source, output, progress=False)
    stored = read_photo(source)
    with torch.no_grad():
        planes = [
            network(torch.from_numpy(stored.color_HWC[..., i].copy())[None, None])[0, 0].clamp(0, 1)
            for i in range(3)
        ]
    clear = resize_bicubic(torch.from_numpy(stored.alpha_HW), 2).clamp(0, 1)
    expected = torch.stack([*planes, clear], dim=2).numpy()
    found = cv2.cvtColor(cv2.imread(str(output), cv2.IMREAD_UNCHANGED), cv2.COLOR_BGRA2RGBA)
    assert found.dtype == np.uint16
    assert np.abs(found.astype(int) - np.floor(expected * 65535 + 0.5)).max() <= 1


def test_a_photo_in_memory_is_restored_by_the_settings_that_are_given():
    network, photo = Nearest(), Photo(np.zeros((6, 5, 3), np.float32))
    restore_photo(network, photo, RestoreSettings(tile=4, overlap=1))
    assert set(network.sizes) == {(4, 3)}


def test_a_network_of_the_same_size_leaves_alpha_as_it_is():
    alpha = np.random.default_rng(0).random((4, 5), np.float32)
    photo = Photo(np.zeros((4, 5, 1), np.float32), alpha)
    assert np.array_equal(restore_photo(Nearest(1), photo).alpha_HW, alpha)


@pytest.mark.parametrize("takes", ["images", "bursts"])
def test_every_setting_of_restore_reaches_what_restores(monkeypatch, takes):
    network, seen = Nearest(channels=4 if takes == "bursts" else 3), []
    network.capabilities = Capabilities(input="burst" if takes == "bursts" else "image")
    report = Report(plan=Plan(waiting=[]), written=["x"], failed=[], unit="image")
    monkeypatch.setattr(
        f"zoo.inference.files.restore_{takes}",
        lambda *a, **options: seen.append((*a, options)) or report,
    )
    assert zoo.restore(network, "in", "out") == ["x"]
    chosen = {"tile": 96, "overlap": 7, "ensemble": True, "precision": "bf16"}
    other = {"look": "plain"} if takes == "bursts" else {"recursive": True}
    group = ProcessGroup()
    zoo.restore(
        network, "in", "out", **chosen, **other, overwrite=True, progress=False, group=group,
        suffix="x2", format="jpg", quality=70, strip_metadata=True,
    )  # fmt: skip
    usual, given = seen
    assert usual[:2] == given[:2] == (network, Path("in"))
    assert usual[2] == Outputs(target="out")
    assert given[2] == Outputs(
        target="out", suffix="x2", format="jpg", overwrite=True,
        saving=Saving(quality=70, metadata=False),
    )  # fmt: skip
    assert (usual[3], given[3]) == (RestoreSettings(), RestoreSettings(**chosen))
    assert usual[4]["progress"] is True and given[4]["progress"] is False
    assert other.items() <= given[4].items() and not other.items() <= usual[4].items()
    assert given[4]["group"] is group


def test_wrong_settings_are_named():
    for tile in (16, 63):
        with pytest.raises(ZooError, match=f"tile {tile} is less than twice the overlap 32"):
            RestoreSettings(tile=tile, overlap=32)
    assert RestoreSettings(tile=64, overlap=32) and RestoreSettings(tile=1).overlap is None
    with pytest.raises(ZooError, match="precision is 'int8'"):
        RestoreSettings(precision="int8")
    with pytest.raises(ZooError, match="at least 0"):
        RestoreSettings(tile=-1)


@pytest.mark.parametrize("hidden", [0.0, 1.0])
def test_the_colour_under_transparent_pixels_does_not_reach_the_visible_ones(hidden):
    """Black under alpha 0 made edges up to 40 levels too dark."""

    class Blur(Nearest):
        def forward(self, image_BIHW):
            self.seen = image_BIHW
            padded = torch.nn.functional.pad(image_BIHW, (2, 2, 2, 2), "replicate")
            return torch.nn.functional.avg_pool2d(padded, 5, 1) * self.unit

    y, x = np.mgrid[:40, :50]
    alpha_HW = ((y - 20) ** 2 + (x - 25) ** 2 < 144).astype(np.float32)
    color_HWC = np.where(alpha_HW[..., None] > 0, np.float32([0.9, 0.6, 0.3]), np.float32(hidden))
    found = restore_photo(Blur(1), Photo(color_HWC, alpha_HW))
    assert np.array_equal(found.alpha_HW, alpha_HW)
    np.testing.assert_allclose(found.color_HWC[alpha_HW > 0], [[0.9, 0.6, 0.3]] * 437, atol=1e-5)


def test_hidden_pixels_take_the_nearest_visible_colour_and_visible_ones_stay():
    random = np.random.default_rng(0)
    color_HWC = random.random((9, 12, 3), np.float32)
    alpha_HW = (random.random((9, 12)) < 0.2).astype(np.float32) / 3
    given_HWC = color_HWC.copy()
    found = bleed_colors(color_HWC, alpha_HW)
    assert np.array_equal(color_HWC, given_HWC)
    visible = np.argwhere(alpha_HW > 0)
    for y, x in np.ndindex(9, 12):
        distance = np.hypot(*(visible - (y, x)).T)
        near = visible[distance < distance.min() + 0.5]  # the distance is nearly Euclidean
        assert any(np.array_equal(found[y, x], color_HWC[tuple(place)]) for place in near)
    assert np.array_equal(found[alpha_HW > 0], color_HWC[alpha_HW > 0])
    for alpha in (np.zeros((9, 12)), np.ones((9, 12))):
        assert np.array_equal(bleed_colors(color_HWC, alpha), color_HWC)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (torch.full((1, 3, 4, 4), 200, dtype=torch.uint8), "has uint8 values"),
        (torch.full((1, 3, 4, 4), 200.0), "has values up to 200"),
        (torch.full((1, 2, 3, 4, 4), 99.0), "has values up to 99"),
    ],
    ids=["uint8", "floats", "burst"],
)
def test_values_of_another_range_are_an_error_and_no_white_picture(image, said):
    with pytest.raises(ZooError, match=said + r".*divide it by 255"):
        restore_tensor(Nearest(1), image)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_an_error_and_no_empty_picture(value):
    for shape in ((1, 3, 4, 4), (1, 2, 3, 4, 4)):
        image = torch.zeros(shape)
        image[..., 1, 2] = value
        with pytest.raises(ZooError, match=r"has NaN or infinite values; replace them.*nan_to_num"):
            restore_tensor(Nearest(1), image)


@pytest.mark.parametrize("tile", [0, 4])
def test_a_restored_tensor_can_be_changed_and_trained(tile):
    found = restore_tensor(
        Nearest(1), torch.rand(1, 3, 8, 8), RestoreSettings(tile=tile, overlap=0)
    )
    assert not found.is_inference()
    found.mul_(255)
    (found * torch.ones((), requires_grad=True)).sum().backward()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"tile": 20.5}, "tile is 20.5; it must be a whole number of pixels"),
        ({"tile": "64"}, "tile is '64'; it must"),
        ({"tile": True}, "tile is True; it must"),
        ({"overlap": 4.5}, "overlap is 4.5; it must"),
        ({"overlap": "auto"}, "overlap is 'auto'; it must"),
    ],
    ids=str,
)
def test_tiles_of_no_whole_number_are_refused(words, said):
    with pytest.raises(ZooError, match=said):
        RestoreSettings(**words)
    assert RestoreSettings(tile=np.int64(64), overlap=np.uint8(4)).tile == 64


def test_enlarged_alpha_stays_in_its_range():
    """Bicubic interpolation overshoots at edges."""
    alpha_HW = np.zeros((8, 8), np.float32)
    alpha_HW[3:6, 3:6] = 1
    found = restore_photo(Nearest(2), Photo(np.zeros((8, 8, 3), np.float32), alpha_HW)).alpha_HW
    assert found.min() == 0 and found.max() == 1


def test_noise_may_exceed_the_range_of_an_image():
    """Noise of sigma 50, on black and on white; its extremes are those of an image of -1 to 1."""
    noise = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * (64 / 255)
    noise[..., 0, 0], noise[..., 9, 9] = -1.2, 2.3
    for level in (0.0, 1.0):
        assert restore_tensor(Nearest(1), noise + level).shape == noise.shape


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda x: x, r"shape \(1, 3, 12, 20\)"),
        (lambda x: x[:, :1].repeat(1, 1, 2, 2), r"shape \(1, 1, 24, 40\)"),
        (lambda x: x[0].repeat(1, 2, 2), r"shape \(3, 24, 40\)"),
        (lambda x: (x, x.repeat(1, 1, 2, 2)), "tuple"),
        (lambda x: {"image": x}, "dict"),
    ],
    ids=["scale", "channels", "dimensions", "tuple", "dict"],
)
@pytest.mark.parametrize("tile", [0, 8])
def test_a_network_that_breaks_its_contract_is_one_sentence(wrong, told, tile):
    """One channel, or one pixel, would otherwise pass as broadcast."""
    network = Nearest(2)
    network.forward = wrong
    told = told if not tile else told.replace("12, 20", "7, 8").replace("24, 40", "14, 16")
    with pytest.raises(ZooError, match=f"^Nearest returned {told} for an image of shape") as error:
        restore_tensor(network, torch.rand(1, 3, 12, 20), RestoreSettings(tile=tile, overlap=2))
    assert "(B, out_channels, scale * H, scale * W)" in str(error.value)


def test_values_are_bounded_by_the_mean_of_blocks_of_8_pixels():
    for value, fault in ((2.0, None), (2.01, "up to 2.01"), (-0.5, None), (-0.51, "down to -0.51")):
        flat = torch.full((1, 1, 8, 9), value)
        if fault is None:
            check_range(flat)
        else:
            with pytest.raises(ZooError, match=f"the image has values {fault}; networks take"):
                check_range(flat)
    bright = torch.zeros(1, 3, 16, 16)
    bright[..., :4, :4] = 7.9  # a quarter of a block
    check_range(bright)
    bright[..., :4, :4] = 8.1
    with pytest.raises(ZooError, match=r"up to 2\.025"):
        check_range(bright)
    check_range(torch.zeros(0, 3, 8, 8))
    check_range(torch.full((1, 2, 3, 5, 5), 2.0))  # a burst smaller than a block


def test_tiles_are_halved_down_to_the_smallest_and_to_two_overlaps():
    assert [_smaller(*sides, MemoryError()) for sides in ((64, 0), (65, 16), (200, 50))] == [
        32, 32, 100,
    ]  # fmt: skip
    for sides in ((63, 0), (199, 50)):
        with pytest.raises(ZooError, match=f"even with tiles of {sides[0]} pixels"):
            _smaller(*sides, MemoryError())
