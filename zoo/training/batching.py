"""How examples become batches in the processes that load data, and reach the trainer."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from zoo.command import ImportedParts
from zoo.errors import ZooError

Batch: TypeAlias = "Sequence[Tensor] | list[np.ndarray] | ZooError"
"""A batch on its way: tensors; arrays if there is no shared memory; or why there is none."""


class SafeExamples(Dataset[Any]):
    """Examples that a new process can load; an error that the user can fix is an example, too.

    The new process imports the user's parts first. Processes that start as copies of the trainer
    have these parts already. Where Python starts them from nothing, as on macOS and Windows, they
    get the examples pickled. An error that is raised there would come with their traceback.
    """

    def __init__(self, examples: Dataset[Any]) -> None:
        self.parts = ImportedParts()  # attributes are unpickled in this order
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Any:
        try:
            return self.examples[index]
        except ZooError as error:
            return error


def collate(examples: Sequence[Any]) -> Batch:
    """Make a batch of examples, each of which is a tuple of tensors, or an error.

    Tensors are in shared memory, if the process loads data for another one. Containers often have
    only 64 MB of it. If it is full, the batch has arrays: they are copied to the other process.
    """
    for example in examples:
        if isinstance(example, ZooError):
            return example
    try:
        batch: Sequence[Tensor] = default_collate(list(examples))
        return batch
    except RuntimeError as error:
        if "shared memory" not in str(error):
            raise
    return [torch.stack(column).numpy() for column in zip(*examples, strict=True)]


def received(batches: Iterator[Batch]) -> Iterator[tuple[Tensor, ...]]:
    """Yield batches as tensors.

    Raises:
        ZooError: if examples cannot be loaded, or a process that loads them has been ended.
    """
    while True:
        try:
            with Waiting():
                batch = next(batches)
        except StopIteration:
            return
        except (RuntimeError, ConnectionError, EOFError) as error:
            # The latter two: it ended while it sent a batch.
            if isinstance(error, RuntimeError) and not str(error).startswith("DataLoader worker"):
                raise
            raise ZooError(
                f"a process that loads data ended unexpectedly ({error}); if memory ran out, use a "
                "smaller --num-workers or train.data.memory"
            ) from error
        if isinstance(batch, ZooError):
            raise batch
        yield tuple(map(torch.as_tensor, batch))


class Waiting:
    """Context in which a loader's process that ends is an error at once, and outside of which not.

    PyTorch raises the error wherever the trainer is when the system tells of the end. In the middle
    of a step, what has been learnt could not be saved. So outside of this context the end is only
    noted, and told when the trainer waits for data the next time. The system tells the main thread,
    so that loaders of other threads must not change what that does.
    """

    _on = False
    _noted: Callable[[], object] | None = None

    def __enter__(self) -> None:
        if not _in_main_thread():
            return
        Waiting._on, noted = True, Waiting._noted
        Waiting._noted = None
        if noted is not None:
            try:
                noted()
            except BaseException:
                Waiting._on = False
                raise

    def __exit__(self, *_: object) -> None:
        if _in_main_thread():
            Waiting._on = False

    @staticmethod
    def replace_handler() -> None:
        """Put a handler in the place of PyTorch's, which exists once a loader has started."""
        if not hasattr(signal, "SIGCHLD") or not _in_main_thread():
            return
        before = signal.getsignal(signal.SIGCHLD)
        if not callable(before) or hasattr(before, "of_waiting"):
            return

        def tell(number: int, frame: Any) -> None:
            if Waiting._on:
                before(number, frame)
            else:
                Waiting._noted = partial(before, number, None)

        tell.of_waiting = True  # type: ignore[attr-defined]
        signal.signal(signal.SIGCHLD, tell)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
