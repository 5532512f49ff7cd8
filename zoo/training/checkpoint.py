"""Checkpoints of the training state: writing them, and finding the newest valid one."""

from __future__ import annotations

import logging
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zoo.checkpoints.files import write_pickled
from zoo.errors import CheckpointError, reason_of
from zoo.files import remove_leftovers
from zoo.pickles import load_tensors

logger = logging.getLogger("zoo.train")

_STEPS = 2_000_000
"""Steps of a checkpoint, which holds several tensors for each tensor of the network."""

_NAME = re.compile(r"checkpoint-([0-9]{8,12})\.pt")


def write_checkpoint(folder: Path, state: Mapping[str, Any], *, step: int) -> Path:
    """Write ``checkpoint-STEP.pt``; the file appears whole or not at all.

    Returns:
        The path of the new checkpoint.

    Raises:
        WriteError: if the folder cannot be written.
    """
    path = folder / f"checkpoint-{step:08d}.pt"
    write_pickled(path, state)
    return path


def remove_checkpoint(folder: Path, *, step: int) -> None:
    """Remove the checkpoint of a step, if there is one."""
    for number, path in _checkpoints(folder):
        if number == step:
            path.unlink(missing_ok=True)


def remove_old_checkpoints(folder: Path, *, step: int, keep: int) -> None:
    """Remove the checkpoints up to ``step``, except for the ``keep`` newest of them."""
    found = [path for number, path in _checkpoints(folder) if number <= step]
    for old in found[:-keep]:
        old.unlink(missing_ok=True)


def latest_checkpoint(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """Return the path and content of the newest readable checkpoint, or None.

    Truncated or damaged checkpoints are skipped with a warning. Unfinished files of killed
    processes are removed.

    Raises:
        CheckpointError: if a file is whole but holds something else.
    """
    remove_leftovers(folder)
    for _, path in reversed(_checkpoints(folder)):
        try:
            with zipfile.ZipFile(path):  # so that another file is damaged, not foreign
                state = load_tensors(path, _STEPS)
        except pickle.UnpicklingError as error:
            raise _foreign(path, "objects that are no state of a training") from error
        except Exception as error:
            # A damaged file can raise any of a dozen errors.
            logger.warning("skipped %s, which is damaged (%s)", path, type(error).__name__)
            continue
        if not isinstance(state, dict):
            raise _foreign(path, f"a {type(state).__name__}")
        return path, state
    return None


def what_is_kept(folder: Path) -> str:
    """Say which checkpoint of a run there is to go on from, for the end of a message."""
    steps = [step for step, _ in _checkpoints(folder)]
    return f"the checkpoint of step {steps[-1]} is kept" if steps else "there is no checkpoint yet"


def has_checkpoints(folder: Path) -> bool:
    """Whether a folder has checkpoints, readable or not."""
    return bool(_checkpoints(folder))


@contextmanager
def restoring(path: Path) -> Iterator[None]:
    """Turn any error of the block into one that says that the checkpoint does not fit.

    Raises:
        CheckpointError: if the block fails.
    """
    try:
        yield
    except Exception as error:
        # The file may hold anything: each of its values can be missing or of another type or shape.
        reason = reason_of(error, kind=True)
        raise _foreign(path, f"another state than that of this training, {reason}") from error


def _foreign(path: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"{path}: holds {what}; remove the file to use an earlier one, or choose another --output"
    )


def _checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """Return the steps and paths of the checkpoints in a folder, the oldest first.

    Other names, such as that of a copy that the user made, are not ours.
    """
    found = ((_NAME.fullmatch(path.name), path) for path in folder.glob("checkpoint-*.pt"))
    return sorted((int(match[1]), path) for match, path in found if match and path.is_file())
