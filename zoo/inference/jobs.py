"""Restoring many files: finding the missing outputs, and sharing the work among processes."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

from zoo.data.images import WRITE_EXTENSIONS
from zoo.distributed import ProcessGroup, map_shared
from zoo.errors import ImageError, WriteError, ZooError
from zoo.files import remove_leftovers, write_error

logger = logging.getLogger(__name__)


def check_paths(source: str | Path, target: str | Path) -> None:
    """Check the paths of input and output before the work.

    Raises:
        ImageError: if a path is empty.
        WriteError: if the target cannot exist, for example because its name is too long.
    """
    for name, path in (("input", source), ("output", target)):
        if not str(path):
            raise ImageError(f"the path of the {name} is empty; give a file or a folder")
    _exists(Path(target))


def is_file_target(target: str | Path) -> bool:
    """Return whether the output of one input is an image file; otherwise it is a folder.

    It is a folder if it exists as a folder, has no suffix, or ends in a separator. ``Path`` drops
    separators at the end, so only a string can have one.

    Raises:
        ImageError: if the suffix is not that of an image.
    """
    if str(target).endswith(("/", os.sep)) or Path(target).is_dir():
        return False
    suffix = Path(target).suffix
    if suffix and suffix.lower() not in WRITE_EXTENSIONS:
        raise ImageError(
            f"{target}: images are not written as {suffix!r}; use one of "
            f"{', '.join(WRITE_EXTENSIONS)}, or put a / at the end to write to a folder"
        )
    return bool(suffix)


def without_existing(jobs: list[tuple[Path, Path]], overwrite: bool) -> list[tuple[Path, Path]]:
    """Return the jobs (input, output) without an existing output; all jobs if ``overwrite``.

    Unfinished files of killed processes in the output folders are removed.

    Raises:
        WriteError: if an output cannot exist, for example because its name is too long.
    """
    for folder in {output.parent for _, output in jobs}:
        remove_leftovers(folder)
    waiting = [job for job in jobs if not _exists(job[1]) or overwrite]
    if len(waiting) < len(jobs):
        logger.info(
            "skipped %d existing outputs; pass overwrite to replace them", len(jobs) - len(waiting)
        )
    return waiting


def _exists(output: Path) -> bool:
    try:
        return output.exists()
    except OSError as error:
        raise write_error(output, error) from error


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
