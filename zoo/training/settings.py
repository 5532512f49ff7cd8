"""The ``train`` section of a recipe; the types of the fields are its schema."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from zoo.data.burst.synthesis import BurstSynthesis
from zoo.data.degradations import Degradation
from zoo.data.sharpening import Sharpening
from zoo.data.value_range import check_range
from zoo.errors import RecipeError, shown
from zoo.ops.precision import Precision
from zoo.recipe import Recipe, section
from zoo.schema import at_least
from zoo.training.discriminators import Discriminator, UNetSpectral
from zoo.training.losses import L1, Loss
from zoo.training.losses.adversarial import AdversarialLoss, Vanilla

MOST_STEPS, MOST_BATCH, MOST_SIDE = 10**9, 10**6, 2**14
"""Largest numbers of steps, of examples in a step and in a pool, and of pixels along a side."""

MOST_RATE = 1e3
"""Largest learning rate and weight decay."""

MOST_WEIGHT = 1e6
"""Largest factor of a loss, largest norm of a gradient, and most gigabytes of photos."""


def _check_sizes(settings: object) -> None:
    at_least(settings, 1, "patch", most=MOST_SIDE)
    at_least(settings, 1, "batch", most=MOST_BATCH)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of progressive training, with its own patch and batch size.

    Attributes:
        iterations: number of steps.
        patch: side of the degraded patch in pixels.
        batch: number of patches in one step.
    """

    iterations: int
    patch: int
    batch: int

    def __post_init__(self) -> None:
        at_least(self, 1, "iterations", most=MOST_STEPS)
        _check_sizes(self)


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Where patches come from.

    Attributes:
        degradation: computes the degraded image from the clean image. Omit it to train on pairs of
            files.
        patch: side of the degraded patch in pixels. The default is 64, unless stages are given.
        batch: number of patches in one step, over all processes and micro-batches. The default is
            16, unless stages are given.
        stages: stages of progressive training, one after another, instead of ``patch`` and
            ``batch``. The last stage lasts to the end.
        photos: a folder of clean images, a list of folders, or "samples" for the bundled photos.
        degraded: a folder with the degraded version of each photo, or a list of folders: as many as
            ``photos`` has, in the same order. Files are matched by name; see
            :mod:`zoo.data.pairing`. Replaces ``degradation``.
        guides: for each guide of the network, by name, a folder with a guide for each photo, or a
            list of folders. Files are matched as degraded ones are.
        validate: a folder of images for validation, or "samples" for the held-out bundled photos.
        validate_degraded: a folder with the degraded versions of the ``validate`` images.
        validate_guides: for each guide, a folder with the guides of the ``validate`` images.
        memory: photos are kept in memory up to this size in GB; the others are read at each use.
        mixup: in half of the steps, each pair is blended with another pair of the batch, with
            weights drawn from Beta(mixup, mixup). 0 turns mixup off.
        augment: true draws one of eight flips and quarter turns for each pair, "flip" one of two
            (left and right are exchanged or not), false none.
        sharpen: sharpens the clean images by unsharp masking: the network learns from sharpened
            images, and degraded ones are made of them. Null leaves them as they are.
        pool: each batch is drawn from this many pairs of the last steps, which new pairs replace. 0
            turns the pool off. In Real-ESRGAN, where all pairs of a batch share a scale factor and
            other draws, it mixes batches; here each pair has its own, so that it only changes their
            order.
        range: the values of the files that are black and white, such as [0, 10000], for data that
            is no photograph. Null means 0 and the largest level of the files' type; floating-point
            values must then be in [0, 1].
        paper: training data of the paper, for information only.
    """

    degradation: Callable[..., Degradation] | None = None
    patch: int | None = None
    batch: int | None = None
    stages: tuple[Stage, ...] = ()
    photos: str | tuple[str, ...] = "samples"
    degraded: str | tuple[str, ...] | None = None
    guides: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    validate: str = "samples"
    validate_degraded: str | None = None
    validate_guides: Mapping[str, str] = field(default_factory=dict)
    memory: float = 4.0
    mixup: float = 0.0
    augment: bool | Literal["flip"] = True
    sharpen: Sharpening | None = None
    pool: int = 0
    range: tuple[float, float] | None = None
    paper: str = ""

    def __post_init__(self) -> None:
        for name in ("patch", "batch"):
            value = getattr(self, name)
            if value is not None and self.stages:
                raise RecipeError(f"{name} and stages are both given; stages set {name}: omit one")
        _check_sizes(self)
        check_range(self.range)
        at_least(self, 0, "memory", most=MOST_WEIGHT)
        at_least(self, 0, "mixup", most=1e3)
        at_least(self, 0, "pool", most=MOST_BATCH)
        largest = max([stage.batch for stage in self.stages] or [self.batch or 16])
        if 0 < self.pool < largest:
            raise RecipeError(
                f"pool is {self.pool}; it must be 0 or at least {largest}, the batch that is drawn "
                "from it"
            )
        if 0 < self.mixup < 1e-3:
            raise RecipeError(f"mixup is {self.mixup}; it must be 0 or at least 0.001")

    def plan(self, iterations: int) -> list[Stage]:
        """Return the stages of a training of ``iterations`` steps in total."""
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
    """Adam (the default) or AdamW, with the papers' hyper-parameters.

    Attributes:
        type: "adam" or "adamw".
        lr: learning rate at the start of the schedule.
        betas: decays of the first and second moments.
        weight_decay: weight decay.
        decay: what weight decay shrinks: "weights" (matrices and kernels, as in Mamba's own
            training: not ``A_log``, ``D``, biases, norms and skip factors) or "all" parameters, as
            the authors' code of the published networks does.
    """

    type: Literal["adam", "adamw"] = "adam"
    lr: float = 2e-4
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    decay: Literal["weights", "all"] = "weights"

    def __post_init__(self) -> None:
        at_least(self, 0, "lr", "weight_decay", most=MOST_RATE)
        if self.lr < 1e-12:
            raise RecipeError(f"lr is {self.lr:g}; it must be above 0 and at least 1e-12")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise RecipeError(f"betas are {self.betas}; both must be at least 0 and below 1")


@dataclass(frozen=True, kw_only=True)
class ScheduleSettings:
    """The learning-rate schedule.

    Attributes:
        type: "constant"; "multistep", which multiplies the rate by ``gamma`` at each milestone; or
            "cosine", which lowers it to ``minimum`` at the end of the cosine.
        milestones: steps at which "multistep" lowers the rate.
        gamma: factor at each milestone, at most 1.
        minimum: learning rate at the end of the cosine.
        hold: number of steps at the full rate before the cosine starts.
        cosine_steps: number of steps of the cosine; 0 for all after ``hold``. The training may end
            before the cosine does.
        warmup: number of steps in which the rate rises linearly from zero. It multiplies the
            schedule.
    """

    type: Literal["constant", "multistep", "cosine"] = "constant"
    milestones: tuple[int, ...] = ()
    gamma: float = 0.5
    minimum: float = 0.0
    hold: int = 0
    cosine_steps: int = 0
    warmup: int = 0

    def __post_init__(self) -> None:
        at_least(self, 0, "hold", "cosine_steps", "warmup", most=MOST_STEPS)
        at_least(self, 0, "minimum", most=MOST_RATE)
        at_least(self, 0, "gamma", most=1)
        if not all(0 <= milestone <= MOST_STEPS for milestone in self.milestones):
            raise RecipeError(
                f"milestones are {shown(self.milestones)}; they must be from 0 to {MOST_STEPS}"
            )
        if self.type == "multistep" and not self.milestones:
            raise RecipeError(
                "milestones are missing; they must be the steps at which the rate falls (type "
                "constant is for a rate that never changes)"
            )

    def factor(self, step: int, iterations: int, lr: float) -> float:
        """Return the learning rate at a step, counted from 0, as a multiple of ``lr``."""
        rise = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        if self.type == "multistep":
            return rise * self.gamma ** sum(step >= milestone for milestone in self.milestones)
        if self.type == "cosine":
            lowest = self.minimum / lr
            steps = self.cosine_steps or iterations - self.hold
            done = max(0, step - self.hold) / max(1, steps)
            return rise * (lowest + (1 - lowest) * (1 + math.cos(math.pi * min(1.0, done))) / 2)
        return rise


@dataclass(frozen=True, kw_only=True)
class AdversarialSettings:
    """A discriminator that learns beside the network, and what the network learns from it.

    Attributes:
        discriminator: tells the network's images from clean ones.
        loss: what both learn from that.
        weight: factor of the network's adversarial loss, which is added to ``train.loss``.
        real: what the discriminator takes for real: the "clean" images, or the "target", which
            differs where ``data.sharpen`` is set.
        optimizer: the optimiser of the discriminator.
        schedule: its learning-rate schedule; null for that of the network.
        initial: weights of the discriminator to start from: ``discriminator.safetensors`` of a run,
            or a file of Real-ESRGAN's code. Null initialises it at random.
    """

    discriminator: Callable[..., Discriminator] = UNetSpectral
    loss: AdversarialLoss = field(default_factory=Vanilla)
    weight: float = 0.1
    real: Literal["clean", "target"] = "clean"
    optimizer: OptimizerSettings = OptimizerSettings()
    schedule: ScheduleSettings | None = None
    initial: str | None = None

    def __post_init__(self) -> None:
        at_least(self, 0, "weight", most=MOST_WEIGHT)


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """The ``train`` section.

    Attributes:
        data: training and validation data.
        loss: the loss.
        optimizer: the optimiser.
        schedule: the learning-rate schedule.
        iterations: total number of steps.
        epochs: passes over the training data, instead of ``iterations``: one takes as many steps as
            there are batches of photos, or of bursts.
        adversarial: a discriminator that learns beside the network; null trains without one.
        initial: weights to start from: a file, or a model with weights in the package. Tensors that
            do not match, such as the head of another scale, are initialised at random. Null
            initialises all tensors at random.
        accumulate: number of micro-batches that a batch is split into, to save memory.
        precision: "fp32", or "bf16" or "fp16" for autocast. The scan's state is always float32.
        gradient_checkpointing: compute each block again in the backward pass instead of
            keeping its activations.
        compile: whether to compile the training step with torch.compile. Validation is not.
        clip: largest norm of the gradient; 0 for no limit.
        ema: decay of the exponential moving average of the weights, such as 0.999; lower in the
            first steps, see :class:`~zoo.training.ema.EMA`. The average is validated and saved. 0
            turns it off.
        seed: random seed of the initial weights, the patches and drop path.
        log_every: number of steps between lines of the log.
        save_every: number of steps between checkpoints. Each checkpoint is validated.
        keep: number of checkpoints to keep; older ones are removed.
    """

    data: DataSettings
    loss: Loss = field(default_factory=L1)
    optimizer: OptimizerSettings = OptimizerSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    iterations: int = 0
    epochs: int = 0
    adversarial: AdversarialSettings | None = None
    initial: str | None = None
    accumulate: int = 1
    precision: Precision = "fp32"
    gradient_checkpointing: bool = False
    compile: bool = False
    clip: float = 0.0
    ema: float = 0.0
    seed: int = 0
    log_every: int = 50
    save_every: int = 1000
    keep: int = 2

    def __post_init__(self) -> None:
        at_least(self, 0, "epochs", most=MOST_STEPS)
        at_least(self, 0, "iterations", most=MOST_STEPS)
        if bool(self.epochs) == bool(self.iterations):
            found = "both given; omit one" if self.epochs else "both 0; give one of them"
            raise RecipeError(f"iterations and epochs are {found}")
        at_least(self, 1, "log_every", "save_every", "accumulate", "keep", most=MOST_STEPS)
        at_least(self, 0, "clip", most=MOST_WEIGHT)
        at_least(self, 0, "seed", most=2**32 - 1)
        if not 0 <= self.ema < 1:
            raise RecipeError(f"ema is {self.ema}; it must be at least 0 and below 1")


@dataclass(frozen=True, kw_only=True)
class BurstDataSettings:
    """Where training and validation bursts come from.

    Attributes:
        synthesis: synthesises a burst from a photo. Null to train on real bursts only.
        real: a folder of bursts with their clean images, as in BurstSR and RealBSR
            (:mod:`zoo.data.burst.clean`). Replaces ``photos`` and ``synthesis``.
        validate_real: such a folder for validation. Replaces ``validate``.
        patch: side of a frame in pixels of its planes.
        batch: number of bursts in one step.
        photos: a folder of images, or "samples" for the bundled photos.
        validate: a folder of images for validation, or "samples" for the held-out bundled photos.
        validate_patch: side of a frame in validation, in pixels of its planes.
        validate_bursts: number of bursts from each validation photo. They are the same in every
            validation.
        border: number of high-resolution pixels excluded at each side in scores.
        paper: training data of the paper, for information only.
    """

    synthesis: Callable[..., BurstSynthesis] | None = BurstSynthesis
    real: str | None = None
    validate_real: str | None = None
    patch: int = 48
    batch: int = 8
    photos: str = "samples"
    validate: str = "samples"
    validate_patch: int = 48
    validate_bursts: int = 4
    border: int = 40
    paper: str = ""

    def __post_init__(self) -> None:
        _check_sizes(self)
        at_least(self, 1, "validate_patch", most=MOST_SIDE)
        at_least(self, 1, "validate_bursts", most=MOST_BATCH)
        at_least(self, 0, "border", most=MOST_SIDE)


@dataclass(frozen=True, kw_only=True)
class BurstTrainSettings(TrainSettings):
    """The ``train`` section of a burst network.

    Attributes:
        data: training and validation bursts.
        flow_loss: weight of an auxiliary loss: the distance in pixels between the displacements
            that the alignment finds and the true displacements. The weight falls linearly to 0 at
            the last step. Real bursts have no true displacements: it must be 0.
        align_loss: whether the loss compares images after their places and colours are aligned, for
            real bursts whose clean image is another camera's; see
            :func:`zoo.metrics.burst.aligned`.
    """

    data: BurstDataSettings = BurstDataSettings()  # type: ignore[assignment]
    flow_loss: float = 0.0
    align_loss: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 0, "flow_loss", most=MOST_WEIGHT)
        if self.flow_loss and self.data.real is not None:
            raise RecipeError(
                "flow_loss needs the true displacements of synthetic bursts; set flow_loss to 0 to "
                "train on data.real"
            )


def train_settings(recipe: Recipe) -> TrainSettings:
    """Check and return the ``train`` section of a recipe.

    Raises:
        RecipeError: if the section is missing or wrong; the message gives the place of the first
            mistake.
    """
    if not recipe.train:
        raise RecipeError(
            f"{recipe.name}: the recipe has no 'train' section; add one, or extend a recipe that "
            "has one"
        )
    return section(recipe, "train", BurstTrainSettings if recipe.takes_burst else TrainSettings)
