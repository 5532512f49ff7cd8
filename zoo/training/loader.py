"""Batches in a fixed order, split over any number of ranks, starting at any step."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from zoo.distributed import ProcessGroup
from zoo.errors import RecipeError
from zoo.training.batching import SafeExamples, collate, received
from zoo.training.settings import Stage


def batches(
    make_examples: Callable[[Stage], Dataset[Any]],
    plan: Sequence[Stage],
    *,
    step: int,
    accumulate: int,
    group: ProcessGroup,
    num_workers: int,
) -> Iterator[list[Sequence[Tensor]]]:
    """Yield this rank's share of each batch, as a list of micro-batches for each step.

    Each step takes the next examples in order, as many as its batch size. So the global batch is
    the same for every world size and every ``accumulate``.

    Args:
        make_examples: returns the examples of a stage, indexed from the first example of the
            training.
        plan: stages of the training, in order.
        step: the first step, counted from 0.
        accumulate: number of micro-batches per step on each rank.
        group: ranks that share each batch.
        num_workers: number of processes that load data; 0 loads in this process.

    Raises:
        RecipeError: if a batch cannot be split evenly.
        ZooError: while iterating, if examples cannot be loaded.
    """
    micro_batches = group.world_size * accumulate
    for stage in plan:
        if stage.batch % micro_batches:
            raise RecipeError(
                f"a batch of {stage.batch} cannot be split evenly over {group.world_size} "
                f"processes with accumulate={accumulate}; choose train.data.batch as a multiple "
                f"of {micro_batches}"
            )
    return _batches(make_examples, plan, step, accumulate, group, num_workers)


def _batches(
    make_examples: Callable[[Stage], Dataset[Any]],
    plan: Sequence[Stage],
    step: int,
    accumulate: int,
    group: ProcessGroup,
    num_workers: int,
) -> Iterator[list[Sequence[Tensor]]]:
    first_step, first_example = 0, 0
    for stage in plan:
        done = max(0, step - first_step)
        if done < stage.iterations:
            sampler = _RankSampler(
                stage, first_example, range(done, stage.iterations), accumulate, group
            )
            loader = DataLoader(
                SafeExamples(make_examples(stage)),
                batch_sampler=sampler,
                num_workers=num_workers,
                collate_fn=collate,
                worker_init_fn=_leave_signals_to_the_trainer,
                # A separate generator: the loader draws a number at every start, which would
                # change the random state of a resumed training.
                generator=torch.Generator(),
            )
            micro_batches = received(iter(loader))
            for _ in sampler.steps:
                yield [next(micro_batches) for _ in range(accumulate)]
        first_step += stage.iterations
        first_example += stage.iterations * stage.batch


class _RankSampler(Sampler[list[int]]):
    """Yields the indices of this rank's examples: one list for each micro-batch of a stage."""

    def __init__(
        self, stage: Stage, first: int, steps: range, accumulate: int, group: ProcessGroup
    ) -> None:
        self.stage, self.first, self.steps, self.accumulate = stage, first, steps, accumulate
        self.rank, self.world_size = group.rank, group.world_size
        self.size = stage.batch // (accumulate * group.world_size)

    def __len__(self) -> int:
        return len(self.steps) * self.accumulate

    def __iter__(self) -> Iterator[list[int]]:
        for step in self.steps:
            for number in range(self.accumulate):
                place = number * self.world_size + self.rank
                start = self.first + step * self.stage.batch + place * self.size
                yield list(range(start, start + self.size))


def _leave_signals_to_the_trainer(_: int) -> None:
    # A signal to the process group would end the loader's processes first. The trainer would then
    # fail on missing data instead of saving. So they leave the group. They still end when the
    # trainer ends them by a signal, at its exit, or when they find that it is gone.
    reaction = signal.SIG_IGN
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
        reaction = signal.SIG_DFL
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, reaction)
