"""Batches in a fixed order, split over any number of ranks, starting at any step."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from zoo.distributed import ProcessGroup
from zoo.errors import RecipeError
from zoo.training.batching import SafeExamples, Waiting, collate, received
from zoo.training.settings import Stage

MOST_WORKERS = 8
"""Most processes that load data, unless the user asks for more."""


def batches(
    make_examples: Callable[[Stage], Dataset[Any]],
    plan: Sequence[Stage],
    *,
    step: int,
    accumulate: int,
    group: ProcessGroup,
    num_workers: int,
    pool: int = 0,
    seed: int = 0,
    pinned: bool = False,
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
        pool: pairs of the last steps that batches are drawn from; see :class:`PairPool`.
        seed: random seed of the pool.
        pinned: whether batches lie in memory that a GPU can copy from while it computes.

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
    draws = (pool, seed)
    return _batches(make_examples, plan, step, accumulate, group, num_workers, draws, pinned)


def default_workers(device: str) -> int:
    """Return how many processes load data where the user does not say.

    One is enough for a CPU, which needs its cores itself. A GPU takes one for each other core of
    this process's share, up to ``MOST_WORKERS``, and two at most where each of them would get a
    copy of the photos in memory.
    """
    if device.partition(":")[0] == "cpu":
        return 1
    here = getattr(os, "sched_getaffinity", None)
    cores = len(here(0)) if here else os.cpu_count() or 1
    spare = cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")) - 1
    most = MOST_WORKERS if multiprocessing.get_context().get_start_method() == "fork" else 2
    return max(1, min(most, spare))


def _batches(
    make_examples: Callable[[Stage], Dataset[Any]],
    plan: Sequence[Stage],
    step: int,
    accumulate: int,
    group: ProcessGroup,
    num_workers: int,
    pool: tuple[int, int],
    pinned: bool,
) -> Iterator[list[Sequence[Tensor]]]:
    first_step, first_example = 0, 0
    for stage in plan:
        done = max(0, step - first_step)
        if done < stage.iterations:
            sampler = _RankSampler(
                stage, first_example, range(done, stage.iterations), accumulate, group, pool
            )
            loader = DataLoader(
                SafeExamples(make_examples(stage)),
                batch_sampler=sampler,
                num_workers=num_workers,
                collate_fn=collate,
                worker_init_fn=_start_process,
                pin_memory=pinned,
                # A separate generator: the loader draws a number at every start, which would
                # change the random state of a resumed training.
                generator=torch.Generator(),
            )
            loaded = iter(loader)
            Waiting.replace_handler()
            micro_batches = received(loaded)
            for _ in sampler.steps:
                yield [next(micro_batches) for _ in range(accumulate)]
        first_step += stage.iterations
        first_example += stage.iterations * stage.batch


class PairPool:
    """Draws each batch from the pairs of the last steps (Real-ESRGAN, Sec. 4.1).

    While the pool fills, batches are used as they come and are kept, too. Once a further batch does
    not fit, each is exchanged for as many pairs drawn from the pool. Only the numbers of pairs are
    kept: a pair depends on nothing but its number.

    Args:
        size: number of pairs; 0 for no pool.
        seed: random seed of the draws.
    """

    def __init__(self, size: int, seed: Sequence[int]) -> None:
        self.size, self._kept = size, list[int]()
        self._rng = np.random.default_rng(seed)

    def exchange(self, fresh: list[int]) -> list[int]:
        """Return the numbers of the pairs to use when these are made."""
        if len(self._kept) + len(fresh) <= self.size:
            self._kept += fresh
            return fresh
        if not self.size:
            return fresh
        drawn = self._rng.choice(len(self._kept), len(fresh), replace=False)
        taken = [self._kept[place] for place in drawn]
        for place, number in zip(drawn, fresh, strict=True):
            self._kept[place] = number
        return taken


class _RankSampler(Sampler[list[int]]):
    """Yields the indices of this rank's examples: one list for each micro-batch of a stage.

    A pool is followed from the start of the stage, so that a resumed training draws the same.
    """

    def __init__(
        self,
        stage: Stage,
        first: int,
        steps: range,
        accumulate: int,
        group: ProcessGroup,
        pool: tuple[int, int],
    ) -> None:
        self.stage, self.first, self.steps, self.accumulate = stage, first, steps, accumulate
        self.rank, self.world_size = group.rank, group.world_size
        self.size = stage.batch // (accumulate * group.world_size)
        self.pool_size, self.seed = pool

    def __iter__(self) -> Iterator[list[int]]:
        pool = PairPool(self.pool_size, (self.seed, self.first))
        for step in range(0 if self.pool_size else self.steps.start, self.steps.stop):
            start = self.first + step * self.stage.batch
            batch = pool.exchange(list(range(start, start + self.stage.batch)))
            for number in range(self.accumulate) if step in self.steps else ():
                place = (number * self.world_size + self.rank) * self.size
                yield batch[place : place + self.size]


def _start_process(_: int) -> None:
    # A signal to the process group would end the loader's processes first. The trainer would then
    # fail on missing data instead of saving. So they leave the group. They still end when the
    # trainer ends them by a signal, at its exit, or when they find that it is gone.
    reaction = signal.SIG_IGN
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
        reaction = signal.SIG_DFL
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, reaction)
    # PyTorch sees that the parent of a process changes, so not that it changed before this.
    trainer = multiprocessing.parent_process()
    if trainer is not None and os.getppid() != trainer.pid:
        sys.exit()
