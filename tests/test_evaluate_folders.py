"""What ``zoo evaluate`` finds in folders and writes into them: test sets, weights, kept images."""

from __future__ import annotations

import csv
import logging
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.evaluation import photo_file, run, weights_in
from zoo.checkpoints.scored import scored_weights
from zoo.data import read_photo
from zoo.data.testsets import TestImage
from zoo.errors import ZooError
from zoo.evaluation import Restored
from zoo.evaluation.keeping import check_nothing_is_replaced, image_keeper
from zoo.recipe import load_recipe


@pytest.fixture
def weights(tmp_path):
    return weights_in(tmp_path)


def test_another_spelling_of_a_set_stands_beside_the_papers_score(
    tmp_path, weights, capsys, monkeypatch
):
    photo_file(tmp_path / "data" / "Set5" / "HR" / "a.png")
    words = [*weights, "-o", tmp_path / "out"]
    assert run(*words, "--data", tmp_path / "data", "--sets", "set5", "SET5") == 0
    monkeypatch.chdir(tmp_path / "data" / "Set5")
    assert run(*words, "--data", ".") == 0
    assert capsys.readouterr().out.count("| Set5 | 1 | made |") == 2
    [row] = csv.DictReader((tmp_path / "out" / "summary.csv").open())
    assert row["paper_psnr"] == "30.50"


def test_a_folder_without_the_recipes_sets_is_told_by_name(tmp_path, weights, capsys):
    photo_file(tmp_path / "data" / "RealSR" / "a.png")
    assert run(*weights, "--data", tmp_path / "data", "-o", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert "has none of the recipe's test sets (Set5, Set14, B100, Urban100, Manga109)" in said
    assert "with --sets: RealSR" in said
    assert run(*weights, "--data", tmp_path / "data" / "RealSR", "-o", tmp_path / "out") == 0
    assert "| RealSR | 1 | made |" in capsys.readouterr().out


def test_a_report_that_cannot_be_written_is_told_before_the_scoring(tmp_path, weights, capsys):
    path = photo_file(tmp_path / "data" / "Set5" / "a.png")
    (tmp_path / "out" / "summary.md").mkdir(parents=True)
    for out in (path, tmp_path / "out"):
        assert run(*weights, "--data", tmp_path / "data", "-o", out) == 2
        said = capsys.readouterr()
        assert "cannot write" in said.err and not said.out


def test_a_folder_without_images_is_told(tmp_path, weights, capsys):
    recipe, *rest = weights
    recipe.write_text(recipe.read_text().replace("evaluate: {", "evaluate: {datasets: [], "))
    (tmp_path / "empty").mkdir()
    assert run(recipe, *rest, "--data", tmp_path / "empty", "-o", tmp_path / "out") == 2
    assert f"{tmp_path / 'empty'} has no images; check the path" in capsys.readouterr().err


def test_the_current_folder_may_be_the_set(tmp_path, weights, monkeypatch):
    photo_file(tmp_path / "Mine" / "a.png", 5)
    monkeypatch.chdir(tmp_path / "Mine")
    assert run(*weights, "--data", ".", "-o", tmp_path / "out") == 0
    [row] = csv.DictReader((tmp_path / "out" / "summary.csv").open())
    assert row["set"] == "Mine"


@pytest.mark.parametrize("inside", [False, True])
def test_degraded_files_are_left_aside_when_asked_for(tmp_path, weights, inside):
    """The set is found below the folder, or is the folder."""
    data = tmp_path / "data"
    name = "Mine" if inside else "Set5"
    photo_file(data / name / "HR" / "a.png", 5)
    photo_file(data / name / "LR_bicubic" / "X2" / "ax2.png", 6, (12, 15))
    for words, inputs in (([], "files"), (["--degrade"], "made")):
        root = data / name if inside else data
        assert run(*weights, "--data", root, "-o", tmp_path / "out", *words) == 0
        [row] = csv.DictReader((tmp_path / "out" / "summary.csv").open())
        assert row["inputs"] == inputs


@pytest.fixture
def trained(tmp_path, weights, monkeypatch):
    """The recipe ``small``, trained in the current folder, and a tiny test set ``data``."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "small").mkdir(parents=True)
    (tmp_path / "a.safetensors").rename(tmp_path / "runs" / "small" / "weights.safetensors")
    photo_file(tmp_path / "data" / "Set5" / "a.png")
    return weights[0]


def test_weights_of_a_run_are_found_and_named(trained, capsys, caplog):
    with caplog.at_level(logging.INFO):
        assert run(trained, "--data", "data") == 0
    table = capsys.readouterr().out
    told = "runs/small/weights.safetensors, trained here"
    assert f"Weights: {told}." in table and f"weights: {told}" in caplog.text
    assert Path("results/small/summary.md").read_text() == table


def test_after_a_training_a_name_means_what_was_trained(trained, monkeypatch, capsys):
    """Weights of that name in the package are only used where nothing was trained."""
    monkeypatch.setattr("zoo.checkpoints.scored.shipped_weights", lambda: ["small"])
    assert run(trained, "--data", "data") == 0
    assert "Weights: runs/small/weights.safetensors, trained here." in capsys.readouterr().out
    recipe = load_recipe(trained)
    for name in ("small", "b.pth"):
        told = "those of small in the package" if name == "small" else "b.pth"
        assert scored_weights(recipe, Path(name)) == (Path(name), told, False)
    Path("runs/small/weights.safetensors").unlink()
    assert scored_weights(recipe, None) == ("small", "those of small in the package", False)


def test_what_was_trained_with_other_settings_is_not_scored(trained, capsys):
    text = trained.read_text().replace("dim: 30", "dim: 32")
    trained.write_text(text)
    assert run(trained, "--data", "data") == 2
    said = capsys.readouterr().err
    assert "it was trained with other settings than those of small" in said
    Path("runs/small/weights.safetensors").unlink()
    assert run(trained, "--data", "data") == 2
    said = capsys.readouterr().err
    assert "no weights ship for 'small', and runs/small/weights.safetensors does not exist" in said


def test_kept_images_never_replace_those_of_the_set(tmp_path, weights, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = photo_file(tmp_path / "data" / "Set5" / "a.png")
    before = path.read_bytes()
    for folder in ("data", tmp_path / "data", "data/Set5/../../data"):
        words = ["--data", tmp_path / "data", "-o", "out", "--save-images", folder]
        assert run(*weights, *words) == 2
        assert "a.png would be replaced" in capsys.readouterr().err
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["a.png", "a.npy"])
@pytest.mark.parametrize("which", ["clean", "degraded"])
def test_kept_images_replace_neither_pictures_nor_arrays_of_a_set(tmp_path, name, which):
    (tmp_path / name).touch()
    files = {"clean": None, "degraded": None, which: tmp_path / name}
    image = TestImage("a", **files)
    with pytest.raises(ZooError, match=rf"--save-images: .*{name} would be replaced"):
        check_nothing_is_replaced([image], tmp_path)
    check_nothing_is_replaced([image], tmp_path / "other")
    (tmp_path / "a.png").touch()
    both = TestImage("a", clean=tmp_path / "a.png", degraded=tmp_path / name)
    with pytest.raises(ZooError, match=r"a\.png would be replaced"):
        check_nothing_is_replaced([both], tmp_path)


def test_kept_images_are_pictures_of_8_bits_and_arrays_of_all_of_theirs(tmp_path):
    image_keeper(None)("a", None)  # keeps nothing
    folder = tmp_path / "new" / "folder"
    keep = image_keeper(folder)
    for channels in (1, 2, 3, 4):
        values = np.full((4, 5, channels), 0.123456, np.float32)
        keep(f"x{channels}", Restored(values, None, values, values))
    assert sorted(path.name for path in folder.iterdir()) == [
        "x1.png", "x2.npy", "x3.png", "x4.npy"
    ]  # fmt: skip
    assert read_photo(folder / "x3.png").bit_depth == 8
    assert np.load(folder / "x4.npy").dtype == np.float32
    np.testing.assert_allclose(np.load(folder / "x4.npy"), 0.123456)


def test_sets_that_are_not_there_are_told(tmp_path, weights, caplog):
    photo_file(tmp_path / "data" / "Set5" / "a.png")
    with caplog.at_level(logging.INFO):
        assert run(*weights, "--data", tmp_path / "data", "-o", tmp_path / "out") == 0
    assert f"skipped, not in {tmp_path / 'data'}: Set14, B100, Urban100, Manga109" in caplog.text
