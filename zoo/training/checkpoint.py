"""Checkpoints of the training state: writing them, and finding the newest valid one."""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from zoo.checkpoints.files import write_pickled
from zoo.files import remove_leftovers

logger = logging.getLogger("zoo.train")

PATTERN = "checkpoint-*.pt"


def write_checkpoint(folder: Path, state: Mapping[str, Any], *, step: int, keep: int) -> Path:
    """Write ``checkpoint-STEP.pt`` and remove all but the ``keep`` newest checkpoints.

    The file appears whole or not at all.

    Returns:
        The path of the new checkpoint.

    Raises:
        WriteError: if the folder cannot be written.
    """
    path = folder / f"checkpoint-{step:08d}.pt"
    write_pickled(path, state)
    for old in sorted(folder.glob(PATTERN))[:-keep]:
        old.unlink(missing_ok=True)
    return path


def latest_checkpoint(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """Return the path and content of the newest readable checkpoint, or None.

    Truncated or damaged checkpoints are skipped with a warning. Unfinished files of killed
    processes are removed.
    """
    remove_leftovers(folder)
    for path in sorted(folder.glob(PATTERN), reverse=True):
        try:
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()  # torch.load compares no checksums
            if damaged is not None:
                raise zipfile.BadZipFile(damaged)
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            # A damaged file can raise any of a dozen errors, from EOFError to UnpicklingError.
            logger.warning("skipped %s, which is damaged (%s)", path, type(error).__name__)
            continue
        return path, state
    return None
