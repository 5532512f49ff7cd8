"""The ranges of settings: their ends are in them, and what is beyond is refused."""

from __future__ import annotations

from functools import partial

import pytest

from zoo.errors import RecipeError
from zoo.training.discriminators import UNetSpectral
from zoo.training.losses import Charbonnier
from zoo.training.settings import (
    AdversarialSettings,
    BurstDataSettings,
    BurstTrainSettings,
    DataSettings,
    OptimizerSettings,
    ScheduleSettings,
    Stage,
    TrainSettings,
)


@pytest.mark.parametrize(
    ("make", "given"),
    [
        (OptimizerSettings, {"lr": 1e-12}), (OptimizerSettings, {"betas": (0.0, 0.0)}),
        (OptimizerSettings, {"lr": 1e3, "weight_decay": 1e3}),
        (ScheduleSettings, {"gamma": 1.0, "minimum": 1e3}), (ScheduleSettings, {"gamma": 0.0}),
        (ScheduleSettings, {"milestones": (0, 10**9), "hold": 10**9, "warmup": 10**9}),
        (DataSettings, {"mixup": 1e-3}), (DataSettings, {"mixup": 1e3, "memory": 1e6}),
        (DataSettings, {"pool": 10**6, "memory": 0.0}), (DataSettings, {"patch": 1, "batch": 1}),
        (DataSettings, {"patch": 2**14, "batch": 10**6, "pool": 10**6}),
        (BurstDataSettings, {"validate_patch": 1, "validate_bursts": 1, "border": 0}),
        (BurstDataSettings, {"validate_patch": 2**14, "border": 2**14, "validate_bursts": 10**6}),
        (Stage, {"iterations": 10**9, "patch": 1, "batch": 1}),
        (AdversarialSettings, {"weight": 0.0}), (AdversarialSettings, {"weight": 1e6}),
        (UNetSpectral, {"channels": 1, "dim": 1}), (Charbonnier, {"epsilon": 1e-9}),
    ],
)  # fmt: skip
def test_the_ends_of_a_range_are_in_it(make, given):
    make(**given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"epochs": 1, "iterations": 1}, "are both given; omit one"),
        ({"epochs": 0, "iterations": 0}, "are both 0; give one of them"),
        ({"epochs": 2**60}, "epochs is"), ({"epochs": -1}, "epochs is"),
        ({"iterations": 1, "keep": 2**60}, "keep is"),
        ({"iterations": 1, "clip": 2e6}, "clip is"),
    ],
)  # fmt: skip
def test_the_length_of_a_training_is_given_once_and_has_limits(given, message):
    with pytest.raises(RecipeError, match=message):
        TrainSettings(data=DataSettings(), **given)
    TrainSettings(data=DataSettings(), iterations=10**9, clip=1e6, seed=2**32 - 1)
    TrainSettings(data=DataSettings(), epochs=10**9)


@pytest.mark.parametrize(
    ("make", "wrong", "named"),
    [
        (AdversarialSettings, {"weight": 2e6}, "weight"), (DataSettings, {"pool": 2**60}, "pool"),
        (DataSettings, {"mixup": 2e3}, "mixup"), (DataSettings, {"mixup": 9e-4}, "mixup"),
        (BurstDataSettings, {"validate_patch": 2**60}, "validate_patch"),
        (BurstDataSettings, {"validate_bursts": 2**60}, "validate_bursts"),
        (Stage, {"iterations": 0, "patch": 1, "batch": 1}, "iterations"),
        (Stage, {"iterations": 1, "patch": 0, "batch": 1}, "patch"),
        (Stage, {"iterations": 1, "patch": 1, "batch": 2**60}, "batch"),
        (partial(BurstTrainSettings, iterations=1), {"flow_loss": 2e6}, "flow_loss"),
        (partial(BurstTrainSettings, iterations=1), {"flow_loss": -1.0}, "flow_loss"),
        (partial(UNetSpectral, 3), {"dim": 1025}, "dim"),
    ],
)  # fmt: skip
def test_numbers_beyond_a_range_are_refused(make, wrong, named):
    with pytest.raises(RecipeError, match=f"{named} is .*; it must be"):
        make(**wrong)
