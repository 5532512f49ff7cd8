"""Several processes at one task: those that ``torchrun`` started, or this one alone.

PyTorch distributed is the engine; nothing here starts processes or knows of a scheduler. Control
messages travel by gloo on the CPU, gradients by NCCL between GPUs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from zoo.errors import ZooError

T = TypeVar("T")

PATIENCE = timedelta(hours=6)
"""How long one process waits for the others; torchrun ends all as soon as one dies."""


class ProcessGroup:
    """The processes of one task, as one of them sees them; this base class is one process alone.

    Attributes:
        rank: number of this process, 0 for the one that writes and prints.
        world_size: number of processes.
    """

    rank = 0
    world_size = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def device(self, name: str) -> str:
        """The device of this process: with several, ``cuda`` is one GPU for each."""
        return name

    def broadcast(self, value: T) -> T:
        """The first process's value, in all."""
        return value

    def gather(self, value: T) -> list[T]:
        """The values of all processes by rank, in all."""
        return [value]

    def add(self, *values: float) -> list[float]:
        """Sums over the processes, in all."""
        return list(values)

    def wrap(self, network: nn.Module, device: str) -> nn.Module:
        """The network, with gradients averaged over the processes."""
        return network

    def shared_indices(self, count: int, task: str) -> Iterator[int]:
        """Numbers 0 to count - 1: each goes to one process, which asks when it is free."""
        yield from range(count)

    def from_first(self, function: Callable[[], T]) -> T:
        """Call in the first process alone; its result, or its error, reaches all."""
        return function()


class _TorchrunGroup(ProcessGroup):
    """One of several processes."""

    def __init__(self, store: dist.Store, rank: int, world_size: int) -> None:
        self._store, self.rank, self.world_size = store, rank, world_size
        self._local = int(os.environ.get("LOCAL_RANK", rank))

    def device(self, name: str) -> str:
        if name != "cuda":
            return name
        if self._local >= torch.cuda.device_count():
            raise ZooError(
                f"process {self._local} of this machine has no GPU: there are "
                f"{torch.cuda.device_count()}; lower --nproc-per-node"
            )
        torch.cuda.set_device(self._local)
        return f"cuda:{self._local}"

    def broadcast(self, value: T) -> T:
        box = [value]
        dist.broadcast_object_list(box)
        return box[0]

    def gather(self, value: T) -> list[T]:
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def add(self, *values: float) -> list[float]:
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total)
        return [float(value) for value in total]

    def wrap(self, network: nn.Module, device: str) -> nn.Module:
        devices = [torch.device(device)] if device.startswith("cuda") else None
        return DistributedDataParallel(network, device_ids=devices)

    def shared_indices(self, count: int, task: str) -> Iterator[int]:
        # The store's addition is atomic: no two processes get one number.
        while (number := self._store.add(f"zoo/{task}", 1) - 1) < count:
            yield number

    def from_first(self, function: Callable[[], T]) -> T:
        result: Any = None
        if self.is_first:
            try:
                result = function()
            except Exception as error:
                result = error
        result = self.broadcast(result)
        if isinstance(result, Exception):
            raise result
        return result


@contextmanager
def process_group(device: str = "cpu") -> Iterator[ProcessGroup]:
    """Join the processes that torchrun started; without torchrun, be one alone.

    Args:
        device: "cuda" where gradients are to travel between GPUs.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or "RANK" not in os.environ:
        yield ProcessGroup()
        return
    store, rank, world_size = next(dist.rendezvous("env://", timeout=PATIENCE))
    engine = "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo"
    dist.init_process_group(engine, store=store, rank=rank, world_size=world_size, timeout=PATIENCE)
    try:
        yield _TorchrunGroup(store, rank, world_size)
    finally:
        dist.destroy_process_group()


def map_shared(
    group: ProcessGroup,
    count: int,
    work: Callable[[int], T],
    *,
    task: str,
    unit: str,
    progress: bool = True,
) -> list[T]:
    """The results of ``work(0)`` to ``work(count - 1)``, computed by all processes, in all.

    Each process takes the next number when it is free.

    Args:
        group: the processes.
        count: how many numbers there are.
        work: is called once for each number, by one of the processes.
        task: a name that no other task of the group has.
        unit: what one number stands for, in the progress bar.
        progress: show a progress bar in the first process.
    """
    found: dict[int, T] = {}
    disable = None if progress and group.is_first else True
    with tqdm(total=count, unit=unit, disable=disable) as bar:
        for number in group.shared_indices(count, task):
            bar.update(number - bar.n)
            found[number] = work(number)
        bar.update(count - bar.n)
    everything = {number: result for part in group.gather(found) for number, result in part.items()}
    return [everything[number] for number in range(count)]


def shard(items: Sequence[T], group: ProcessGroup) -> list[T]:
    """The process's fixed share of the items: every ``world_size``-th from its rank on."""
    return list(items[group.rank :: group.world_size])
