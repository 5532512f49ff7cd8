"""The log of a training run: metrics by step, curves, and validation pictures."""

from __future__ import annotations

import json
import logging
import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.images import Photo, write_photo
from zoo.files import check_writable, write_bytes, write_error
from zoo.training.board import Board

logger = logging.getLogger("zoo.train")

METRICS = "metrics.jsonl"
PICTURES = "validation"


class MetricsLog:
    """Writes ``metrics.jsonl``, and TensorBoard files if TensorBoard is installed.

    Args:
        folder: folder of the run.
        step: step at which the training starts or resumes. Later lines are removed, because a
            resumed run repeats those steps. Lines of others are kept.

    Raises:
        WriteError: if the file or the pictures cannot be written.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.folder = folder
        self._path = folder / METRICS
        for path in (self._path, folder / PICTURES / "name.png"):  # better now than at step 1000
            check_writable(path)
        _forget(self._path, step)
        self._board: Board | None = None
        if find_spec("tensorboard") is not None:
            self._board = Board(folder / "tensorboard", step)

    def write(self, step: int, seconds: float, **values: Any) -> None:
        """Add a line to the log; TensorBoard shows its numbers as curves.

        NaN and infinite values become null: JSON has no other way to write them.

        Args:
            step: number of steps done.
            seconds: training time so far in seconds.
            values: further values, by name.

        Raises:
            WriteError: if the line cannot be written.
        """
        facts = {"step": step, "seconds": round(seconds, 1), **values}
        line = json.dumps(_finite(facts))
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise write_error(self._path, error) from error
        if self._board is not None:
            self._board.scalars(step, values)

    def show(self, step: int, name: str, strip_HWC: np.ndarray) -> None:
        """Write the picture of a validation photo to ``validation/``, over the previous one.

        TensorBoard gets those of the first few photos.

        Args:
            step: number of steps done.
            name: name of the photo.
            strip_HWC: the picture, float32 in [0, 1].
        """
        write_photo(self.folder / PICTURES / f"{Path(name).stem}.png", Photo(strip_HWC))
        if self._board is not None:
            self._board.picture(step, Path(name).stem, strip_HWC)

    def close(self) -> None:
        """Close the files."""
        if self._board is not None:
            self._board.close()


def _finite(value: Any) -> Any:
    """Return values with None in place of NaN and infinite ones."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(held) for name, held in value.items()}
    return [_finite(held) for held in value] if isinstance(value, (list, tuple)) else value


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Read a run's ``metrics.jsonl``; incomplete lines and lines of others are skipped.

    Returns an empty list if the file does not exist. Each line has a ``step`` of at least 0.
    """
    path = folder / METRICS
    if not path.is_file():
        return []
    lines = map(_parsed, path.read_bytes().splitlines())
    return [line for line in lines if line is not None]


def is_validated(folder: Path, step: int) -> bool:
    """Whether the log of a run has the scores of a step."""
    return any(line["step"] == step and "psnr" in line for line in read_metrics(folder))


def _parsed(line: bytes) -> dict[str, Any] | None:
    """Return the content of a line, or None if it is incomplete or not ours."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    ours = isinstance(found, dict) and type(found.get("step")) is int
    return found if ours and 0 <= found["step"] < 2**53 else None


def _forget(path: Path, step: int) -> None:
    """Remove our lines after a step, and incomplete ones; the file is replaced as a whole."""
    if not path.is_file():
        return
    content = path.read_bytes()
    kept = [line for line in content.splitlines(keepends=True) if _is_kept(line, step)]
    if kept and not kept[-1].endswith(b"\n"):
        kept.append(b"\n")
    if b"".join(kept) != content:
        write_bytes(path, b"".join(kept))


def _is_kept(line: bytes, step: int) -> bool:
    found = _parsed(line)
    if found is not None:
        return bool(found["step"] <= step)
    start = b'{"step"'
    if not line.endswith(b"\n"):  # the last one: a process was killed in the middle of it
        return line[: len(start)] != start[: len(line)]
    return not (line.startswith(start) and _is_cut(line))


def _is_cut(line: bytes) -> bool:
    """Whether a line is not JSON; others may write numbers that Python does not read."""
    try:
        json.loads(line)
    except (json.JSONDecodeError, UnicodeDecodeError):
        return True
    except (ValueError, RecursionError):
        return False
    return False
