"""Metrics of how an image looks, from the library pyiqa: LPIPS, NIQE and MUSIQ.

Images are rounded to 8 bits first, as files are. pyiqa fetches the weights of a metric when it is
first used.

Sources: Zhang et al., "The unreasonable effectiveness of deep features as a perceptual metric",
2018; Mittal et al., "Making a 'completely blind' image quality analyzer", 2013; Ke et al., "MUSIQ",
2021.

Shape suffixes: H height, W width in pixels, C channels (1 gray, 3 RGB).
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from zoo.data.pixels import round_to_levels, to_tensor
from zoo.errors import ImageError, ZooError, pip_install, reason_of
from zoo.metrics.contract import METRICS, Metric


class FromPyiqa(Metric):
    """A metric of pyiqa, which is loaded by :meth:`prepare` or at its first use.

    Attributes:
        name: name of the value.
        smallest: smallest side of an image in pixels; smaller ones have no value.
        compares: whether the metric compares with the clean image; others see the restored one.
    """

    name: ClassVar[str]
    smallest: ClassVar[int]
    compares: ClassVar[bool] = False

    def __init__(self) -> None:
        self._metric: Any = None

    @property
    def model(self) -> str:
        """pyiqa's name of the metric."""
        return self.name

    def prepare(self) -> None:
        if self._metric is None:
            self._metric = load_metric(self.model)

    def __call__(
        self, restored_HWC: np.ndarray, clean_HWC: np.ndarray, scale: int
    ) -> dict[str, float]:
        if restored_HWC.shape[2] not in (1, 3):
            raise ImageError(
                f"the metric {self.name} is of gray and RGB images, not of "
                f"{restored_HWC.shape[2]} channels; leave it out of evaluate.metrics"
            )
        self.prepare()
        if min(restored_HWC.shape[:2]) < self.smallest:
            return {self.name: math.nan}
        images = [restored_HWC, clean_HWC] if self.compares else [restored_HWC]
        with torch.inference_mode():
            value = self._metric(*(_rgb(image).to(self._metric.device) for image in images))
        return {self.name: float(value)}


@METRICS.register("lpips")
class Lpips(FromPyiqa):
    """LPIPS: distance from the clean image in features of a network; 0 is best (needs pyiqa).

    Args:
        net: the network, "alex" (as most papers) or "vgg".
    """

    name = "lpips"
    smallest = 32
    compares = True

    def __init__(self, *, net: Literal["alex", "vgg"] = "alex") -> None:
        super().__init__()
        self.net = net

    @property
    def model(self) -> str:
        return "lpips" if self.net == "alex" else "lpips-vgg"


@METRICS.register("niqe")
class Niqe(FromPyiqa):
    """NIQE: distance of the image from statistics of photos; lower is better (needs pyiqa)."""

    name = "niqe"
    smallest = 96  # one block of its statistics


@METRICS.register("musiq")
class Musiq(FromPyiqa):
    """MUSIQ: quality of the restored image as people judge it, 0 to 100 (needs pyiqa)."""

    name = "musiq"
    smallest = 32


def load_metric(model: str) -> Any:
    """Return a metric of pyiqa, on the GPU if there is one.

    Args:
        model: pyiqa's name of the metric.

    Raises:
        ZooError: if pyiqa is missing, or the weights of the metric cannot be had.
    """
    try:
        import pyiqa
    except (ImportError, RuntimeError) as error:
        raise ZooError(
            f"the metric {model} needs pyiqa, which cannot be imported ({error}); "
            f"{pip_install('metrics')}, with a torchvision built for the installed torch"
        ) from error
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return pyiqa.create_metric(model, device=torch.device(device))
    except Exception as error:  # any error of downloading, or of a damaged file
        reason = reason_of(error, kind=True)
        raise ZooError(
            f"pyiqa cannot load the metric {model} ({reason}); it fetches the weights at first "
            "use, so use it once with a connection, or leave it out of evaluate.metrics"
        ) from error


def _rgb(image_HWC: np.ndarray) -> Tensor:
    """Return an image as pyiqa takes it: (1, 3, H, W) float32, of 8 bits."""
    levels_CHW = to_tensor(round_to_levels(image_HWC) / np.float32(255)).float()
    return levels_CHW.expand(3, -1, -1)[None]
