"""What training steps found, kept on the device until it is read.

To read a number, the processor waits until the GPU has computed it. A trainer that reads each loss
at once leaves the GPU idle in every step; read together, those of many steps cost one wait.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from zoo.distributed import ProcessGroup


class StepValues:
    """The values of the steps that have not been read.

    Args:
        group: processes that train together; all read after the same steps.
    """

    def __init__(self, group: ProcessGroup) -> None:
        self.group = group
        self._kept: list[tuple[int, Sequence[Sequence[Tensor]]]] = []

    def keep(self, step: int, parts: Sequence[Sequence[Tensor]]) -> None:
        """Keep the values of a step.

        Args:
            step: number of steps done.
            parts: scalars of each micro-batch: its share of the loss, which add up to the loss, and
                any further values, which are averaged.
        """
        self._kept.append((step, parts))

    def read(self) -> list[tuple[int, list[float]]]:
        """Return the steps since the last call with their values, means over the processes."""
        kept, self._kept = self._kept, []
        if not kept:
            return []
        scalars = [value for _, parts in kept for part in parts for value in part]
        numbers = iter(torch.stack(scalars).tolist())
        found = []
        for _, parts in kept:
            losses, *others = zip(*([next(numbers) for _ in part] for part in parts), strict=True)
            found.append([sum(losses), *(sum(values) / len(values) for values in others)])
        world_size, width = self.group.world_size, len(found[0])
        total = self.group.add(*(value / world_size for values in found for value in values))
        rows = [total[start : start + width] for start in range(0, len(total), width)]
        return [(step, row) for (step, _), row in zip(kept, rows, strict=True)]
