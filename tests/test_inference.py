"""Restoring photographs: modes, sizes, tiles, folders, memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import zoo
from tests.helpers.networks import Nearest
from zoo.data import Photo, read_photo, resize_bicubic, write_photo
from zoo.errors import ImageError, WriteError, ZooError
from zoo.inference import RestoreSettings, restore_photo, restore_tensor

SMALL = {"network": {"type": "single_image", "dim": 32, "depths": [1], "scale": 2}}


@settings(max_examples=25, deadline=None)
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
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_other_errors_are_not_hidden():
    class Broken(Nearest):
        def forward(self, image_BIHW):
            raise RuntimeError("a defect")

    with pytest.raises(RuntimeError, match="a defect"):
        restore_tensor(Broken(), torch.rand(1, 3, 8, 8))


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "in"
    path.mkdir()
    for name in ("a.png", "b.png"):
        write_photo(path / name, Photo(np.random.rand(3, 4, 3).astype(np.float32)))
    return path


def test_a_folder_is_restored_and_existing_outputs_kept(folder, tmp_path):
    out = tmp_path / "deep" / "out"
    assert zoo.restore(Nearest(), folder, out, progress=False) == [out / "a.png", out / "b.png"]
    assert read_photo(out / "a.png").color_HWC.shape == (6, 8, 3)
    (out / "a.png").write_bytes(b"mine")
    assert zoo.restore(Nearest(), folder, out, progress=False) == []
    assert (out / "a.png").read_bytes() == b"mine"
    assert len(zoo.restore(Nearest(), folder, out, overwrite=True, progress=False)) == 2


def test_what_a_killed_process_left_is_no_image_and_is_removed(folder, tmp_path):
    out = tmp_path / "out"
    zoo.restore(Nearest(), folder, out, progress=False)
    leftover = ".zoo-0123456789abcdef.part"
    for place in (folder, out):
        (place / leftover).write_bytes(b"half")
    assert zoo.restore(Nearest(), folder, out, progress=False) == []
    assert sorted(path.name for path in out.iterdir()) == ["a.png", "b.png"]
    assert (folder / leftover).exists()  # inputs are not touched


def test_an_output_that_cannot_be_written_is_one_clear_error(folder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match=r"file/a\.png: cannot write: Not a directory"):
        zoo.restore(Nearest(), folder / "a.png", tmp_path / "file" / "a.png", progress=False)
    with pytest.raises(ImageError, match=r"2 of 2 images failed.*file/out/a\.png: cannot write"):
        zoo.restore(Nearest(), folder, tmp_path / "file" / "out", progress=False)


def test_one_bad_file_does_not_stop_the_others(folder, tmp_path):
    (folder / "a0.png").write_text("no image")
    with pytest.raises(ImageError, match=r"1 of 3 images failed, the others are done.*a0\.png"):
        zoo.restore(Nearest(), folder, tmp_path / "out", progress=False)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.png", "b.png"]


def test_a_file_goes_to_a_file_or_into_a_folder(folder, tmp_path):
    source = folder / "a.png"
    assert zoo.restore(Nearest(), source, tmp_path / "x.jpg") == [tmp_path / "x.jpg"]
    assert zoo.restore(Nearest(), source, tmp_path / "new") == [tmp_path / "new" / "a.png"]


def test_the_input_is_never_replaced(folder):
    with pytest.raises(ImageError, match="would replace the input"):
        zoo.restore(Nearest(), folder / "a.png", folder, overwrite=True)


def test_wrong_settings_are_named():
    with pytest.raises(ZooError, match="tile 16 is less than twice the overlap 32"):
        RestoreSettings(tile=16)
    with pytest.raises(ZooError, match="precision is 'int8'"):
        RestoreSettings(precision="int8")
    with pytest.raises(ZooError, match="at least 0"):
        RestoreSettings(tile=-1)
