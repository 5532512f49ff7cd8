"""Bursts on disk: what is written and read, and files that could do harm."""

from __future__ import annotations

import collections
import json
import pickle

import cv2
import numpy as np
import pytest
import torch

from tests.helpers.small_bursts import burst_of
from zoo.data import Photo, read_photo, write_photo
from zoo.data.burst import BurstDataset, BurstSynthesis
from zoo.data.burst.__main__ import main as make
from zoo.data.burst.dataset import generator
from zoo.data.burst.facts import load_facts
from zoo.data.burst.finding import find_bursts
from zoo.data.burst.reading import BurstFiles, read_burst
from zoo.data.burst.stored import read_clean
from zoo.data.burst.writing import write_burst
from zoo.data.photos import TrainingPhoto
from zoo.data.pixels import quantise
from zoo.errors import ImageError


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
