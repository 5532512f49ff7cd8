"""Bursts on disk, from a photo to a restored picture, and every mistake on the way."""

from __future__ import annotations

import collections
import json
import pickle
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import zoo
from zoo.cli import main as zoo_main
from zoo.data import Photo, read_photo, write_photo
from zoo.data.burst import BurstDataset, BurstSynthesis, Camera
from zoo.data.burst.__main__ import main as make
from zoo.data.burst.dataset import generator
from zoo.data.burst.facts import load_facts
from zoo.data.burst.finding import find_bursts
from zoo.data.burst.reading import BurstFiles, read_burst
from zoo.data.burst.stored import read_clean
from zoo.data.burst.writing import write_burst
from zoo.data.photos import TrainingPhoto
from zoo.data.pixels import quantise, to_array
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
def photo(tmp_path):
    coarse = np.random.default_rng(0).random((8, 8, 3)).astype(np.float32)
    pixels = cv2.resize(coarse, (120, 100), interpolation=cv2.INTER_CUBIC).clip(0, 1)
    write_photo(tmp_path / "photo.png", Photo(pixels))
    return tmp_path / "photo.png"


@pytest.fixture
def weights(tmp_path):
    zoo.save(zoo.build(NETWORK), tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


def burst_of(photo, *words):
    folder = photo.parent / "made"
    found = make([str(photo), "-o", str(folder), "--crop", "64", "--frames", "3", *map(str, words)])
    assert found == 0
    return folder


def test_a_burst_from_a_photo_is_read_as_it_was_made(photo):
    folder = burst_of(photo, "--npz")
    raw = read_burst(folder / "burst.npz")
    for path in folder.glob("burst.npz"):
        path.unlink()
    files = read_burst(folder)
    assert files.frames_TIHW.shape == (3, 4, 8, 8)
    torch.testing.assert_close(files.frames_TIHW, raw.frames_TIHW, atol=0.51 / 2**14, rtol=0)
    assert files.camera.red == pytest.approx(
        json.loads((folder / "meta.json").read_text())["red_gain"]
    )
    clean = read_clean(folder / "gt" / "im_rgb.png", raw=True)
    assert clean.shape == (3, 64, 64)
    assert read_photo(folder / "preview.png").color_HWC.shape == (64, 128, 3)
    assert not [p for p in folder.rglob("*") if p.name.startswith(".")]


def test_planes_are_stored_in_the_public_sequence(tmp_path):
    """A reader that takes the file's colours as R, G, B, A sees Gb, Gr, R, B."""
    planes = np.stack([np.full((2, 3), v, np.uint16) for v in (100, 200, 300, 400)], axis=-1)
    cv2.imwrite(str(tmp_path / "im_raw_00.png"), planes)
    found = read_burst(tmp_path).frames_TIHW[0, :, 0, 0] * 2**14
    torch.testing.assert_close(found, torch.tensor([100.0, 200, 300, 400]))
    as_rgba = cv2.cvtColor(cv2.imread(str(tmp_path / "im_raw_00.png"), -1), cv2.COLOR_BGRA2RGBA)
    assert as_rgba[0, 0].tolist() == [300, 200, 100, 400]


def test_frames_are_read_in_natural_order_without_preview_and_gray_as_colour(tmp_path):
    for name, value in (("f10.png", 0.4), ("f9.png", 0.2), ("preview.png", 1.0), ("gt.png", 1.0)):
        channels, bits = (1, 16) if name == "f9.png" else (3, 8)
        write_photo(
            tmp_path / name, Photo(np.full((2, 3, channels), value, np.float32), None, bits)
        )
    burst = read_burst(tmp_path)
    assert burst.frames_TIHW.shape == (2, 3, 2, 3) and burst.bit_depth == 16
    torch.testing.assert_close(burst.frames_TIHW[:, 2, 0, 0], torch.tensor([0.2, 0.4]))
    raw = tmp_path / "raw"
    raw.mkdir()
    for number in (2, 10):
        planes = np.full((2, 2, 4), number, np.uint16)
        cv2.imwrite(str(raw / f"im_raw_{number}.png"), planes)
    found = read_burst(raw).frames_TIHW[:, 0, 0, 0] * 2**14
    torch.testing.assert_close(found, torch.tensor([2.0, 10.0]))


def test_every_plane_has_a_black_level_of_its_own_and_1023_is_white(tmp_path):
    folder = tmp_path / "samsung_00"
    folder.mkdir()
    planes = np.broadcast_to(np.array([1023, 200, 300, 400], np.uint16), (2, 2, 4))
    cv2.imwrite(str(folder / "im_raw.png"), planes)
    (folder / "meta_info.pkl").write_bytes(pickle.dumps({"black_level": [60, 61, 62, 63]}))
    found = read_burst(tmp_path).frames_TIHW[0, :, 0, 0] * 1023
    torch.testing.assert_close(found, torch.tensor([963.0, 139, 238, 337]))


def test_integers_of_an_npz_file_are_divided_by_its_white_level(tmp_path):
    frames = np.full((2, 4, 2, 2), 300, np.uint16)
    np.savez(tmp_path / "mine.npz", frames=frames, white_level=1200)
    burst = read_burst(tmp_path / "mine.npz")
    assert (burst.frames_TIHW == 0.25).all() and (burst.name, burst.bit_depth) == ("mine", 16)


def test_files_of_a_burst_hold_the_nearest_levels_and_its_facts(tmp_path):
    make = BurstSynthesis(frames=2)
    made = make(torch.rand(3, make.window(64), make.window(64)), generator(3))
    made.frames[1, 0, 0, :4] = torch.tensor([1.0, 0.6 / 2**14, 0.4 / 2**14, 0.999999])
    made.clean[0, 0, :2] = torch.tensor([1.2, -0.1])
    write_burst(tmp_path, made, {"seed": 7})
    stored = cv2.imread(str(tmp_path / "im_raw_01.png"), cv2.IMREAD_UNCHANGED)
    assert stored[0, :4, 0].tolist() == [2**14, 1, 0, 2**14]
    clean = cv2.imread(str(tmp_path / "gt" / "im_rgb.png"), cv2.IMREAD_UNCHANGED)
    assert clean[0, :2, 0].tolist() == [2**14, 0]
    facts = json.loads((tmp_path / "meta.json").read_text())
    assert facts["shot_noise_level"] == made.noise.shot and facts["seed"] == 7
    assert facts["read_noise_level"] == made.noise.read and facts["white_level"] == 2**14
    assert facts["channels"] == ["R", "Gr", "Gb", "B"]
    preview = read_photo(tmp_path / "preview.png").color_HWC
    finished = made.camera.process(made.clean.clamp(0, 1)).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(preview[:, 64:], finished, atol=0.51 / 255)


def test_options_of_making_bursts_are_heeded(photo):
    """Fourteen frames; another seed or number is another burst; clean ones have no noise."""
    facts = {}
    for name, words in {
        "plain": [], "again": [], "seed": ["--seed", "4"], "clean": ["--clean"],
    }.items():  # fmt: skip
        out = photo.parent / name
        assert make([str(photo), "-o", str(out), "--crop", "64", "--npz", *words]) == 0
        with np.load(out / "burst.npz") as file:
            facts[name] = file["frames"]
    assert len(facts["plain"]) == 14 and np.array_equal(facts["plain"], facts["again"])
    assert not np.array_equal(facts["plain"], facts["seed"])
    source = TrainingPhoto("photo", quantise(read_photo(photo).color_HWC))
    synthesis = BurstSynthesis(noise=False, quantize="none")
    data = BurstDataset([source], synthesis=synthesis, patch=8, length=1, seed=0, augment=False)
    assert np.array_equal(facts["clean"], data[0].frames.numpy())
    folder = burst_of(photo, "--rgb", "--count", 2)
    first, second = (read_burst(path).frames_TIHW for path in find_bursts(folder))
    assert not torch.equal(first, second)
    # sRGB frames of a photo look like it; linear ones are much darker.
    assert abs(float(first.mean()) - float(read_photo(photo).color_HWC.mean())) < 0.1


def test_the_same_seed_writes_the_same_files_and_existing_ones_are_kept(photo):
    folder = burst_of(photo)
    first = (folder / "im_raw_01.png").read_bytes()
    burst_of(photo, "--seed", 5)
    assert (folder / "im_raw_01.png").read_bytes() == first
    burst_of(photo, "--seed", 5, "--overwrite")
    assert (folder / "im_raw_01.png").read_bytes() != first
    burst_of(photo, "--overwrite")
    assert (folder / "im_raw_01.png").read_bytes() == first


def test_a_burst_over_another_leaves_nothing_of_the_old_one(photo):
    """An old burst.npz would be read first, old frames with the new ones."""
    folder = burst_of(photo, "--npz", "--frames", 5)
    burst_of(photo, "--overwrite", "--rgb")
    names = {path.name for path in folder.iterdir()}
    frames = {f"frame_{number:02d}.png" for number in range(3)}
    assert names == {*frames, "gt", "meta.json", "preview.png"}
    assert read_burst(folder).frames_TIHW.shape == (3, 3, 16, 16)


def test_a_burst_that_fails_leaves_the_old_one_whole(photo, monkeypatch):
    folder = burst_of(photo)
    before = {path: path.read_bytes() for path in folder.rglob("*.*")}
    monkeypatch.setattr("zoo.data.burst.writing.write_photo", fail)
    with pytest.raises(ZeroDivisionError):
        burst_of(photo, "--overwrite", "--rgb")
    assert {path: path.read_bytes() for path in folder.rglob("*.*")} == before


def fail(*arguments):
    raise ZeroDivisionError


@pytest.mark.parametrize(
    ("burst", "name"),
    [
        *((True, name) for name in ("notes.txt", "frame_00.jpg", "gt/mine.png", "one/a.png")),
        *((False, name) for name in ("frame_00.png", "one/frame_00.png")),
    ],
)
def test_files_of_others_are_not_lost_with_a_burst(photo, capsys, name, burst):
    folder = burst_of(photo) if burst else photo.parent / "made"
    mine = folder / name
    mine.parent.mkdir(parents=True, exist_ok=True)
    mine.write_bytes(b"mine")
    assert make([str(photo), "-o", str(folder), "--crop", "64", "--overwrite"]) == 2
    assert "is of no burst that this command wrote; choose another" in capsys.readouterr().err
    assert mine.read_bytes() == b"mine" and len(list(folder.glob("im_raw*"))) == 3 * burst


def test_rgb_bursts_and_folders_of_bursts(photo):
    folder = burst_of(photo, "--rgb", "--count", 2)
    bursts = find_bursts(folder)
    assert [path.name for path in bursts] == ["photo_0000", "photo_0001"]
    files = read_burst(bursts[0])
    assert files.frames_TIHW.shape == (3, 3, 16, 16) and files.bit_depth == 16
    write_photo(folder / "stray.png", Photo(np.zeros((2, 2, 3), np.float32)))
    assert find_bursts(folder) == bursts


def test_burstsr_folders(tmp_path):
    for index, value in enumerate((163, 263)):
        folder = tmp_path / f"samsung_{index:02d}"
        folder.mkdir()
        cv2.imwrite(str(folder / "im_raw.png"), np.full((2, 2, 4), value, np.uint16))
        facts = {"black_level": [63, 63, 63, 63], "red_gain": 2.0}
        (folder / "meta_info.pkl").write_bytes(pickle.dumps(facts))
    assert find_bursts(tmp_path) == [tmp_path]
    frames = read_burst(tmp_path).frames_TIHW
    torch.testing.assert_close(frames[:, 0, 0, 0], torch.tensor([100.0, 200.0]) / 1023)


@pytest.mark.parametrize("shared", [False, True])
def test_a_burstsr_frame_without_its_black_level_is_not_brighter_than_others(
    tmp_path, caplog, shared
):
    for index in range(2):
        folder = tmp_path / f"samsung_{index:02d}"
        folder.mkdir()
        cv2.imwrite(str(folder / "im_raw.png"), np.full((2, 2, 4), 163, np.uint16))
    assert read_burst(tmp_path).frames_TIHW.unique().tolist() == pytest.approx([163 / 1023])
    assert "no frame has a black_level beside it" in caplog.text
    facts = {"black_level": [63] * 4}
    (tmp_path / "samsung_00" / "meta_info.pkl").write_bytes(pickle.dumps(facts))
    if shared:
        (tmp_path / "meta.json").write_text(json.dumps(facts))
        assert read_burst(tmp_path).frames_TIHW.unique().tolist() == pytest.approx([100 / 1023])
        return
    with pytest.raises(ImageError, match=r"samsung_01/im_raw\.png' has no black_level .* copy its"):
        read_burst(tmp_path)


@pytest.mark.parametrize("kind", ["uint16", "float32"])
@pytest.mark.parametrize("black", [64, [64, 65, 66, 67]])
def test_the_black_level_of_an_npz_file_is_subtracted_from_frames_and_white(tmp_path, kind, black):
    levels = np.random.default_rng(0).integers(64, 1024, (2, 4, 3, 3)).astype(np.uint16)
    dark = np.array(black, float).reshape(-1, 1, 1)
    expected = (levels - dark) / (1023 - dark)
    if kind == "float32":
        np.savez(tmp_path / "a.npz", frames=levels / np.float32(1023), black_level=dark / 1023)
    else:
        np.savez(tmp_path / "a.npz", frames=levels, white_level=1023, black_level=black)
    found = read_burst(tmp_path / "a.npz").frames_TIHW
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("black", [1023, -1, [1, 2, 3], "dark", [0, 0, 0, 2000]])
def test_a_wrong_black_level_of_an_npz_file_is_one_sentence(tmp_path, black):
    frames = np.ones((2, 4, 3, 3), np.uint16)
    np.savez(tmp_path / "a.npz", frames=frames, white_level=1023, black_level=black)
    with pytest.raises(ImageError, match=r"a\.npz' has a 'black_level'"):
        read_burst(tmp_path / "a.npz")


def test_public_pickles_of_facts_are_read(tmp_path):
    facts = {
        "rgb2cam": torch.eye(3), "red_gain": torch.tensor(2.1), "blue_gain": np.float32(1.7),
        "rgb_gain": 1.2, "levels": np.arange(3), "more": collections.OrderedDict(a=[1, None]),
    }  # fmt: skip
    for protocol in (2, 4, 5):
        (tmp_path / "meta_info.pkl").write_bytes(pickle.dumps(facts, protocol))
        found = load_facts(tmp_path / "meta_info.pkl")
        assert torch.equal(found["rgb2cam"], torch.eye(3)) and found["more"]["a"] == [1, None]
        camera = BurstFiles("x", torch.rand(2, 4, 2, 2), found).camera
        assert camera.red == pytest.approx(2.1) and camera.blue == pytest.approx(1.7)


class Harmful:
    def __reduce__(self):
        import os

        return os.mkdir, ("harm",)


def test_a_pickle_cannot_run_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inside_storage = pickle.dumps(Harmful())
    import torch.storage

    class Hidden:
        def __reduce__(self):
            return torch.storage._load_from_bytes, (inside_storage,)

    for harmful in ({"a": Harmful()}, {"a": Hidden()}, {"a": np.array([Harmful()], object)}):
        (tmp_path / "meta_info.pkl").write_bytes(pickle.dumps(harmful))
        with pytest.raises(ImageError, match=r"could run code|damaged"):
            load_facts(tmp_path / "meta_info.pkl")
    assert not (tmp_path / "harm").exists()


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
