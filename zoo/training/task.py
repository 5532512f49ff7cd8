"""What a training is about: the examples to learn from, the loss of a batch, the validation.

The trainer knows steps, processes and files; a task knows images.
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


class Task(Protocol):
    """What the trainer asks of a task.

    Attributes:
        plan: the stages of the training; their iterations add up to all of it.
    """

    plan: list[Stage]

    def examples(self, stage: Stage) -> Dataset[Any]:
        """The examples of a stage, tuples of tensors, indexed from the training's first."""
        ...

    def module(self, network: Network) -> nn.Module:
        """What is called to compute the loss: the network, or a module around it."""
        ...

    def loss(
        self,
        forward: Callable[..., Any],
        criterion: Loss,
        batch: Sequence[Tensor],
        done: float,
    ) -> Tensor:
        """The loss of a batch.

        Args:
            forward: the module, under autocast where the training is.
            criterion: compares output and clean image, in float32.
            batch: examples, collated, on the network's device.
            done: the part of the training that lies behind, 0 to 1.
        """
        ...

    def validate(
        self, network: Network, group: ProcessGroup
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Score the network, the work shared out among the processes.

        Returns:
            What the log says, with the mean PSNR as ``psnr`` and that without the network as
            ``baseline``; and pictures by name.
        """
        ...


def examples_of(plan: Sequence[Stage], start: int, stop: int) -> int:
    """How many examples the steps from ``start`` to before ``stop`` of a plan take."""
    total, first = 0, 0
    for stage in plan:
        end = first + stage.iterations
        total += max(0, min(stop, end) - max(start, first)) * stage.batch
        first = end
    return total
