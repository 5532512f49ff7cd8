"""``zoo compare``: variants under equal budget, resumable."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace

import numpy as np
import pytest

import recipes.compare
from recipes.compare import Study, Tolerance, list_studies, load_study, main
from tests.helpers.training import make_photos
from tests.helpers.variants import trained
from zoo.description import Measured, measured
from zoo.distributed import ProcessGroup
from zoo.errors import RecipeError, ZooError
from zoo.evaluation.comparison import Trained
from zoo.evaluation.comparison import rows as run_rows
from zoo.recipe import Recipe, load_recipe
from zoo.training.settings import train_settings

STUDY = """
name: toy
base:
  extends: mambair_tiny_x2
  network: {dim: 8, depths: [1], block: {branch: {type: mlp}}}
  train: {data: {patch: 8, batch: 1}, iterations: 2, save_every: 2}
reference: rows
seeds: [0, 3]
variants:
  rows: {network: {scans: [{type: raster, directions: [row]}]}}
  columns: {network: {scans: [{type: raster, directions: [column]}]}, train: {optimizer: {lr: 0.1}}}
"""


@pytest.fixture
def study(tmp_path):
    (tmp_path / "toy.yaml").write_text(STUDY)
    return tmp_path / "toy.yaml"


@pytest.fixture
def photos(tmp_path):
    return make_photos(tmp_path / "photos", 1)


def compare(study, photos, output, *more):
    data = [f"data.photos={photos}", f"data.validate={photos}"]
    words = [study, *data, "-o", output, "--num-workers", "0", "--device", "cpu", *more]
    return main(list(map(str, words)))


def trainings(monkeypatch, fails_at=None):
    """Record the runs that are trained; one of them may be stopped."""
    found, train = [], recipes.compare.train

    def recorded(recipe, folder, **options):
        if len(found) == fails_at:
            raise KeyboardInterrupt
        found.append("/".join(folder.parts[-2:]))
        return train(recipe, folder, **options)

    monkeypatch.setattr(recipes.compare, "train", recorded)
    return found


def rows_of(folder):
    return list(csv.DictReader((folder / "results.csv").read_text().splitlines()))


def test_a_stopped_study_goes_on_and_ends_as_one_that_was_not(
    study, photos, tmp_path, monkeypatch, capsys
):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    found = trainings(monkeypatch)
    assert compare(study, photos, whole) == 0
    assert found == ["rows/seed-0", "columns/seed-0", "rows/seed-3", "columns/seed-3"]
    printed = capsys.readouterr().out
    assert "| `columns` |" in printed and "the 95 % confidence interval" in printed
    monkeypatch.undo()
    found = trainings(monkeypatch, fails_at=3)
    assert compare(study, photos, parts) == 130
    assert len(rows_of(parts)) == 3 and "| `columns` |" in (parts / "summary.md").read_text()
    capsys.readouterr()
    monkeypatch.undo()
    found = trainings(monkeypatch)
    assert compare(study, photos, parts) == 0
    assert found == ["columns/seed-3"] and capsys.readouterr().out == printed
    for name in ("results.csv", "results.json", "summary.md", "comparison.png"):
        assert (parts / name).read_bytes() == (whole / name).read_bytes()

    # What was written is what was trained.
    line = json.loads((whole / "columns/seed-3/metrics.jsonl").read_text().splitlines()[-1])
    [row] = [r for r in rows_of(whole) if (r["variant"], r["seed"]) == ("columns", "3")]
    assert float(row["psnr"]) == line["psnr"] and float(row["ssim"]) == line["ssim"]
    assert len({row["psnr"] for row in rows_of(whole)}) == 4  # seeds and variants make a difference
    assert "2 steps of 1 patches of 8 x 8" in (whole / "summary.md").read_text()
    facts = json.loads((whole / "results.json").read_text())
    assert facts["variants"][0]["psnr"].keys() == {"0", "3"}
    sizes = measured(load_study(study).recipe("rows", {}))
    assert facts["variants"][0]["parameters"] == sizes.parameters == int(row["parameters"])


def test_seeds_and_variants_can_be_chosen_and_added_to(study, photos, tmp_path, monkeypatch):
    found = trainings(monkeypatch)
    out = tmp_path / "out"
    assert compare(study, photos, out, "--only", "columns", "--seeds", "1") == 0
    assert found == ["columns/seed-0"] and not (out / "summary.md").exists()
    assert compare(study, photos, out, "--seeds", "2") == 0
    assert found[1:] == ["rows/seed-0", "rows/seed-1", "columns/seed-1"]


def test_fewer_seeds_leave_the_runs_of_others_in_the_report(study, photos, tmp_path, capsys):
    out = tmp_path / "out"
    assert compare(study, photos, out) == 0  # seeds 0 and 3
    printed, names = capsys.readouterr().out, ("results.csv", "results.json", "summary.md")
    before = [(out / name).read_bytes() for name in names]
    (out / "rows" / "seed-copy").mkdir()
    (out / "rows" / "seed-9").mkdir()  # no run
    assert compare(study, photos, out, "--seeds", "1") == 0
    assert capsys.readouterr().out == printed
    assert [(out / name).read_bytes() for name in names] == before


def test_a_seed_is_that_of_the_training_and_settings_are_those_of_all(study):
    recipe = load_study(study).recipe("columns", {"train.seed": 3, "train.iterations": 7})
    assert (recipe.train["seed"], recipe.train["iterations"]) == (3, 7)
    assert recipe.train["optimizer"]["lr"] == 0.1 and recipe.network["dim"] == 8
    assert recipe.network["scans"] == [{"type": "raster", "directions": ["column"]}]


def test_other_settings_are_not_mixed_with_what_is_there(study, photos, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["--only", "rows", "--seeds", "1"]
    assert compare(study, photos, out, *words) == 0
    capsys.readouterr()
    assert compare(study, photos, out, *words, "iterations=3") == 2
    error = capsys.readouterr().err
    assert "begun with other settings (train.iterations was" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "reference: rows",
            "reference: row",
            "reference: 'row' is no variant; did you mean 'rows'",
        ),
        ("seeds: [0, 3]", "seeds: [0, 0]", "none twice"),
        ("seeds: [0, 3]", "seeds: []", "at least one seed"),
        ("seeds: [0, 3]", "seeds: [-1]", "from 0 to"),
        ("rows: {", "../rows: {", "names a folder"),
        ("name: toy", "names: toy", "unknown"),
        ("patch: 8", "path: 8", "train.data.path"),
        ("directions: [column]", "directions: [up]", "variant 'columns'"),
        (
            "[{type: raster, directions: [column]}]",
            "[raster]",
            "variant 'columns' has +",
        ),
    ],
)
def test_mistakes_are_told_before_anything_is_trained(
    old, new, message, study, photos, tmp_path, monkeypatch, capsys
):
    found = trainings(monkeypatch)
    study.write_text(STUDY.replace(old, new))
    assert compare(study, photos, tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1, error
    assert not found


def test_a_budget_may_be_told_to_be_unequal(study):
    study.write_text(
        STUDY.replace("[{type: raster, directions: [column]}]", "[raster]")
        + "tolerance: {parameters: 0.9, operations: 0.9}\n"
    )
    found = load_study(study)
    sizes = {name: measured(found.recipe(name, {})) for name in found.variants}
    recipes.compare.check_budget(sizes, found)


def test_unknown_names_are_told(study, photos, tmp_path, capsys):
    assert compare("scan_order", photos, tmp_path / "out") == 2
    assert "unknown study 'scan_order'; did you mean 'scan_orders'?" in capsys.readouterr().err
    assert compare(study, photos, tmp_path / "out", "--only", "row") == 2
    assert "--only row: no such variant; did you mean 'rows'?" in capsys.readouterr().err


def test_runs_are_listed_by_variant_and_then_by_seed():
    scores = {12: 30.5, 0: 31.25}
    made = Trained(name="a", parameters=7, gigaflops=0.5, psnr=scores, ssim={0: 0.9, 12: 0.8})
    other = Trained(name="A", parameters=8, gigaflops=1.5, psnr={3: 1.0}, ssim={3: 0.1})
    assert run_rows([made, other]).splitlines() == [
        "variant,seed,psnr,ssim,parameters,gigaflops",
        "a,0,31.25,0.9,7,0.5",
        "a,12,30.5,0.8,7,0.5",
        "A,3,1.0,0.1,8,1.5",
    ]


def test_studies_are_listed_in_the_sequence_of_the_alphabet(tmp_path, monkeypatch):
    for name in ("c", "a", "e", "b", "d"):
        (tmp_path / f"{name}.yaml").write_text("")
    (tmp_path / "f.txt").write_text("")
    monkeypatch.setattr("recipes.compare.STUDIES", tmp_path)
    assert list_studies() == ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize("name", list_studies())
def test_studies_that_ship_have_equal_budgets(name):
    study = load_study(name)
    sizes = {variant: measured(study.recipe(variant, {})) for variant in study.variants}
    recipes.compare.check_budget(sizes, study)
    assert len(study.seeds) >= 3 and study.tolerance.parameters <= 0.02


def test_the_orders_that_people_ask_for_are_compared():
    study = load_study("scan_orders")
    assert set(study.variants) == {
        *("raster", "two_way", "window", "dual_interleaved", "serpentine", "diagonal"),
        *("hilbert", "shuffled", "mamba_rows"),
    }
    assert Study.recipe(study, "mamba_rows", {}).network["block"]["mixer"]["type"] == "mamba1d"


def test_what_is_written_is_told_and_seeds_have_one_place(
    study, photos, tmp_path, capsys, monkeypatch
):
    lines = []
    monkeypatch.setattr(
        recipes.compare.logger, "info", lambda *words: lines.append(words[0] % words[1:])
    )
    assert compare(study, photos, tmp_path / "out", "--only", "columns", "--seeds", "1") == 0
    assert not (tmp_path / "out" / "summary.md").exists()
    told = "\n".join(lines)
    assert "results.csv; the table and the picture need a run of 'rows'" in told
    assert "summary.md" not in told
    assert compare(study, photos, tmp_path / "out", "--seeds", "1") == 0
    assert (tmp_path / "out" / "summary.md").read_text().startswith("# toy\n")
    capsys.readouterr()
    assert compare(study, photos, tmp_path / "out", "seed=5") == 2
    assert "the study sets the seeds; give --seeds N" in capsys.readouterr().err


def test_bursts_have_a_budget_too():
    settings = train_settings(load_recipe("qmambabsr_tiny"))
    data = settings.data
    budget = recipes.compare._budget(settings)
    assert f"{data.batch} bursts with frames of {data.patch} x {data.patch}." in budget


def test_a_study_says_its_name_and_summary_and_that_of_its_file(study, tmp_path):
    found = load_study(study)
    assert found.recipe("rows", {}).name == "toy_rows"
    recipe = found.recipe("rows", {})
    variants = [trained("rows", 30.0), trained("columns", 31.0)]
    for summary, title in (("what is compared", "# toy: what is compared\n"), ("", "# toy\n")):
        named = replace(found, summary=summary)
        recipes.compare._report(tmp_path, named, variants, recipe)
        assert (tmp_path / "summary.md").read_text().startswith(title)
        assert json.loads((tmp_path / "results.json").read_text())["reference"] == "rows"
    study.write_text(STUDY.replace("name: toy", "name: [toy]"))
    with pytest.raises(RecipeError, match=r"^toy\.yaml: name: "):
        load_study(study)
    long = replace(found, name="n" * 300)
    assert long.recipe("rows", {}).name == "n" * 200


def test_a_budget_is_equal_up_to_the_tolerance_on_both_sides(study):
    found = replace(load_study(study), tolerance=Tolerance(parameters=0.5, operations=0.25))

    def check(parameters, gigaflops):
        sizes = {"rows": Measured(None, 1000, 16.0, None)}
        sizes["columns"] = Measured(None, parameters, gigaflops, None)
        recipes.compare.check_budget(sizes, found)

    for parameters, gigaflops in ((1500, 20.0), (500, 12.0)):
        check(parameters, gigaflops)
    for parameters, gigaflops, message in (
        (1501, 16.0, "has +50.1% parameters against 'rows', .* raise tolerance.parameters (0.5)"),
        (499, 16.0, "has -50.1% parameters against 'rows'"),
        (1000, 20.1, "has +25.6% operations against 'rows', .* raise tolerance.operations (0.25)"),
        (1000, 11.9, "has -25.6% operations against 'rows'"),
    ):
        escaped = re.escape(message).replace(r"\.\*", ".*")
        with pytest.raises(RecipeError, match=f"variant 'columns' {escaped}"):
            check(parameters, gigaflops)


def test_only_a_whole_score_of_the_same_settings_is_that_of_a_finished_run(study, tmp_path):
    recipe = load_study(study).recipe("rows", {})
    other = load_study(study).recipe("columns", {})
    score = tmp_path / "score.json"
    assert recipes.compare.finished(tmp_path, recipe) is None
    for text in ("{", "[1]", "{}", '{"of": "another"}'):
        score.write_text(text)
        assert recipes.compare.finished(tmp_path, recipe) is None
    held = {"of": recipes.compare._print_of(recipe), "psnr": 30.0}
    score.write_text(json.dumps(held))
    assert recipes.compare.finished(tmp_path, recipe) == held
    assert recipes.compare.finished(tmp_path, other) is None


@pytest.mark.parametrize(
    "line", [None, {"step": 1, "psnr": 30.0}, {"step": 2}, {"step": 2, "psnr": "high"}]
)
def test_a_run_without_the_score_of_its_last_step_is_told(study, tmp_path, line):
    recipe = load_study(study).recipe("rows", {})
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(ZooError, match="the log has no PSNR of the last step; delete the folder"):
        recipes.compare._score(tmp_path, recipe)
    lines = [{"step": 2, "psnr": 28.0}, {"step": 2, "psnr": 30.0, "ssim": None}, {"step": 2}]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert recipes.compare._score(tmp_path, recipe)["psnr"] == 30.0  # it was resumed


def test_folders_of_runs_are_those_of_seeds(tmp_path):
    assert recipes.compare._seeds_in(tmp_path / "nowhere") == []
    for name in ("seed-0", "seed-12", "seed-2147483647", "seed-2147483648", "seed-12345678901"):
        (tmp_path / name).mkdir()
    for name in ("seed-1x", "seed-", "seed--1", "seeds-4"):
        (tmp_path / name).mkdir()
    assert sorted(recipes.compare._seeds_in(tmp_path)) == [0, 12, 2147483647]
    assert np.isnan(recipes.compare._number(None)) and recipes.compare._number(1) == 1.0


def test_the_settings_of_a_run_have_no_sequence():
    first, second = ({"type": "toy", "a": 1, "b": 2}, {"b": 2, "a": 1, "type": "toy"})
    prints = {recipes.compare._print_of(Recipe(name="a", network=n)) for n in (first, second)}
    assert len(prints) == 1


def test_a_study_in_python_has_its_defaults_and_runs_on_what_it_is_given(
    study, tmp_path, monkeypatch, caplog
):
    given = []

    def trained_run(recipe, folder, **options):
        given.append(options)
        folder.mkdir(parents=True)
        (folder / "metrics.jsonl").write_text('{"step": 2, "psnr": 30.0, "ssim": 0.5}\n')

    monkeypatch.setattr(recipes.compare, "train", trained_run)
    found = replace(load_study(study), seeds=(9, 0, 3))
    with caplog.at_level("INFO"):
        [first, _] = recipes.compare.run_study(found, tmp_path / "a")
    assert list(first.psnr) == [0, 3, 9]  # the sequence of numbers, not that of a set
    assert caplog.messages[0] == "1 of 6: rows, seed 9"
    assert {name: given[0][name] for name in ("device", "num_workers", "tf32")} == {
        "device": "cpu", "num_workers": None, "tf32": False
    }  # fmt: skip
    for name in ("results.json", "rows/seed-9/score.json"):
        assert (tmp_path / "a" / name).read_text().endswith("}\n")
    group = ProcessGroup()
    recipes.compare.run_study(found, tmp_path / "b", names=["rows"], group=group)
    assert given[-1]["group"] is group
    plain = Study(name="a", variants={"b": {}}, reference="b")
    assert (plain.summary, plain.base, plain.seeds) == ("", {}, (0, 1, 2))
    assert plain.tolerance == Tolerance(parameters=0.02, operations=0.02)


@pytest.mark.parametrize("name", ["..", "", "a" * 101, "a b", "a/b"])
def test_a_variant_has_the_name_of_a_folder(name):
    with pytest.raises(RecipeError, match="names a folder"):
        Study(name="a", variants={name: {}}, reference=name)
    for fine in (".a", "a-b_c.1", "a" * 100):
        Study(name="a", variants={fine: {}}, reference=fine)


def test_seeds_and_tolerances_have_limits():
    variants = {"variants": {"b": {}}, "reference": "b"}
    Study(name="a", seeds=(0, 2**31 - 1), **variants)
    with pytest.raises(RecipeError, match="use numbers from 0 to 2147483647"):
        Study(name="a", seeds=(2**31,), **variants)
    for name in ("parameters", "operations"):
        Tolerance(**{name: 0.0})
        with pytest.raises(RecipeError, match=f"{name} is -0.1; it must be at least 0"):
            Tolerance(**{name: -0.1})


def test_a_file_of_a_study_may_end_in_three_letters(study):
    assert load_study(study.rename(study.with_suffix(".yml"))).name == "toy"
