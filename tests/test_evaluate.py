"""``zoo evaluate``: the table and its files, options, protocols of recipes, and mistakes."""

from __future__ import annotations

import csv
import logging
import re
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from scipy.io import loadmat

import zoo
from recipes import evaluate as command
from tests.helpers.author_layouts import sidd
from tests.helpers.evaluation import photo_file, run, weights_in
from tests.helpers.training import Rank
from zoo.checkpoints import shipped_weights
from zoo.data import Bicubic, BicubicJpeg, read_photo, resize_bicubic
from zoo.data.pixels import to_array, to_tensor
from zoo.errors import RecipeError
from zoo.evaluation import Score
from zoo.evaluation.report import Published, SetResult, markdown, rows
from zoo.evaluation.settings import evaluate_settings
from zoo.inference import RestoreSettings
from zoo.metrics import psnr, psnr_y, ssim_y
from zoo.metrics.volume import ssim_volume
from zoo.recipe import load_recipe


@pytest.fixture
def weights(tmp_path):
    return weights_in(tmp_path)


def test_the_table_and_its_files(tmp_path, weights, capsys):
    data = tmp_path / "data"
    for index in range(2):
        photo_file(data / "Set5" / f"{index}.png", index)
    photo_file(data / "Urban100" / "HR" / "u.png", 5)
    photo_file(data / "Urban100" / "LR_bicubic" / "X2" / "ux2.png", 6, (12, 15))
    out = tmp_path / "out"
    assert run(*weights, "--data", data, "-o", out, "--save-images", tmp_path / "kept") == 0
    table = capsys.readouterr().out
    assert (out / "summary.md").read_text() == table
    assert "Paper:" not in table  # the source is that of another recipe
    assert b"\r" not in (out / "summary.csv").read_bytes() + (out / "images.csv").read_bytes()
    table = list(csv.DictReader((out / "summary.csv").open()))
    assert [(row["set"], row["images"], row["inputs"]) for row in table] == [
        ("Set5", "2", "made"),
        ("Urban100", "1", "files"),
    ]
    images = list(csv.DictReader((out / "images.csv").open()))
    assert [row["image"] for row in images] == ["0", "1", "u"]
    scores = ["baseline_psnr", "baseline_ssim", "psnr", "ssim"]
    paper = ["paper_psnr", "paper_ssim", "difference_psnr"]
    assert list(table[0]) == ["set", "images", "inputs", *scores, *paper, "exact", "baseline_exact"]
    assert list(images[0]) == ["set", "image", *scores[2:], *scores[:2]]

    # By hand: the first image, whole, on Y with 2 pixels cut.
    network = zoo.load(tmp_path / "a.safetensors")
    clean = read_photo(data / "Set5" / "0.png").color_HWC
    tensor = to_tensor(clean)
    with torch.inference_mode():
        small = Bicubic(scale=2)(tensor, np.random.default_rng(0))
        restored = to_array(network(small[None])[0].clamp(0, 1))
    assert float(images[0]["psnr"]) == pytest.approx(psnr_y(restored, clean, crop_border=2))
    assert float(images[0]["ssim"]) == pytest.approx(ssim_y(restored, clean, crop_border=2))
    mean = (float(images[0]["psnr"]) + float(images[1]["psnr"])) / 2
    assert table[0]["psnr"] == f"{mean:.2f}" and table[0]["paper_psnr"] == "30.50"
    assert table[0]["difference_psnr"] == f"{mean - 30.5:+.2f}"
    assert table[1]["paper_psnr"] == "-"  # the recipe that this one extends has a score
    kept = read_photo(tmp_path / "kept" / "Set5" / "0.png").color_HWC
    assert np.abs(kept - restored).max() <= 0.5 / 255 + 1e-6

    assert run(*weights, "--data", data / "Set5", "-o", out, "--ensemble", "--sets", "Set5") == 0
    assert "31.00 / 0.9100" in capsys.readouterr().out


def test_the_source_of_scores_stands_only_where_scores_stand(tmp_path, capsys):
    """A table of plain scores is not the source of a report with self-ensemble."""
    recipe, *weights = weights_in(tmp_path)
    photo_file(tmp_path / "Set5" / "a.png")
    words = [*weights, "--data", tmp_path, "-o", tmp_path / "out"]
    text = recipe.read_text().replace("0.91]}}", "0.91]}, source: Table 5}")
    for given, plain, ensemble in (
        (text, True, True),
        (text.replace(", paper_ensemble: {Set5: [31, 0.91]}", ""), True, False),
    ):
        recipe.write_text(given)
        assert run(recipe, *words) == 0
        assert ("Paper: Table 5." in capsys.readouterr().out) is plain
        assert run(recipe, *words, "--ensemble") == 0
        assert ("Paper: Table 5." in capsys.readouterr().out) is ensemble


@pytest.mark.slow
@pytest.mark.parametrize("name", shipped_weights())
def test_the_cards_of_the_weights_tell_what_evaluation_finds(name, tmp_path):
    """Each of the four held-out photographs and the mean, to the two decimals of the card."""
    assert run(name, "-w", name, "-o", tmp_path) == 0
    found = {"**mean**": list(csv.DictReader((tmp_path / "summary.csv").open()))}
    for row in csv.DictReader((tmp_path / "images.csv").open()):
        found.setdefault(re.match("[a-z]+", row["image"])[0], []).append(row)
    card = (Path(zoo.__file__).parent / "weights" / f"{name}.md").read_text()
    [lines] = re.findall(r"^\| photo \|.*gain.*\n\|[-|]+\n((?:\|.*\n)+)", card, re.MULTILINE)
    told = [[cell.strip() for cell in line.split("|")[1:5]] for line in lines.splitlines()]
    assert [photo for photo, *_ in told] == ["camera", "chelsea", "coffee", "rocket", "**mean**"]
    for photo, *cells in told:
        baseline, ours = (
            sum(float(row[column]) for row in found[photo]) / len(found[photo])  # several bursts
            for column in ("baseline_psnr", "psnr")
        )
        expected = pytest.approx([baseline, ours, ours - baseline], abs=0.0101)
        assert [float(cell) for cell in cells] == expected, photo


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "/nowhere"], "'/nowhere' does not exist"),
        (["--data", "DATA", "--sets", "Set6"], "'Set6' is not in"),
        (["-w", "missing.pth"], "does not exist"),
    ],
)
def test_mistakes(tmp_path, weights, capsys, words, message):
    photo_file(tmp_path / "data" / "Set5" / "a.png")
    words = [word.replace("DATA", str(tmp_path / "data")) for word in words]
    assert run(*weights, *words, "-o", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert message in said
    assert run("mambair_classic_x2", "-o", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert "no weights ship" in said


def test_processes_beside_the_first_write_and_say_nothing(
    tmp_path, weights, capsys, caplog, monkeypatch
):
    photo_file(tmp_path / "data" / "Set5" / "a.png")
    words = [*weights, "--data", tmp_path / "data", "-o", tmp_path / "out"]
    for rank in (1, 0):
        monkeypatch.setattr(
            command, "process_group", lambda rank=rank: nullcontext(Rank(rank, 2, {}))
        )
        with caplog.at_level(logging.INFO):
            assert run(*words) == 0
        said = bool(rank == 0)
        assert bool(capsys.readouterr().out) == (tmp_path / "out").exists() == said
        assert ("weights: " in caplog.text) == said


def test_the_table_has_each_number_in_its_column():
    scores = [Score("a", 30.0, 0.9, 20.0, 0.5), Score("b", 32.0, 0.8, 22.0, float("nan"))]
    results = [SetResult("S", scores, "made"), SetResult("T", scores[:1], "files")]
    paper = Published({"S": (31.5, 0.8765), "T": (29.25,)})
    text = markdown("title", "notes", results, paper, "bicubic").splitlines()
    assert "| bicubic PSNR / SSIM | ours PSNR / SSIM | paper PSNR / SSIM |" in text[4]
    assert text[6:] == [
        "| S | 2 | made | 21.00 / 0.5000 | 31.00 / 0.8500 | 31.50 / 0.8765 | -0.50 |",
        "| T | 1 | files | 20.00 / 0.5000 | 30.00 / 0.9000 | 29.25 / - | +0.75 |",
    ]
    assert list(rows(results, paper)[0].values()) == [
        "S", "2", "made", "21.00", "0.5000", "31.00", "0.8500", "31.50", "0.8765", "-0.50",
        "0", "0",
    ]  # fmt: skip
    both = Published(paper.paper, {"T": (28.5, 0.75)})
    text = markdown("title", "notes", results, both, "bicubic").splitlines()
    assert text[4].endswith("| difference PSNR | released weights PSNR / SSIM |")
    assert text[5].count("---") == 8
    assert [line.split(" | ")[-2:] for line in text[6:]] == [
        ["-0.50", "- / - |"], ["+0.75", "28.50 / 0.7500 |"],
    ]  # fmt: skip


def test_scores_of_released_weights_stand_beside_those_of_the_paper(tmp_path, capsys):
    network = {"dim": 30, "depths": [1]}
    zoo.save(zoo.build("mambair_dn25", **network), tmp_path / "a.safetensors")
    recipe = tmp_path / "dn.yaml"
    recipe.write_text(
        "extends: mambair_dn25\nnetwork: {dim: 30, depths: [1]}\n"
        "evaluate: {paper: {Urban100: [33.21]}, released: {Urban100: [32.99]}}\n"
    )
    photo_file(tmp_path / "data" / "Urban100HQ" / "a.png")
    words = ["-w", tmp_path / "a.safetensors", "--data", tmp_path / "data", "-o", tmp_path]
    assert run(recipe, *words) == 0
    assert "| 33.21 / - | " in (table := capsys.readouterr().out) and "| 32.99 / - |" in table
    [row] = csv.DictReader((tmp_path / "summary.csv").open())
    assert (row["paper_psnr"], row["released_psnr"], row["released_ssim"]) == (
        "33.21",
        "32.99",
        "-",
    )
    assert run(recipe, *words, "--ensemble") == 0  # the weights were scored without
    assert "released weights" not in capsys.readouterr().out


def test_sidd_is_scored_as_its_script_does_not_rounded_and_as_a_volume(tmp_path, capsys):
    sidd(tmp_path / "data")
    data = load_recipe("mambair_realdn").data()
    data["network"] |= {"dim": 30, "depths": [1, 1, 1, 1], "refinement": 1}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(data))
    network = zoo.build(str(tmp_path / "small.yaml"))
    zoo.save(network, tmp_path / "a.safetensors")
    words = ["-w", tmp_path / "a.safetensors", "--data", tmp_path / "data", "-o", tmp_path]
    assert run(tmp_path / "small.yaml", *words) == 0
    told = capsys.readouterr().out
    assert "not rounded, 0 border" in told and "as a volume, as in MATLAB" in told
    assert "| 39.89 / 0.9600 |" in told
    clean, noisy = (
        loadmat(tmp_path / "data" / "SIDD" / f"{key}.mat")[key].reshape(-1, 16, 16, 3) / 255
        for key in ("ValidationGtBlocksSrgb", "ValidationNoisyBlocksSrgb")
    )
    images = list(csv.DictReader((tmp_path / "images.csv").open()))
    assert len(images) == 6
    for number, row in enumerate(images):
        block = torch.from_numpy(noisy[number]).permute(2, 0, 1)[None].float()
        with torch.inference_mode():
            restored = network.eval()(block)[0].permute(1, 2, 0).clamp(0, 1).double().numpy()
        error = ((restored - clean[number]) ** 2).mean()
        assert float(row["psnr"]) == pytest.approx(-10 * np.log10(error), abs=1e-4)
        likeness = ssim_volume(restored, clean[number], crop_border=0, rounded=False)
        assert float(row["ssim"]) == pytest.approx(likeness, abs=1e-5)


@pytest.mark.parametrize("option", ["rounded: false", "ssim: volume"])
def test_what_only_scores_of_all_channels_have_is_refused_for_luma(tmp_path, option):
    (tmp_path / "a.yaml").write_text(f"extends: mambair_light_x2\nevaluate: {{{option}}}\n")
    with pytest.raises(RecipeError, match="add channel: all"):
        evaluate_settings(load_recipe(tmp_path / "a.yaml"))


def test_compat_reaches_the_network_or_is_refused(tmp_path, weights, capsys):
    """12 x 24 pixels are 1 x 2 windows of 16: not square, so the mapping back matters."""
    data = load_recipe("mambacsr_final").data()
    data["network"] |= {"dim": 30, "depths": [1]}
    data["network"]["coarse"]["depths"] = [1]
    (tmp_path / "csr.yaml").write_text(yaml.safe_dump(data))
    torch.manual_seed(1)
    zoo.save(zoo.build(str(tmp_path / "csr.yaml")), tmp_path / "csr.safetensors")
    photo_file(tmp_path / "data" / "Set5" / "a.png", size=(48, 128))
    words = ["-w", tmp_path / "csr.safetensors", "--data", tmp_path / "data"]
    found = {}
    for name, options in {"ours": [], "theirs": ["--compat", "official"]}.items():
        out = tmp_path / name
        assert run(tmp_path / "csr.yaml", *words, "-o", out, *options) == 0
        assert ("--compat official" in capsys.readouterr().out) == bool(options)
        found[name] = (out / "images.csv").read_text()
    assert found["ours"] != found["theirs"]
    assert run(*weights, "--data", tmp_path / "data", "--compat", "official") == 2
    assert "--compat has no effect on small" in capsys.readouterr().err
    assert run("qmambabsr_tiny", "--compat", "official") == 2
    assert "--compat has no effect on qmambabsr_tiny" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected", "said"),
    [
        ([], {"tile": 0}, "each image whole."),
        (["-t", "64"], {"tile": 64}, "each image in blended tiles of 64 pixels."),
        (
            ["--ensemble"],
            {"tile": 0, "ensemble": True},
            "Self-ensemble of 8 flips and quarter turns.",
        ),
        (["--precision", "bf16"], {"tile": 0, "precision": "bf16"}, "Precision bf16."),
        (["--tf32"], {"tile": 0, "tf32": True}, "TF32 was allowed."),
        (["--tile", "0"], {"tile": 0}, "each image whole."),
    ],
)
def test_options_of_evaluation_reach_what_restores(
    tmp_path, weights, capsys, monkeypatch, words, expected, said
):
    seen = []

    def restored(network, image_BIHW, settings, guides):
        seen.append(settings)
        return image_BIHW.repeat_interleave(2, 2).repeat_interleave(2, 3)

    monkeypatch.setattr(command, "restore_tensor", restored)
    photo_file(tmp_path / "data" / "Set5" / "a.png")
    assert run(*weights, "--data", tmp_path / "data", "-o", tmp_path / "out", *words) == 0
    assert seen == [RestoreSettings(**expected)]
    text = capsys.readouterr().out
    assert said in text and "on the Y channel (BT.601), 8 bits, 2 border pixels" in text


def test_protocol_and_degradation_of_a_recipe_are_those_of_evaluation(tmp_path, weights):
    """All channels, 5 pixels cut, JPEG after bicubic: none of it is the default."""
    recipe = weights[0]
    recipe.write_text(
        recipe.read_text()[:-2].rstrip()
        + ", channel: all, crop: 5, degradation: {type: bicubic_jpeg, quality: 10}}\n"
    )
    path = photo_file(tmp_path / "data" / "Set5" / "a.png", size=(40, 28))
    kept = tmp_path / "kept"
    options = ["--data", tmp_path / "data", "-o", tmp_path / "out", "--save-images", kept]
    assert run(*weights, *options) == 0
    [row] = csv.DictReader((tmp_path / "out" / "images.csv").open())
    restored, clean = (read_photo(p).color_HWC for p in (kept / "Set5" / "a.png", path))
    assert float(row["psnr"]) == pytest.approx(psnr(restored, clean, crop_border=5))
    small = BicubicJpeg(scale=2, quality=10)(to_tensor(clean), None)
    baseline = to_array(resize_bicubic(small[None], 2)[0])
    assert float(row["baseline_psnr"]) == pytest.approx(psnr(baseline, clean, crop_border=5))
    assert "all channels, 8 bits, 5 border" in (tmp_path / "out" / "summary.md").read_text()


def test_where_sizes_are_equal_the_baseline_is_the_input_on_all_channels(tmp_path, capsys):
    zoo.save(zoo.build("mambair_dn25", dim=30, depths=[1]), tmp_path / "a.safetensors")
    recipe = tmp_path / "small.yaml"
    recipe.write_text("extends: mambair_dn25\nnetwork: {dim: 30, depths: [1]}\n")
    photo_file(tmp_path / "data" / "CBSD68" / "a.png")
    words = ["-w", tmp_path / "a.safetensors", "--data", tmp_path / "data", "-o", tmp_path / "out"]
    assert run(recipe, *words) == 0
    text = capsys.readouterr().out
    assert "| input PSNR / SSIM |" in text and "all channels, 8 bits, 0 border pixels" in text
    assert "volume" not in text and "Precision" not in text and "TF32" not in text


def test_a_source_without_scores_is_not_told(tmp_path, weights, capsys):
    recipe, *rest = weights
    recipe.write_text(recipe.read_text().partition("evaluate:")[0] + "evaluate: {paper: null}\n")
    photo_file(tmp_path / "Set5" / "a.png")
    words = ["--data", tmp_path, "-o", tmp_path / "out"]
    assert run(recipe, *rest, *words) == 0
    assert "Paper:" not in capsys.readouterr().out


@pytest.mark.parametrize("stated", ["null", "[0, 255]"])
def test_only_photographs_are_degraded_to_8_bits(tmp_path, weights, monkeypatch, stated):
    """Levels of a stated range were rounded for scores, and not in training."""
    recipe, *rest = weights
    recipe.write_text(recipe.read_text() + f"train: {{data: {{range: {stated}}}}}\n")
    zoo.save(zoo.build(str(recipe)), tmp_path / "a.safetensors")
    photo_file(tmp_path / "data" / "Set5" / "a.png")
    seen = []

    def noted(network, images, degradation, **_):
        seen.append((degradation.rounded, images[0].value_range))
        return [Score("a", 30.0, 0.9, 20.0, 0.5)]

    monkeypatch.setattr(command, "evaluate", noted)
    assert run(recipe, *rest, "--data", tmp_path / "data", "-o", tmp_path / "out") == 0
    assert seen == [(True, None) if stated == "null" else (False, (0.0, 255.0))]


def test_results_that_are_not_finite_are_told(tmp_path, weights, capsys, caplog):
    for index in range(2):
        photo_file(tmp_path / "data" / "Set5" / f"{index}.png", index)
    network = zoo.load(tmp_path / "a.safetensors")
    with torch.no_grad():
        network.norm.weight[0] = float("nan")
    zoo.save(network, tmp_path / "a.safetensors")
    assert run(*weights, "--data", tmp_path / "data", "-o", tmp_path / "out") == 0
    assert "Set5: 2 of 2 results have NaN or infinite values, such as 0" in caplog.text
