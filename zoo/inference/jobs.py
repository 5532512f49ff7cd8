"""Restoring many files: what is to be done, sharing it among processes, and what became of it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from zoo.data.formats import ARRAY_EXTENSIONS
from zoo.distributed import ProcessGroup, stream_shared
from zoo.errors import ImageError, WriteError, ZooError, is_out_of_memory
from zoo.files import check_writable, remove_leftovers
from zoo.inference.outputs import Outputs, exists
from zoo.inference.pipeline import AHEAD, Pipeline, ReadT, RestoredT, Stages
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
        source: the input, which names of unread files are relative to.
        target: the output, which names of existing ones are relative to.
    """

    waiting: list[tuple[Path, Path]]
    existing: list[Path] = field(default_factory=list)
    unread: list[Path] = field(default_factory=list)
    many: bool = False
    source: Path = Path()
    target: Path = Path()


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
    jobs: list[tuple[Path, Path]],
    outputs: Outputs,
    *,
    source: Path,
    many: bool,
    unread: Sequence[Path] = (),
) -> Plan:
    """Check jobs (input, output), and return which of them are to be done.

    Unfinished files of killed processes in the output folders are removed.

    Raises:
        ImageError: if the outputs are not as they should be; see :meth:`Outputs.check`.
        WriteError: if the only output cannot exist, for example because its name is too long, or
            if the folder of several cannot be written to.
    """
    outputs.check(jobs)
    for folder in {output.parent for _, output in jobs}:
        remove_leftovers(folder)
    existing = [] if outputs.overwrite else [out for _, out in jobs if _is_there(out, many)]
    known = set(existing)
    waiting = [job for job in jobs if job[1] not in known]
    if many and waiting:
        _check_folder(outputs.folder)  # now, not after the work
    return Plan(
        waiting=waiting,
        existing=existing,
        unread=list(unread),
        many=many,
        source=source,
        target=outputs.folder,
    )


def _check_folder(folder: Path) -> None:
    """Check that pictures can be written to a folder, or to the first above it that exists."""
    place = folder.absolute()
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    try:
        check_writable(place / "a picture")
    except WriteError as error:
        why = error.__cause__.strerror if isinstance(error.__cause__, OSError) else error
        raise WriteError(
            f"{folder}: no picture can be written there: {why}; choose another folder"
        ) from error


def _is_there(output: Path, many: bool) -> bool:
    """Whether an output exists; of several, one that cannot exist fails when it is its turn."""
    try:
        return exists(output)
    except WriteError:
        if many:
            return False
        raise


def restore_each(
    plan: Plan,
    stages: Stages[ReadT, RestoredT],
    unit: str,
    *,
    progress: Progress,
    group: ProcessGroup,
) -> Report:
    """Run the jobs of a plan, shared among processes; a failed job does not stop the others.

    Of several jobs, the next are read and the last are written while one is restored; see
    :mod:`zoo.inference.pipeline`. One fails by any error, also by a bug that only its file meets;
    its error names the file. An error that ``progress`` raises ends the work.

    What failed and what was skipped is logged by name.

    Args:
        plan: the jobs.
        stages: the stages of a job.
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

    def part(number: int) -> Progress:
        return _part(shown, number, len(jobs), raised)

    def ends(error: Exception) -> bool:
        return error in raised

    def ahead(number: int) -> int:
        # Among several processes, the last jobs go to those that are free.
        plenty = len(jobs) - number > 2 * group.world_size
        return AHEAD if group.world_size == 1 else int(plenty)

    def outcome(number: int, error: Exception | None) -> Path | ZooError:
        source, output = jobs[number]
        if error is None:
            return output
        failure = _failure(source, output, error, many=plan.many)
        if failure is None:
            raise error
        return failure

    def run(numbers: Iterator[int], begin: Callable[[int], object]) -> dict[int, Path | ZooError]:
        if len(jobs) < 2:
            failures = _alone(jobs, stages, numbers, begin, part, ends)
        else:
            failures = Pipeline(jobs, stages, part, ends).run(numbers, begin, ahead)
        return {number: outcome(number, error) for number, error in failures.items()}

    task = f"restore/{jobs[0][1]}" if jobs else "restore"
    bar = plan.many and bool(progress) and not callable(progress)
    results = stream_shared(group, len(jobs), run, task=task, unit=unit, progress=bar)
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


def _alone(
    jobs: Sequence[tuple[Path, Path]],
    stages: Stages[ReadT, RestoredT],
    numbers: Iterator[int],
    begin: Callable[[int], object],
    progress: Callable[[int], Progress],
    ends: Callable[[Exception], bool],
) -> dict[int, Exception | None]:
    """Run the only job without threads; see :meth:`Pipeline.run`."""
    failures: dict[int, Exception | None] = {}
    for number in numbers:
        begin(number)
        source, output = jobs[number]
        try:
            read = stages.read(source, output)
            stages.write(output, stages.restore(read, progress(number)))
            failures[number] = None
        except Exception as error:
            if ends(error):
                raise
            failures[number] = error
    return failures


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


def _failure(source: Path, output: Path, error: Exception, *, many: bool) -> ZooError | None:
    """Return the error of a job, which names its file; --debug shows its cause, too.

    None for a bug that only one job met: its traceback says more.
    """
    if isinstance(error, ZooError):
        names = (str(source), str(output), *(repr(text) for text in (str(source), source.name)))
        names += (repr(source.stem),)
        if any(name in str(error) for name in names) or not (many or isinstance(error, ImageError)):
            return error
        text = str(error)
    elif is_out_of_memory(error):
        text = "memory ran out; use smaller tiles (-t, in Python tile=) or a smaller model"
    elif isinstance(error, OSError):
        text = f"cannot be read: {error.strerror or error}"
    elif many:
        text = f"cannot be restored: {type(error).__name__}: {error}"
    else:
        return None
    failure = ImageError(f"{source}: {text}")
    failure.__cause__ = error
    return failure


def _tell(report: Report) -> None:
    """Log by name what failed and what was skipped."""
    if not report.plan.many:
        return
    for error in report.failed:
        logger.error("failed: %s", error)
    if report.plan.existing:
        names = ", ".join(_within(path, report.plan.target) for path in report.plan.existing)
        logger.info("skipped, because their output exists%s: %s", _REPLACED, names)
    kinds: dict[str, list[str]] = {}
    for path in report.plan.unread:
        why = _why_unread(path, report.unit)
        kinds.setdefault(why, []).append(_within(path, report.plan.source))
    for kind, files in kinds.items():
        logger.info("skipped %s: %s", kind, ", ".join(files))


def _within(path: Path, folder: Path) -> str:
    name = (path.relative_to(folder) if path.is_relative_to(folder) else path).as_posix()
    return name if name.isprintable() else repr(name)  # a terminal would obey some characters


def _why_unread(path: Path, unit: str) -> str:
    if unit == "burst":
        return "folders, which hold no burst"
    if not path.is_dir():
        arrays = path.suffix.lower() in ARRAY_EXTENSIONS
        why = "as arrays beside photographs are" if arrays else "which are not read"
        return f"{path.suffix.lower() or 'other'} files, {why}"
    if path.is_symlink():
        return "links to folders, which are not followed"
    return "folders (-r, in Python recursive=True, restores what is in them)"
