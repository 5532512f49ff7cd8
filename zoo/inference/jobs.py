"""Restoring many files: finding the missing outputs, and sharing the work among processes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from zoo.distributed import ProcessGroup, map_shared
from zoo.errors import ImageError, WriteError, ZooError
from zoo.files import remove_leftovers

logger = logging.getLogger(__name__)


def without_existing(jobs: list[tuple[Path, Path]], overwrite: bool) -> list[tuple[Path, Path]]:
    """Return the jobs (input, output) without an existing output; all jobs if ``overwrite``.

    Unfinished files of killed processes in the output folders are removed.
    """
    for folder in {output.parent for _, output in jobs}:
        remove_leftovers(folder)
    waiting = [job for job in jobs if overwrite or not job[1].exists()]
    if len(waiting) < len(jobs):
        logger.info(
            "skipped %d existing outputs; pass overwrite to replace them", len(jobs) - len(waiting)
        )
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
    """Run jobs, shared among processes; a failed job does not stop the others.

    Args:
        jobs: input and output of each job.
        one: runs one job, given its input and output.
        unit: name of a job, such as "image", for the progress bar and for errors.
        many: whether the user asked for several jobs; an error then gives the number of failures.
        progress: whether to show a progress bar, if ``many``.
        group: processes that share the jobs; each takes the next job when it is free.

    Returns:
        The outputs that were written by all processes.

    Raises:
        ImageError: if a job failed; raised after all jobs are done.
        WriteError: if not ``many`` and the output cannot be written.
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
            f"first failure: {failures[0]}"
        )
    return [result for result in results if isinstance(result, Path)]
