"""Training for a given time: the recipe's schedule, shortened as a whole."""

from __future__ import annotations

import copy
import logging
import math
import re
from typing import Any

from zoo.errors import RecipeError
from zoo.recipe import Recipe, load_recipe
from zoo.training.settings import TrainSettings, train_settings

logger = logging.getLogger("zoo.train")

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

RESERVE = 0.97
"""Part of the budget that is planned: steps vary, and starting and saving take time too."""

VALIDATIONS = 4
"""Most validations, and checkpoints, of a shortened training."""


def parse_duration(text: str) -> float:
    """Seconds of a duration such as "90s", "10m", "1.5h" or "2d".

    Raises:
        RecipeError: for anything else, or no time at all.
    """
    found = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)([smhd])", text.strip())
    if not found or float(found[1]) == 0:
        raise RecipeError(f"--budget {text!r}: write a duration such as 90s, 10m, 1.5h or 2d")
    return float(found[1]) * UNITS[found[2]]


def affordable(left: float, step: float, validation: float) -> int:
    """Steps, of so many seconds each, that fit in the seconds left beside the validations.

    Raises:
        RecipeError: if not even a few do.
    """
    steps = math.floor((left * RESERVE - VALIDATIONS * validation) / step)
    if steps < VALIDATIONS:
        raise RecipeError(
            f"--budget is too short: a step takes {step:.2g} s and a validation {validation:.2g} "
            "s; allow more time, or fewer photos in data.validate"
        )
    return steps


def shortened(recipe: Recipe, iterations: int) -> Recipe:
    """The recipe with its whole schedule scaled to fewer steps; itself, where it has no more.

    Milestones, the hold, the warm-up and the stages shrink in proportion; batch, patch and learning
    rate stay.
    """
    settings = train_settings(recipe)
    if iterations >= settings.iterations:
        return recipe
    factor = iterations / settings.iterations
    data: dict[str, Any] = copy.deepcopy(recipe.data())
    train = data["train"]
    train["iterations"] = iterations
    schedule = settings.schedule
    train["schedule"] = {
        **_as_mapping(train.get("schedule", {})),
        "milestones": [round(step * factor) for step in schedule.milestones],
        "hold": round(schedule.hold * factor),
        "warmup": round(schedule.warmup * factor),
    }
    for stage in train["data"].get("stages", []):
        stage["iterations"] = max(1, round(stage["iterations"] * factor))
    scaled = round(settings.save_every * factor)
    train["save_every"] = max(scaled, math.ceil(iterations / VALIDATIONS))
    train["log_every"] = max(1, min(settings.log_every, iterations // 20))
    return load_recipe(data)


def report(budget: str, seconds: float, asked: TrainSettings, given: TrainSettings) -> None:
    """Log what a budget made of a schedule.

    Args:
        budget: as the user wrote it.
        seconds: that a step takes.
        asked: the recipe's settings.
        given: the shortened ones.
    """
    logger.info(
        "budget %s: %.3g s a step, so %d of the recipe's %d steps; milestones %s, hold %d, warm-up "
        "%d, a checkpoint every %d steps",
        budget,
        seconds,
        given.iterations,
        asked.iterations,
        list(given.schedule.milestones),
        given.schedule.hold,
        given.schedule.warmup,
        given.save_every,
    )


def _as_mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {"type": value}
