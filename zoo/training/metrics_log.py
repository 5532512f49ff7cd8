"""The log of a training run: metrics by step, curves, and validation pictures."""

from __future__ import annotations

import json
import logging
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.images import Photo, write_photo
from zoo.files import write_text

logger = logging.getLogger("zoo.train")

METRICS = "metrics.jsonl"
PICTURES = "validation"


class MetricsLog:
    """Writes ``metrics.jsonl``, and TensorBoard files if TensorBoard is installed.

    Args:
        folder: folder of the run.
        step: step at which the training starts or resumes. Later lines are removed, because a
            resumed run repeats those steps.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.folder = folder
        self._path = folder / METRICS
        _forget(self._path, step)
        self._board: Any = None
        if find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, seconds: float, **values: Any) -> None:
        """Add a line to the log; TensorBoard shows its numbers as curves.

        Args:
            step: number of steps done.
            seconds: training time so far in seconds.
            values: further values, by name.
        """
        line = json.dumps({"step": step, "seconds": round(seconds, 1), **values})
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        if self._board is not None:
            for name, value in values.items():
                if isinstance(value, (int, float)):
                    self._board.add_scalar(name, value, step)
            self._board.flush()

    def show(self, step: int, name: str, strip_HWC: np.ndarray) -> None:
        """Write the picture of a validation photo to ``validation/``, over the previous one.

        Args:
            step: number of steps done.
            name: name of the photo.
            strip_HWC: the picture, float32 in [0, 1].
        """
        write_photo(self.folder / PICTURES / f"{Path(name).stem}.png", Photo(strip_HWC))
        if self._board is not None:
            self._board.add_image(
                f"validation/{Path(name).stem}", strip_HWC, step, dataformats="HWC"
            )

    def close(self) -> None:
        """Close the files."""
        if self._board is not None:
            self._board.close()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Read a run's ``metrics.jsonl``; incomplete lines, as of a killed process, are skipped.

    Returns an empty list if the file does not exist.
    """
    path = folder / METRICS
    if not path.is_file():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return lines


def _forget(path: Path, step: int) -> None:
    """Remove the lines after a step; the file is replaced as a whole."""
    lines = read_metrics(path.parent)
    kept = [line for line in lines if line["step"] <= step]
    if not path.is_file() or len(kept) == len(path.read_text(encoding="utf-8").splitlines()):
        return
    write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
