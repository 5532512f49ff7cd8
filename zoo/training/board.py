"""TensorBoard's files of a run: curves and a few pictures. A training goes on without them."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from zoo.errors import reason_of

logger = logging.getLogger("zoo.train")

MOST_PICTURES = 4
"""Photos whose pictures are kept, for each validation. Each takes some 170 kB, for ever: those of
100 photos would be gigabytes in a long training. ``validation/`` has the newest of all photos."""


class Board:
    """Writes TensorBoard's files; if that fails, it warns once and writes no more.

    Args:
        folder: folder of the files.
        step: step at which the training starts or resumes; what was written of later steps is not
            shown.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self._folder = folder
        self._writer: Any = None
        self._names: list[str] = []
        self._threads_hook = threading.excepthook

        def make() -> None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(folder), purge_step=step + 1)

        self._try(make)
        if self._writer is not None:
            # A thread of TensorBoard writes. What it raises is raised again by the next call here,
            # so that its traceback says nothing new.
            threading.excepthook = self._quiet

    def scalars(self, step: int, values: Mapping[str, Any]) -> None:
        """Add those of the values that are numbers to the curves.

        Args:
            step: number of steps done.
            values: values by name.
        """

        def write() -> None:
            for name, value in values.items():
                if isinstance(value, (int, float)):
                    self._writer.add_scalar(name, value, step)
            self._writer.flush()

        if self._writer is not None:
            self._try(write)

    def picture(self, step: int, name: str, picture_HWC: np.ndarray) -> None:
        """Add a picture, if its photo is one of the first few.

        Args:
            step: number of steps done.
            name: name of the photo.
            picture_HWC: the picture, float32 in [0, 1].
        """
        if name not in self._names and len(self._names) < MOST_PICTURES:
            self._names.append(name)
        if self._writer is not None and name in self._names:
            self._try(
                lambda: self._writer.add_image(
                    f"validation/{name}", picture_HWC, step, dataformats="HWC"
                )
            )

    def close(self) -> None:
        """Close the files."""
        if self._writer is not None:
            self._try(self._writer.close)
        self._release()

    def _try(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:
            # Files that cannot be written, or a TensorBoard that does not fit this PyTorch.
            logger.warning(
                "%s: TensorBoard's files are not written any more (%s); the training goes on "
                "without them",
                *(self._folder, reason_of(error)),
            )
            writer, self._writer = self._writer, None
            with contextlib.suppress(Exception):
                if writer is not None:
                    writer.close()
            self._release()

    def _quiet(self, found: threading.ExceptHookArgs) -> None:
        if not type(found.thread).__module__.startswith("tensorboard."):
            self._threads_hook(found)

    def _release(self) -> None:
        if threading.excepthook == self._quiet:
            threading.excepthook = self._threads_hook
