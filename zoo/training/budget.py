"""Training for a given time: shortening the recipe's whole schedule."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping
from typing import Any

from zoo.errors import RecipeError
from zoo.recipe import Recipe, load_recipe
from zoo.training.settings import ScheduleSettings, TrainSettings, train_settings

logger = logging.getLogger("zoo.train")

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

_LONGEST = 1e9

RESERVE = 0.97
"""Planned fraction of the budget; the rest is for slower steps, starting and saving."""

VALIDATIONS = 4
"""Largest number of validations and of checkpoints in a shortened training."""


def parse_duration(text: str) -> float:
    """Convert a duration such as "90s", "10m", "1.5h" or "2d" to seconds.

    Raises:
        RecipeError: if the text is not a duration, or the duration is 0 or decades.
    """
    found = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)([smhd])", text.strip())
    seconds = float(found[1]) * UNITS[found[2]] if found else 0.0
    if not 0 < seconds <= _LONGEST:
        raise RecipeError(f"--budget {text[:30]!r}: write a duration such as 90s, 10m, 1.5h or 2d")
    return seconds


def affordable(left: float, step: float, validation: float) -> int:
    """Return how many steps are possible in the remaining time, with the validations.

    Args:
        left: remaining time in seconds.
        step: time of a step in seconds.
        validation: time of a validation in seconds.

    Raises:
        RecipeError: if the time is too short for a few steps.
    """
    steps = math.floor((left * RESERVE - VALIDATIONS * validation) / step)
    if steps < VALIDATIONS:
        raise RecipeError(
            f"--budget is too short: a step takes {step:.2g} s and a validation {validation:.2g} "
            "s; allow more time, or fewer photos in data.validate"
        )
    return steps


def shortened(recipe: Recipe, iterations: int) -> Recipe:
    """Return the recipe with its whole schedule scaled to at most ``iterations`` steps.

    Milestones, hold, cosine, warm-up and stages are scaled in proportion. Batch size, patch size
    and learning rate do not change. A recipe with fewer steps is returned unchanged.
    """
    settings = train_settings(recipe)
    if iterations >= settings.iterations:
        return recipe
    factor = iterations / settings.iterations
    data: dict[str, Any] = recipe.data()
    train = data["train"]
    train["iterations"] = iterations
    train["schedule"] = _scaled(train.get("schedule", {}), settings.schedule, factor)
    own = settings.adversarial.schedule if settings.adversarial else None
    if own is not None:
        train["adversarial"]["schedule"] = _scaled(train["adversarial"]["schedule"], own, factor)
    for stage in train["data"].get("stages", []):
        stage["iterations"] = max(1, round(stage["iterations"] * factor))
    scaled = round(settings.save_every * factor)
    train["save_every"] = max(scaled, math.ceil(iterations / VALIDATIONS))
    train["log_every"] = max(1, min(settings.log_every, iterations // 20))
    return load_recipe(data)


def report(budget: str, seconds: float, asked: TrainSettings, given: TrainSettings) -> None:
    """Log the schedule that results from a budget.

    Args:
        budget: the budget as the user wrote it.
        seconds: time of a step in seconds.
        asked: the recipe's settings.
        given: the shortened settings.
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


def _scaled(given: Mapping[str, Any], schedule: ScheduleSettings, factor: float) -> dict[str, Any]:
    """Return a schedule as plain data with all its steps multiplied by a factor."""
    return {
        **given,
        "milestones": [round(step * factor) for step in schedule.milestones],
        "hold": round(schedule.hold * factor),
        "cosine_steps": round(schedule.cosine_steps * factor),
        "warmup": round(schedule.warmup * factor),
    }
