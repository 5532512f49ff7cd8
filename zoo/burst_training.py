"""What the trainer needs to train a burst network: its data, its loss, its validation.

Shape suffixes: B batch, T frames, I channels of a frame, H height, W width in pixels.
"""

from __future__ import annotations

import logging
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from zoo.burst_evaluation import evaluate_bursts, mean_burst_score
from zoo.data.burst.dataset import BurstDataset, ValidationBursts
from zoo.data.images import list_photos, quantise, read_photo
from zoo.data.patches import SAMPLES, TrainingPhoto, load_training_photos
from zoo.data.samples import load_sample, sample_names
from zoo.losses import Loss
from zoo.networks import Burst, Network
from zoo.settings import BurstTrainSettings, TrainSettings

logger = logging.getLogger("zoo.train")


class BurstTask:
    """Training of one burst network.

    Args:
        settings: the recipe's.
        network: what is trained.
    """

    def __init__(self, settings: BurstTrainSettings, network: Burst) -> None:
        self.settings, self.network = settings, network
        data = settings.data
        mode = "raw" if network.channels == 4 else "rgb"
        synthesis = data.synthesis(
            frames=network.burst, factor=network.scale // (2 if mode == "raw" else 1), mode=mode
        )
        self.dataset = BurstDataset(
            load_training_photos(data.photos),
            synthesis=synthesis,
            patch=data.patch,
            length=settings.iterations * data.batch,
            seed=settings.seed,
        )
        self.validation = ValidationBursts(
            _validation_photos(data.validate),
            synthesis=synthesis,
            patch=data.validate_patch,
            per_photo=data.validate_bursts,
        )

    def loss(
        self,
        loss: Loss,
        burst_BTIHW: Tensor,
        clean_B3HW: Tensor,
        flow_BT2HW: Tensor,
        *,
        done: float,
    ) -> Tensor:
        """The loss of a batch; ``done`` is the part of the training that lies behind, 0 to 1."""
        given = flow_BT2HW if self.network.flow_prior == "given" else None
        output, displacements = self.network.forward_with_displacements(burst_BTIHW, given)
        total = loss(output, clean_B3HW)
        weight = self.settings.flow_loss * (1 - done)
        if weight and displacements:
            total = total + weight * flow_distance(displacements, flow_BT2HW)
        return total

    def validate(self) -> dict[str, Any]:
        """Scores on the frozen validation set, as the log keeps them."""
        samples = (self.validation[index] for index in range(len(self.validation)))
        scores = evaluate_bursts(self.network, samples, self.settings.data.border)
        mean = mean_burst_score(scores)
        logger.info(
            "%.2f dB; %.2f dB fed the reference alone, %.2f dB the reference enlarged",
            *(mean.restored, mean.all_reference, mean.baseline),
        )
        return {
            "psnr": mean.restored,
            "baseline": mean.baseline,
            "all_reference": mean.all_reference,
            "bursts": [s._asdict() for s in scores],
        }


def burst_task(settings: TrainSettings, network: Network) -> BurstTask | None:
    """The task of a burst network, or None for a network of single images."""
    if isinstance(settings, BurstTrainSettings) and isinstance(network, Burst):
        return BurstTask(settings, network)
    return None


def flow_distance(displacements: tuple[Tensor, ...], flow_BT2HW: Tensor) -> Tensor:
    """Mean absolute difference to the true flow over all levels, in pixels of full size.

    Only what lies inside the frame without padding is compared.
    """
    height, width = flow_BT2HW.shape[-2:]
    total = flow_BT2HW.new_zeros(())
    for found in displacements:
        shrink = round(width / found.shape[-1]) or 1
        h, w = height // shrink, width // shrink
        true = F.avg_pool2d(flow_BT2HW.flatten(0, 1), shrink).unflatten(0, flow_BT2HW.shape[:2])
        total = total + (found[..., :h, :w] * shrink - true[..., :h, :w]).abs().mean()
    return total / len(displacements)


def _validation_photos(source: str) -> list[TrainingPhoto]:
    if source == SAMPLES:
        photos = [(name, load_sample(name)) for name in sample_names(held_out=True)]
    else:
        photos = [(str(path), read_photo(path)) for path in list_photos(source)]
    return [TrainingPhoto(name, quantise(p.color_HWC, p.bit_depth)) for name, p in photos]
