"""The ``evaluate`` section of a recipe. The types of the fields are its schema."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from zoo.data.degradations import Degradation
from zoo.recipe import Recipe, section
from zoo.schema import at_least


@dataclass(frozen=True, kw_only=True)
class TilingSettings:
    """How the authors' code cuts a test image; see :mod:`zoo.evaluation.official_tiling`.

    Attributes:
        limit: sides of at least this many pixels are cut.
        shave: tiles overlap by their size divided by this.
        grid: tiles are mirrored up to the next multiple of this; 0 for as they are.
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
        datasets: names of test sets, looked for below the folder that the user names.
        degradation: makes the degraded image where the set has none. Null takes that of training.
        channel: what PSNR and SSIM are measured on: "y" for luma, or "all" channels. Null means
            "y" for super-resolution and "all" otherwise.
        crop: border pixels left out. Null means the scale for super-resolution and 0 otherwise.
        tiling: how the authors cut test images, for ``--official-tiling``.
        paper: PSNR in dB, and SSIM where it is published, by test set, as the paper prints them.
        paper_ensemble: the same with self-ensemble ("+").
        source: where the paper prints them.
    """

    datasets: tuple[str, ...] = ()
    degradation: Callable[..., Degradation] | None = None
    channel: Literal["y", "all"] | None = None
    crop: int | None = None
    tiling: TilingSettings = TilingSettings()
    paper: dict[str, tuple[float, ...] | None] | None = None
    paper_ensemble: dict[str, tuple[float, ...] | None] | None = None
    source: str = ""


def evaluate_settings(recipe: Recipe) -> EvaluateSettings:
    """Check the ``evaluate`` section of a recipe; an absent one has the defaults.

    Raises:
        RecipeError: at the first mistake, with its place.
    """
    return section(recipe, "evaluate", EvaluateSettings)
