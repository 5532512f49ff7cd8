"""Statistics of variants that were trained several times under equal budget.

Runs with the same seed see the same patches in the same sequence, so variants are compared seed by
seed: the differences of such pairs vary less than the scores themselves.
"""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from zoo.errors import ZooError
from zoo.evaluation.report import fixed

STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""Quantiles 0.975 of Student's distribution with 1 to 9 degrees of freedom."""

STUDENT_OF_MANY = 2.262
"""Factor for more than 9 degrees of freedom: that of 9, so that intervals are never too narrow."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A variant and its scores.

    Attributes:
        name: name of the variant.
        parameters: number of trainable values.
        gigaflops: operations of one input in units of 1e9.
        psnr: mean PSNR in dB over the validation photos, by seed.
        ssim: mean SSIM, by seed.
    """

    name: str
    parameters: int
    gigaflops: float
    psnr: Mapping[int, float]
    ssim: Mapping[int, float]


class Interval(NamedTuple):
    """A mean and half the width of its 95 % confidence interval; NaN for fewer than two values."""

    mean: float
    half: float

    @property
    def excludes_zero(self) -> bool:
        """Whether zero is outside the interval; False where the width is unknown."""
        return abs(self.mean) > self.half


def interval(values: Sequence[float]) -> Interval:
    """Return the mean and the 95 % confidence interval of values (Student's distribution)."""
    if len(values) < 2:
        return Interval(values[0] if values else math.nan, math.nan)
    freedom = len(values) - 1
    factor = STUDENT[freedom - 1] if freedom <= len(STUDENT) else STUDENT_OF_MANY
    half = factor * statistics.stdev(values) / math.sqrt(len(values))
    return Interval(statistics.fmean(values), half)


def differences(variant: Trained, reference: Trained) -> Interval:
    """Return how much more PSNR in dB a variant has than the reference, seed by seed."""
    seeds = sorted(variant.psnr.keys() & reference.psnr.keys())
    return interval([variant.psnr[seed] - reference.psnr[seed] for seed in seeds])


def ranked(variants: Sequence[Trained]) -> list[Trained]:
    """Return the variants, the highest mean PSNR first."""
    return sorted(variants, key=lambda variant: -statistics.fmean(variant.psnr.values()))


def table(variants: Sequence[Trained], reference: str) -> str:
    """Return the comparison as a Markdown table, the best variant first.

    Args:
        variants: variants with at least one score each.
        reference: name of the variant that the others are compared with.

    Raises:
        ZooError: if no variant is the reference.
    """
    base = _named(variants, reference)
    lines = [
        f"| variant | parameters | GFLOPs | seeds | PSNR | SSIM | over {reference} |",
        "|---|---|---|---|---|---|---|",
    ]
    for variant in ranked(variants):
        psnr, ssim = (interval(list(by.values())) for by in (variant.psnr, variant.ssim))
        apart = differences(variant, base)
        told = "-" if variant is base else _told(apart, "+") + "*" * apart.excludes_zero
        lines.append(
            f"| `{variant.name}` | {variant.parameters:,} | {variant.gigaflops:.3f} | "
            f"{len(variant.psnr)} | {_told(psnr)} | {ssim.mean:.4f} | {told} |"
        )
    return "\n".join(lines) + "\n"


def rows(variants: Sequence[Trained]) -> str:
    """Return one CSV line for each run: variant, seed, PSNR, SSIM, parameters, GFLOPs."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["variant", "seed", "psnr", "ssim", "parameters", "gigaflops"])
    for variant in variants:
        for seed, psnr in sorted(variant.psnr.items()):
            facts = [repr(psnr), repr(variant.ssim[seed]), variant.parameters, variant.gigaflops]
            writer.writerow([variant.name, seed, *facts])
    return text.getvalue()


def _named(variants: Sequence[Trained], name: str) -> Trained:
    for variant in variants:
        if variant.name == name:
            return variant
    raise ZooError(f"the reference {name!r} has no score yet; train it too")


def _told(found: Interval, sign: str = "") -> str:
    width = "" if math.isnan(found.half) else f" ± {fixed(found.half, 3)}"
    return f"{fixed(found.mean, 3, sign)}{width}"
