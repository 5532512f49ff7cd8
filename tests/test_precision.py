"""Low precision learns as float32 does; the last run is tabled in docs/training.md."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from recipes.train import main
from tests.helpers.training import losses

STEPS, WINDOW = 200, 50
FAMILIES = ["mambair_tiny_x2", "mambacsr_tiny_x2", "qmambabsr_tiny"]


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_two_hundred_steps_of_each_precision(family, tmp_path, record_property):
    """No NaN, and the moving average of the loss within 5 % of float32 at every step.

    The rate rises over half of the steps. At the full rate from the first step on, small
    differences of any origin grow before the loss settles: float32 is as far as 3 % from float32
    that starts from weights changed by a ten-thousandth, and no comparison can be finer than that.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    curves = {}
    for precision in ("fp32", "bf16", "fp16"):
        words = [family, f"precision={precision}", "data.patch=16", "data.batch=2", "log_every=1"]
        words += [f"iterations={STEPS}", "save_every=1000", "optimizer.lr=5e-4"]
        words += [f"schedule.warmup={STEPS // 2}"]
        words += ["--device", device, "--num-workers", "0", "-o", str(tmp_path / precision)]
        assert main(words) == 0
        found = np.array(list(losses(tmp_path / precision).values()))
        assert len(found) == STEPS and np.isfinite(found).all()
        curves[precision] = np.convolve(found, np.ones(WINDOW) / WINDOW, mode="valid")
    logger = logging.getLogger(__name__)
    for precision, curve in curves.items():
        apart = np.abs(curve / curves["fp32"] - 1).max()
        logger.warning(
            "%s %s: last average %.5f, %.2f %% apart", family, precision, curve[-1], 100 * apart
        )
        assert apart < 0.05, precision
