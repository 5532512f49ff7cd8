"""``zoo analyse``: pictures, numbers beside them, and what is said of bad input."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
import torch

import zoo
from zoo.analysis import local_attribution
from zoo.cli import main
from zoo.commands import analysing
from zoo.commands.analyse_erf import percent
from zoo.data import Photo, read_photo, write_photo
from zoo.errors import WriteError, ZooError
from zoo.shipped import WEIGHTS

NAME = "mambair_tiny_x2"


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for index, size in enumerate([(20, 26), (24, 22)]):
        pixels = np.random.default_rng(index).random((*size, 3)).astype(np.float32)
        write_photo(folder / f"{index}.png", Photo(pixels))
    return folder


def run(*words):
    return main(["analyse", *map(str, words)])


def refused(capsys, *words):
    assert run(*words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    return error


def arrays(path):
    with np.load(path, allow_pickle=False) as found:
        return dict(found)


def test_small_shares_keep_two_digits():
    shares = (1.0, 0.123, 0.0456, 0.00123, 0.0004, 0.0001085, 1 / 3e7)
    told = "100.0% 12.3% 4.6% 0.12% 0.040% 0.011% 0.0000033%"
    assert " ".join(map(percent, shares)) == told


def test_erf_writes_a_picture_numbers_and_how_far_it_reaches(photos, tmp_path, capsys):
    one = tmp_path / "one.png"
    assert run("erf", NAME, photos, "-o", one) == 0
    out = capsys.readouterr().out
    assert "20% within" in out and "99% within" in out and f"wrote {one} and " in out
    found = arrays(tmp_path / "one.npz")
    assert found["field"].shape == (20, 22) and found["field"].argmax() == 10 * 22 + 11
    assert found["at"].tolist() == [10, 11] and str(found["title"]) == NAME
    alone = read_photo(one).color_HWC

    both = tmp_path / "both.png"
    words = ["erf", NAME, photos / "0.png", "--size", "16x16", "--at", "2,25", "--title", "other"]
    assert run(*words, "--beside", tmp_path / "one.npz", "-o", both) == 0
    assert capsys.readouterr().out.startswith(f"{NAME}: 20% within")
    picture = read_photo(both).color_HWC
    np.testing.assert_array_equal(picture[:100, :200], alone[:100, :200])  # the earlier one is left
    assert picture.shape[1] > 1.5 * alone.shape[1]
    assert arrays(tmp_path / "both.npz")["at"].tolist() == [2, 15]
    assert arrays(tmp_path / "both.npz")["field"].shape == (16, 16)


def test_lam_writes_a_row_for_each_network(photos, tmp_path, capsys):
    photo, one = photos / "0.png", tmp_path / "one.png"
    words = ["lam", NAME, photo, "--steps", "2", "--side", "4"]
    assert run(*words, "-o", one) == 0
    assert capsys.readouterr().out.startswith(f"{NAME}: diffusion index ")
    found = arrays(tmp_path / "one.npz")
    assert found["map"].shape == (3, 20, 26) and found["output"].shape == (3, 40, 52)
    assert found["target"].tolist() == [8, 11, 4]
    image_IHW = torch.from_numpy(found["image"].copy())
    expected = local_attribution(zoo.load(NAME), image_IHW, at=(8, 11), side=4, steps=2)
    np.testing.assert_allclose(found["map"], expected.map_IHW, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(found["image"].transpose(1, 2, 0), read_photo(photo).color_HWC)
    both = tmp_path / "both.png"
    words += ["--random-weights", "--title", "again", "--beside", tmp_path / "one.npz", "-o", both]
    assert run(*words) == 0
    assert len(read_photo(both).color_HWC) == 2 * len(read_photo(one).color_HWC)


def test_lam_cuts_the_photo_around_the_target(photos, tmp_path):
    out = tmp_path / "a.png"
    place = ["--at", "15,2", "--size", "12x10", "--side", "4", "--steps", "1"]
    assert run("lam", NAME, photos / "0.png", *place, "-o", out) == 0
    found = arrays(tmp_path / "a.npz")
    assert found["target"].tolist() == [7, 2, 4]  # cut out of the rows 8 to 19, columns 0 to 9
    whole = read_photo(photos / "0.png").color_HWC
    np.testing.assert_array_equal(found["image"].transpose(1, 2, 0), whole[8:20, :10])
    place = ["--at", "8,10", "--size", "8x9", "--side", "4", "--steps", "1"]
    assert run("lam", NAME, photos / "0.png", *place, "-o", out) == 0
    found = arrays(tmp_path / "a.npz")
    assert found["target"].tolist() == [2, 2, 4]  # the target is in the middle
    np.testing.assert_array_equal(found["image"].transpose(1, 2, 0), whole[6:14, 8:17])


def test_activations_have_a_layer_of_bars_and_all_layers(photos, tmp_path, capsys):
    for extra in ([], ["--layer", "0", "--of", "block"]):
        assert run("activations", NAME, photos, *extra, "-o", tmp_path / "a.png") == 0
        assert "48 active" in capsys.readouterr().out
    # Groups are blocks too: four blocks, and two groups of two.
    assert len(arrays(tmp_path / "a.npz")) == 6
    error = refused(capsys, "activations", NAME, photos, "--layer", "4", "-o", tmp_path / "a.png")
    assert "--layer 4: the network has the layers 0 to 3" in error


def test_a_picture_may_be_of_any_kind_in_capitals_too(tmp_path):
    for suffix in ("png", "jpg", "jpeg", "webp", "tif", "tiff", "bmp", "PNG", "Jpg"):
        analysing.check_outputs(tmp_path / f"a.{suffix}", [None])
    with pytest.raises(ZooError, match=r"-o .*/a\.gif: name a picture, such as a\.png"):
        analysing.check_outputs(tmp_path / "a.gif", [])


def test_a_picture_that_cannot_be_written_is_told_before_the_work(tmp_path):
    for name in ("a.png", "b.npz"):
        (tmp_path / name).mkdir()
        with pytest.raises(WriteError, match="cannot write: it is a folder"):
            analysing.check_outputs(tmp_path / name[:1] / ".." / f"{name[0]}.png", [])


def test_progress_is_shown_on_a_terminal_only_and_goes_away(monkeypatch):
    monkeypatch.setattr(analysing, "tqdm", lambda **settings: settings)
    assert analysing.shown_progress("photos", 3) == {
        "desc": "photos", "total": 3, "disable": None, "leave": False
    }  # fmt: skip


class Bar:
    """In place of a progress bar: what it is of, and how far it came."""

    shown: ClassVar[list[Bar]] = []

    def __init__(self, what, total):
        self.what, self.total, self.done = what, total, 0
        self.shown.append(self)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def update(self, count=1):
        self.done += count


def test_options_may_stand_among_photos_and_progress_counts_what_is_done(
    photos, tmp_path, monkeypatch
):
    monkeypatch.setattr(Bar, "shown", [])
    for name in ("erf", "activations", "lam"):
        monkeypatch.setattr(f"zoo.commands.analyse_{name}.shown_progress", Bar)
    rest = ["-o", tmp_path / "a.png", "--size", "8x8"]
    for name in ("erf", "activations"):
        assert run(name, NAME, photos / "0.png", *rest, photos / "1.png") == 0
        for path in tmp_path.glob("a.*"):
            path.unlink()
    assert run("lam", NAME, "--steps", "3", "--side", "2", *rest, photos / "0.png") == 0
    assert run("scans", NAME, *rest, photos / "0.png") == 0
    found = [(bar.what, bar.total, bar.done) for bar in Bar.shown]
    assert found == [("photos", 2, 2), ("photos", 2, 2), ("steps", 3, 3)]


def test_scans_has_the_arrays_of_all_mixers(photos, tmp_path, capsys):
    out = tmp_path / "a.png"
    assert run("scans", NAME, photos / "1.png", "--block", "1", "-o", out) == 0
    assert capsys.readouterr().out.count("half of the state is gone: row: ") == 4
    found = arrays(tmp_path / "a.npz")
    assert len(found) == 4 * 5  # of each mixer
    for name in ("kept_map", "weight_map"):
        assert found[f"groups.1.blocks.0.mixer/{name}"].shape == (4, 24, 22)
    kept, distance = (found[f"groups.0.blocks.1.mixer/{name}"] for name in ("kept", "distance"))
    assert kept.shape == (4, len(distance)) and distance[:3].tolist() == [1, 2, 3]
    assert found["groups.1.blocks.0.mixer/directions"].tolist()[0] == "row"
    error = refused(capsys, "scans", NAME, photos / "1.png", "--block", "9", "-o", out)
    assert "--block 9: the network has the blocks 0 to 3" in error


def test_weights_are_found_by_file_and_gray_photos_work(tmp_path):
    pixels = np.random.default_rng(3).random((12, 12, 1)).astype(np.float32)
    write_photo(tmp_path / "gray.png", Photo(pixels))
    file = WEIGHTS / f"{NAME}.safetensors"
    fields = []
    for words in ([file], [NAME, "-w", file]):
        assert run("erf", *words, tmp_path / "gray.png", "-o", tmp_path / "a.png") == 0
        fields.append(arrays(tmp_path / "a.npz")["field"])
    np.testing.assert_array_equal(*fields)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["erf", NAME, "{p}/0.png", "--at", "20,0"], "--at 20,0: outside"),
        (["erf", NAME, "{p}/0.png", "--at=-1,0"], "--at -1,0: write ROW,COLUMN"),
        (["erf", NAME, "{p}", "--at", "0,21", "--size", "8x8"], "to the border of some photos"),
        (["erf", NAME, "{p}/0.png", "--size", "21x8"], "fewer than --size 21x8"),
        (["erf", NAME, "{p}/0.png", "--size", "0x8"], "--size '0x8'"),
        (["erf", NAME, "{p}/2.png"], "does not exist"),
        (["erf", "mambair_tiny", "{p}/0.png"], "unknown model 'mambair_tiny'"),
        (["erf", "mambair_light_x2", "{p}/0.png"], "no weights ship for 'mambair_light_x2'"),
        (["erf", NAME, "{p}/0.png", "--beside", "{p}/0.png"], "cannot be read"),
        (["erf", "qmambabsr_tiny", "{p}/0.png"], "takes bursts"),
        (["lam", NAME, "{p}/0.png", "--side", "21"], "does not fit"),
        (["lam", NAME, "{p}/0.png", "--at", "18,0", "--side", "4"], "--at 18,0: outside"),
        (["lam", NAME, "{p}/0.png", "--at", "5"], "--at 5: write ROW,COLUMN"),
        (["lam", NAME, "{p}/0.png", "--steps", "0"], "--steps 0"),
        (["scans", NAME, "{p}/0.png", "--compat", "official"], "--compat has no effect"),
    ],
)
def test_bad_input_is_one_sentence(words, message, photos, tmp_path, capsys):
    given = [word.format(p=photos) for word in words]
    assert message in refused(capsys, *given, "-o", tmp_path / "out.png")
    assert not (tmp_path / "out.png").exists() and not (tmp_path / "out.npz").exists()


def test_outputs_and_titles_are_checked_before_the_work(photos, tmp_path, capsys):
    photo = photos / "0.png"
    assert "name a picture, such as a.png" in refused(
        capsys, "erf", NAME, photo, "-o", tmp_path / "a.npz"
    )
    assert run("erf", NAME, photo, "-o", tmp_path / "a.png") == 0
    capsys.readouterr()
    words = ["erf", NAME, photo, "--beside", tmp_path / "a.npz", "-o", tmp_path / "b.png"]
    assert f"--title {NAME}: a field of --beside has it too" in refused(capsys, *words)
    words = ["lam", NAME, photo, "--beside", tmp_path / "a.npz", "-o", tmp_path / "b.png"]
    assert "has no array 'map'" in refused(capsys, *words)


def test_no_input_and_no_other_file_is_replaced(photos, tmp_path, capsys):
    photo, photo_bytes = photos / "0.png", (photos / "0.png").read_bytes()
    for words in (["erf", NAME, photos], ["activations", NAME, photo], ["lam", NAME, photo]):
        assert "0.png is an input and would be lost" in refused(capsys, *words, "-o", photo)
    (tmp_path / "burst.npz").write_bytes(b"mine")
    error = refused(capsys, "scans", NAME, photo, "-o", tmp_path / "burst.png")
    assert "burst.npz, where its numbers would go, is a file of something else" in error
    words = ["erf", NAME, photo, "--beside", tmp_path / "burst.npz", "-o", tmp_path / "burst.png"]
    assert "burst.npz is an input" in refused(capsys, *words)
    (tmp_path / "mine.png").write_bytes(photo_bytes)
    error = refused(capsys, "scans", NAME, photo, "-o", tmp_path / "mine.png")
    assert "mine.png: it is there without mine.npz" in error
    assert (tmp_path / "mine.png").read_bytes() == photo_bytes
    for folder in (".", "/"):
        assert f"-o {folder}: it is a folder" in refused(capsys, "scans", NAME, photo, "-o", folder)
    for what in ("erf", "activations"):
        error = refused(capsys, what, NAME, photos, "-o", photos / "field.png")
        assert "would count as one of them in the next run" in error
    assert photo.read_bytes() == photo_bytes and (tmp_path / "burst.npz").read_bytes() == b"mine"
    out = tmp_path / "again.png"
    for _ in range(2):  # its own files are replaced
        assert run("scans", NAME, photo, "-o", out) == 0


def test_no_input_is_replaced_however_its_path_is_spelled(photos, tmp_path, capsys, monkeypatch):
    (tmp_path / "link").symlink_to(photos)
    (photos / "link.png").symlink_to(photos / "0.png")
    monkeypatch.chdir(tmp_path)
    before = (photos / "0.png").read_bytes()
    for output in ("photos/0.png", "photos/../link/0.png", "link/0.png", "photos/link.png"):
        error = refused(capsys, "scans", NAME, photos / "0.png", "-o", output)
        assert "is an input and would be lost" in error
    for folder in ("photos", "link", "link/../photos"):
        error = refused(capsys, "erf", NAME, photos, "-o", f"{folder}/field.png")
        assert "would count as one of them in the next run" in error
    assert (photos / "0.png").read_bytes() == before


def test_maps_of_another_part_are_refused(photos, tmp_path, capsys):
    words = ["lam", NAME, photos / "0.png", "--steps", "1", "--side", "2"]
    assert run(*words, "-o", tmp_path / "a.png") == 0
    capsys.readouterr()
    words += ["--size", "10x10", "--beside", tmp_path / "a.npz", "-o", tmp_path / "b.png"]
    assert "use the same photo, --at and --size" in refused(capsys, *words)


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (["1.png"], "part or photo"),
        (["0.png", "--at", "3,3"], "part or photo"),
        (["0.png", "--side", "3"], "target"),
    ],
)
def test_maps_of_another_photo_or_target_are_refused(other, what, photos, tmp_path, capsys):
    words = ["lam", NAME, "--steps", "1", "--size", "14x14"]
    first = [*words, photos / "0.png", "--at", "9,9", "--side", "2"]
    assert run(*first, "-o", tmp_path / "a.png") == 0
    assert (
        run(*first, "--title", "t", "--beside", tmp_path / "a.npz", "-o", tmp_path / "b.png") == 0
    )
    capsys.readouterr()
    changed = {"--at": "9,9", "--side": "2", **dict(zip(other[1::2], other[2::2], strict=True))}
    words += [photos / other[0], *(word for pair in changed.items() for word in pair)]
    error = refused(capsys, *words, "--beside", tmp_path / "a.npz", "-o", tmp_path / "c.png")
    assert f"it shows another {what}" in error


def test_heads_have_the_names_of_their_directions_and_no_loss_is_said_so(photos, tmp_path, capsys):
    words = ["scans", "eamamba_dn15", "--random-weights", photos / "0.png", "--size", "8x9"]
    assert run(*words, "-o", tmp_path / "heads.png") == 0
    directions = arrays(tmp_path / "heads.npz")["encoders.0.0.mixer/directions"].tolist()
    assert len(directions) == 8 and {"1.row", "1.column_reversed"} <= set(directions)
    first = arrays(tmp_path / "heads.npz")["encoders.0.0.mixer/kept_map"][directions.index("1.row")]
    assert (first[:4] > 0).all() and not first[5:].any()  # the head that reads row by row
    assert "1.row: more than the path has" in capsys.readouterr().out  # one token in the middle
