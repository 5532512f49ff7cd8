"""Sharing one task among the processes that ``torchrun`` started, or running it in one process.

Communication uses PyTorch distributed: gloo on the CPU for control messages, NCCL between GPUs for
gradients. Nothing here starts processes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from zoo.errors import ToldElsewhereError, ZooError
from zoo.ops.scan import triton
from zoo.ops.scan.dispatch import check_environment
from zoo.ops.scan.self_check import take_over, tell_others

T = TypeVar("T")

PATIENCE = timedelta(hours=6)
"""How long one process waits for the others; if one dies, torchrun ends all of them."""


class ProcessGroup:
    """The processes that share a task. This base class is for a single process.

    Attributes:
        rank: number of this process; process 0 writes and prints.
        world_size: number of processes.
    """

    rank = 0
    world_size = 1

    @property
    def is_first(self) -> bool:
        """Whether this is process 0, which writes and prints."""
        return self.rank == 0

    def device(self, name: str) -> str:
        """Return the device of this process; with several processes, ``cuda`` is one GPU each.

        Raises:
            ZooError: if there is no such device.
        """
        found = checked_device(name)
        if found.startswith("cuda:"):
            torch.cuda.set_device(found)  # for libraries that take the current one
        return found

    def broadcast(self, value: T) -> T:
        """Return the first process's value, in all processes."""
        return value

    def gather(self, value: T) -> list[T]:
        """Return the values of all processes in the order of their ranks, in all processes."""
        return [value]

    def add(self, *values: float) -> list[float]:
        """Return the sum of each value over the processes, in all processes."""
        return list(values)

    def wrap(self, network: nn.Module, device: str) -> nn.Module:
        """Return the network, wrapped to average gradients over the processes."""
        return network

    def average_gradients(self, network: nn.Module) -> None:
        """Average the gradients of a network that is not wrapped over the processes, in place."""

    def shared_indices(self, count: int, task: str) -> Iterator[int]:
        """Yield numbers from 0 to count - 1; each number goes to one process, when it is free."""
        yield from range(count)

    def from_first(self, function: Callable[[], T]) -> T:
        """Call a function in the first process; return its result in all.

        Raises:
            ToldElsewhereError: in the others, if it fails in the first, which raises its error.
        """
        return function()

    def together(self, function: Callable[[], T]) -> T:
        """Call a function in all processes and return each one's result; if one fails, all fail.

        A process that could go on does not wait for one that cannot. The function must not
        communicate.

        Raises:
            ToldElsewhereError: if it fails in an earlier process, which raises its error.
        """
        return function()


DEVICE: dict[str, Any] = {
    "metavar": "NAME",
    "help": "cpu, cuda, cuda:N, mps, or auto: cuda, mps or cpu, the first that is there [cuda if "
    "there is a GPU, otherwise cpu]",
}
"""Settings of the option ``--device`` of all commands, without its default."""


def default_device() -> str:
    """Return the device that commands use if none is named: cuda if there is a GPU, or cpu.

    Not mps: what runs there is not verified, and without a scan kernel it is slower than a CPU.
    """
    return "cuda" if torch.cuda.is_available() else "cpu"


def checked_device(name: str, option: str = "--device") -> str:
    """Return the name of a device if this machine and this PyTorch have it.

    Args:
        name: cpu, cuda, cuda:N, mps, or auto for the first of cuda, mps and cpu that is there.
        option: what the caller calls it, for error messages.

    Raises:
        ZooError: if there is no such device.
    """
    if name == "auto":
        there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
        name = next((device for device, is_there in there.items() if is_there), "cpu")
    if name in ("cpu", "cpu:0"):
        return "cpu"
    if name == "mps":
        if torch.backends.mps.is_available():
            return name
        raise ZooError(f"{option} mps: PyTorch finds no Apple GPU; leave {option} out")
    if re.fullmatch(r"cuda(:[0-9]{1,4})?", name) is None:
        raise ZooError(f"{option} {name[:30]}: unknown device; known: auto, cpu, cuda, cuda:N, mps")
    if not torch.backends.cuda.is_built():
        raise ZooError(
            f"{option} {name}: this PyTorch has no CUDA; leave {option} out, or install a CUDA "
            "build of PyTorch"
        )
    count = torch.cuda.device_count()
    if count == 0:
        raise ZooError(
            f"{option} {name}: PyTorch finds no GPU; leave {option} out, or ask zoo doctor for the "
            "reason"
        )
    number = int(name.partition(":")[2] or 0)
    if number >= count:
        raise ZooError(f"{option} {name}: this machine has {count} GPUs, from cuda:0")
    return name


class _TorchrunGroup(ProcessGroup):
    """The processes that torchrun started."""

    def __init__(self, store: dist.Store, rank: int, world_size: int) -> None:
        self._store, self.rank, self.world_size = store, rank, world_size
        self._local = int(os.environ.get("LOCAL_RANK", rank))

    def device(self, name: str) -> str:
        if checked_device(name) != "cuda":
            return super().device(name)
        if self._local >= torch.cuda.device_count():
            raise ZooError(
                f"no GPU for process {self._local} of this machine, which has "
                f"{torch.cuda.device_count()}; use a smaller --nproc-per-node"
            )
        torch.cuda.set_device(self._local)
        self._agree_on_backend(torch.device("cuda", self._local))
        return f"cuda:{self._local}"

    def _agree_on_backend(self, device: torch.device) -> None:
        """Check Triton in the first process alone, while the others wait for its verdict.

        All processes take part, also those whose GPU has no Triton: else the others would wait.
        """

        def verdict() -> tuple[Mapping[str, str], bool] | None:
            idle = triton.unavailable() is not None or check_environment()
            return None if idle else tell_others(triton, device)

        told = self.from_first(verdict)
        if told is not None and triton.unavailable() is None:
            take_over(triton, device, told)

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

    def average_gradients(self, network: nn.Module) -> None:
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        if not gradients:
            return
        together = torch.cat([gradient.flatten() for gradient in gradients])  # one message
        dist.all_reduce(together)
        together /= self.world_size
        parts = together.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def shared_indices(self, count: int, task: str) -> Iterator[int]:
        # The store's addition is atomic: no two processes get the same number.
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
            if self.is_first:
                raise result
            raise ToldElsewhereError(result) from result
        return result

    def together(self, function: Callable[[], T]) -> T:
        result: Any = None
        error: Exception | None = None
        try:
            result = function()
        except Exception as caught:
            error = caught
        # Not the errors themselves: those of other code need not survive the way.
        messages = self.gather(None if error is None else str(error))
        failed = [rank for rank, message in enumerate(messages) if message is not None]
        if failed:
            if error is not None and self.rank == failed[0]:
                raise error
            raise ToldElsewhereError(messages[failed[0]]) from error
        return result


@contextmanager
def process_group(device: str = "cpu") -> Iterator[ProcessGroup]:
    """Join the processes that torchrun started, or without torchrun, use a single process.

    Args:
        device: "cuda" to exchange gradients between GPUs, or "cpu".

    Raises:
        ZooError: if there are several processes, and no such device.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or "RANK" not in os.environ:
        yield ProcessGroup()
        return
    device = checked_device(device)
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
    """Compute ``work(0)`` to ``work(count - 1)`` in all processes, and return all results in each.

    Each process takes the next number when it is free.

    Args:
        group: the processes.
        count: how many numbers there are.
        work: called once for each number, in one of the processes.
        task: name of the task, unique in the group.
        unit: name of one item, such as "image", for the progress bar.
        progress: whether to show a progress bar in the first process.
    """

    def one_by_one(numbers: Iterator[int], begin: Callable[[int], object]) -> dict[int, T]:
        found: dict[int, T] = {}
        for number in numbers:
            begin(number)
            found[number] = work(number)
        return found

    return stream_shared(group, count, one_by_one, task=task, unit=unit, progress=progress)


def stream_shared(
    group: ProcessGroup,
    count: int,
    work: Callable[[Iterator[int], Callable[[int], object]], Mapping[int, T]],
    *,
    task: str,
    unit: str,
    progress: bool = True,
) -> list[T]:
    """Compute results for 0 to ``count - 1`` in all processes, and return all results in each.

    Args:
        group: the processes.
        count: how many numbers there are.
        work: called once in each process with its numbers, and with a function that it calls with
            each number when its work begins. It asks for the next number when it can do more, and
            returns the results by their numbers.
        task: name of the task, unique in the group.
        unit: name of one item, such as "image", for the progress bar.
        progress: whether to show a progress bar in the first process.
    """
    disable = None if progress and group.is_first else True
    with tqdm(total=count, unit=unit, disable=disable) as bar:
        found = work(group.shared_indices(count, task), lambda number: bar.update(number - bar.n))
        bar.update(count - bar.n)
    everything = {number: result for part in group.gather(found) for number, result in part.items()}
    return [everything[number] for number in range(count)]


def shard(items: Sequence[T], group: ProcessGroup) -> list[T]:
    """Return this process's fixed share: every ``world_size``-th item, starting at its rank."""
    return list(items[group.rank :: group.world_size])
