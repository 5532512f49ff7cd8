"""The folder of a run: one process works in it, and finds there what the last one left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from zoo.checkpoints.scored import RUN_WEIGHTS
from zoo.errors import CheckpointError
from zoo.files import check_writable, owned_folder, write_error
from zoo.training.checkpoint import has_checkpoints, latest_checkpoint
from zoo.training.request import differences, refusal

WEIGHTS = RUN_WEIGHTS


@contextmanager
def run_folder(folder: Path) -> Iterator[None]:
    """Create the folder of a run, and keep other processes out of it during the block.

    Raises:
        WriteError: if the folder or its weights cannot be written, or a process trains there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(folder, error) from error
    with owned_folder(folder, "a training"):
        check_writable(folder / WEIGHTS)  # better now than after the training
        yield


class LastState(NamedTuple):
    """The newest checkpoint of a run.

    Attributes:
        path: its file.
        state: its content.
        changed: keys of the request that differ from those of the last process.
    """

    path: Path
    state: dict[str, Any]
    changed: tuple[str, ...]


def last_state(folder: Path, requested: str) -> LastState | None:
    """Return the newest checkpoint of a run, or None.

    Args:
        folder: folder of the run.
        requested: what is asked for now, of :func:`zoo.training.request.request_of`.

    Raises:
        CheckpointError: if the run was begun with settings that train something else, or there are
            weights of a run and none of its checkpoints can be read.
    """
    found = latest_checkpoint(folder)
    if found is None:
        _refuse_to_overwrite(folder)
        return None
    path, state = found
    try:
        changed = differences(state["requested"], requested)
    except (KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path}: does not say which run it belongs to; choose another --output"
        ) from error
    if (reason := refusal(changed, folder)) is not None:
        raise CheckpointError(f"{path}: {reason}")
    return LastState(path, state, tuple(changed))


def _refuse_to_overwrite(folder: Path) -> None:
    """Refuse a folder with the weights or damaged checkpoints of a run that cannot be resumed."""
    checkpoints = has_checkpoints(folder)
    if not (checkpoints or (folder / WEIGHTS).exists()):
        return
    held = [WEIGHTS] if (folder / WEIGHTS).exists() else []
    raise CheckpointError(
        f"{folder}: holds {' and '.join([*held, *(['checkpoints'] if checkpoints else [])])} of a "
        f"training, but no {'readable ' if checkpoints else ''}checkpoint to resume it from, and a "
        "new training would overwrite them; choose another --output, or remove the folder"
    )
