"""The ``evaluate`` section of a recipe; the types of the fields are its schema."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from zoo.data.degradations import Degradation
from zoo.data.value_range import ValueRange, is_photographic
from zoo.errors import RecipeError
from zoo.evaluation.image import Protocol
from zoo.metrics import Metric
from zoo.metrics.volume import SsimOf
from zoo.networks import Network
from zoo.recipe import Recipe, section
from zoo.schema import at_least


@dataclass(frozen=True, kw_only=True)
class TilingSettings:
    """How the authors' code tiles a test image; see :mod:`zoo.evaluation.official_tiling`.

    Attributes:
        limit: sides of at least this many pixels are cut into parts.
        shave: a tile extends beyond its part by the part's size divided by this.
        grid: tiles are extended by reflection to multiples of this, in pixels; 0 for no extension.
    """

    limit: int = 200
    shave: int = 10
    grid: int = 0

    def __post_init__(self) -> None:
        at_least(self, 1, "limit", "shave")
        at_least(self, 0, "grid")


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """The ``evaluate`` section.

    Attributes:
        datasets: names of test sets; they are folders in the folder given with ``--data``.
        degradation: computes the degraded images if the set has none. Null means the degradation of
            the training.
        channel: channels of PSNR and SSIM: "y" for luma, or "all" channels. Null means "y" for
            super-resolution and "all" otherwise.
        crop: number of border pixels excluded at each side. Null means the scale for
            super-resolution and 0 otherwise.
        rounded: whether results are rounded to 8 bits before they are measured. Null means yes for
            photographs and no for other data.
        ssim: "planes" for the SSIM of each channel, averaged; "volume" for that of an image as a
            volume of (H, W, C), as MATLAB's function has it.
        metrics: what else is measured, by name: "lpips", "niqe", "musiq" (with pyiqa), "sam",
            "ergas", "bands" (each channel); see ``zoo list --parts metric``.
        tiling: the authors' tiling of test images, for ``--official-tiling``. Null means that they
            restore images whole, or that their tiling is not known.
        paper: published PSNR in dB, and SSIM if published, by test set.
        paper_ensemble: published PSNR in dB and SSIM with self-ensemble ("+"), by test set.
        released: PSNR in dB, and SSIM if given, that the authors state for the weights that they
            released, by test set, where these are not the paper's.
        source: place of these scores in the paper, such as a table.
    """

    datasets: tuple[str, ...] = ()
    degradation: Callable[..., Degradation] | None = None
    channel: Literal["y", "all"] | None = None
    crop: int | None = None
    rounded: bool | None = None
    ssim: SsimOf = "planes"
    metrics: tuple[Metric, ...] = ()
    tiling: TilingSettings | None = None
    paper: dict[str, tuple[float, ...] | None] | None = None
    paper_ensemble: dict[str, tuple[float, ...] | None] | None = None
    released: dict[str, tuple[float, ...] | None] | None = None
    source: str = ""

    def __post_init__(self) -> None:
        at_least(self, 0, "crop")
        if self.channel != "all" and (self.rounded is False or self.ssim == "volume"):
            raise RecipeError(
                "rounded: false and ssim: volume are for scores on all channels; add channel: all"
            )


def evaluate_settings(recipe: Recipe) -> EvaluateSettings:
    """Check and return the ``evaluate`` section of a recipe; the defaults if it is missing.

    Raises:
        RecipeError: if the section is wrong; the message gives the place of the first mistake.
    """
    return section(recipe, "evaluate", EvaluateSettings)


def protocol_of(
    settings: EvaluateSettings, network: Network, value_range: ValueRange | None
) -> Protocol:
    """Return how the images of a network are measured, with metrics that are ready.

    Args:
        settings: the ``evaluate`` section of its recipe.
        network: the network.
        value_range: the range of the training data; None if none was stated.

    Raises:
        ZooError: if a metric needs what is missing, such as pyiqa or its weights.
    """
    for metric in settings.metrics:
        metric.prepare()
    return Protocol(
        channel=settings.channel,
        crop=settings.crop,
        rounded=settings.rounded,
        ssim=settings.ssim,
        photographic=is_photographic(network.out_channels, value_range),
        metrics=settings.metrics,
    )
