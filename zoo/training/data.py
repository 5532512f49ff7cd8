"""What a training reads: pairs to learn from and photos to validate on, checked at its start."""

from __future__ import annotations

from torch.utils.data import Dataset

from zoo.data.degradations import Degradation
from zoo.data.patches import PairDataset, PatchDataset
from zoo.data.photos import SAMPLES, AnyPhoto, load_training_photos
from zoo.data.testsets import TestImage, validation_images
from zoo.errors import RecipeError
from zoo.networks import Network
from zoo.settings import DataSettings, Stage
from zoo.training.loader import Pair


class TrainingData:
    """The data of one training.

    Args:
        settings: the ``train.data`` section.
        network: whose scale and channels the pairs have.
        iterations: steps in all.
        seed: of the patches.
        progress: show a progress bar while files are checked.

    Raises:
        RecipeError: if the settings do not say where pairs come from.
        ImageError: naming all files that cannot be used.
    """

    plan: list[Stage]
    validation: list[TestImage]
    degradation: Degradation | None

    def __init__(
        self,
        settings: DataSettings,
        network: Network,
        *,
        iterations: int,
        seed: int,
        progress: bool = False,
    ) -> None:
        self.scale, self.channels, self.seed = network.scale, network.channels, seed
        self.plan = settings.plan(iterations)
        self.degradation = None
        if settings.degraded is None:
            self.degradation = _degradation(settings, self.scale)
        else:
            _check_pairs(settings)

        def load(source: str | tuple[str, ...]) -> list[AnyPhoto]:
            return load_training_photos(source, memory=settings.memory, progress=progress)

        self.photos = load(settings.photos)
        self.degraded = None if settings.degraded is None else load(settings.degraded)
        self.validation = validation_images(
            settings.validate, settings.validate_degraded, self.scale
        )
        for stage in self.plan:
            self.pairs(stage)  # photos too small for a later stage are told now

    def pairs(self, stage: Stage) -> Dataset[Pair]:
        """The pairs of a stage, indexed from the training's first."""
        length = self.images(0, sum(stage.iterations for stage in self.plan))
        if self.degraded is not None:
            return PairDataset(
                self.photos,
                self.degraded,
                scale=self.scale,
                patch=stage.patch,
                channels=self.channels,
                length=length,
                seed=self.seed,
            )
        assert self.degradation is not None
        return PatchDataset(
            self.photos,
            degradation=self.degradation,
            patch=stage.patch,
            channels=self.channels,
            length=length,
            seed=self.seed,
        )

    def images(self, start: int, stop: int) -> int:
        """How many pairs the steps from ``start`` to before ``stop`` take."""
        total, first = 0, 0
        for stage in self.plan:
            end = first + stage.iterations
            total += max(0, min(stop, end) - max(start, first)) * stage.batch
            first = end
        return total


def _degradation(settings: DataSettings, scale: int) -> Degradation:
    if settings.degradation is None:
        raise RecipeError(
            "train.data: this recipe trains on pairs of files; give data.photos=CLEAN_FOLDER and "
            "data.degraded=DEGRADED_FOLDER, or a data.degradation to make pairs with"
        )
    return settings.degradation(scale=scale)


def _check_pairs(settings: DataSettings) -> None:
    if settings.photos == SAMPLES:
        raise RecipeError("train.data.degraded needs data.photos, the folder of clean photos")
    if settings.validate == SAMPLES or settings.validate_degraded is None:
        raise RecipeError(
            "train.data: training on pairs also validates on pairs; give data.validate="
            "CLEAN_FOLDER and data.validate_degraded=DEGRADED_FOLDER"
        )
