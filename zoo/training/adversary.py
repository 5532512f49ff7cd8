"""The discriminator of a training: its steps beside those of the network, and its state.

In a step, images reach the discriminator twice: first it is fixed, and the network learns from it;
then the images are fixed, and it learns (Real-ESRGAN; the order is that of the code published with
it).

Shape suffixes: B batch, I image channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.checkpoints.files import write_safetensors
from zoo.distributed import ProcessGroup
from zoo.ops.precision import autocast
from zoo.training.discriminators import Discriminator, load_discriminator
from zoo.training.optimizer import make_optimizer, restore_optimizer
from zoo.training.settings import TrainSettings

DISCRIMINATOR = "discriminator.safetensors"
"""File of a run with the weights of the discriminator."""

VALUES = ("adversarial", "discriminator", "real", "made")
"""What is logged: the network's adversarial loss without its weight, that of the discriminator, and
the mean logits of real and of made images."""


class Adversary:
    """A discriminator that learns beside the network.

    Args:
        settings: the ``train`` section; its ``adversarial`` is not None.
        channels: image channels I of the network's output.
        device: device to train on.
        group: processes that train together.
    """

    def __init__(
        self, settings: TrainSettings, channels: int, device: str, group: ProcessGroup
    ) -> None:
        assert settings.adversarial is not None
        self.settings, self.chosen = settings, settings.adversarial
        self.device, self.group = device, group
        self.discriminator: Discriminator = self.chosen.discriminator(channels)
        if self.chosen.initial is not None:
            load_discriminator(self.discriminator, self.chosen.initial)
        self.discriminator.to(device).train()
        self.optimizer = make_optimizer(self.discriminator, self.chosen.optimizer)
        self.steps: list[list[float]] = []  # since the last line of the log, of all processes
        self._images: tuple[Tensor, Tensor] | None = None
        self._last_term: Tensor | None = None

    def term(self, made_BIHW: Tensor, target_BIHW: Tensor, clean_BIHW: Tensor) -> Tensor:
        """Return what the network's loss gets for images that are told from real ones.

        Args:
            made_BIHW: images of the network.
            target_BIHW: what they are to be.
            clean_BIHW: the clean images, which the target may be a sharpened version of.
        """
        real_BIHW = clean_BIHW if self.chosen.real == "clean" else target_BIHW
        self.discriminator.requires_grad_(False)
        loss = self.chosen.loss.of_network(self._logits(made_BIHW))
        self.discriminator.requires_grad_(True)
        self._images = made_BIHW.detach(), real_BIHW
        self._last_term = loss.detach()
        return self.chosen.weight * loss

    def learn(self, scaler: torch.amp.GradScaler, count: int) -> list[Tensor]:
        """Add the gradient of the last images, one of ``count`` parts of the batch.

        Returns:
            The ``VALUES`` of this part, on the device.
        """
        assert self._images is not None and self._last_term is not None, "the task showed no images"
        made_BIHW, real_BIHW = self._images
        self._images = None
        real, made = self._logits(real_BIHW), self._logits(made_BIHW)
        loss = self.chosen.loss.of_discriminator(real, made)
        scaler.scale(loss / count).backward()
        return [self._last_term, *(value.detach().mean() for value in (loss, real, made))]

    def step(self, scaler: torch.amp.GradScaler, step: int) -> None:
        """Update the discriminator after all parts of a batch.

        Args:
            scaler: the scaler of the losses.
            step: number of the step, counted from 0.
        """
        schedule = self.chosen.schedule or self.settings.schedule
        lr = self.chosen.optimizer.lr
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = lr * schedule.factor(step, self.settings.iterations, lr)
        self.group.average_gradients(self.discriminator)
        scaler.step(self.optimizer)
        self.optimizer.zero_grad()

    def _logits(self, image_BIHW: Tensor) -> Tensor:
        with autocast(self.device, self.settings.precision):
            return self.discriminator(image_BIHW).float()

    def note(self, values: Sequence[float]) -> None:
        """Keep the values of a step, the means over the processes, for the log."""
        self.steps.append(list(values))

    def take_means(self) -> dict[str, float]:
        """Return the means since the last call over steps, by name, for the log."""
        steps, self.steps = self.steps, []
        return {
            name: sum(values) / len(values)
            for name, values in zip(VALUES, zip(*steps, strict=True), strict=True)
        }

    def state(self) -> dict[str, Any]:
        """Return the complete state, for resuming."""
        return {
            "network": self.discriminator.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "steps": [list(values) for values in self.steps],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a state that :meth:`state` returned."""
        self.discriminator.load_state_dict(state["network"])
        restore_optimizer(self.optimizer, state["optimizer"])
        self.steps = [list(map(float, values)) for values in state["steps"]]

    def publish(self, folder: Path) -> None:
        """Write the discriminator's weights, from which another training can start."""
        write_safetensors(folder / DISCRIMINATOR, self.discriminator.state_dict(), {"format": "pt"})
