"""What may stand in the ``train`` section of a recipe; the types are the schema."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from zoo.data.burst.synthesis import BurstSynthesis
from zoo.data.degradations import Degradation
from zoo.errors import RecipeError
from zoo.losses import L1, Loss
from zoo.networks import NETWORKS
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


@dataclass(frozen=True, kw_only=True)
class BurstDataSettings:
    """Where bursts come from.

    Attributes:
        synthesis: makes a burst from a photo.
        patch: side of a frame in pixels of its planes.
        batch: bursts in one step.
        photos: a folder of images, or "samples" for the bundled photographs.
        validate: likewise, for validation; of the samples, those held out.
        validate_patch: side of a frame in validation.
        validate_bursts: bursts of each photo in validation, always the same ones.
        border: high-resolution pixels left out at each side when scoring.
    """

    synthesis: Callable[..., BurstSynthesis] = BurstSynthesis
    patch: int = 48
    batch: int = 8
    photos: str = "samples"
    validate: str = "samples"
    validate_patch: int = 48
    validate_bursts: int = 4
    border: int = 40


@dataclass(frozen=True, kw_only=True)
class BurstTrainSettings(TrainSettings):
    """The ``train`` section of a burst network.

    Attributes:
        flow_loss: weight of the distance in pixels between the displacements that the alignment
            found and the true ones; falls linearly to 0 at the last step.
    """

    data: BurstDataSettings = BurstDataSettings()  # type: ignore[assignment]
    flow_loss: float = 0.0


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
        kind = NETWORKS.get(recipe.network["type"], "network").capabilities.input
        section = BurstTrainSettings if kind == "burst" else TrainSettings
        settings: TrainSettings = resolve(section, recipe.train, "train")
    except RecipeError as error:
        raise RecipeError(f"{recipe.name}: {error}") from error
    return settings
