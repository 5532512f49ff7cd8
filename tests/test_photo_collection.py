"""The list of free photographs in examples/photos, and the script that collects them."""

from __future__ import annotations

import importlib
import io
import sys
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from zoo.data.images import Photo, read_photo, write_photo
from zoo.data.samples import load_sample, sample_names

HOME = Path(__file__).parents[1] / "examples" / "photos"


@pytest.fixture(scope="module")
def scripts():
    """The modules of examples/photos, which import one another by their names."""
    sys.path.insert(0, str(HOME))
    try:
        names = ("judge", "licences", "packages", "collect", "detailed")
        yield {name: importlib.import_module(name) for name in names}
    finally:
        sys.path.remove(str(HOME))
        for name in names:
            del sys.modules[name]


def test_every_listed_photo_has_a_licence_an_author_and_a_name_of_its_own(scripts):
    rows = scripts["collect"].read_list()
    assert len(rows) >= 300
    assert all(row.licence and row.author and len(row.sha256) == 16 for row in rows)
    assert len({row.name for row in rows}) == len({row.sha256 for row in rows}) == len(rows)
    assert {row.use for row in rows} == {"training", "held_out"}
    held_out = [row.name for row in rows if row.use == "held_out"]
    assert len(held_out) + len(sample_names(held_out=True)) >= 12


def test_photographs_are_told_from_drawings(scripts):
    judge = scripts["judge"]
    for name in ("chelsea", "coffee", "rocket"):
        assert judge.flatness(255 * load_sample(name).color_HWC.mean(axis=2)) < 0.5
    drawing = np.full((480, 640, 3), 0.9, np.float32)
    cv2.circle(drawing, (300, 200), 150, (0.1, 0.2, 0.7), -1, cv2.LINE_AA)
    assert "a drawing" in judge.fault(drawing)
    gradient = np.broadcast_to(
        np.linspace(0, 1, 500, dtype=np.float32)[:, None, None], (500, 600, 3)
    )
    assert "a drawing: 100%" in judge.fault(gradient)
    assert "300 x 399 pixels are too few" in judge.fault(np.zeros((399, 300, 3), np.float32))


def test_a_copy_in_another_size_is_found_and_another_photo_is_not(scripts):
    judge = scripts["judge"]
    coffee = load_sample("coffee").color_HWC
    small = cv2.resize(coffee, (300, 200), interpolation=cv2.INTER_AREA)
    known = [("coffee", judge.fingerprint(coffee))]
    assert judge.same_as(judge.fingerprint(small), known) == "coffee"
    assert judge.same_as(judge.fingerprint(load_sample("chelsea").color_HWC), known) == ""


COPYRIGHT = """Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

Files: images/land/*
Copyright: Various
License: public-domain
 Taken from a collection.

Files: images/land/*-anna*
 images/scene/*
Copyright: 2011-2013, Anna B. <anna@example.org>
  2014 Carl
License: CC-BY-SA-4.0

Files: 16.04/tree.jpg
Copyright: Dora, 2018
License: CC0-1.0

Files: *
Copyright: Everybody
License: GPL-2+
"""


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("usr/share/x/images/land/beach@2x.jpg", ("public-domain", "Various")),
        ("usr/share/x/images/land/sea-anna3.jpg", ("CC-BY-SA-4.0", "Anna B.; Carl")),
        ("usr/share/backgrounds/tree.jpg", ("CC0-1.0", "Dora")),
        ("usr/share/other.jpg", ("GPL-2+", "Everybody")),
    ],
    ids=["pattern", "later pattern", "name", "everything"],
)
def test_licence_and_author_come_from_the_paragraph_that_names_the_file(scripts, path, expected):
    assert scripts["licences"].of_debian_file(COPYRIGHT, path) == expected


def test_licence_and_authors_of_a_kde_wallpaper(scripts):
    text = '{"KPlugin": {"Authors": [{"Name": "A"}, {"Name": "B"}], "License": "CC0"}}'
    assert scripts["licences"].of_kde_metadata(text) == ("CC0", "A; B")


def deb(files: dict[str, bytes]) -> bytes:
    """A Debian package with these files, its members of odd and even sizes."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    members = {
        b"debian-binary": b"2.0\n",
        b"control.tar": b"odd",
        b"data.tar.xz": packed.getvalue(),
    }
    raw = b"!<arch>\n"
    for name, data in members.items():
        raw += name.ljust(48) + str(len(data)).encode().ljust(10) + b"`\n"
        raw += data + b"\n" * (len(data) % 2)
    return raw


def png(name: str, suffix: str = ".png") -> bytes:
    """A sample photo as the bytes of a file."""
    return cv2.imencode(suffix, np.uint8(255 * load_sample(name).color_HWC))[1].tobytes()


def test_listed_photos_are_taken_from_a_package_and_others_are_named(scripts, tmp_path):
    collect = scripts["collect"]
    photo = png("chelsea")
    home = tmp_path / "packages" / "debian-p"
    home.mkdir(parents=True)
    (home / "p.deb").write_bytes(deb({"a/cat.png": photo, "a/changed.png": photo + b"x"}))
    digest = collect.digest(photo)
    rows = [
        collect.Row("cat", "training", "2", "debian:p", "a/cat.png", "CC0", "A", digest),
        collect.Row("changed", "training", "2", "debian:p", "a/changed.png", "CC0", "A", digest),
        collect.Row("gone", "held_out", "2", "debian:p", "a/gone.png", "CC0", "A", digest),
    ]
    faults = collect.collect(rows, tmp_path, tmp_path / "packages")
    assert faults == [
        "debian:p: a/changed.png is not the file that the list names",
        "debian:p: this version has no a/gone.png",
    ]
    assert cv2.imread(str(tmp_path / "training" / "cat.png")).shape == (150, 226, 3)
    assert not (tmp_path / "training" / "changed.png").exists()


def test_a_package_of_no_known_kind_is_one_sentence(scripts, tmp_path):
    packages = scripts["packages"]
    with pytest.raises(packages.PackageError, match="named debian, pip, npm, then :NAME"):
        packages.download("rpm:x", tmp_path)


def keep(folder, package, data):
    """Put an archive where the packages of a folder are kept."""
    path = folder / "packages" / package.replace(":", "-") / f"p.{package.rpartition('.')[2]}"
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    return path


def tar(mode: str) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=mode) as archive:
        archive.addfile(tarfile.TarInfo("a"))
    return packed.getvalue()


BAD_SIZE = b"!<arch>\n" + b"data.tar".ljust(48) + b"many".ljust(10) + b"`\n"
DAMAGED = {
    "deb": deb({"a": bytes(5000)})[:250],
    "header.deb": BAD_SIZE,
    "negative.deb": BAD_SIZE.replace(b"data", b"else").replace(b"many", b"-60 "),
    "empty.deb": b"",
    "whl": b"PK" + bytes(99),
    "tgz": tar("w:gz")[:-30],
    "xz": tar("w:xz")[:40] + bytes(40),
    "tar": b"none",
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_archive_is_named_and_the_other_packages_go_on(scripts, tmp_path, name):
    collect, photo = scripts["collect"], png("camera")
    damaged = keep(tmp_path, f"debian:p.{name}", DAMAGED[name])
    keep(tmp_path, "debian:whole.deb", deb({"a/cat.png": photo}))
    rest = ("a/cat.png", "CC0", "A", collect.digest(photo))
    rows = [
        collect.Row("bad", "training", "2", f"debian:p.{name}", *rest),
        collect.Row("cat", "training", "2", "debian:whole.deb", *rest),
    ]
    faults = collect.collect(rows, tmp_path, tmp_path / "packages")
    assert faults == [f"{damaged}: it is damaged; delete it and run again"]
    assert [path.name for path in (tmp_path / "training").iterdir()] == ["cat.png"]


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="Python can unpack it")
def test_a_package_that_python_cannot_unpack_is_not_called_damaged(scripts, tmp_path):
    packages = scripts["packages"]
    archive = keep(
        tmp_path, "debian:p.deb", deb({"a": b"1"}).replace(b"data.tar.xz ", b"data.tar.zst")
    )
    with pytest.raises(packages.PackageError, match="its compression, zstd, needs Python"):
        list(packages.contents(archive, bool))


def test_a_listed_file_that_does_not_decode_is_named_by_its_path(scripts, tmp_path):
    collect, photo = scripts["collect"], png("camera")
    keep(tmp_path, "debian:p.deb", deb({"a/bad.png": photo[:999], "a/cat.png": photo}))
    rows = [
        collect.Row(name, "training", "2", "debian:p.deb", f"a/{name}.png", "", "", digest)
        for name, digest in {
            "bad": collect.digest(photo[:999]),
            "cat": collect.digest(photo),
        }.items()
    ]
    [fault] = collect.collect(rows, tmp_path, tmp_path / "packages")
    assert fault.startswith("debian:p.deb: a/bad.png: ") and ".decode" not in fault
    assert (tmp_path / "training" / "cat.png").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [(["file"], "file is a file, not a folder"), (["new", "--survey", "foo"], "foo: a package is")],
    ids=["file", "kind"],
)
def test_a_mistake_in_collecting_is_one_sentence(scripts, tmp_path, capsys, words, said):
    (tmp_path / "file").touch()
    assert scripts["collect"].main([str(tmp_path / words[0]), *words[1:]]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("collect: error: ") and said in line


def test_a_survey_takes_any_place_and_any_case_of_a_name(scripts, tmp_path, monkeypatch):
    """Photos at the top, with a suffix in capitals, and beside JSON that is not of KDE."""
    collect = scripts["collect"]
    files = {
        "1.jpg": png("chelsea", ".jpg"),
        "a/B.JPG": png("coffee", ".jpg"),
        "kde/metadata.json": b'{"KPlugin": {"License": "CC0", "Authors": [{"Name": "K"}]}}',
        "kde/contents/images/9x9.png": png("astronaut"),
        "usr/share/doc/p/copyright": COPYRIGHT.encode(),
    }
    others = [b"[]", b"{", b"{}", b"\xff", b'{"KPlugin": []}', b'{"KPlugin": {"Authors": 1}}']
    files |= {f"{'a/' * count}metadata.json": data for count, data in enumerate(others, 1)}
    keep(tmp_path, "debian:p.deb", deb(files))
    monkeypatch.setattr(collect, "fault", lambda _: "")
    rows = collect.survey(["debian:p.deb"], tmp_path / "packages")
    found = {row.name: (row.path, row.licence, row.author) for row in rows}
    assert found == {
        "p-deb_1": ("1.jpg", "GPL-2+", "Everybody"),
        "p-deb_B": ("a/B.JPG", "GPL-2+", "Everybody"),
        "p-deb_kde": ("kde/contents/images/9x9.png", "CC0", "K"),
    }
    for data in others:
        assert scripts["licences"].of_kde_metadata(data.decode(errors="replace")) is None


def test_detailed_parts_of_a_photo_and_of_its_half_are_cut(scripts):
    detailed = scripts["detailed"]
    torch.manual_seed(0)
    photo_BCHW = torch.full((1, 3, 331, 460), 0.5)
    photo_BCHW[..., 300:] = torch.rand(1, 3, 331, 160)  # noise on the right
    found = dict(detailed.detailed_parts(photo_BCHW, limit=36.0))
    # Whole: parts begin at 0, 140 and 280. At half size, 165 x 230 pixels hold one part, to 160.
    assert sorted(found) == ["1_0_280", "1_140_280", "2_0_0"]
    assert torch.equal(found["1_140_280"], photo_BCHW[..., 140:300, 280:440])
    assert found["2_0_0"].shape == (1, 3, 160, 160)
    assert not dict(detailed.detailed_parts(photo_BCHW, limit=5.0))
    assert detailed.bicubic_psnr(torch.zeros(1, 1, 8, 8)) == float("inf")


def test_small_photos_give_smaller_parts_or_none(scripts):
    noise_BCHW = torch.rand(1, 1, 131, 200)
    found = dict(scripts["detailed"].detailed_parts(noise_BCHW, limit=36.0))
    assert {name: part.shape[2:] for name, part in found.items()} == {"1_0_0": (130, 130)}
    assert not dict(scripts["detailed"].detailed_parts(noise_BCHW[..., :127, :], limit=36.0))


def test_photos_of_large_packages_have_a_limit_of_their_own(scripts, tmp_path, monkeypatch):
    rows = scripts["collect"].read_list()
    many = scripts["detailed"].of_large_packages()
    assert many == {row.name for row in rows if row.package == "debian:endless-sky-high-dpi"}

    detailed = scripts["detailed"]
    seen = []
    monkeypatch.setattr(
        detailed, "detailed_parts", lambda photo, limit: seen.append(limit) or [("1_0_0", photo)]
    )
    for name in ("of_many", "other"):
        write_photo(tmp_path / "photos" / f"{name}.png", load_sample("coffee"))
    monkeypatch.setattr(detailed, "of_large_packages", lambda: {"of_many"})
    monkeypatch.setattr(
        sys, "argv", ["detailed.py", str(tmp_path / "photos"), "-o", str(tmp_path / "out")]
    )
    assert detailed.main() == 0
    assert seen == [30.0, 36.0]
    found = read_photo(tmp_path / "out" / "other_1_0_0.png").color_HWC
    assert np.array_equal(found, load_sample("coffee").color_HWC)


def test_mistakes_with_detailed_parts_are_one_sentence(scripts, tmp_path, capsys):
    photos, out = tmp_path / "photos", tmp_path / "out"
    (tmp_path / "empty").mkdir()
    for name in ("gray.png", "other.png"):
        write_photo(photos / name, load_sample("camera"))
    file = photos / "gray.png"

    def said(folder, output):
        assert scripts["detailed"].main([str(folder), "-o", str(output)]) == 2
        [line] = capsys.readouterr().err.splitlines()
        return line

    assert said(tmp_path / "gone", out).startswith("detailed: error: image folder")
    assert "holds no image" in said(tmp_path / "empty", out)
    assert "is a file, not a folder" in said(file, out)
    assert said(photos, file) == (
        f"detailed: error: {file} is a file, not a folder; choose another folder"
    )
    assert "the parts would be among the photos" in said(photos, tmp_path / "out" / ".." / "photos")
    write_photo(photos / "gray.jpg", load_sample("camera"))
    assert "the parts of gray.jpg and gray.png would have the same names" in said(photos, out)
    assert not out.exists()


def test_a_photo_of_one_pixel_is_skipped(scripts, tmp_path, capsys):
    photos = tmp_path / "photos"
    for name, sides in {"a": (1, 200), "b": (200, 1), "c": (160, 160)}.items():
        noise_HWC = np.random.default_rng(0).random((*sides, 3), np.float32)
        write_photo(photos / f"{name}.png", Photo(noise_HWC))
    assert scripts["detailed"].main([str(photos), "-o", str(tmp_path / "out")]) == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["c_1_0_0.png"]


def test_sample_photos_that_are_there_are_not_written_again(scripts, tmp_path):
    kept = tmp_path / "held_out" / "camera.png"
    kept.parent.mkdir()
    kept.write_bytes(b"mine")
    scripts["collect"].copy_samples(tmp_path)
    assert kept.read_bytes() == b"mine"
    assert (tmp_path / "held_out" / "coffee.png").exists()
