"""Many files: which are still to be done, and one after the other, shared among processes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from zoo.distributed import ProcessGroup, map_shared
from zoo.errors import ImageError, WriteError, ZooError
from zoo.files import remove_leftovers

logger = logging.getLogger(__name__)


def without_existing(jobs: list[tuple[Path, Path]], overwrite: bool) -> list[tuple[Path, Path]]:
    """The jobs, input and output, whose output is missing; all of them to overwrite.

    What killed processes left half written in the folders of the outputs is removed.
    """
    for folder in {output.parent for _, output in jobs}:
        remove_leftovers(folder)
    waiting = [job for job in jobs if overwrite or not job[1].exists()]
    if len(waiting) < len(jobs):
        logger.info("%d existing outputs are kept; overwrite to redo", len(jobs) - len(waiting))
    return waiting


def restore_each(
    jobs: list[tuple[Path, Path]],
    one: Callable[[Path, Path], None],
    unit: str,
    *,
    many: bool,
    progress: bool,
    group: ProcessGroup,
) -> list[Path]:
    """Do jobs, shared among processes; one that fails does not stop the others.

    Args:
        jobs: input and output of each.
        one: does one.
        unit: what a job is called.
        many: whether several were asked for, so that an error counts them.
        progress: show a progress bar where there are several.
        group: the processes; each takes the next job when it is free.

    Returns:
        The outputs that were written, by all processes.

    Raises:
        ImageError: at the end, if any failed.
        WriteError: if only one was asked for and its output cannot be written.
    """

    def attempt(number: int) -> Path | ZooError:
        source, output = jobs[number]
        try:
            one(source, output)
        except (ImageError, WriteError) as error:
            return error
        except OSError as error:
            return ImageError(f"{source}: cannot be read: {error.strerror or error}")
        return output

    task = f"restore/{jobs[0][1]}" if jobs else "restore"
    results = map_shared(
        group, len(jobs), attempt, task=task, unit=unit, progress=progress and many
    )
    failures = [result for result in results if isinstance(result, ZooError)]
    if failures and not many:
        raise failures[0]
    if failures:
        raise ImageError(
            f"{len(failures)} of {len(jobs)} {unit}s failed, the others are done; "
            f"the first: {failures[0]}"
        )
    return [result for result in results if isinstance(result, Path)]
