"""Restoring many files: what is to be done, sharing it among processes, and what became of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from zoo.distributed import ProcessGroup, map_shared
from zoo.errors import ImageError, WriteError, ZooError
from zoo.files import remove_leftovers
from zoo.inference.outputs import Outputs, exists
from zoo.inference.tiling import Progress, part_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be done.

    Attributes:
        waiting: jobs (input, output) without an existing output.
        existing: outputs that exist and are not overwritten.
        unread: files and folders in the input folder that are not read.
        many: whether the input is several images or bursts.
    """

    waiting: list[tuple[Path, Path]]
    existing: list[Path] = field(default_factory=list)
    unread: list[Path] = field(default_factory=list)
    many: bool = False


@dataclass(frozen=True, kw_only=True)
class Report:
    """What became of all inputs.

    Attributes:
        plan: what was to be done.
        written: the files that were written, by all processes.
        failed: the errors of the others.
        unit: name of an input: "image" or "burst".
    """

    plan: Plan
    written: list[Path]
    failed: list[ZooError]
    unit: str

    def __str__(self) -> str:
        """One line on what became of the inputs, with all counts if there were several."""
        existing = self.plan.existing
        if self.plan.many:
            return f"{self.counts}{_REPLACED if existing else ''}"
        return f"wrote {self.written[0]}" if self.written else f"{existing[0]} exists{_REPLACED}"

    @property
    def counts(self) -> str:
        """The counts of all inputs."""
        return (
            f"{self.unit}s: {len(self.written)} written, {len(self.failed)} failed, "
            f"{len(self.plan.existing)} skipped because their output exists, "
            f"{len(self.plan.unread)} skipped because they are not read"
        )


_REPLACED = "; --overwrite (in Python, overwrite=True) replaces it"


def planned(
    jobs: list[tuple[Path, Path]], outputs: Outputs, *, many: bool, unread: Sequence[Path] = ()
) -> Plan:
    """Check jobs (input, output), and return which of them are to be done.

    Unfinished files of killed processes in the output folders are removed.

    Raises:
        ImageError: if the outputs are not as they should be; see :meth:`Outputs.check`.
        WriteError: if an output cannot exist, for example because its name is too long.
    """
    outputs.check(jobs)
    for folder in {output.parent for _, output in jobs}:
        remove_leftovers(folder)
    existing = [] if outputs.overwrite else [output for _, output in jobs if exists(output)]
    known = set(existing)
    return Plan(
        waiting=[job for job in jobs if job[1] not in known],
        existing=existing,
        unread=list(unread),
        many=many,
    )


def restore_each(
    plan: Plan,
    one: Callable[[Path, Path, Progress], None],
    unit: str,
    *,
    progress: Progress,
    group: ProcessGroup,
) -> Report:
    """Run the jobs of a plan, shared among processes; a failed job does not stop the others.

    Of several jobs, one fails by any error, also by a bug that only its file meets. An error that
    ``progress`` raises ends the work.

    What failed and what was skipped is logged by name.

    Args:
        plan: the jobs.
        one: runs one job, given its input, its output, and how it tells its progress.
        unit: name of a job, such as "image", for the progress bar and for errors.
        progress: whether to show progress bars, or a function that is called with the part that is
            done, from 0 to 1.
        group: processes that share the jobs; each takes the next job when it is free.

    Raises:
        ImageError: if a job failed; raised after all jobs are done.
        WriteError: if there is only one job and its output cannot be written.
    """
    jobs = plan.waiting
    shown = progress if group.is_first else False
    raised: list[BaseException] = []

    def attempt(number: int) -> Path | ZooError:
        source, output = jobs[number]
        try:
            one(source, output, _part(shown, number, len(jobs), raised))
        except Exception as error:
            if error in raised:
                raise
            if isinstance(error, (ImageError, WriteError)):
                return error
            if isinstance(error, OSError):
                return ImageError(f"{source}: cannot be read: {error.strerror or error}")
            if not plan.many or isinstance(error, ZooError):
                raise
            return _unforeseen(source, error)
        return output

    task = f"restore/{jobs[0][1]}" if jobs else "restore"
    bar = plan.many and bool(progress) and not callable(progress)
    results = map_shared(group, len(jobs), attempt, task=task, unit=unit, progress=bar)
    report = Report(
        plan=plan,
        written=[result for result in results if isinstance(result, Path)],
        failed=[result for result in results if isinstance(result, ZooError)],
        unit=unit,
    )
    if report.failed and not plan.many:
        raise report.failed[0]
    if group.is_first:
        _tell(report)
    if report.failed:
        raise ImageError(
            f"{len(report.failed)} of {len(jobs)} {unit}s failed, the others are done; "
            f"{report.counts}; first failure: {report.failed[0]}"
        ) from report.failed[0]
    return report


def _part(progress: Progress, number: int, count: int, raised: list[BaseException]) -> Progress:
    """Return how one of several jobs tells its progress; errors of the caller go into a list."""
    if not callable(progress):
        return progress

    part = part_of(progress, number, count)
    assert callable(part)

    def tell(done: float) -> None:
        try:
            part(done)
        except BaseException as error:
            raised.append(error)
            raise

    return tell


def _unforeseen(source: Path, error: Exception) -> ImageError:
    """Return the error that says that a file met a bug; --debug shows its cause, too."""
    failure = ImageError(f"{source}: cannot be restored: {type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure


def _tell(report: Report) -> None:
    """Log by name what failed and what was skipped."""
    if not report.plan.many:
        return
    for error in report.failed:
        logger.error("failed: %s", error)
    if report.plan.existing:
        names = ", ".join(path.name for path in report.plan.existing)
        logger.info("skipped, because their output exists%s: %s", _REPLACED, names)
    kinds: dict[str, list[str]] = {}
    for path in report.plan.unread:
        kinds.setdefault(_why_unread(path), []).append(path.name)
    for kind, files in kinds.items():
        logger.info("skipped %s: %s", kind, ", ".join(files))


def _why_unread(path: Path) -> str:
    if not path.is_dir():
        return f"{path.suffix.lower() or 'other'} files, which are not read"
    if path.is_symlink():
        return "links to folders, which are not followed"
    return "folders (-r, in Python recursive=True, restores what is in them)"
