"""Training on photos, with degradations computed on the fly or with pairs of files."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from zoo.data.degradations import Degradation
from zoo.data.guides import check_named, match_guides
from zoo.data.made_folders import warn_if_cut_apart
from zoo.data.pairing import counterparts
from zoo.data.patches import Example, PairDataset, PatchDataset
from zoo.data.photos import SAMPLES_SOURCE, AnyPhoto, load_training_photos, photo_files
from zoo.data.testsets import TestImage, validation_images
from zoo.data.value_range import is_photographic
from zoo.distributed import ProcessGroup, shard
from zoo.errors import RecipeError
from zoo.evaluation import Protocol, evaluate, mean_score, strip
from zoo.networks import Network
from zoo.training.losses import Loss, largest, loss_of_scales
from zoo.training.settings import DataSettings, Stage
from zoo.training.task import Critic, examples_of

logger = logging.getLogger("zoo.train")


class PhotoTask:
    """Training on degraded photos: examples, loss and validation.

    Args:
        settings: the ``train.data`` section.
        network: the network; it determines the scale and the channels.
        protocol: how photos are measured in validation.
        iterations: total number of steps.
        seed: random seed of the patches.
        progress: whether to show a progress bar while files are checked.

    Raises:
        RecipeError: if the settings give neither a degradation nor pairs of files.
        ImageError: if files cannot be used; the message names all of them.
    """

    plan: list[Stage]
    validation: list[TestImage]
    degradation: Degradation | None

    def __init__(
        self,
        settings: DataSettings,
        network: Network,
        *,
        protocol: Protocol,
        iterations: int,
        seed: int,
        progress: bool = False,
    ) -> None:
        self.scale, self.seed = network.scale, seed
        self.channels, self.out_channels = network.channels, network.out_channels
        self.protocol, self.mixup = protocol, settings.mixup
        self.augment, self.sharpen = settings.augment, settings.sharpen
        self.plan = settings.plan(iterations)
        if settings.photos == SAMPLES_SOURCE and settings.paper:
            logger.info("training on the few bundled photos; the paper uses %s", settings.paper)
        self.degradation = None
        if settings.degraded is None:
            self.degradation = _degradation(settings, network)
        else:
            _check_pairs(settings)
            # Names are compared before any file is read, which may take minutes.
            counterparts(photo_files(settings.photos), photo_files(settings.degraded), self.scale)
            warn_if_cut_apart(settings.photos, settings.degraded, self.scale)
        check_named(network.guides, settings.guides, "data.guides.")
        check_named(network.guides, settings.validate_guides, "data.validate_guides.")

        def load(source: str | tuple[str, ...], *, floats_only: bool = False) -> list[AnyPhoto]:
            return load_training_photos(
                source,
                memory=settings.memory,
                progress=progress,
                value_range=settings.range,
                floats_only=floats_only,
            )

        self.photos = load(settings.photos)
        self.degraded = None if settings.degraded is None else load(settings.degraded)
        self.guides = [
            match_guides(
                self.photos,
                load(settings.guides[name], floats_only=True),
                guide,
                self.scale,
                name,
            )
            for name, guide in network.guides.items()
        ]
        self.validation = validation_images(
            settings.validate,
            settings.validate_degraded,
            self.scale,
            guides=[settings.validate_guides[name] for name in network.guides],
            value_range=settings.range,
            alike=self.channels == self.out_channels,
            crop=protocol.for_scale(self.scale)[1],
        )
        for stage in self.plan:
            self.examples(stage)  # fails now if photos are too small for a later stage

    def examples(self, stage: Stage) -> Dataset[Example]:
        """Return the examples of a stage: degraded patch, target, and patches of guides; where the
        target is sharpened, also the clean patch."""
        length = examples_of(self.plan, 0, sum(stage.iterations for stage in self.plan))
        if self.degraded is not None:
            return PairDataset(
                self.photos,
                self.degraded,
                scale=self.scale,
                patch=stage.patch,
                channels=self.channels,
                length=length,
                seed=self.seed,
                out_channels=self.out_channels,
                guides=self.guides,
                augment=self.augment,
                sharpen=self.sharpen,
            )
        assert self.degradation is not None
        return PatchDataset(
            self.photos,
            degradation=self.degradation,
            patch=stage.patch,
            channels=self.channels,
            length=length,
            seed=self.seed,
            out_channels=self.out_channels,
            guides=self.guides,
            augment=self.augment,
            sharpen=self.sharpen,
        )

    def module(self, network: Network) -> nn.Module:
        return network

    def loss(
        self,
        forward: Callable[..., Tensor | Sequence[Tensor]],
        criterion: Loss,
        batch: Sequence[Tensor],
        done: float,
        critic: Critic | None = None,
    ) -> Tensor:
        degraded_BIHW, target_BIHW, *guides = self._mixed(batch)
        clean_BIHW = target_BIHW if self.sharpen is None else guides.pop()
        output = forward(degraded_BIHW, *guides)
        total = loss_of_scales(criterion, output, target_BIHW)
        if critic is not None:
            total = total + critic(largest(output), target_BIHW, clean_BIHW)
        return total

    def _mixed(self, batch: Sequence[Tensor]) -> Sequence[Tensor]:
        """Apply mixup: in half of the steps, blend each example with another one of the batch."""
        if not self.mixup or float(torch.rand(())) < 0.5:
            return batch
        weight = 1 - float(torch.distributions.Beta(self.mixup, self.mixup).sample())
        other = torch.randperm(len(batch[0])).to(batch[0].device, non_blocking=True)
        return [images_BIHW.lerp(images_BIHW[other], weight) for images_BIHW in batch]

    def validate(
        self, network: Network, group: ProcessGroup
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        strips: dict[str, np.ndarray] = {}
        scores = group.together(
            lambda: evaluate(
                network,
                shard(self.validation, group),
                self.degradation,
                protocol=self.protocol,
                seen=lambda name, found: strips.update({name: strip(found)}),
            )
        )
        parts = group.gather((scores, strips))
        scores = [found for part, _ in parts for found in part]
        mean = mean_score(scores)
        values = {
            "psnr": mean.psnr,
            "ssim": mean.ssim,
            "baseline": mean.baseline_psnr,
            "photos": [found.data() for found in scores],
            **mean.others,
        }
        return values, {name: picture for _, part in parts for name, picture in part.items()}


def _degradation(settings: DataSettings, network: Network) -> Degradation:
    if settings.degradation is None:
        raise RecipeError(
            "train.data: this recipe trains on pairs of files; give data.photos=CLEAN_FOLDER and "
            "data.degraded=DEGRADED_FOLDER, or a data.degradation to make pairs"
        )
    if settings.validate == SAMPLES_SOURCE and settings.validate_degraded is not None:
        raise RecipeError(
            "train.data.validate_degraded has no effect on the bundled photos; give "
            "data.validate=CLEAN_FOLDER, too, or leave it out"
        )
    photographic = is_photographic(network.channels, settings.range)
    return settings.degradation(scale=network.scale).for_data(photographic=photographic)


def _check_pairs(settings: DataSettings) -> None:
    if settings.photos == SAMPLES_SOURCE:
        raise RecipeError("train.data.degraded needs data.photos, the folder of clean photos")
    if settings.validate == SAMPLES_SOURCE or settings.validate_degraded is None:
        raise RecipeError(
            "train.data: training on pairs also validates on pairs; give data.validate="
            "CLEAN_FOLDER and data.validate_degraded=DEGRADED_FOLDER"
        )
    if settings.degradation is not None:
        logger.info("data.degraded replaces data.degradation: pairs of files are used")
