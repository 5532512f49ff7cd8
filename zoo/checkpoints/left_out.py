"""Objects beside the tensors of a checkpoint, such as options of the command line, are left out.

Trainers save their options (``argparse.Namespace``), scores (numbers of NumPy) and paths with the
weights. PyTorch refuses such a file, because the classes that it names could run code. Here each
name stands for a class of ours that does nothing, so what it names is never looked up, and the
tensors are loaded as from any other file.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import torch

MOST_NAMES = 20
"""Names of classes and functions in a file. PyTorch looks through all of them for each object."""


class NoNumber:
    """Stands for a number or an array of NumPy, whose state is no mapping."""

    def __init__(self, *arguments: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class NoObject:
    """Stands for any other class or function: an empty mapping, which PyTorch may fill."""

    def __new__(cls, *arguments: Any) -> Any:
        return OrderedDict()  # PyTorch fills mappings of a few classes only


def other_names(path: Path) -> list[str]:
    """Return the names in a file that PyTorch does not allow; none for its format before 1.6.

    The pickle must have been checked.
    """
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))
    except ValueError:
        return []


one_at_a_time = Lock()
"""Hold it to use this module: PyTorch's list of allowed names is that of the process, so a thread
would find other names in a file, or lose its stand-ins, when another one changes the list."""


@contextmanager
def left_out(names: list[str]) -> Iterator[None]:
    """Context in which PyTorch loads an empty value for each object with one of these names."""
    stand_ins: list[Any] = [
        (NoNumber if name.startswith("numpy.") else NoObject, name) for name in names
    ]
    with torch.serialization.safe_globals(stand_ins):
        yield
