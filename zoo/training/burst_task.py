"""Training on bursts: synthetic ones made from photos, with an auxiliary loss on the alignment, or
real ones with their clean images.

Shape suffixes: B batch, T frames, I channels of a frame, H height, W width in pixels.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from zoo.data.burst.dataset import BurstDataset, BurstSample, ValidationBursts
from zoo.data.burst.pairs import RealBurstDataset, RealValidation, real_bursts
from zoo.data.burst.synthesis import BurstSynthesis
from zoo.data.images import list_photos, read_photo
from zoo.data.photos import SAMPLES_SOURCE, TrainingPhoto, load_training_photos
from zoo.data.pixels import quantise
from zoo.data.samples import load_sample, sample_names
from zoo.distributed import ProcessGroup, shard
from zoo.errors import ImageError, RecipeError
from zoo.evaluation.burst import BurstScore, mean_burst_score, score_burst
from zoo.metrics.burst import aligned, as_rgb
from zoo.networks import Network
from zoo.training.losses import Loss, largest, loss_of_scales, one_number
from zoo.training.settings import BurstDataSettings, BurstTrainSettings, Stage
from zoo.training.task import Critic, examples_of

logger = logging.getLogger("zoo.train")


class BurstTask:
    """Training on bursts: examples, loss and validation.

    Args:
        settings: the recipe's ``train`` section.
        network: the network; it determines the scale, channels and number of frames.
        progress: whether to show a progress bar while files are checked.

    Raises:
        ImageError: if files cannot be used; the message names all of them.
    """

    def __init__(
        self, settings: BurstTrainSettings, network: Network, *, progress: bool = False
    ) -> None:
        data = settings.data
        self.plan = [Stage(iterations=settings.iterations, patch=data.patch, batch=data.batch)]
        self.flow_loss, self.border, self.seed = settings.flow_loss, data.border, settings.seed
        self.needs_flow = network.needs_flow
        self.align_loss, self.scale, self.frames = settings.align_loss, network.scale, network.burst
        self.examples_at: Callable[[int, int], Dataset[BurstSample]]
        if data.real is not None:
            if self.needs_flow:
                raise RecipeError(
                    "network.flow_prior is given, and the motion of real bursts is not known: set "
                    "it to registration or none"
                )
            self.examples_at = self._real(data.real, network)
        else:
            self.examples_at = self._synthetic(data, network, progress)
        self.validation = validation_bursts(data, network)
        side = network.scale * data.validate_patch
        if data.validate_real is None and side <= 2 * data.border:
            raise RecipeError(
                f"data.border is {data.border}; it must leave some of the {side}x{side} pixels of "
                f"a validation burst: choose at most {(side - 1) // 2}, or a larger "
                "data.validate_patch"
            )
        self.aligned_validation = settings.align_loss and data.validate_real is not None

    def _real(self, folder: str, network: Network) -> Callable[[int, int], Dataset[BurstSample]]:
        bursts = real_bursts(folder, network.burst, network.scale, network.channels)
        return lambda patch, length: RealBurstDataset(
            bursts,
            frames=network.burst,
            scale=network.scale,
            patch=patch,
            length=length,
            seed=self.seed,
        )

    def _synthetic(
        self, data: BurstDataSettings, network: Network, progress: bool
    ) -> Callable[[int, int], Dataset[BurstSample]]:
        synthesis = _synthesis(data, network)
        photos = load_training_photos(data.photos, progress=progress)
        if data.photos == SAMPLES_SOURCE and data.paper:
            logger.info("training on the few bundled photos; the paper uses %s", data.paper)
        return lambda patch, length: BurstDataset(
            photos, synthesis=synthesis, patch=patch, length=length, seed=self.seed
        )

    def examples(self, stage: Stage) -> Dataset[BurstSample]:
        """Return the examples of a stage: frames, clean image and true flow."""
        return self.examples_at(stage.patch, examples_of(self.plan, 0, stage.iterations))

    def module(self, network: Network) -> nn.Module:
        return _WithDisplacements(network)

    def loss(
        self,
        forward: Callable[..., tuple[Tensor, tuple[Tensor, ...]]],
        criterion: Loss,
        batch: Sequence[Tensor],
        done: float,
        critic: Critic | None = None,
    ) -> Tensor:
        burst_BTIHW, clean_B3HW, flow_BT2HW = batch
        given = flow_BT2HW if self.needs_flow else None
        output, displacements = forward(burst_BTIHW, given)
        total = (
            _aligned_loss(criterion, output, clean_B3HW, burst_BTIHW[:, 0], self.border)
            if self.align_loss
            else loss_of_scales(criterion, output, clean_B3HW)
        )
        if critic is not None:
            total = total + critic(largest(output), clean_B3HW, clean_B3HW)
        weight = self.flow_loss * (1 - done)
        if weight and displacements:
            total = total + weight * flow_distance(displacements, flow_BT2HW)
        return total

    def validate(
        self, network: Network, group: ProcessGroup
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        mine = shard(range(len(self.validation)), group)
        found = group.together(lambda: [self._score(network, index) for index in mine])
        scores: list[BurstScore] = [score for part in group.gather(found) for score in part]
        mean = mean_burst_score(scores)
        logger.info("%.2f dB with the reference as every frame", mean.all_reference)
        values = {
            "psnr": mean.restored,
            "baseline": mean.baseline,
            "all_reference": mean.all_reference,
            "bursts": [score._asdict() for score in scores],
        }
        return values, {}

    def _score(self, network: Network, index: int) -> BurstScore:
        bursts = self.validation
        try:
            return score_burst(network, bursts[index], self.border, aligned=self.aligned_validation)
        except ImageError as error:
            raise ImageError(f"{bursts.names[index]}: {error}") from error


class _WithDisplacements(nn.Module):
    """A burst network that also returns the displacements of its alignment."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, burst_BTIHW: Tensor, flow_BT2HW: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        return self.network.forward_with_displacements(burst_BTIHW, flow_BT2HW)


def _aligned_loss(
    criterion: Loss, output: Any, clean_B3HW: Tensor, reference_BIHW: Tensor, border: int
) -> Tensor:
    """The mean loss over images that were aligned; pixels that are not valid do not count."""
    total = clean_B3HW.new_zeros(())
    for restored_3HW, clean_3HW, frame_IHW in zip(output, clean_B3HW, reference_BIHW, strict=True):
        found = aligned(restored_3HW.float(), clean_3HW, as_rgb(frame_IHW), border=border)
        used = found.valid_1HW.bool()
        compared = torch.where(used, found.restored_3HW, found.clean_3HW)[None]
        share = found.valid_1HW.mean().to(clean_B3HW)
        value = criterion(compared.float(), found.clean_3HW[None].float())
        total = total + one_number(criterion, value) / share
    return total / len(clean_B3HW)


def flow_distance(displacements: tuple[Tensor, ...], flow_BT2HW: Tensor) -> Tensor:
    """Return the mean absolute difference to the true flow over all levels, in full-size pixels.

    Padding is not compared.
    """
    height, width = flow_BT2HW.shape[-2:]
    total = flow_BT2HW.new_zeros(())
    for found in displacements:
        shrink = round(width / found.shape[-1]) or 1
        h, w = height // shrink, width // shrink
        true = F.avg_pool2d(flow_BT2HW.flatten(0, 1), shrink).unflatten(0, flow_BT2HW.shape[:2])
        total = total + (found[..., :h, :w] * shrink - true[..., :h, :w]).abs().mean()
    return total / len(displacements)


def validation_bursts(
    data: BurstDataSettings, network: Network
) -> ValidationBursts | RealValidation:
    """Return the fixed bursts on which a network is validated."""
    if data.validate_real is not None:
        bursts = real_bursts(data.validate_real, network.burst, network.scale, network.channels)
        return RealValidation(bursts, frames=network.burst, scale=network.scale)
    return ValidationBursts(
        _validation_photos(data.validate),
        synthesis=_synthesis(data, network),
        patch=data.validate_patch,
        per_photo=data.validate_bursts,
    )


def _synthesis(data: BurstDataSettings, network: Network) -> BurstSynthesis:
    if data.synthesis is None:
        raise RecipeError(
            "data.synthesis is null, so bursts are files: give data.real=FOLDER to train and "
            "data.validate_real=FOLDER to validate (data.synthesis=ntire makes bursts from photos)"
        )
    mode = "raw" if network.channels == 4 else "rgb"
    factor = network.scale // (2 if mode == "raw" else 1)
    return data.synthesis(frames=network.burst, factor=factor, mode=mode)


def _validation_photos(source: str) -> list[TrainingPhoto]:
    if source == SAMPLES_SOURCE:
        photos = [(name, load_sample(name)) for name in sample_names(held_out=True)]
    else:
        photos = [(str(path), read_photo(path)) for path in list_photos(source)]
    return [TrainingPhoto(name, quantise(p.color_HWC, p.bit_depth)) for name, p in photos]
