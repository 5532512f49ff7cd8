"""Progress of a training, on the terminal and in the run's log."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from tqdm import tqdm

from zoo.training.metrics_log import MetricsLog
from zoo.training.settings import Stage
from zoo.training.task import examples_of

logger = logging.getLogger("zoo.train")


class Progress:
    """A progress bar, or log lines without a terminal, and the run's metrics log.

    It is a context manager. Only the first process shows and writes anything.

    Args:
        folder: folder of the run.
        plan: the stages of the training.
        step: number of steps done when the training starts or resumes.
        is_first: whether this is the first process.
    """

    def __init__(self, folder: Path, plan: Sequence[Stage], step: int, *, is_first: bool) -> None:
        self.plan, self.iterations = plan, sum(stage.iterations for stage in plan)
        self.log = MetricsLog(folder, step) if is_first else None
        self.bar = tqdm(
            total=self.iterations, initial=step, unit="step", disable=None if is_first else True
        )
        self._measured_from = (step, time.monotonic())

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bar.close()
        if self.log is not None:
            self.log.close()

    def advance(self) -> None:
        """Count one more step."""
        self.bar.update()

    def show_loss(self, step: int, seconds: float, loss: float, lr: float, **others: float) -> None:
        """Write the mean loss since the last call, and the speed.

        Args:
            step: number of steps done.
            seconds: training time so far in seconds.
            loss: mean loss over the steps since the last call.
            lr: learning rate.
            others: further means since the last call, by name.
        """
        first, begun = self._measured_from
        images = examples_of(self.plan, first, step)
        speed = images / max(time.monotonic() - begun, 1e-9)
        self.restart_clock(step)
        if self.log is None:
            return
        self.log.write(step, seconds, loss=loss, lr=lr, images_per_second=round(speed, 2), **others)
        self.bar.set_postfix(loss=f"{loss:.4f}", images_per_s=f"{speed:.1f}")
        if self.bar.disable:
            left = tqdm.format_interval((self.iterations - step) * seconds / step)
            logger.info(
                "step %d of %d: loss %.4f, %.1f images/s, %s left",
                *(step, self.iterations, loss, speed, left),
            )

    def show_validation(
        self,
        step: int,
        seconds: float,
        values: Mapping[str, Any],
        pictures: Mapping[str, np.ndarray],
    ) -> None:
        """Write the scores and pictures of a validation.

        Args:
            step: number of steps done.
            seconds: training time so far in seconds.
            values: scores, including ``psnr`` and ``baseline`` in dB; without a baseline it is NaN.
            pictures: pictures (H, W, C) float32 in [0, 1], by name.
        """
        if self.log is None:
            return
        for name, picture_HWC in pictures.items():
            self.log.show(step, name, picture_HWC)
        # At last: a validation whose scores are in the log is not repeated.
        self.log.write(step, seconds, **values)
        baseline = values["baseline"]
        beside = "" if baseline != baseline else f", {baseline:.2f} dB without the network"
        logger.info("step %d: %.2f dB%s", step, values["psnr"], beside)

    def restart_clock(self, step: int) -> None:
        """Measure the speed from now on, to exclude the time for validating and saving."""
        self._measured_from = (step, time.monotonic())
