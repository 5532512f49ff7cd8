"""Batches in a fixed sequence that any number of processes share, from any step on."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from zoo.distributed import ProcessGroup
from zoo.errors import RecipeError
from zoo.training.settings import Stage


def batches(
    make_examples: Callable[[Stage], Dataset[Any]],
    plan: Sequence[Stage],
    *,
    step: int,
    parts: int,
    group: ProcessGroup,
    num_workers: int,
) -> Iterator[list[Sequence[Tensor]]]:
    """The process's share of each step's batch, from ``step`` on, in ``parts`` to accumulate.

    Step s of a stage of batch size b takes the b examples after those of all steps before it, so
    the global batch is the same for every number of processes and of parts.

    Args:
        make_examples: the examples of a stage, indexed from the training's first.
        plan: stages in turn.
        step: the first step wanted, counted from 0.
        parts: see :class:`zoo.training.settings.TrainSettings`, ``accumulate``.
        group: the processes.
        num_workers: further processes that prepare patches; 0 for none.

    Raises:
        RecipeError: if a batch cannot be shared out evenly.
    """
    pieces = group.world_size * parts
    for stage in plan:
        if stage.batch % pieces:
            raise RecipeError(
                f"a batch of {stage.batch} cannot be shared evenly by {group.world_size} processes "
                f"in {parts} parts; choose train.data.batch as a multiple of {pieces}"
            )
    return _batches(make_examples, plan, step, parts, group, num_workers)


def _batches(
    make_examples: Callable[[Stage], Dataset[Any]],
    plan: Sequence[Stage],
    step: int,
    parts: int,
    group: ProcessGroup,
    num_workers: int,
) -> Iterator[list[Sequence[Tensor]]]:
    first_step, first_example = 0, 0
    for stage in plan:
        done = max(0, step - first_step)
        if done < stage.iterations:
            share = _Share(stage, first_example, range(done, stage.iterations), parts, group)
            loader = DataLoader(
                make_examples(stage),
                batch_sampler=share,
                num_workers=num_workers,
                worker_init_fn=_leave_signals_to_the_trainer,
                # A generator of its own: the loader draws a number at every start, which would
                # shift the random state of a resumed training.
                generator=torch.Generator(),
            )
            pieces = iter(loader)
            for _ in share.steps:
                yield [tuple(next(pieces)) for _ in range(parts)]
        first_step += stage.iterations
        first_example += stage.iterations * stage.batch


class _Share(Sampler[list[int]]):
    """The indices of the process's examples: a list for each part of each step of a stage."""

    def __init__(
        self, stage: Stage, first: int, steps: range, parts: int, group: ProcessGroup
    ) -> None:
        self.stage, self.first, self.steps, self.parts = stage, first, steps, parts
        self.rank, self.world_size = group.rank, group.world_size
        self.size = stage.batch // (parts * group.world_size)

    def __len__(self) -> int:
        return len(self.steps) * self.parts

    def __iter__(self) -> Iterator[list[int]]:
        for step in self.steps:
            for part in range(self.parts):
                piece = part * self.world_size + self.rank
                start = self.first + step * self.stage.batch + piece * self.size
                yield list(range(start, start + self.size))


def _leave_signals_to_the_trainer(_: int) -> None:
    # A signal to the whole process group would end the num_workers first, and the trainer would see
    # its data fail instead of saving; num_workers end when the trainer does.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
