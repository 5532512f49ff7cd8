"""The folder of a run: one process works in it, and finds there what the last one left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zoo.checkpoints.scored import RUN_WEIGHTS
from zoo.errors import CheckpointError
from zoo.files import check_writable, owned_folder, write_error
from zoo.training.checkpoint import has_checkpoints, latest_checkpoint

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


def last_state(folder: Path, requested: str) -> tuple[Path, dict[str, Any]] | None:
    """Return the path and content of the newest checkpoint of a run, or None.

    Args:
        folder: folder of the run.
        requested: what the run was asked for; the checkpoint has the same text.

    Raises:
        CheckpointError: if the checkpoint belongs to another run, or there are weights of a run
            and none of its checkpoints can be read.
    """
    found = latest_checkpoint(folder)
    if found is None:
        _refuse_to_overwrite(folder)
    if found is not None and found[1].get("requested") != requested:
        raise CheckpointError(
            f"{found[0]}: belongs to another recipe or other settings; choose another --output, or "
            "use the settings of that run"
        )
    return found


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
