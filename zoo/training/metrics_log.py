"""The log of a training run: numbers by step, curves, and pictures of the validation."""

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
    """``metrics.jsonl`` always; the same in TensorBoard's format where it is installed.

    Args:
        folder: of the run.
        step: where the training starts or resumes. Later lines are removed: a resumed run repeats
            those steps.
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
        """Add a line; numbers become curves.

        Args:
            step: steps done.
            seconds: of training so far.
            values: further numbers, by name.
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
        """Keep the newest picture of a validation photo in ``validation/``.

        Args:
            step: steps done.
            name: of the photo.
            strip_HWC: float32 in [0, 1].
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
    """The lines of a run's ``metrics.jsonl``; a last line cut short by a kill is left out."""
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
    """Remove the lines after a step, at once or not at all."""
    lines = read_metrics(path.parent)
    kept = [line for line in lines if line["step"] <= step]
    if not path.is_file() or len(kept) == len(path.read_text(encoding="utf-8").splitlines()):
        return
    write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
