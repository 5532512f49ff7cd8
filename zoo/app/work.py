"""Restoring the photos of one visitor, as ``zoo restore`` does: progress, cancelling, previews.

Shape suffixes: H height and W width in pixels, C channels.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from zoo.data import Photo, read_photo, write_photo
from zoo.data.value_range import range_of
from zoo.errors import ZooError
from zoo.inference import RestoreSettings, restore_files
from zoo.inference.tiling import part_of
from zoo.networks import Network

logger = logging.getLogger(__name__)

PREVIEW = 2**25
"""Most pixels of a picture that the page shows; of a larger one it shows the middle."""


class Cancelled(Exception):  # noqa: N818  # not an error: the visitor asked for it
    """The visitor has cancelled the work."""


@dataclass(frozen=True, kw_only=True)
class Preview:
    """The same part of a photo before and after, as 8-bit PNG files that every browser shows.

    Attributes:
        before: the photo in its own size; the page enlarges it to that of ``after``.
        after: the restored photo.
        width: width of ``after`` in pixels.
        height: its height in pixels.
        cut: whether it is only the middle of a photo that is too large to be shown.
    """

    before: Path
    after: Path
    width: int
    height: int
    cut: bool


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of one photo.

    Attributes:
        name: file name of the photo.
        output: the restored photo; None if it failed.
        error: why it failed; "" if it did not.
        seconds: how long it took.
        preview: what the page shows; None if it failed, or is no picture of one or three channels.
        warnings: what the visitor should know, such as metadata that the output does not keep.
    """

    name: str
    output: Path | None = None
    error: str = ""
    seconds: float = 0.0
    preview: Preview | None = None
    warnings: tuple[str, ...] = ()


class Job:
    """The photos that a visitor restores at once.

    Args:
        folder: an empty folder of the job's own, for what it writes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._cancelled = threading.Event()
        self._removed = threading.Event()

    @property
    def removed(self) -> bool:
        """Whether the visitor is gone, and with them what was written."""
        return self._removed.is_set()

    def cancel(self) -> None:
        """End the work after the current tile; finished photos stay."""
        self._cancelled.set()

    def remove(self) -> None:
        """Cancel the work, and remove all that it has written."""
        self._removed.set()
        self.cancel()
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(
        self,
        network: Network,
        photos: Sequence[Path],
        settings: RestoreSettings,
        *,
        format: str = "",
        progress: Callable[[float], None] = lambda done: None,
    ) -> Iterator[Result]:
        """Restore photos one after another; one that fails does not stop the others.

        Args:
            network: the network.
            photos: the files. Outputs have their names, with the scale at the end.
            settings: tiles, ensemble and precision.
            format: format of the outputs, such as "jpg"; "" for that of the photo.
            progress: called with the part that is done, from 0 to 1.

        Raises:
            Cancelled: when the work is cancelled; the results so far have been yielded.
        """

        def tell(done: float) -> None:
            if self._cancelled.is_set():
                raise Cancelled
            progress(done)

        for number, photo in enumerate(photos):
            tell(number / len(photos))
            part = part_of(tell, number, len(photos))
            folder = self.folder / str(number + 1)
            try:
                with _heard(photo.parent, folder) as warnings:
                    result = self._one(network, photo, folder, settings, format, part)
            finally:
                if self.removed:  # while the photo was restored, so its files came afterwards
                    self.remove()
            if self.removed:
                raise Cancelled
            yield replace(result, warnings=tuple(warnings))

    def _one(
        self,
        network: Network,
        photo: Path,
        folder: Path,
        settings: RestoreSettings,
        format: str,
        progress: bool | Callable[[float], None],
    ) -> Result:
        start = time.monotonic()
        try:
            [output] = restore_files(
                network,
                photo,
                f"{folder}/",
                settings,
                suffix=f"x{network.scale}" if network.scale > 1 else "restored",
                format=format,
                progress=progress,
            ).written
        except Cancelled:
            raise
        except Exception as error:  # a bug that one photo meets must not take the others along
            if not isinstance(error, (ZooError, OSError)):
                logger.exception("%s cannot be restored", photo.name)
            text = _without_folders(str(error), photo.parent, folder)
            return Result(name=photo.name, error=text or type(error).__name__)
        return Result(
            name=photo.name,
            output=output,
            seconds=time.monotonic() - start,
            preview=_preview(network, photo, output, folder / "preview"),
        )


def _without_folders(text: str, *folders: Path) -> str:
    """Return a message for the visitor, who knows the photo, but not the folders of the server."""
    for folder in folders:
        text = text.replace(f"{folder}/", "")
    return text


@contextlib.contextmanager
def _heard(*folders: Path) -> Iterator[list[str]]:
    """Collect what this thread logs as a warning, once each, without the names of folders."""
    thread, said = threading.get_ident(), list[str]()

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = _without_folders(record.getMessage(), *folders)
            heard = threading.get_ident() == thread and record.levelno == logging.WARNING
            if heard and text not in said:  # errors are the result's own
                said.append(text)

    collector = Collector(logging.WARNING)
    package = logging.getLogger("zoo")
    package.addHandler(collector)
    try:
        yield said
    finally:
        package.removeHandler(collector)


def packed(results: Sequence[Result], target: Path) -> Path | None:
    """Write the outputs into one ZIP file; None if there are fewer than two.

    Of several files of one name, all have a number before it.
    """
    outputs = [result.output for result in results if result.output is not None]
    if len(outputs) < 2:
        return None
    counts = Counter(output.name for output in outputs)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:  # images are compressed
        for number, output in enumerate(outputs, 1):
            name = output.name if counts[output.name] == 1 else f"{number}_{output.name}"
            archive.write(output, name)
    return target


def _preview(network: Network, photo: Path, output: Path, folder: Path) -> Preview | None:
    """Write what the page shows of a photo; None if that cannot be shown."""
    value_range = range_of(network.recipe)
    try:
        before, after = read_photo(photo, value_range), read_photo(output, value_range)
    except ZooError as error:
        logger.warning("%s is not shown: %s", photo.name, error)
        return None
    if not {before.color_HWC.shape[2], after.color_HWC.shape[2]} <= {1, 3}:
        return None
    height, width = before.color_HWC.shape[:2]
    scale = network.scale
    cut = height * width * scale * scale > PREVIEW
    if cut:
        side = int(PREVIEW**0.5) // scale
        rows, columns = _middle(height, side), _middle(width, side)
        before = _part(before, rows, columns, 1)
        after = _part(after, rows, columns, scale)
    paths = (folder / "before.png", folder / "after.png")
    for path, shown in zip(paths, (before, after), strict=True):
        write_photo(path, replace(shown, bit_depth=8, value_range=None, no_data_HWC=None))
    height, width = after.color_HWC.shape[:2]
    return Preview(before=paths[0], after=paths[1], width=width, height=height, cut=cut)


def _middle(length: int, side: int) -> tuple[int, int]:
    side = min(length, side)
    start = (length - side) // 2
    return start, start + side


def _part(photo: Photo, rows: tuple[int, int], columns: tuple[int, int], scale: int) -> Photo:
    """Cut a part out of a photo, given in pixels of the input."""
    y, x = (slice(scale * first, scale * last) for first, last in (rows, columns))
    alpha_HW = None if photo.alpha_HW is None else photo.alpha_HW[y, x]
    return replace(photo, color_HWC=photo.color_HWC[y, x], alpha_HW=alpha_HW, no_data_HWC=None)
