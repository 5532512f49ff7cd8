"""Scores of public sets of bursts, beside those of the papers and by hand."""

from __future__ import annotations

import csv
import shutil

import pytest
import torch

import zoo
from recipes.evaluate import main as evaluate
from tests.helpers import author_layouts
from tests.helpers.author_layouts import burst, tag, write_facts
from tests.helpers.small_bursts import small
from zoo.data.burst.clean import clean_of
from zoo.data.burst.reading import read_burst
from zoo.errors import ImageError
from zoo.metrics.burst import aligned, as_rgb, developed_pair, linear_psnr, linear_ssim


def scored(tmp_path, name, capsys):
    file = small(name, tmp_path)
    words = [str(file), "-w", str(tmp_path / "weights.safetensors"), "-o", str(tmp_path / "out")]
    assert evaluate([*words, "--data", str(tmp_path)]) == 0, capsys.readouterr().err
    with (tmp_path / "out" / "images.csv").open() as lines:
        images = list(csv.DictReader(lines))
    network = zoo.load(tmp_path / "weights.safetensors").eval()
    return capsys.readouterr().out, images, network


def restored(network, path):
    with torch.inference_mode():
        return network(read_burst(path).frames_TIHW[None])[0]


def test_synthetic_bursts_stand_beside_the_papers_score(tmp_path, capsys):
    author_layouts.synthetic_bursts(tmp_path)
    table, images, network = scored(tmp_path, "qmambabsr", capsys)
    assert "| SyntheticBurst | 2 | files |" in table and "| 43.12 / 0.9700 |" in table
    assert "Paper: main results." in table and "Linear PSNR (dB) and SSIM, 14 bits, 4" in table
    path = tmp_path / "SyntheticBurst" / "bursts" / "0001"
    clean = clean_of(path).read(raw=True)
    expected = linear_psnr(restored(network, path), clean, border=4)
    assert float(images[1]["psnr"]) == pytest.approx(expected, abs=1e-3)


def test_bursts_named_by_their_own_folder_keep_the_papers_score(tmp_path, capsys):
    author_layouts.synthetic_bursts(tmp_path)
    author_layouts.realbsr_rgb(tmp_path)
    for name, place, told in (
        ("qmambabsr", "SyntheticBurst/bursts", "| SyntheticBurst | 2 | files |"),
        ("qmambabsr_realbsr_rgb", "RealBSR", "| RealBSR_RGB | 2 | files |"),
    ):
        file = small(name, tmp_path)
        words = [str(file), "-w", str(tmp_path / "weights.safetensors"), "-o", str(tmp_path / "o")]
        assert evaluate([*words, "--data", str(tmp_path / place)]) == 0, capsys.readouterr().err
        table = capsys.readouterr().out
        assert told in table and ("43.12" in table or "31.40" in table)


def test_burstsr_is_scored_after_aligning_place_and_colour(tmp_path, capsys):
    author_layouts.burstsr(tmp_path)
    table, images, _ = scored(tmp_path, "qmambabsr_burstsr", capsys)
    assert "| BurstSR | 2 | files |" in table and "after aligning place and colours" in table
    assert all(row["ssim"] == "nan" for row in images)
    # Twice as bright: nothing changes but what is linear.
    for path in tmp_path.glob("burstsr_dataset/val/*/canon/meta_info.pkl"):
        facts = {"black_level": [2048] * 4}
        write_facts(
            path, facts | {"exif_data": author_layouts.CANON | {"EXIF ISOSpeedRatings": tag(50)}}
        )
    _, brighter, _ = scored(tmp_path, "qmambabsr_burstsr", capsys)
    for row, other in zip(images, brighter, strict=True):
        assert float(row["psnr"]) != float(other["psnr"])
        assert float(row["psnr"]) == pytest.approx(float(other["psnr"]) + 6.02, abs=1.5)


def test_realbsr_raw_is_scored_developed_and_linear(tmp_path, capsys):
    author_layouts.realbsr_raw(tmp_path)
    table, images, network = scored(tmp_path, "qmambabsr_realbsr_raw", capsys)
    assert "| RealBSR_RAW | 2 | files |" in table and "| 27.56 / 0.8200 |" in table
    assert "its L-PSNR is 32.791" in table and "| set | l_psnr |" in table
    path = sorted((tmp_path / "RealBSR" / "RAW" / "testpatch").iterdir())[0]
    found, clean = restored(network, path), clean_of(path).read(raw=True)
    assert float(images[0]["l_psnr"]) == pytest.approx(
        linear_psnr(found, clean, border=4), abs=1e-3
    )
    gains = torch.tensor([2.0, 1.0, 1.5]).reshape(3, 1, 1)
    balanced = [x.double().clamp(min=0) * gains for x in (found, clean)]
    level = 5 * balanced[1].mean()
    pictures = [((x / level).clamp(0, 1) ** (1 / 2.2)) for x in balanced]
    pictures = [3 * x**2 - 2 * x**3 for x in pictures]
    assert float(images[0]["psnr"]) == pytest.approx(linear_psnr(*pictures, border=4), abs=1e-3)
    assert float(images[0]["ssim"]) == pytest.approx(linear_ssim(*pictures, border=4), abs=1e-4)
    assert torch.equal(*developed_pair(clean, clean, gains))


def test_realbsr_rgb_stands_beside_the_papers_score(tmp_path, capsys):
    author_layouts.realbsr_rgb(tmp_path)
    table, _, _ = scored(tmp_path, "qmambabsr_realbsr_rgb", capsys)
    assert "| RealBSR_RGB | 2 | files |" in table and "| 31.40 / 0.9080 |" in table


def test_no_score_of_the_paper_stands_beside_other_bursts(tmp_path, capsys, caplog):
    caplog.set_level("INFO", logger="zoo.evaluate")
    author_layouts.synthetic_bursts(tmp_path)
    shutil.move(tmp_path / "SyntheticBurst", tmp_path / "mine")
    file = small("qmambabsr", tmp_path)
    words = [str(file), "-w", str(tmp_path / "weights.safetensors"), "-o", str(tmp_path / "out")]
    assert evaluate([*words, "--data", str(tmp_path / "mine")]) == 0
    assert "43.12" not in (table := capsys.readouterr().out) and "| mine | 2 |" in table
    assert "mine is none of the recipe's sets (SyntheticBurst), so no score" in caplog.text
    real = small("qmambabsr_burstsr", tmp_path)
    assert evaluate([str(real), *words[1:]]) == 2
    assert "data.synthesis is null, so bursts are files" in capsys.readouterr().err


def test_images_too_small_to_align_are_told():
    made = burst(0, side=6)
    with pytest.raises(ImageError, match=r"frames of 6x6 are too small to align colours"):
        aligned(made.clean, made.clean, as_rgb(made.frames[0]), border=4)
