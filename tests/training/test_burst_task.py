"""Training on bursts: examples, loss and validation, against numbers worked out by hand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

import zoo.training.burst_task as burst_task
from tests.helpers.training import Rank
from zoo.data.burst.synthesis import BurstSynthesis
from zoo.data.samples import sample_names
from zoo.distributed import ProcessGroup
from zoo.errors import ImageError, RecipeError
from zoo.evaluation.burst import BurstScore
from zoo.training.burst_task import BurstTask, flow_distance
from zoo.training.losses import L1
from zoo.training.settings import (
    BurstDataSettings,
    BurstTrainSettings,
)


def burst_task_of(photos, *, needs_flow=False, channels=4, scale=8, seed=4, **data):
    settings = BurstTrainSettings(
        data=BurstDataSettings(
            photos=str(photos),
            validate=str(photos),
            patch=4,
            batch=2,
            **{"validate_patch": 5, "validate_bursts": 2, "border": 3, **data},
        ),
        iterations=10,
        flow_loss=0.5,
        seed=seed,
    )
    network = SimpleNamespace(needs_flow=needs_flow, channels=channels, scale=scale, burst=3)
    return BurstTask(settings, network)


@pytest.mark.parametrize(("channels", "scale", "factor"), [(4, 8, 4), (3, 4, 4)])
def test_bursts_have_the_networks_factor_and_the_recipes_sizes(photos, channels, scale, factor):
    task = burst_task_of(photos, channels=channels, scale=scale)
    examples = task.examples(task.plan[0])
    assert isinstance(examples.synthesis, BurstSynthesis)
    assert (examples.synthesis.factor, examples.synthesis.frames) == (factor, 3)
    assert examples.synthesis.mode == ("raw" if channels == 4 else "rgb")
    assert (len(examples), examples.seed, examples.patch) == (20, 4, 4)
    assert len(task.validation) == 6 and len(task.validation.names) == 6
    assert task.validation[5].frames.shape == (3, channels, 5, 5)


@pytest.mark.parametrize("needs_flow", [False, True])
def test_the_flow_loss_falls_to_zero_and_has_its_weight(photos, needs_flow):
    """flow_loss 0.5, a quarter done: 0.375 of the distance; the true flow is given on demand."""
    task = burst_task_of(photos, needs_flow=needs_flow)
    burst, clean, flow = (
        torch.rand(2, 3, 4, 4, 4),
        torch.rand(2, 3, 8, 8),
        torch.rand(2, 3, 2, 4, 4),
    )
    output, displacements = torch.rand(2, 3, 8, 8), (torch.rand(2, 3, 2, 4, 4),)
    given = []

    def forward(*inputs):
        given.append(inputs)
        return output, displacements

    distance = (displacements[0] - flow).abs().mean()
    expected = (output - clean).abs().mean()
    for done in (0.0, 0.25, 1.0):
        value = task.loss(forward, L1(), (burst, clean, flow), done)
        torch.testing.assert_close(value, expected + 0.5 * (1 - done) * distance)
    assert given[0][0] is burst and given[0][1] is (flow if needs_flow else None)
    alone = task.loss(lambda *_: (output, ()), L1(), (burst, clean, flow), 0.0)
    torch.testing.assert_close(alone, expected)  # of a network without alignment


def test_flow_distance_is_the_mean_over_levels_by_loops():
    """Displacements in a level's pixels, the true flow averaged over them; padding left out."""
    random_ = np.random.default_rng(0)
    flow = random_.standard_normal((1, 2, 2, 6, 8))
    levels = [random_.standard_normal((1, 2, 2, *size)) for size in ((6, 8), (4, 4), (8, 8))]
    total = 0.0
    for level, (shrink, height, width) in zip(
        levels, ((1, 6, 8), (2, 3, 4), (1, 6, 8)), strict=True
    ):
        errors = []
        for t in range(2):
            for axis in range(2):
                for y in range(height):
                    for x in range(width):
                        rows = slice(y * shrink, (y + 1) * shrink)
                        columns = slice(x * shrink, (x + 1) * shrink)
                        true = flow[0, t, axis, rows, columns].mean()
                        errors.append(abs(level[0, t, axis, y, x] * shrink - true))
        total += sum(errors) / len(errors)
    found = flow_distance(tuple(map(torch.from_numpy, levels)), torch.from_numpy(flow))
    assert float(found) == pytest.approx(total / 3, rel=1e-12)


def test_displacements_of_a_frame_that_was_padded_to_twice_its_width_are_of_its_pixels():
    flow, found = torch.rand(1, 2, 2, 3, 3), torch.rand(1, 2, 2, 8, 8)
    expected = (found[..., :3, :3] - flow).abs().mean()
    torch.testing.assert_close(flow_distance((found,), flow), expected)


def test_a_border_that_leaves_no_pixels_is_told_before_the_training(photos):
    wrong = r"data\.border is 20; .* the 40x40 pixels .*: choose at most 19, or a larger"
    with pytest.raises(RecipeError, match=wrong):
        burst_task_of(photos, border=20)
    assert burst_task_of(photos, border=19).border == 19


def test_a_burst_that_cannot_be_scored_is_named(photos, monkeypatch):
    task = burst_task_of(photos)

    def score_burst(*_, **__):
        raise ImageError("the border leaves no pixels")

    monkeypatch.setattr(burst_task, "score_burst", score_burst)
    with pytest.raises(ImageError, match=r"0\.png: the border leaves no pixels"):
        task.validate(None, ProcessGroup())


def test_bursts_are_validated_once_over_the_processes_within_the_border(photos, monkeypatch):
    task = burst_task_of(photos)
    calls = []

    def score_burst(network, sample, border, *, aligned):
        assert not aligned  # the bursts are synthetic, and the loss does not align
        calls.append((sample.frames.sum().item(), border))
        return BurstScore(30.0, 20.0, 25.0)

    monkeypatch.setattr(burst_task, "score_burst", score_burst)
    others = [BurstScore(36.0, 26.0, 31.0)] * 3
    values, _ = task.validate(None, Rank(1, 2, others))
    assert calls == [(task.validation[index].frames.sum().item(), 3) for index in (1, 3, 5)]
    expected = {"psnr": 33.0, "baseline": 23.0, "all_reference": 28.0}
    assert {key: values[key] for key in expected} == expected and len(values["bursts"]) == 6


def test_held_out_photographs_validate_bursts():
    found = burst_task._validation_photos("samples")
    assert [photo.name for photo in found] == sample_names(held_out=True)
