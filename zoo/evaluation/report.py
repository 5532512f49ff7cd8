"""The results of an evaluation as a table: Markdown for people, CSV for programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from zoo.evaluation.image import MEASURES, Score, exact, mean_score
from zoo.files import write_text


class SetResult(NamedTuple):
    """The scores on one test set.

    Attributes:
        name: name of the test set.
        scores: one score for each image.
        inputs: source of the degraded images: "files", or "made" from the clean images.
    """

    name: str
    scores: Sequence[Score]
    inputs: str


Scores = Mapping[str, tuple[float, ...] | None]
"""Published PSNR in dB, and SSIM if published, by test set."""


@dataclass(frozen=True)
class Published:
    """Published scores.

    Attributes:
        paper: those of the paper.
        released: those that the authors state for the weights that they released.
    """

    paper: Scores = field(default_factory=dict)
    released: Scores = field(default_factory=dict)


SUMMARY = "summary.md"
"""Name of the file of the table."""

_COLUMNS = (
    "set",
    "images",
    "inputs",
    "baseline_psnr",
    "baseline_ssim",
    "psnr",
    "ssim",
    "paper_psnr",
    "paper_ssim",
    "difference_psnr",
    "exact",
    "baseline_exact",
)


def rows(results: Sequence[SetResult], published: Published) -> list[dict[str, str]]:
    """Return one row for each set: mean scores, the paper's scores if any, and the difference.

    Images that equal the clean one have no finite PSNR. They are counted apart (``exact``,
    ``baseline_exact``), and neither in the mean of the network nor in that of the baseline.

    Args:
        results: results of each set.
        published: published scores.
    """
    found = []
    for result in results:
        mean, equal = mean_score(result.scores), exact(result.scores)
        paper = published.paper.get(result.name) or ()
        values = {
            "set": result.name,
            "images": str(len(result.scores)),
            "inputs": result.inputs,
            "baseline_psnr": _number(mean.baseline_psnr, 2),
            "baseline_ssim": _number(mean.baseline_ssim, 4),
            "psnr": _number(mean.psnr, 2),
            "ssim": _number(mean.ssim, 4),
            **_columns("paper", paper),
            "difference_psnr": _number(mean.psnr - paper[0], 2, "+") if paper else "-",
            "exact": str(equal[0]),
            "baseline_exact": str(equal[1]),
            **{name: _number(value, 4) for name, value in mean.others.items()},
        }
        if published.released:
            values |= _columns("released", published.released.get(result.name) or ())
        found.append(values)
    return found


def _columns(name: str, scores: tuple[float, ...]) -> dict[str, str]:
    return {
        f"{name}_psnr": _number(scores[0], 2) if scores else "-",
        f"{name}_ssim": _number(scores[1], 4) if len(scores) > 1 else "-",
    }


def markdown(
    title: str, notes: str, results: Sequence[SetResult], published: Published, baseline: str
) -> str:
    """Return the table of mean scores as Markdown.

    Args:
        title: heading: what was evaluated.
        notes: how it was evaluated, in a sentence or two.
        results: results of each set.
        published: published scores.
        baseline: name of the baseline, such as "bicubic".
    """
    released = bool(published.released)
    lines = [
        f"# {title}",
        "",
        notes,
        "",
        f"| set | images | inputs | {baseline} PSNR / SSIM | ours PSNR / SSIM | paper PSNR / SSIM "
        f"| difference PSNR |{' released weights PSNR / SSIM |' if released else ''}",
        "|---" * (7 + released) + "|",
    ]
    found = rows(results, published)
    for row in found:
        lines.append(
            f"| {row['set']} | {row['images']} | {row['inputs']} "
            f"| {row['baseline_psnr']} / {row['baseline_ssim']}{_told(row['baseline_exact'])} "
            f"| {row['psnr']} / {row['ssim']}{_told(row['exact'])} "
            f"| {row['paper_psnr']} / {row['paper_ssim']} | {row['difference_psnr']} |"
            + (f" {row['released_psnr']} / {row['released_ssim']} |" if released else "")
        )
    others = _others(results)
    if others:
        lines += ["", f"| set | {' | '.join(others)} |", "|---" * (len(others) + 1) + "|"]
        for row in found:
            lines.append(f"| {row['set']} | {' | '.join(row[name] for name in others)} |")
    return "\n".join(lines) + "\n"


def _others(results: Sequence[SetResult]) -> list[str]:
    """Names of the metrics beside PSNR and SSIM."""
    scores = (score for result in results for score in result.scores)
    return list(dict.fromkeys(name for score in scores for name in score.others))


def write_report(
    folder: Path, text: str, results: Sequence[SetResult], published: Published
) -> list[Path]:
    """Write ``summary.md``, ``summary.csv`` and ``images.csv``, each whole or not at all.

    Args:
        folder: folder to write to.
        text: content of ``summary.md``.
        results: results of each set.
        published: published scores.

    Returns:
        The files that were written.

    Raises:
        WriteError: if a file cannot be written.
    """
    images = [
        {"set": result.name, "image": score.name}
        | {name: repr(value) for name, value in score.data().items() if name != "name"}
        for result in results
        for score in result.scores
    ]
    others = _others(results)
    texts = {
        SUMMARY: text,
        "summary.csv": _csv(rows(results, published), (*_columns_of(published), *others)),
        "images.csv": _csv(images, ("set", "image", *MEASURES, *others)),
    }
    for name, content in texts.items():
        write_text(folder / name, content)
    return [folder / name for name in texts]


def _columns_of(published: Published) -> tuple[str, ...]:
    return (*_COLUMNS, *(("released_psnr", "released_ssim") if published.released else ()))


def _told(exact: str) -> str:
    return "" if exact == "0" else f" ({exact} exact, in neither mean)"


def _csv(lines: Sequence[Mapping[str, str]], columns: Sequence[str]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _number(value: float, places: int, sign: str = "") -> str:
    return "-" if value != value else fixed(value, places, sign)


def fixed(value: float, places: int, sign: str = "") -> str:
    """Return a number with a fixed number of decimals; zero is never negative.

    Args:
        value: the number.
        places: decimals.
        sign: "+" for a sign before positive numbers and zero, too.
    """
    return f"{round(value, places) + 0.0:{sign}.{places}f}"
