"""Restoring files of bursts: looks, tiles, names of pictures, and mistakes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import zoo
from tests.helpers.small_bursts import burst_of
from zoo.cli import main as zoo_main
from zoo.data import Photo, read_photo, write_photo
from zoo.data.burst import Camera
from zoo.data.burst.__main__ import main as make
from zoo.data.burst.finding import find_bursts
from zoo.data.burst.reading import BurstFiles, read_burst
from zoo.data.pixels import to_array
from zoo.errors import ImageError, ZooError
from zoo.inference import RestoreSettings
from zoo.inference.burst import developed, restore_burst
from zoo.networks import Network
from zoo.ops.registration import register_burst
from zoo.registry import Capabilities

NETWORK = {
    "name": "test", "network": {
        "type": "burst", "dim": 8, "burst": 3, "stages": [1], "scale": 8, "skip": "corner",
        "align": "warp", "flow_prior": "registration", "body": {"heads": 2},
        "fusion": {"d_state": 2},
    },
}  # fmt: skip


@pytest.fixture
def weights(tmp_path):
    zoo.save(zoo.build(NETWORK), tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


def test_restoring_one_and_many(photo, weights, tmp_path, capsys):
    folder = burst_of(photo, "--count", 2)
    out = tmp_path / "out"
    assert zoo_main(["restore", str(folder), "-o", str(out), "-w", str(weights)]) == 0
    assert sorted(p.name for p in out.iterdir()) == ["photo_0000.png", "photo_0001.png"]
    assert read_photo(out / "photo_0000.png").color_HWC.shape == (64, 64, 3)
    one = [str(folder / "photo_0000"), "-o", str(tmp_path / "one.png"), "-w", str(weights)]
    assert zoo_main(["restore", *one, "--look", "linear", "-t", "4", "--overlap", "1"]) == 0
    assert read_photo(tmp_path / "one.png").bit_depth == 16
    assert zoo_main(["restore", *one]) == 0
    assert "one.png exists; --overwrite" in capsys.readouterr().out


def test_tiles_agree_with_the_whole_burst():
    """The network here sees 5 pixels to each side but for its scan, which is switched off."""
    torch.manual_seed(0)
    network = zoo.build(NETWORK, fusion={"type": "concat"}, body="res", align="none").eval()
    burst = BurstFiles("x", torch.rand(3, 4, 40, 33))
    for up in network.head.ups:
        torch.nn.init.zeros_(up.weight)  # its gates see the whole tile
    whole = restore_burst(network, burst, RestoreSettings(tile=0))
    tiled = restore_burst(network, burst, RestoreSettings(tile=24, overlap=12))
    assert whole.shape == (3, 320, 264)
    # seams are blended over the overlap: where the border is still felt, weights are small
    assert (whole - tiled).abs().max() < 0.02


def plain_by_hand(linear_3HW):
    """Channels to one mean, the pixel at 99 % to 0.9, gamma 2.2."""
    means = linear_3HW.mean(axis=(1, 2), keepdims=True)
    balanced = linear_3HW * means.mean() / means
    flat = sorted(balanced.max(axis=0).flatten())
    return np.clip(balanced * 0.9 / flat[round(0.99 * len(flat)) - 1], 0, 1) ** (1 / 2.2)


def test_looks_of_a_raw_burst_with_and_without_facts():
    linear = torch.rand(3, 16, 20) * torch.tensor([0.1, 0.2, 0.3])[:, None, None]
    bare = BurstFiles("x", torch.rand(2, 4, 8, 10), bit_depth=16)
    camera = Camera.draw(torch.Generator().manual_seed(0))
    known = BurstFiles("x", bare.frames_TIHW, camera.data(), 16)
    plain, finished = plain_by_hand(linear.numpy()), camera.process(linear).numpy()
    for burst, look, expected, bits in (
        (bare, "auto", plain, 8), (bare, "plain", plain, 8), (bare, "linear", linear.numpy(), 16),
        (known, "auto", finished, 8), (known, "camera", finished, 8), (known, "plain", plain, 8),
        (known, "linear", linear.numpy(), 16),
    ):  # fmt: skip
        found = developed(linear, burst, look)
        assert found.bit_depth == bits
        np.testing.assert_allclose(found.color_HWC, expected.transpose(1, 2, 0), atol=1e-5)
    with pytest.raises(ImageError, match="no file with gains and colour matrix"):
        developed(linear, bare, "camera")


def test_the_plain_look_of_the_dark_is_not_brightened_without_end():
    """Means and the brightest values count as a millionth at least."""
    dim = torch.tensor([1e-8, 1.5e-6, 1.5e-6])[:, None, None].expand(3, 4, 4)
    for linear, expected in (
        (dim, [0.009, 0.9, 0.9]),
        (torch.full((3, 4, 4), 1e-8), [0.009] * 3),
        (torch.zeros(3, 1, 1), [0] * 3),
    ):
        found = developed(linear, BurstFiles("x", torch.rand(2, 4, 2, 2)), "plain").color_HWC
        np.testing.assert_allclose(found[0, 0], np.power(expected, 1 / 2.2), rtol=1e-4)


@pytest.mark.parametrize("bits", [8, 16])
def test_rgb_bursts_come_out_as_they_went_in_but_clipped(bits):
    restored = torch.rand(3, 4, 5) * 1.4 - 0.2
    found = developed(restored, BurstFiles("x", torch.rand(2, 3, 2, 2), bit_depth=bits))
    assert found.bit_depth == bits
    assert np.array_equal(found.color_HWC, to_array(restored.clamp(0, 1)))


class Watched(Network):
    """Takes bursts of RGB and keeps what it is given."""

    scale, channels, flow_prior = 1, 3, "registration"
    capabilities = Capabilities(input="burst")

    def __init__(self):
        super().__init__()
        self.unit, self.seen = torch.nn.Parameter(torch.ones(())), []

    def forward(self, burst_BTIHW, flow_BT2HW=None):
        self.seen.append((burst_BTIHW, flow_BT2HW))
        return burst_BTIHW[:, 0]


def test_tiles_take_their_part_of_the_registration_of_whole_frames(photo):
    first = torch.from_numpy(read_photo(photo).color_HWC).permute(2, 0, 1)
    frames = torch.stack([first, first.roll((2, -3), (1, 2))])
    network, burst = Watched(), BurstFiles("x", frames)
    flow = register_burst(frames[None])
    assert flow.abs().max() > 1
    found = restore_burst(network, burst, RestoreSettings(tile=0))
    torch.testing.assert_close(network.seen[0][1], flow)
    torch.testing.assert_close(found, frames[0])
    network.seen.clear()
    restore_burst(network, burst, RestoreSettings(tile=80, overlap=8))
    assert len(network.seen) == 4
    torch.testing.assert_close(network.seen[3][1], flow[..., 46:, 56:])
    assert torch.equal(network.seen[3][0][0], frames[..., 46:, 56:])


def test_bursts_that_a_network_cannot_take_are_refused():
    network = Watched()
    with pytest.raises(ImageError, match=r"has four planes of a RAW mosaic, but .* takes RGB"):
        restore_burst(network, BurstFiles("x", torch.rand(2, 4, 3, 3)), RestoreSettings())
    network.flow_prior = "given"
    with pytest.raises(ZooError, match="trained with a given flow, which files do not have"):
        restore_burst(network, BurstFiles("x", torch.rand(2, 3, 3, 3)), RestoreSettings())


def test_frames_are_never_replaced_by_the_picture(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_photo(tmp_path / "in" / "a.png", Photo(np.random.rand(8, 8, 3).astype(np.float32)))
    (tmp_path / "link").symlink_to("in")
    before = (tmp_path / "in" / "a.png").read_bytes()
    for output in ("in/a.png", tmp_path / "in" / "a.png", "link/a.png", "in/../link/a.png"):
        with pytest.raises(ImageError, match="would replace a frame"):
            zoo.restore(Watched(), tmp_path / "in", output, overwrite=True, progress=False)
    assert (tmp_path / "in" / "a.png").read_bytes() == before
    many = tmp_path / "many"
    for burst in ("a", "im_raw"):
        write_photo(many / burst / "samsung_00" / "im_raw.png", Photo(np.zeros((8, 8, 3), "f4")))
    with pytest.raises(ImageError, match="would replace a frame"):  # the other burst's
        zoo.restore(Watched(), many, many / "a" / "samsung_00", overwrite=True, progress=False)
    with pytest.raises(ImageError, match=r"x\.txt: images are not written as '\.txt'"):
        zoo.restore(Watched(), tmp_path / "in", tmp_path / "x.txt", progress=False)
    inside = zoo.restore(Watched(), tmp_path / "in", f"{tmp_path}/x.v2/", progress=False)
    assert inside == [tmp_path / "x.v2" / "in.png"]
    zoo.restore(Watched(), tmp_path / "in", tmp_path / "out.png", progress=False)
    (tmp_path / "out.png").write_bytes(b"old")
    assert zoo.restore(Watched(), "in", "out.png", progress=False) == []
    assert zoo.restore(Watched(), "in", "out.png", overwrite=True, progress=False)
    assert read_photo(tmp_path / "out.png").color_HWC.shape == (8, 8, 3)


def test_a_frame_is_not_replaced_by_its_name_in_other_case_where_that_is_the_file(
    tmp_path, monkeypatch
):
    """As on macOS and Windows."""
    for name in ("a.png", "b.png"):
        write_photo(tmp_path / name, Photo(np.zeros((8, 8, 3), np.float32)))
    (tmp_path / "B.png").write_bytes(b"the same file")
    monkeypatch.setattr(
        Path, "samefile", lambda self, other: str(self).casefold() == str(other).casefold()
    )
    files = (tmp_path / "a.png", tmp_path / "b.png")
    monkeypatch.setattr(zoo.inference.burst, "_files", lambda _: list(files))
    with pytest.raises(ImageError, match="would replace a frame"):
        zoo.restore(Watched(), tmp_path, tmp_path / "B.png", overwrite=True, progress=False)


def test_outputs_in_the_folder_of_bursts_are_no_burst_and_other_folders_are_named(tmp_path, caplog):
    caplog.set_level("INFO")
    for name in ("a/0.png", "b/0.png", "gt/a.png"):
        write_photo(tmp_path / "in" / name, Photo(np.zeros((8, 8, 3), np.float32)))
    (tmp_path / "in" / "notes").mkdir()
    for written in (["a.png", "b.png"], []):
        found = zoo.restore(Watched(), tmp_path / "in", tmp_path / "in" / "out", progress=False)
        assert [path.name for path in found] == written
    assert "skipped folders, which hold no burst: notes\n" in caplog.text
    caplog.clear()
    (tmp_path / "link").symlink_to(tmp_path / "in" / "out")
    assert not zoo.restore(Watched(), tmp_path / "in", tmp_path / "link", progress=False)
    assert "skipped folders, which hold no burst: notes\n" in caplog.text
    for written in (1, 0):  # one burst
        burst = tmp_path / "in" / "a"
        assert len(zoo.restore(Watched(), burst, burst / "out", progress=False)) == written


def test_a_burst_that_is_the_current_folder_gives_its_name_to_the_picture(tmp_path, monkeypatch):
    write_photo(tmp_path / "evening" / "0.png", Photo(np.zeros((8, 8, 3), np.float32)))
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "evening")
    found = zoo.restore(Watched(), ".", tmp_path / "out", progress=False)
    assert found == [tmp_path / "out" / "evening.png"]


def test_what_a_burst_lacks_is_told_before_the_work(tmp_path, monkeypatch):
    np.savez(tmp_path / "a.npz", frames=np.zeros((2, 4, 8, 8), np.float32))
    monkeypatch.setattr(zoo.inference.burst, "restore_burst", lambda *_: pytest.fail("work"))
    network = Watched()
    network.channels = 4
    with pytest.raises(ImageError, match="no file with gains and colour matrix"):
        zoo.restore(network, tmp_path / "a.npz", tmp_path / "a.png", look="camera", progress=False)


def test_values_are_checked_before_the_motion_is_searched(monkeypatch):
    monkeypatch.setattr(zoo.inference.burst, "register_burst", lambda _: pytest.fail("a search"))
    network, frames = Watched(), torch.zeros(2, 3, 8, 8)
    frames[1, 0, 2, 3] = torch.nan
    with pytest.raises(ZooError, match="has NaN or infinite values"):
        restore_burst(network, BurstFiles("a", frames), RestoreSettings())


@pytest.mark.parametrize(
    "frames", [["b.png", "c.png"], ["b.PNG", "c.PNG"], ["im_raw_00.png"], ["samsung_0/im_raw.png"]]
)
def test_a_burst_among_others_is_no_folder_of_outputs(tmp_path, frames):
    names = [*(f"a/{frame}" for frame in frames), "b/0.png", "b/1.png"]
    for name in names:
        write_photo(tmp_path / "in" / name, Photo(np.zeros((8, 8, 3), np.float32)))
    (tmp_path / "link").symlink_to(tmp_path / "in" / "a")
    before = {path: path.read_bytes() for path in (tmp_path / "in").rglob("*.png")}
    for output in ("in/a", "link"):
        with pytest.raises(ImageError, match=r"the folder of the outputs is a burst itself, with "):
            zoo.restore(
                Watched(), tmp_path / "in", tmp_path / output, overwrite=True, progress=False
            )
    assert {path: path.read_bytes() for path in (tmp_path / "in").rglob("*.png")} == before


def test_pictures_of_npz_bursts_are_png_and_never_replace_a_burst(tmp_path):
    """An npz file is both a burst and a format of images, and a folder may be named like one."""
    folder = tmp_path / "in"
    write_photo(folder / "x.npy" / "0.png", Photo(np.random.rand(8, 8, 3).astype(np.float32)))
    for name in ("a.npz", "b.npz", "x.npy/burst.npz"):
        np.savez(folder / name, frames=np.random.rand(2, 3, 8, 8).astype(np.float32))
    before = (folder / "a.npz").read_bytes()
    for source in (folder, folder / "a.npz"):
        zoo.restore(Watched(), source, folder, overwrite=True, progress=False)
    assert sorted(path.name for path in folder.iterdir()) == [
        "a.npz", "a.png", "b.npz", "b.png", "x.npy", "x.png"
    ]  # fmt: skip
    inside = folder / "x.npy"
    for source, output in (
        (folder / "a.npz", folder / "a.npz"),
        (folder / "a.npz", f"{folder}/../in/a.npz"),
        (inside, inside / "burst.npz"),
        (inside, inside / "0.png"),
    ):
        with pytest.raises(ImageError, match="would replace a frame"):
            zoo.restore(Watched(), source, output, overwrite=True, progress=False)
    with pytest.raises(ImageError, match="would replace a frame"):
        zoo.restore(Watched(), folder, folder, overwrite=True, format="npz", progress=False)
    assert (folder / "a.npz").read_bytes() == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "contains no burst"),
        ({"im_raw_00.png": np.zeros((2, 2, 4), np.uint8)}, "16-bit PNG with four channels"),
        ({"im_raw_00.png": b"no image"}, "cannot be decoded"),
        ({"im_raw_00.png": np.zeros((2, 2, 4), np.uint16),
          "im_raw_01.png": np.zeros((4, 2, 4), np.uint16)}, "different sizes: 2x2, 2x4"),
        ({"a.png": np.zeros((2, 2, 3), np.uint8)}, "takes four planes of a RAW mosaic"),
        ({"a.png": np.zeros((2, 2, 4), np.uint8)}, "alpha channel"),
        ({"burst.npz": {"x": np.zeros(3)}}, "of shape (T, 4 or 3, h, w), not nothing"),
        ({"burst.npz": {"frames": np.zeros((2, 4, 2, 2), np.uint16)}}, "white_level"),
        ({"burst.npz": {"frames": np.full((2, 4, 2, 2), np.nan)}}, "NaN"),
        ({"burst.npz": b"no archive"}, "burst.npz' cannot be read: File is not a zip file"),
    ],
)  # fmt: skip
def test_mistakes_are_one_sentence(tmp_path, weights, capsys, content, message):
    folder = tmp_path / "burst"
    folder.mkdir()
    for name, value in content.items():
        if isinstance(value, bytes):
            (folder / name).write_bytes(value)
        elif isinstance(value, dict):
            np.savez(folder / name, **value)
        else:
            cv2.imwrite(str(folder / name), value)
    words = ["restore", str(folder), "-o", str(tmp_path / "o.png"), "-w", str(weights)]
    assert zoo_main(words) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and error.count("\n") == 0
    assert not (tmp_path / "o.png").exists()


def test_mistakes_of_commands(photo, weights, tmp_path, capsys):
    out = str(tmp_path / "o")
    for words, message in (
        ([str(photo), "-o", out, "--crop", "65"], "must be a multiple of 8"),
        ([str(photo), "-o", out, "--count", "0"], "--count 0: give a whole number from 1"),
        (["missing.png", "-o", out], "does not exist"),
    ):
        assert make(words) == 2
        assert message in capsys.readouterr().err
    burst = burst_of(photo)
    words = ["restore", str(burst), "-o", out + ".png", "-w", str(weights)]
    assert zoo_main([*words, "--ensemble"]) == 2
    assert "ensemble does not work for bursts" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        zoo_main(["restore", "--help"])
    assert "im_raw_00.png" in capsys.readouterr().out


def test_a_bar_is_shown_for_more_than_one_burst(photo, monkeypatch, caplog):
    caplog.set_level("INFO", logger="zoo.data.burst")
    shown = []

    def bar(jobs, *, unit, disable):
        shown.append((unit, disable))
        return jobs

    monkeypatch.setattr("zoo.data.burst.__main__.tqdm", bar)
    burst_of(photo)
    assert caplog.messages == [f"wrote 1 bursts to {photo.parent / 'made'}"]
    burst_of(photo, "--count", 2)
    assert shown == [("burst", True), ("burst", None)]
    caplog.clear()
    burst_of(photo, "--count", 3)
    assert caplog.messages == [
        f"wrote 1 bursts to {photo.parent / 'made'}",
        "skipped 2 existing bursts; --overwrite replaces them",
    ]
    facts = json.loads((photo.parent / "made" / "photo_0002" / "meta.json").read_text())
    assert (facts["photo"], facts["seed"], facts["number"]) == ("photo.png", 0, 2)


def test_bursts_of_a_folder_are_in_natural_order(tmp_path, monkeypatch):
    """Whatever the sequence in which the disk lists them."""
    names = [f"b{number}" for number in (1, 2, 9, 10, 11, 100)]
    for name in names:
        write_photo(tmp_path / name / "0.png", Photo(np.zeros((4, 4, 3), np.float32)))
    listed = type(tmp_path).iterdir
    monkeypatch.setattr(
        type(tmp_path), "iterdir", lambda self: iter(sorted(listed(self), reverse=True))
    )
    assert [path.name for path in find_bursts(tmp_path)] == names


@pytest.mark.parametrize("number", [2, 4, 5, 6])
def test_at_most_four_of_different_sizes_are_named(tmp_path, number):
    for side in range(1, number + 1):
        planes = np.zeros((side, 2, 4), np.uint16)
        cv2.imwrite(str(tmp_path / f"im_raw_{side}.png"), planes)
    named = ", ".join(f"2x{side}" for side in range(1, min(number, 4) + 1))
    more = ", ..." if number > 4 else ""
    with pytest.raises(ImageError, match=rf"different sizes: {named}{re.escape(more)}$"):
        read_burst(tmp_path)
