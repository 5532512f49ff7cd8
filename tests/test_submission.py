"""Files for the servers of SIDD and DND, written whole, and gone on with where they stopped."""

from __future__ import annotations

import base64
import csv
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.io import loadmat, savemat

import zoo
from tests.helpers import author_layouts, hdf5
from zoo.cli import main
from zoo.commands import submit as command
from zoo.evaluation import submission
from zoo.evaluation.submission import submit_dnd, submit_sidd
from zoo.inference import RestoreSettings

SMALL = {"dim": 30, "depths": [1, 1, 1, 1], "refinement": 1}


@pytest.fixture
def words(tmp_path):
    """A small network for real denoising."""
    torch.manual_seed(0)
    zoo.save(zoo.build("mambair_realdn", **SMALL), tmp_path / "a.safetensors")
    return ["-w", str(tmp_path / "a.safetensors")]


@pytest.fixture
def blocks(tmp_path):
    author_layouts.sidd(tmp_path)
    return tmp_path / "SIDD" / "ValidationNoisyBlocksSrgb.mat"


@pytest.fixture
def dnd(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", hdf5.h5py())
    return hdf5.dnd(tmp_path)


def denoised(words, noisy_HW3):
    network = zoo.load(words[1]).eval()
    with torch.inference_mode():
        tensor = torch.from_numpy(np.ascontiguousarray(noisy_HW3)).permute(2, 0, 1)[None].float()
        return network(tensor)[0].clamp(0, 1).permute(1, 2, 0).numpy()


def test_sidd_of_8_bits_for_the_server(words, blocks, tmp_path, capsys):
    out = tmp_path / "SubmitSrgb.csv"
    assert main(["submit", "sidd", str(blocks), "-o", str(out), *words]) == 0
    assert capsys.readouterr().out == f"wrote {out}\n"
    csv.field_size_limit(10**9)
    rows = list(csv.DictReader(out.open()))
    assert list(rows[0]) == ["ID", "BLOCK"] and [r["ID"] for r in rows] == [*map(str, range(6))]
    noisy = loadmat(blocks)["ValidationNoisyBlocksSrgb"].reshape(6, 16, 16, 3)
    for row, block in zip(rows, noisy, strict=True):
        found = np.frombuffer(base64.b64decode(row["BLOCK"]), np.uint8).reshape(16, 16, 3)
        expected = denoised(words, block / 255) * 255
        assert np.abs(found - expected).max() <= 0.501
    assert [path.name for path in tmp_path.glob(".*parts")] == []


def test_sidd_not_rounded_for_the_script_of_the_authors(words, blocks, tmp_path):
    noisy = np.random.default_rng(1).integers(0, 256, (40, 1, 12, 12, 3)).astype(np.uint8)
    savemat(blocks, {"ValidationNoisyBlocksSrgb": noisy})
    out = tmp_path / "Idenoised.mat"
    assert main(["submit", "sidd", str(blocks), "-o", str(out), *words]) == 0
    found = loadmat(out)["Idenoised"]
    assert found.shape == noisy.shape and found.dtype == np.float32
    for photo in (0, 17, 39):
        expected = denoised(words, noisy[photo, 0] / 255)
        np.testing.assert_allclose(found[photo, 0], expected, atol=1e-6)


def test_the_blocks_of_sidds_server_are_found_alike(blocks, tmp_path):
    theirs = tmp_path / "BenchmarkNoisyBlocksSrgb.mat"
    savemat(theirs, {"BenchmarkNoisyBlocksSrgb": loadmat(blocks)["ValidationNoisyBlocksSrgb"]})
    for number, path in enumerate((blocks, theirs)):
        submit_sidd(lambda x: x, path, tmp_path / f"{number}.csv", "nothing", progress=False)
    assert (tmp_path / "0.csv").read_bytes() == (tmp_path / "1.csv").read_bytes()


def test_clean_blocks_are_not_sent_as_noisy_ones(words, blocks, tmp_path, capsys):
    clean, out = blocks.with_name("ValidationGtBlocksSrgb.mat"), tmp_path / "t.csv"
    assert main(["submit", "sidd", str(clean), "-o", str(out), *words]) == 2
    said = capsys.readouterr().err
    assert "'ValidationGtBlocksSrgb', which are not SIDD's noisy blocks" in said
    renamed = tmp_path / "BenchmarkNoisyBlocksSrgb.mat"  # the variable counts, not the file
    renamed.write_bytes(clean.read_bytes())
    assert main(["submit", "sidd", str(renamed), "-o", str(out), *words]) == 2
    assert not out.exists() and not list(tmp_path.glob(".*parts"))


class Stopping:
    """Returns its input darker, and stops after some calls, as Ctrl-C does."""

    def __init__(self, most, factor=0.5):
        self.left, self.factor, self.calls = most, factor, 0

    def __call__(self, noisy):
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        self.calls += 1
        return noisy * self.factor


def test_sidd_goes_on_where_it_stopped_but_not_with_blocks_of_something_else(blocks, tmp_path):
    out, first = tmp_path / "a.mat", Stopping(4)
    with pytest.raises(KeyboardInterrupt):
        submit_sidd(first, blocks, out, "half", progress=False)
    assert not out.exists()
    second = Stopping(99)
    submit_sidd(second, blocks, out, "half", progress=False)
    assert second.calls == 2
    noisy = loadmat(blocks)["ValidationNoisyBlocksSrgb"].reshape(1, 6, 16, 16, 3)
    np.testing.assert_allclose(loadmat(out)["Idenoised"], noisy / 510, atol=1e-6)
    out.unlink()
    with pytest.raises(KeyboardInterrupt):
        submit_sidd(Stopping(4), blocks, out, "half", progress=False)
    other = Stopping(99, 1.0)
    submit_sidd(other, blocks, out, "whole", progress=False)
    assert other.calls == 6
    np.testing.assert_allclose(loadmat(out)["Idenoised"], noisy / 255, atol=1e-6)


def test_dnd_has_a_file_for_each_photo_with_its_boxes(words, dnd, tmp_path):
    noisy, boxes = dnd
    out = tmp_path / "submission"
    assert main(["submit", "dnd", str(tmp_path / "DND"), "-o", str(out), *words]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["0001.mat", "0002.mat"]
    assert not list(tmp_path.glob(".*of"))
    for number, photo in enumerate(noisy):
        held = loadmat(out / f"{number + 1:04d}.mat")
        assert not held["israw"].item() and held["eval_version"].item() == "1.0"
        cells = held["Idenoised"].ravel()
        assert len(cells) == 2
        for cell, (top, left, bottom, right) in zip(cells, boxes[number], strict=True):
            expected = denoised(words, photo[top - 1 : bottom, left - 1 : right])
            assert cell.shape == (16, 16, 3)
            np.testing.assert_allclose(cell, expected, atol=1e-6)


def test_dnd_goes_on_where_it_stopped_but_not_among_files_of_another_run(dnd, tmp_path):
    source, out = tmp_path / "DND", tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        submit_dnd(Stopping(3), source, out, "half", progress=False)
    with pytest.raises(zoo.errors.ZooError, match="has files of another run"):
        submit_dnd(Stopping(99), source, out, "whole", progress=False)
    second = Stopping(99)
    submit_dnd(second, source, out, "half", progress=False)
    assert second.calls == 2 and len(list(out.iterdir())) == 2
    with pytest.raises(zoo.errors.ZooError, match="has files of another run"):
        submit_dnd(second, source, out, "half", progress=False)  # nothing finished is replaced


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (["sidd", "MAT", "-o", "a.png"], "name a .csv file for SIDD's server"),
        (["sidd", "MAT", "-o", "there.csv"], "there.csv exists; remove it"),
        (["sidd", "no.mat", "-o", "a.csv"], "does not exist"),
        (["dnd", "SIDD", "-o", "a"], "is not the folder of DND: it needs info.mat"),
        (["sidd", "MAT", "-o", "a.csv", "-n", "mambair_tiny_x2"], "needs a network that denoises"),
    ],
)
def test_mistakes(made, message, words, blocks, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.csv").write_text("mine")
    made = [str(blocks) if word == "MAT" else word for word in made]
    assert main(["submit", *made, *([] if "-n" in made else words)]) == 2
    assert message in capsys.readouterr().err
    assert (tmp_path / "there.csv").read_text() == "mine"


def test_dnd_without_h5py_names_the_extra(words, dnd, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "h5py", None)
    assert main(["submit", "dnd", str(tmp_path / "DND"), "-o", str(tmp_path / "o"), *words]) == 2
    assert "pip install h5py scipy (the extra [dnd])" in capsys.readouterr().err


def test_damaged_files_of_dnd_are_named(dnd, tmp_path):
    for name in ("images_srgb/0002.mat", "info.mat"):
        (tmp_path / "DND" / name).write_bytes(b"no file of HDF5")
        with pytest.raises(zoo.errors.ImageError, match="cannot be read"):
            submit_dnd(lambda x: x, tmp_path / "DND", tmp_path / name[:4], "it", progress=False)


@pytest.mark.parametrize(("progress", "shown"), [(True, None), (False, True)])
def test_a_bar_counts_blocks_or_photos_where_one_is_asked_for(
    progress, shown, blocks, dnd, tmp_path, monkeypatch
):
    bars = []
    monkeypatch.setattr(
        submission,
        "tqdm",
        lambda jobs, *, unit, disable: bars.append((len(jobs), unit, disable)) or jobs,
    )
    options = {} if progress else {"progress": False}
    submit_sidd(lambda x: x, blocks, tmp_path / "a.csv", "it", **options)
    submit_dnd(lambda x: x, tmp_path / "DND", tmp_path / "out", "it", **options)
    assert bars == [(6, "block", shown), (2, "photo", shown)]


def test_photos_of_dnd_are_denoised_in_their_sequence(dnd, tmp_path, monkeypatch):
    real, seen = Path.glob, []
    monkeypatch.setattr(Path, "glob", lambda *given: sorted(real(*given), reverse=True))
    monkeypatch.setattr(
        submission, "write_bytes", lambda path, data: path.write_bytes(data) and seen.append(path)
    )
    submit_dnd(lambda x: x, tmp_path / "DND", tmp_path / "out", "it", progress=False)
    assert [path.name for path in seen[1:]] == ["0001.mat", "0002.mat"]


def test_both_benchmarks_are_commands():
    assert set(command.BENCHMARKS) == {"sidd", "dnd"}


def test_the_precision_reaches_the_network_which_sees_whole_images(monkeypatch, tmp_path, capsys):
    network = SimpleNamespace(
        scale=1, channels=3, out_channels=3, takes_burst=False, guides={},
        recipe=SimpleNamespace(name="mine"),
    )  # fmt: skip
    network.to = lambda device: network
    seen = []

    def restored(given, image_BIHW, settings):
        seen.append((given, settings))
        return image_BIHW * 3 - 1

    def write(denoise, source, target, of):
        image_HW3 = np.linspace(0, 1, 12, dtype=np.float32).reshape(2, 2, 3)
        np.testing.assert_allclose(denoise(image_HW3), (image_HW3 * 3 - 1).clip(0, 1), atol=1e-6)
        seen.append((source, target, of))

    monkeypatch.setattr(command, "choose_network", lambda model, weights: network)
    monkeypatch.setattr(command, "restore_tensor", restored)
    monkeypatch.setitem(command.BENCHMARKS, "sidd", write)
    weights = tmp_path / "w.pth"
    weights.touch()
    words = ["submit", "sidd", "in.mat", "-o", "out.csv", "--precision", "bf16"]
    for given in ([], ["-w", str(weights)]):
        assert main([*words, *given]) == 0 and capsys.readouterr().out == "wrote out.csv\n"
    settings = RestoreSettings(tile=0, precision="bf16")
    time = weights.stat().st_mtime_ns
    assert seen == [
        (network, settings),
        (Path("in.mat"), Path("out.csv"), "mine, None of , bf16, in.mat"),
        (network, settings),
        (Path("in.mat"), Path("out.csv"), f"mine, {weights} of {time}, bf16, in.mat"),
    ]
