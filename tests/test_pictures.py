"""Pictures stroke by stroke: none changes unseen.

A digest is that of all strokes, with their places, colours and widths, of the pixels below them and
of the size. What the pictures show is tested beside their subjects; here it is that they stay.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import torch

from tests.helpers import strokes
from zoo.analysis import Attribution, ChannelActivations, ReceptiveField, ScanDecay
from zoo.evaluation.comparison import Trained
from zoo.plots.analysis import (
    figure_of_activations,
    figure_of_attribution,
    figure_of_decay,
    figure_of_fields,
)
from zoo.plots.class_order import Walk, render_walk
from zoo.plots.comparison import render_comparison
from zoo.plots.scan_order import render_order
from zoo.plots.training_curves import render_runs
from zoo.scans import Compose, CrossScale, Diagonal, Hilbert, Raster, Window


def walk(height, width):
    step_HW = np.arange(height * width).reshape(width, height).T
    class_HW = np.arange(height)[:, None] * 2 // height + np.arange(width)[None] * 3 // width
    image_HWC = np.linspace(0, 1, height * width, dtype=np.float32).reshape(height, width, 1)
    return render_walk(Walk("m", class_HW, step_HW, 7), image_HWC)


def trained(name, *scores):
    psnr = dict(enumerate(scores))
    return Trained(name=name, parameters=1, gigaflops=1.0, psnr=psnr, ssim=psnr)


def comparison():
    variants = [trained("base", 30.0, 30.2), trained("good", 31.0, 31.2), trained("one", 29.5)]
    return render_comparison([*variants, trained("far", 20.0, 31.0, 30.0)], "base")


def ramp(*shape):
    return torch.linspace(0, 1, int(np.prod(shape)), dtype=torch.float64).reshape(shape)


def field():
    return figure_of_fields({"a": ReceptiveField(ramp(9, 11), 4, 5), "b": ReceptiveField(
        ramp(5, 3), 2, 1)})  # fmt: skip


def activations():
    layers = [ChannelActivations(f"l{n}.mixer", ramp(3 + n) ** n) for n in range(5)]
    return figure_of_activations(layers, 3)


def many_layers():
    return figure_of_activations([ChannelActivations("a", ramp(700))] * 90, 1)


def decay():
    distance_D = torch.tensor([1, 3, 10, 40, 200])
    kept_KD = torch.stack([ramp(5).flip(0), 0.9 * ramp(5).flip(0)])
    maps_KHW = ramp(2, 6, 4)
    return figure_of_decay(
        ScanDecay("p", ("row", "column"), distance_D, kept_KD, maps_KHW, maps_KHW.flip(1))
    )


def attribution():
    found = Attribution(ramp(3, 12, 16) - 0.5, 2, 3, 4, 1.0, 0.5, ramp(3, 24, 32).float())
    return figure_of_attribution(ramp(3, 12, 16).float(), {"mine": found, "theirs": found})


def runs(folder):
    for name, rate in (("first", 0.9), ("second", 0.8)):
        (folder / name).mkdir()
        lines = [{"step": n, "loss": rate**n, "discriminator": n - 3.0} for n in range(1, 45)]
        lines += [{"step": 10 * n, "psnr": 20 + n * rate} for n in range(5)]
        (folder / name / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return render_runs([folder / "first", folder / "second"])


PICTURES = {
    "order": (lambda _: render_order(Raster(), 3, 4), "b7e5c96ca162"),
    "order of two grids": (lambda _: render_order(CrossScale(size=2), 4, 6), "4d8fc9f379bb"),
    "order in two rows": (
        lambda _: render_order(
            Compose(orders=(Window(size=4), Diagonal(directions=("diagonal",)))), 6, 7
        ),
        "1c0c1f475ef1",
    ),
    "large order": (
        lambda _: render_order(Hilbert(directions=("hilbert",)), 24, 24),
        "de128e22b9ac",
    ),
    "order with jumps": (
        lambda _: render_order(Raster(directions=("row",)), 60, 20),
        "f5961d2db08a",
    ),
    "walk": (lambda _: walk(6, 9), "08e47090ece4"),
    "large walk": (lambda _: walk(70, 30), "532920bdc207"),
    "comparison": (lambda _: comparison(), "a9e0d6e42088"),
    "fields": (lambda _: field(), "3a507efa36c1"),
    "activations": (lambda _: activations(), "0f0704c31398"),
    "many layers": (lambda _: many_layers(), "4f415f311d55"),
    "decay": (lambda _: decay(), "055906523f34"),
    "attribution": (lambda _: attribution(), "b3c7598ee1aa"),
    "runs": (runs, "39079892bc9d"),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_drawn_as_it_was(name, tmp_path, monkeypatch):
    make, expected = PICTURES[name]
    drawn = strokes.record_all(monkeypatch)
    picture = make(tmp_path)
    held = [drawn, picture.shape]
    if name != "attribution":  # its blur may be rounded otherwise elsewhere
        held.append(hashlib.sha256(np.ascontiguousarray(picture).tobytes()).hexdigest())
    found = hashlib.sha256(json.dumps(held).encode()).hexdigest()[:12]
    assert drawn and found == expected, f"look at the picture; if it is right, write {found!r}"
