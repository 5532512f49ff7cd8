"""The picture of losses and scores of training runs."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.helpers import strokes
from zoo.data import (
    read_photo,
)
from zoo.errors import ZooError
from zoo.plots import training_curves
from zoo.plots.training_curves import render_runs


def test_curves_of_runs(tmp_path, capsys):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        lines = [f'{{"step": {s}, "loss": {1 / s}}}' for s in range(1, 60)]
        lines += ['{"step": 30, "psnr": 28.5}', '{"step": 59, "psnr": 29.5}', '{"step": 60, "lo']
        (tmp_path / name / "metrics.jsonl").write_text("\n".join(lines))
    one = render_runs([tmp_path / "one"])
    both = render_runs([tmp_path / "one", tmp_path / "two"])
    assert one.shape[1] == both.shape[1] == 2 * 760 and both.shape[0] == one.shape[0] + 22
    # The loss falls: the curve is high at the left and low at the right.
    blue = np.argwhere((one[:440, :760] == (31, 119, 180)).all(axis=2))
    left, right = blue[blue[:, 1] < 200], blue[blue[:, 1] > 650]
    assert left[:, 0].mean() < right[:, 0].mean()
    with pytest.raises(ZooError, match="no run here"):
        render_runs([tmp_path])
    words = [str(tmp_path / "one"), str(tmp_path / "two"), "-o", str(tmp_path / "curves.png")]
    assert training_curves.main(words) == 0
    assert capsys.readouterr().out == f"wrote {tmp_path / 'curves.png'}\n"
    drawn = read_photo(tmp_path / "curves.png").color_HWC
    assert np.array_equal((255 * drawn).round(), both)


@pytest.mark.parametrize("losses", [(10, 1, 0.1), (10, 5, 0)])
def test_curves_lie_where_their_numbers_are(tmp_path, monkeypatch, losses):
    """The loss by its logarithm, unless it is zero somewhere; steps from left to right."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        lines = [{"step": 50 * n, "loss": loss} for n, loss in enumerate(losses)]
        lines += [{"step": 75, "loss": float("nan")}]
        lines += [{"step": 50 * n, "psnr": psnr} for n, psnr in enumerate((20, 28, 30))]
        text = "\n".join(json.dumps(line) for line in lines)
        (tmp_path / name / "metrics.jsonl").write_text(text)
    drawn = strokes.record(monkeypatch).curves
    render_runs([tmp_path / "one", tmp_path / "two"])
    assert len(drawn) == 4 and drawn[0][1] != drawn[1][1] and drawn[0][1] == drawn[2][1]
    for points, middle in ((drawn[0][0], 0.5), (drawn[2][0], 0.2)):
        (x0, y0), (x1, y1), (x2, y2) = points
        assert x0 == 84 and x2 == 740 and abs(x1 - 412) <= 1
        assert abs((y1 - y2) / (y0 - y2) - middle) < 0.01
    assert drawn[0][0][0][1] < drawn[0][0][2][1] and drawn[2][0][0][1] > drawn[2][0][2][1]


def test_axes_titles_and_the_last_values_are_written_beside_the_curves(tmp_path, monkeypatch):
    lines = [{"step": 50 * n, "loss": loss} for n, loss in enumerate((10, 1, 0.1))]
    lines += [{"step": 100, "psnr": 30.5}]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    drawn = strokes.record(monkeypatch)
    render_runs([tmp_path])
    heights = (388, 320, 252, 184, 116, 48)
    losses = ("0.07943", "0.2188", "0.6026", "1.66", "4.571", "12.59")
    steps = ("0", "20", "40", "60", "80", "100")
    places = (70, 201, 332, 464, 595, 726)
    rows = zip(losses, heights, steps, places, strict=True)
    expected = [("loss (logarithmic)", (84, 28))]
    rows = list(rows)
    expected += [(loss, (8, y + 5)) for loss, y, _, _ in rows]
    expected += [(step, (x, 410)) for _, _, step, x in rows]
    expected += [("step", (380, 432)), (f"{tmp_path.name}: 0.1", (122, 451))]
    assert drawn.texts[: len(expected)] == expected
    assert drawn.texts[len(expected)] == ("PSNR in validation, dB", (84, 28))
    assert drawn.texts[-1][0] == f"{tmp_path.name}: 30.5"
    assert drawn.lines[:6] == [((84, y), (740, y), (225, 225, 225)) for y in heights]
    assert drawn.lines[6] == ((84, 446), (112, 446), drawn.curves[0][1])
    assert [at for at, _, _ in drawn.discs] == [(84, 63), (412, 218), (740, 373), (740, 218)]


def test_of_a_long_curve_only_the_end_is_marked(tmp_path, monkeypatch):
    for name, count in (("short", 39), ("long", 40)):
        (tmp_path / name).mkdir()
        lines = (json.dumps({"step": step, "loss": 1.0}) for step in range(count))
        (tmp_path / name / "metrics.jsonl").write_text("\n".join(lines))
        drawn = strokes.record(monkeypatch)
        render_runs([tmp_path / name])
        assert len(drawn.discs) == (39 if name == "short" else 1)
        assert drawn.discs[-1][0] == (740, 218)


def test_more_runs_than_colours_take_them_again(monkeypatch):
    drawn = strokes.record(monkeypatch)
    runs = {f"run {number}": [(0.0, 1.0), (1.0, 2.0)] for number in range(9)}
    training_curves._panel("title", runs, logarithmic=False)
    colors = [color for _, color in drawn.curves]
    assert colors == [*training_curves.CURVES, training_curves.CURVES[0]]
    assert len(set(colors)) == 8


def test_labels_of_an_axis_differ():
    assert training_curves._labels([40.15, 40.152, 40.154]) == ["40.15", "40.152", "40.154"]
    assert training_curves._labels([-35.9, -35.1]) == ["-35.9", "-35.1"]
    assert training_curves._labels([1.0, 1.0 + 1e-9]) == ["1", "1"]  # nothing to tell


def test_steps_of_a_short_run_are_written_where_they_are(monkeypatch):
    drawn = strokes.record(monkeypatch)
    training_curves._panel("title", {"run": [(0, 1.0), (4, 2.0)]}, logarithmic=False)
    steps = [(text, x) for text, (x, y) in drawn.texts if y == 410]
    assert steps == [("0", 70), ("1", 234), ("2", 398), ("3", 562), ("4", 726)]


def test_runs_of_one_name_have_their_paths_and_an_empty_log_is_told(tmp_path, monkeypatch):
    folders = [tmp_path / one / "run" for one in "ab"]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0}')
    drawn = strokes.record(monkeypatch)
    render_runs(folders)
    assert [text for text, _ in drawn.texts[-2:]] == [f"{folder}: 1" for folder in folders]
    (folders[0] / "metrics.jsonl").write_text("")
    with pytest.raises(ZooError, match="is empty; the run has not logged"):
        render_runs(folders)
