"""The contract of a training task: its examples, its loss and its validation.

The trainer handles steps, processes and files; a task handles images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
from torch import Tensor, nn
from torch.utils.data import Dataset

from zoo.distributed import ProcessGroup
from zoo.networks import Network
from zoo.training.losses import Loss
from zoo.training.settings import Stage

Example: TypeAlias = tuple[Tensor, ...]

Critic: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Takes the network's image, the target and the clean image; returns a term of the loss."""


class Task(Protocol):
    """The interface between the trainer and a task.

    Attributes:
        plan: the stages of the training, which cover all its iterations.
    """

    plan: list[Stage]

    def examples(self, stage: Stage) -> Dataset[Any]:
        """Return the examples of a stage as tuples of tensors.

        They are indexed from the first example of the training.
        """
        ...

    def module(self, network: Network) -> nn.Module:
        """Return the module that the loss calls: the network, or a wrapper of it."""
        ...

    def loss(
        self,
        forward: Callable[..., Any],
        criterion: Loss,
        batch: Sequence[Tensor],
        done: float,
        critic: Critic | None = None,
    ) -> Tensor:
        """Compute the loss of a batch, a scalar.

        Args:
            forward: calls the module, with autocast if the training uses it.
            criterion: compares output and clean image, in float32.
            batch: collated examples on the network's device.
            done: completed fraction of the training, from 0 to 1.
            critic: judges the network's image, once for each batch; None in a training without
                discriminator.
        """
        ...

    def validate(
        self, network: Network, group: ProcessGroup
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Compute the network's validation scores; the processes share the work.

        Returns:
            Values for the log, including ``psnr`` and ``baseline`` (mean PSNR in dB with and
            without the network, NaN if there is none), and pictures by name.
        """
        ...


def examples_of(plan: Sequence[Stage], start: int, stop: int) -> int:
    """Return how many examples the steps from ``start`` up to, but not including, ``stop`` use."""
    total, first = 0, 0
    for stage in plan:
        end = first + stage.iterations
        total += max(0, min(stop, end) - max(start, first)) * stage.batch
        first = end
    return total
