"""What may stand in a recipe's ``train`` section; the types are the schema."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from zoo.data.burst.synthesis import BurstSynthesis
from zoo.data.degradations import Degradation
from zoo.errors import RecipeError
from zoo.networks import NETWORKS
from zoo.recipe import Recipe, section
from zoo.schema import at_least
from zoo.training.losses import L1, Loss


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A part of a training with its own size of patch (progressive training).

    Attributes:
        iterations: steps.
        patch: side of the degraded patch in pixels.
        batch: patches in one step.
    """

    iterations: int
    patch: int
    batch: int

    def __post_init__(self) -> None:
        at_least(self, 1, "iterations", "patch", "batch")


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Where patches come from.

    Attributes:
        degradation: makes the degraded image from the clean one; left out for pairs of files.
        patch: side of the degraded patch in pixels; 64 where neither it nor stages are given.
        batch: patches in one step, over all processes and accumulated parts; 16 likewise.
        stages: stages of progressive training in turn, instead of ``patch`` and ``batch``; the
            last goes on to the end.
        photos: a folder of images, a list of folders, or "samples" for the bundled photographs.
        degraded: folder, or list of as many folders, with the degraded counterpart of each photo,
            instead of a degradation. Files are matched by name.
        validate: a folder of images or "samples", for validation; of the samples, those held out.
        validate_degraded: folder with the degraded counterparts.
        memory: photos are kept in memory up to this many GB, and read again and again beyond it.
        mixup: blend pairs of the batch, half of the time, by weights drawn from Beta(mixup,
            mixup); 0 for not.
        paper: what the paper trained on, for people to read.
    """

    degradation: Callable[..., Degradation] | None = None
    patch: int | None = None
    batch: int | None = None
    stages: tuple[Stage, ...] = ()
    photos: str | tuple[str, ...] = "samples"
    degraded: str | tuple[str, ...] | None = None
    validate: str = "samples"
    validate_degraded: str | None = None
    memory: float = 4.0
    mixup: float = 0.0
    paper: str = ""

    def __post_init__(self) -> None:
        for name in ("patch", "batch"):
            value = getattr(self, name)
            if value is not None and self.stages:
                raise RecipeError(f"{name} is given beside stages, which set it; give stages=[]")
            if value is not None and value < 1:
                raise RecipeError(f"{name} is {value}; it must be at least 1")
        at_least(self, 0, "memory", "mixup")

    def plan(self, iterations: int) -> list[Stage]:
        """The stages of a training: they add up to ``iterations``."""
        if not self.stages:
            return [Stage(iterations=iterations, patch=self.patch or 64, batch=self.batch or 16)]
        plan, left = [], iterations
        for number, stage in enumerate(self.stages, 1):
            last = number == len(self.stages)
            steps = left if last else min(left, stage.iterations)
            if steps:
                plan.append(Stage(iterations=steps, patch=stage.patch, batch=stage.batch))
            left -= steps
        return plan


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
        hold: steps at the full rate before the cosine begins.
        warmup: steps over which the rate rises linearly from zero, over and above the rest.
    """

    type: Literal["constant", "multistep", "cosine"] = "constant"
    milestones: tuple[int, ...] = ()
    gamma: float = 0.5
    minimum: float = 0.0
    hold: int = 0
    warmup: int = 0

    def __post_init__(self) -> None:
        at_least(self, 0, "hold", "warmup", "minimum")

    def factor(self, step: int, iterations: int, lr: float) -> float:
        """Learning rate at a step, counted from 0, as a factor of the first one."""
        rise = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        if self.type == "multistep":
            return rise * self.gamma ** sum(step >= milestone for milestone in self.milestones)
        if self.type == "cosine":
            lowest = self.minimum / lr
            done = max(0, step - self.hold) / max(1, iterations - self.hold)
            return rise * (lowest + (1 - lowest) * (1 + math.cos(math.pi * min(1.0, done))) / 2)
        return rise


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """The ``train`` section.

    Attributes:
        iterations: steps in all.
        initial: weights to start from, a file or a model whose weights ship; what does not fit, as
            the head of another scale, keeps its random start. Null for a random start.
        accumulate: parts that a batch is computed in, one after the other, to save memory.
        precision: "fp32", or "bf16" or "fp16" for the layers that bear it.
        gradient_checkpointing: compute each block again in the backward pass instead of
            keeping its activations.
        compile: let torch.compile translate the network.
        clip: largest norm of the gradient; 0 for no limit.
        ema: decay of the moving average of the weights, such as 0.999; it is what is validated and
            saved. 0 for none.
        seed: of weights, patches and drop path.
        log_every: steps between lines of the log.
        save_every: steps between checkpoints, each with a validation.
        keep: checkpoints that are kept, the newest ones.
    """

    data: DataSettings
    loss: Loss = field(default_factory=L1)
    optimizer: OptimizerSettings = OptimizerSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    iterations: int
    initial: str | None = None
    accumulate: int = 1
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    gradient_checkpointing: bool = False
    compile: bool = False
    clip: float = 0.0
    ema: float = 0.0
    seed: int = 0
    log_every: int = 50
    save_every: int = 1000
    keep: int = 2

    def __post_init__(self) -> None:
        at_least(self, 1, "iterations", "log_every", "save_every", "accumulate", "keep")
        at_least(self, 0, "clip", "seed")
        if not 0 <= self.ema < 1:
            raise RecipeError(f"ema is {self.ema}; it must be at least 0 and below 1")


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
    takes = NETWORKS.get(recipe.network["type"], "network").capabilities.input
    return section(recipe, "train", BurstTrainSettings if takes == "burst" else TrainSettings)
