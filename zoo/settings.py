"""What may stand in the ``train`` section of a recipe; the types are the schema."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from zoo.data.degradations import Degradation
from zoo.errors import RecipeError
from zoo.losses import L1, Loss
from zoo.recipe import Recipe
from zoo.resolve import resolve


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Where patches come from.

    Attributes:
        degradation: makes the degraded image from the clean one.
        patch: side of the degraded patch in pixels.
        batch: patches in one step.
        photos: a folder of images, or "samples" for the bundled photographs.
        validate: likewise, for validation; of the samples, those held out.
    """

    degradation: Callable[..., Degradation]
    patch: int = 64
    batch: int = 16
    photos: str = "samples"
    validate: str = "samples"


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """Adam, as all these papers use it."""

    type: Literal["adam", "adamw"] = "adam"
    lr: float = 2e-4
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0


@dataclass(frozen=True, kw_only=True)
class ScheduleSettings:
    """How the learning rate falls.

    Attributes:
        type: "constant"; "multistep": times ``gamma`` at each milestone; "cosine": down to
            ``minimum`` at the last step.
        milestones: steps.
        gamma: factor.
        minimum: learning rate.
    """

    type: Literal["constant", "multistep", "cosine"] = "constant"
    milestones: tuple[int, ...] = ()
    gamma: float = 0.5
    minimum: float = 0.0

    def factor(self, step: int, iterations: int, lr: float) -> float:
        """Learning rate at a step, as a factor of the first one."""
        if self.type == "multistep":
            return self.gamma ** sum(step >= milestone for milestone in self.milestones)
        if self.type == "cosine":
            lowest = self.minimum / lr
            return lowest + (1 - lowest) * (1 + math.cos(math.pi * step / iterations)) / 2
        return 1.0


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """The ``train`` section.

    Attributes:
        iterations: steps in all.
        clip: largest norm of the gradient; 0 for no limit.
        seed: of weights, patches and drop path.
        log_every: steps between lines of the log.
        save_every: steps between checkpoints, each with a validation.
    """

    data: DataSettings
    loss: Loss = field(default_factory=L1)
    optimizer: OptimizerSettings = OptimizerSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    iterations: int
    clip: float = 0.0
    seed: int = 0
    log_every: int = 50
    save_every: int = 1000

    def __post_init__(self) -> None:
        for name in ("iterations", "log_every", "save_every"):
            if getattr(self, name) < 1:
                raise RecipeError(f"{name} is {getattr(self, name)}; it must be at least 1")


def train_settings(recipe: Recipe) -> TrainSettings:
    """Check the ``train`` section of a recipe.

    Raises:
        RecipeError: if there is none, or at the first mistake, with its place.
    """
    if not recipe.train:
        raise RecipeError(
            f"{recipe.name}: the recipe has no 'train' section; extend it by a recipe that has one"
        )
    try:
        settings: TrainSettings = resolve(TrainSettings, recipe.train, "train")
    except RecipeError as error:
        raise RecipeError(f"{recipe.name}: {error}") from error
    return settings
