"""Variants are compared seed by seed: honest intervals, a table and a picture."""

from __future__ import annotations

import re

import numpy as np
import pytest
from scipy import stats

from tests.helpers import strokes
from tests.helpers.variants import trained
from zoo.evaluation.comparison import STUDENT, Trained, differences, interval, ranked, table
from zoo.evaluation.report import fixed
from zoo.plots.comparison import LINE, _ticks, render_comparison
from zoo.plots.scan_order import text_width


def test_intervals_are_those_of_students_distribution():
    for freedom, quantile in enumerate(STUDENT, 1):
        assert quantile == pytest.approx(stats.t.ppf(0.975, freedom), abs=6e-4)
    for count in (2, 3, 5, 10):
        values = np.random.default_rng(count).normal(30, 1, count)
        low, high = stats.t.interval(0.95, count - 1, np.mean(values), stats.sem(values))
        found = interval(list(values))
        assert found.mean == pytest.approx((low + high) / 2)
        assert found.half == pytest.approx((high - low) / 2, rel=2e-3)
    many = list(np.random.default_rng(0).normal(30, 1, 40))
    assert interval(many).half >= 1.96 * stats.sem(many)
    assert np.isnan(interval([3.0]).half) and not interval([3.0]).excludes_zero


def test_variants_are_compared_seed_by_seed():
    base, other = trained("base", 30.0, 32.0, 31.0), trained("other", 30.1, 32.1, 31.12)
    apart = differences(other, base)
    assert apart.mean == pytest.approx(0.32 / 3) and apart.half < 0.04 and apart.excludes_zero
    assert interval(list(other.psnr.values())).half > 2  # the scores themselves vary far more
    early = Trained(name="e", parameters=1, gigaflops=0.1, psnr={2: 31.5, 9: 0}, ssim={2: 1, 9: 1})
    assert differences(early, base).mean == pytest.approx(0.5)  # of the seed that both have


def test_the_table_and_the_picture_have_the_best_first_and_mark_what_is_sure():
    variants = [
        trained("worse", 29.0, 29.1, 29.05),
        trained("base", 30.0, 30.2, 30.1),
        trained("noisy", 30.5, 29.9, 30.3),
    ]
    assert [v.name for v in ranked(variants)] == ["noisy", "base", "worse"]
    lines = table(variants, "base").splitlines()[2:]
    assert [re.findall(r"`(\w+)`", line)[0] for line in lines] == ["noisy", "base", "worse"]
    assert lines[1].endswith("| - |") and lines[2].endswith("* |") and "*" not in lines[0]
    assert "-1.050 ± 0.124*" in lines[2]
    picture = render_comparison(variants, "base")
    red = np.argwhere((picture == (200, 60, 30)).all(2))[:, 0]
    blue = np.argwhere((picture == (31, 119, 180)).all(2))[:, 0]
    assert len(red) and len(blue) and blue.max() < red.min()  # noisy is first, worse is last
    assert red.max() - red.min() < LINE


def test_the_picture_of_a_comparison_writes_what_it_shows(monkeypatch):
    drawn = strokes.record(monkeypatch)
    render_comparison([trained("base", 30.0), trained("better", 31.0)], "base")
    left = 24 + text_width("better") + 20
    at = {value: left + round(560 * (value - 29.95) / 1.1) for value in (30, 30.2, 30.4, 31)}
    assert drawn.texts[0] == ("PSNR in dB: runs, mean, 95 % interval of the mean", (left, 28))
    ticks = drawn.texts[1:7]
    assert [text for text, _ in ticks] == ["30", "30.2", "30.4", "30.6", "30.8", "31"]
    assert [ticks[n][1] for n in (0, 1, 2, 5)] == [(x - 22, 172) for x in at.values()]
    assert drawn.texts[7:] == [
        ("over base", (left + 576, 28)),
        *(("better", (24, 90)), ("+1.000", (left + 576, 90)), ("base", (24, 130))),
    ]
    means = [place for place, _, thickness in drawn.discs if thickness == -1]
    assert means == [(at[31], 84), (at[30], 124)]
    dashes = [(start, end) for start, end, color in drawn.lines if color == (90, 90, 90)]
    assert dashes[0] == ((at[30], 52), (at[30], 57)) and dashes[-1][0] == (at[30], 142)

    drawn = strokes.record(monkeypatch)
    scores = [trained("base", 30.0, 30.1, 30.2), trained("better", 31.0, 31.1, 31.2001)]
    render_comparison(scores, "base")
    assert "+1.000 +- 0.000 *" in [text for text, _ in drawn.texts]
    ends = [(s[0], e[0]) for s, e, color in drawn.lines if s[1] == e[1] == 124]
    means = [place[0] for place, _, thickness in drawn.discs if thickness == -1]
    # 4.303 * 0.1 / sqrt(3) = 0.248 on both sides of the mean.
    (low, high), unit = ends[0], (means[0] - means[1]) / 1.00003
    assert abs(means[1] - low - 0.248 * unit) <= 2 and abs(high - means[1] - 0.248 * unit) <= 2


def test_marks_of_an_axis_are_round_and_four_to_ten():
    assert _ticks(29.95, 31.05) == [30, 30.2, 30.4, 30.6, 30.8, 31]
    assert _ticks(30.01, 30.04) == [30.01, 30.015, 30.02, 30.025, 30.03, 30.035, 30.04]
    assert _ticks(20.3, 37.1) == [22, 24, 26, 28, 30, 32, 34, 36]
    for low, high in ((29.95, 30.25), (-1.0, 9.0), (20.1, 40.0), (0.0, 0.011)):
        found = _ticks(low, high)
        assert 4 <= len(found) <= 10 and low <= found[0] and found[-1] <= high


def test_no_difference_has_no_sign_of_less():
    variants = [trained("base", 30.0, 30.1), trained("same", 29.9998, 30.0999)]
    assert table(variants, "base").splitlines()[3].endswith("| +0.000 ± 0.001 |")
    assert fixed(-0.0004, 3) == "0.000" and fixed(-0.0006, 3) == "-0.001"
