"""What ``zoo restore`` does with folders, names of outputs, and options that have no effect."""

from __future__ import annotations

import re
import struct

import numpy as np
import pytest

import zoo
from tests.helpers.networks import Nearest
from zoo.cli import main
from zoo.data import Photo, read_photo, write_photo
from zoo.errors import ImageError, ZooError
from zoo.inference.image import _holds_image
from zoo.inference.outputs import Outputs
from zoo.networks import Network
from zoo.registry import Capabilities


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A folder with photos, other files, a damaged one, and folders inside it."""
    for name in ("a.png", "b.jpg", "sub/c.png", "sub/deep/d.webp", ".hidden/e.png"):
        write_photo(tmp_path / "in" / name, Photo(np.full((3, 4, 3), 0.5, np.float32)))
    (tmp_path / "in" / "notes").mkdir()
    for name in ("film.mov", "raw.cr2", "other.cr2", "README", "notes/a.txt"):
        (tmp_path / "in" / name).write_bytes(b"x")
    monkeypatch.setattr("zoo.commands.restore.choose_network", lambda *_, **__: Nearest())
    return tmp_path / "in"


def run(*words):
    return main(["restore", *map(str, words), "-n", "model"])


def below(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_a_folder_names_all_that_was_skipped_and_ends_with_counts(photos, tmp_path, capsys, caplog):
    caplog.set_level("INFO")
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.png").write_bytes(b"mine")
    assert run(photos, "-o", out) == 0
    assert capsys.readouterr().out == (
        "images: 1 written, 0 failed, 1 skipped because their output exists, 5 skipped because "
        "they are not read; --overwrite (in Python, overwrite=True) replaces it\n"
    )
    assert below(out) == ["a.png", "b.jpg"] and (out / "a.png").read_bytes() == b"mine"
    lines = caplog.text.splitlines()
    for told in (
        r"skipped, because their output exists; --overwrite .*: a\.png$",
        r"skipped \.cr2 files, which are not read: other\.cr2, raw\.cr2$",
        r"skipped \.mov files, which are not read: film\.mov$",
        r"skipped other files, which are not read: README$",
        r"skipped folders \(-r, in Python recursive=True, restores what is in them\): sub$",
    ):
        assert len([line for line in lines if re.search(told, line)]) == 1, told


def test_a_folder_names_all_that_failed_and_ends_with_counts(photos, tmp_path, capsys, caplog):
    (photos / "bad1.png").write_bytes(b"no image")
    (photos / "bad2.tif").write_bytes(b"no image")
    assert run(photos, "-o", tmp_path / "out") == 2
    failed = [line for line in caplog.text.splitlines() if "failed: image file" in line]
    assert "bad1.png" in failed[0] and "bad2.tif" in failed[1] and len(failed) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert re.match(
        r"zoo restore: error: 2 of 4 images failed, the others are done; images: 2 written, "
        r"2 failed, 0 skipped because .*; first failure: image file .*bad1\.png",
        last,
    )
    assert below(tmp_path / "out") == ["a.png", "b.jpg"]


class Faulty(Nearest):
    def forward(self, image_BIHW):
        if image_BIHW.shape[3] == 5:
            raise struct.error("argument out of range")
        return super().forward(image_BIHW)


def test_a_bug_that_one_file_meets_does_not_end_the_folder(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("zoo.commands.restore.choose_network", lambda *_, **__: Faulty())
    write_photo(photos / "a.png", Photo(np.full((3, 5, 3), 0.5, np.float32)))
    assert run(photos, "-o", tmp_path / "out") == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert "1 of 2 images failed" in last
    assert "a.png: cannot be restored: error: argument out of range" in last
    assert below(tmp_path / "out") == ["b.jpg"]
    with pytest.raises(ImageError) as found:
        zoo.restore(Faulty(), photos, tmp_path / "out", progress=False)
    assert isinstance(found.value.__cause__.__cause__, struct.error)  # for --debug


@pytest.mark.parametrize("fault", [ImageError, OSError, KeyError])
def test_an_error_of_the_callback_ends_the_folder(photos, tmp_path, fault):
    def stop(_):
        raise fault("stop")

    with pytest.raises(fault, match="stop"):
        zoo.restore(Nearest(), photos, tmp_path / "out", progress=stop)
    assert not (tmp_path / "out").exists()


def test_a_folder_with_the_folders_in_it_keeps_the_tree(photos, tmp_path, capsys, caplog):
    (photos / "circle").symlink_to(photos)
    caplog.set_level("INFO")
    assert run(photos, "-o", tmp_path / "out", "-r") == 0
    assert "skipped links to folders, which are not followed: circle\n" in caplog.text
    expected = ["a.png", "b.jpg", "sub/c.png", "sub/deep/d.webp"]
    assert below(tmp_path / "out") == expected
    assert read_photo(tmp_path / "out/sub/deep/d.webp").color_HWC.shape == (6, 8, 3)
    assert "images: 4 written, 0 failed" in capsys.readouterr().out
    # Outputs inside the input are not restored again.
    for _ in range(2):
        assert run(photos, "-o", photos / "sub" / "out", "--recursive", "--overwrite") == 0
        assert below(photos / "sub" / "out") == expected


def test_a_folder_whose_images_are_in_folders_says_how_to_reach_them(photos, tmp_path, capsys):
    assert run(photos / "sub" / "..", "-o", tmp_path / "out") == 0
    for name in ("a.png", "b.jpg"):
        (photos / name).unlink()
    assert run(photos, "-o", tmp_path / "out") == 2
    assert "-r (in Python, recursive=True) looks in the folders" in capsys.readouterr().err
    assert run(photos / "notes", "-o", tmp_path / "out") == 2
    assert "holds no image" in (error := capsys.readouterr().err) and "; -r" not in error


def test_the_suffix_and_the_format_name_the_outputs_in_a_folder(photos, tmp_path):
    assert run(photos, "-o", tmp_path / "x", "--suffix", "x2", "--format", "webp") == 0
    assert below(tmp_path / "x") == ["a_x2.webp", "b_x2.webp"]
    assert run(photos / "a.png", "-o", tmp_path / "x", "--suffix", "_x2", "--format", "jpg") == 0
    assert run(photos / "a.png", "-o", tmp_path / "x", "--format", "tif") == 0
    assert run(photos / "a.png", "-o", tmp_path / "x", "--format", "png") == 0
    assert below(tmp_path / "x") == ["a.png", "a.tif", "a_x2.jpg", "a_x2.webp", "b_x2.webp"]
    for name, start in (("a.tif", (b"II*\0", b"MM\0*")), ("a_x2.jpg", b"\xff\xd8")):
        assert (tmp_path / "x" / name).read_bytes().startswith(start)


def test_outputs_beside_their_inputs_are_not_restored_again(photos, capsys):
    for written in (4, 0):
        assert run(photos, "-o", photos, "--suffix", "x2", "-r") == 0
        assert f"images: {written} written" in capsys.readouterr().out
    assert [name for name in below(photos) if "x2" in name] == [
        "a_x2.png", "b_x2.jpg", "sub/c_x2.png", "sub/deep/d_x2.webp"
    ]  # fmt: skip


def test_an_input_that_is_named_like_an_output_is_restored(photos, capsys, caplog):
    """Where nothing is there that it could be the output of."""
    caplog.set_level("INFO")
    (photos / "b.jpg").rename(photos / "k_x2.jpg")
    for written in (2, 0):
        assert run(photos, "-o", photos, "--suffix", "x2") == 0
        assert f"images: {written} written" in capsys.readouterr().out
    assert below(photos)[:4] == [".hidden/e.png", "README", "a.png", "a_x2.png"]
    assert (photos / "k_x2_x2.jpg").exists()
    assert "replaces it: a_x2.png, k_x2_x2.jpg" in caplog.text


def test_outputs_of_another_format_beside_their_inputs_are_not_restored_again(photos, capsys):
    (photos / "b.jpg").rename(photos / "b.webp")
    before = below(photos)
    for written in (2, 0):
        assert run(photos, "-o", photos, "--format", "jpg") == 0
        assert f"images: {written} written" in capsys.readouterr().out
        assert sorted({*below(photos)} - {*before}) == ["a.jpg", "b.jpg"]
    # Which is the input of which is not known, and nothing that could be an input is replaced.
    assert run(photos, "-o", photos, "--format", "jpg", "--overwrite") == 2
    assert "the output would replace the input" in capsys.readouterr().err


def test_skipped_files_and_folders_are_named_with_their_folder(photos, tmp_path, capsys, caplog):
    caplog.set_level("INFO")
    (photos / "sub" / "c.png").unlink()  # an image two levels down is left
    (photos / "sub" / "deep" / "e.cr2").write_bytes(b"x")
    assert run(photos, "-o", tmp_path / "out") == 0
    assert re.search(r"skipped folders \(-r, .*: sub\n", caplog.text)
    for _ in range(2):
        assert run(photos, "-o", tmp_path / "out", "-r") == 0
    assert "which are not read: other.cr2, raw.cr2, sub/deep/e.cr2\n" in caplog.text
    assert "replaces it: a.png, b.jpg, sub/deep/d.webp\n" in caplog.text
    capsys.readouterr()
    assert run(photos / "sub", "-o", tmp_path / "other") == 2
    assert "; -r (in Python, recursive=True) looks in the folders" in capsys.readouterr().err


def test_a_missing_input_is_told_where_its_output_exists(photos, tmp_path, capsys):
    (tmp_path / "o.png").write_bytes(b"mine")
    (photos / "link.png").symlink_to(photos / "gone.png")
    for name, said in (("nothere.png", "does not exist"), ("link.png", "is a link to a missing")):
        assert run(photos / name, "-o", tmp_path / "o.png") == 2
        assert f"{name}' {said}" in capsys.readouterr().err


def test_an_error_of_any_kind_names_its_file_and_the_others_are_restored(
    photos, tmp_path, monkeypatch, caplog
):
    real = zoo.inference.image.restore_photo
    errors = [ZooError("memory is too small"), ImageError("bad bands"), MemoryError()]
    for name in ("c.png", "d.png"):
        write_photo(photos / name, Photo(np.zeros((2, 2, 3), np.float32)))

    def some(*words):
        if errors:
            raise errors.pop(0)
        return real(*words)

    monkeypatch.setattr("zoo.inference.image.restore_photo", some)
    told = []
    with pytest.raises(ImageError, match=r"3 of 4 images failed.* first failure: .*a\.png: memory"):
        zoo.restore(Nearest(), photos, tmp_path / "out", progress=told.append)
    assert told == [0.25, 0.5, 0.75, 1] and below(tmp_path / "out") == ["d.png"]
    for said in (r"a\.png: memory is too", r"b\.jpg: bad bands", r"c\.png: memory ran out; use"):
        assert re.search(said, caplog.text)
    errors.append(ImageError("bad bands"))
    with pytest.raises(ImageError, match=r"a\.png: bad bands"):
        zoo.restore(Nearest(), photos / "a.png", tmp_path / "o.png", progress=False)


def test_an_error_of_the_files_kind_that_the_progress_raises_ends_the_work(photos, tmp_path):
    def full(done):
        raise OSError("the window is gone")

    with pytest.raises(OSError, match=r"^the window is gone$"):
        zoo.restore(Nearest(), photos, tmp_path / "out", progress=full)


def test_options_for_a_folder_say_where_they_have_no_effect(photos, tmp_path, caplog):
    assert run(photos / "a.png", "-o", tmp_path / "q.jpeg", "--format", "jpg", "-r") == 0
    assert (tmp_path / "q.jpeg").read_bytes().startswith(b"\xff\xd8")
    assert re.search(r"-r \(recursive=True\) has no effect: .*a\.png is no folder", caplog.text)


def test_inputs_of_one_name_have_outputs_of_their_own(photos, tmp_path):
    write_photo(photos / "b.png", Photo(np.zeros((2, 2, 3), np.float32)))
    write_photo(photos / "b.tif", Photo(np.zeros((2, 2, 3), np.float32)))
    assert run(photos, "-o", tmp_path / "x", "--format", "png") == 0
    assert below(tmp_path / "x") == ["a.png", "b.jpg.png", "b.png", "b.tif.png"]
    write_photo(photos / "b.jpg.png", Photo(np.zeros((2, 2, 3), np.float32)))
    with pytest.raises(ImageError, match=r"b\.jpg\.png: b\.jpg and b\.jpg\.png would be written"):
        zoo.restore(Nearest(), photos, tmp_path / "y", format="png", progress=False)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["IN", "-o", "OUT.txt"], "OUT.txt: the input is a folder, so the output must be a folder"),
        (["IN", "-o", "OUT.png"], "to write to a folder of this name, put a / at the end"),
        (["IN/a.png", "-o", "OUT.txt"], "OUT.txt: images are not written as '.txt'"),
        (["IN/a.png", "-o", "OUT.png", "--suffix", "x"], "the output has a name already"),
        (["IN/a.png", "-o", "OUT.png", "--format", "jpg"], "the output is not a .jpg file"),
        (["IN", "-o", "OUT", "--suffix", "a/b"], "suffix 'a/b' is not a part of a name"),
        (["IN", "-o", "IN"], "the output would replace the input"),
        (["IN", "-o", "OUT", "--look", "plain"], "look 'plain' has no effect: it is for RAW"),
        (["IN", "-o", "OUT", "--plugin", "x.so"], "--plugin is for engines"),
        (["IN", "-o", "OUT", "--trust-engine"], "--trust-engine is for engines"),
        (["IN", "-o", ""], "the argument after '-o' is empty"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_written(
    words, message, photos, tmp_path, capsys
):
    before = below(tmp_path)
    fill = {"IN": str(photos), "OUT": str(tmp_path / "OUT")}
    assert run(*(re.sub("IN|OUT", lambda found: fill[found[0]], word) for word in words)) == 2
    assert message in capsys.readouterr().err and below(tmp_path) == before


def test_a_folder_named_like_a_file_is_written_where_that_is_said(photos, tmp_path):
    assert run(photos, "-o", f"{tmp_path}/out.v2/") == 0
    assert run(photos, "-o", tmp_path / "out.v2", "--overwrite") == 0  # it exists
    assert below(tmp_path / "out.v2") == ["a.png", "b.jpg"]


def test_an_existing_output_says_which_option_overwrites_it(photos, tmp_path, capsys):
    out = tmp_path / "o.png"
    out.write_bytes(b"mine")
    assert run(photos / "a.png", "-o", out) == 0
    assert capsys.readouterr().out.startswith(f"{out} exists; --overwrite")
    assert out.read_bytes() == b"mine"
    assert run(photos / "a.png", "-o", out, "--overwrite") == 0
    assert capsys.readouterr().out == f"wrote {out}\n"


def test_empty_paths_are_refused_in_python_too(photos, tmp_path):
    with pytest.raises(ImageError, match="the path of the input is empty"):
        zoo.restore(Nearest(), "", tmp_path)
    with pytest.raises(ImageError, match="the path of the output is empty"):
        zoo.restore(Nearest(), photos, "")
    with pytest.raises(ImageError, match="images are not written as 'gif'; use one of bmp, "):
        zoo.restore(Nearest(), photos, tmp_path / "out", format="gif")
    with pytest.raises(ImageError, match="the output is b'out'; it must be a path"):
        zoo.restore(Nearest(), photos, b"out")
    for name in ("suffix", "format"):
        for wrong in (3, None):
            with pytest.raises(ImageError, match=f"{name} is {wrong}; it must be a text"):
                zoo.restore(Nearest(), photos, tmp_path / "out", **{name: wrong})


class Frames(Network):
    """A burst network."""

    capabilities = Capabilities(input="burst")
    scale, burst = 1, 2

    def __init__(self, channels):
        super().__init__()
        self.channels = channels


def test_a_look_for_bursts_of_rgb_frames_and_folders_of_bursts_are_refused(tmp_path):
    with pytest.raises(ZooError, match=r"look 'linear' has no effect: .* takes bursts of RGB"):
        zoo.restore(Frames(3), tmp_path, tmp_path / "out", look="linear")
    with pytest.raises(ZooError, match=r"look 'plain' has no effect: .* takes images; leave it"):
        zoo.restore(Nearest(channels=4), tmp_path, tmp_path / "out", look="plain")
    with pytest.raises(ZooError, match=r"a range of values is for images; bursts state a white"):
        zoo.restore(Frames(4), tmp_path, tmp_path / "out", value_range=(0, 1))
    with pytest.raises(ZooError, match=r"recursive \(-r\) does not work for bursts"):
        zoo.restore(Frames(4), tmp_path, tmp_path / "out", recursive=True)


def test_compat_without_what_it_changes_is_told(monkeypatch, capsys):
    words = ["restore", "in.png", "-o", "out.png", "-n", "mambair_tiny_x2", "--compat", "official"]
    assert main(words) == 2
    assert "--compat has no effect on mambair_tiny_x2: it is for" in capsys.readouterr().err
    words[words.index("mambair_tiny_x2")] = "qmambabsr_tiny"
    assert main(words) == 2
    assert "--compat has no effect on qmambabsr_tiny: it is for" in capsys.readouterr().err
    network = zoo.load("mambair_tiny_x2")
    monkeypatch.setattr("zoo.checkpoints.convert_command.convert", lambda *_, **__: network)
    words = ["convert", "a.safetensors", "-o", "a.pth"]
    assert main([*words, "--compat", "official"]) == 0
    assert "--compat has no effect on this network" in capsys.readouterr().out
    assert main(words) == 0 and "--compat" not in capsys.readouterr().out


def test_an_overlap_without_tiles_is_told(photos, tmp_path, caplog):
    assert run(photos / "a.png", "-o", tmp_path / "a.png", "-t", 0) == 0
    assert "--overlap" not in caplog.text
    assert run(photos / "a.png", "-o", tmp_path / "b.png", "-t", 0, "--overlap", 8) == 0
    assert "--overlap has no effect: with -t 0 there are no tiles" in caplog.text


def test_a_folder_in_place_of_weights_is_told(tmp_path, capsys):
    words = ["restore", "a.png", "-o", "o.png", "-w", str(tmp_path)]
    for more in ([], ["-n", "mambair_tiny_x2"]):
        assert main([*words, *more]) == 2
        assert f"{tmp_path} is a folder; name a file of weights" in capsys.readouterr().err


def test_a_part_of_an_unknown_kind_is_told(capsys):
    assert main(["show", "blok/rssb"]) == 2
    assert "'blok/rssb': unknown kind of part 'blok'; did you mean 'block'?" in (
        capsys.readouterr().err
    )


def test_random_weights_that_are_not_used_are_told(tmp_path, caplog):
    write_photo(tmp_path / "a.png", Photo(np.zeros((3, 4, 3), np.float32)))
    words = ["restore", tmp_path / "a.png", "-o", tmp_path / "o.png", "--random-weights"]
    assert main([*map(str, words), "-n", "mambair_tiny_x2"]) == 0
    assert "--random-weights has no effect: there are weights" in caplog.text


def test_outputs_of_a_format_that_is_only_read_are_png(tmp_path):
    outputs = Outputs(target=tmp_path)
    names = [tmp_path / name for name in ("a.png", "a.heic", "b.HEIC", "C.PNG", "burst")]
    found = outputs.of_several([name.relative_to(tmp_path) for name in names])
    assert [path.name for path in found] == [
        "a.png", "a.heic.png", "b.png", "C.PNG", "burst.png"
    ]  # fmt: skip


def test_outputs_of_a_suffix_are_known_however_its_line_is_written(tmp_path):
    images = [tmp_path / name for name in ("a.png", "a_x2.png", "b_.png", "b.png", "c_x2.png")]
    for suffix in ("x2", "_x2", "__x2"):
        found = Outputs(target=tmp_path, suffix=suffix).without_own(images)
        assert [path.name for path in found] == ["a.png", "b_.png", "b.png", "c_x2.png"]
    assert Outputs(target=tmp_path, suffix="_").without_own(images) == images
    assert Outputs(target=tmp_path, suffix="_").of_several([images[0]]) == [images[0]]


def test_a_folder_is_said_to_hold_images_if_one_in_it_is_not_hidden(tmp_path):
    root = tmp_path / ".cache" / "in"  # what is around it does not count
    for name in ("a/.x.png", "b/.h/c/x.png", "c/x.txt", "d/e/x.PNG"):
        (root / name).parent.mkdir(parents=True)
        (root / name).touch()
    assert [_holds_image(root / name) for name in "abcd"] == [False, False, False, True]
