"""Input sizes that an engine accepts: TensorRT's optimisation profile."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from export.shape import ShapeError

if TYPE_CHECKING:
    from onnx import ModelProto

IMAGE = ("32x32", "256x256", "512x512")
HEAVY = ("16x16", "64x64", "128x128")
"""Default height and width in pixels of the smallest, usual and largest input. The largest is a
tile of ``zoo restore``. HEAVY is for bursts, which have many frames, and for scans without the
plugin, which store every state: 512x512 would need about 50 GiB."""

Sizes = tuple[int, int, int]
"""Batch, height and width."""


@dataclass(frozen=True)
class Profile:
    """Smallest, usual and largest batch, height and width of the input."""

    min: Sizes
    opt: Sizes
    max: Sizes

    @property
    def shape(self) -> tuple[int | str, int | str, int | str]:
        """Batch, height and width for an exported file; a letter for each size that varies."""
        batch, height, width = (
            low if low == high else letter
            for letter, low, high in zip("NHW", self.min, self.max, strict=True)
        )
        return batch, height, width

    def of(self, model: ModelProto) -> dict[str, dict[str, tuple[int, ...]]]:
        """Dimensions of each input of a graph for "min", "opt" and "max"; fixed ones stay fixed."""
        kinds = {"min": self.min, "opt": self.opt, "max": self.max}
        found = {}
        for entry in model.graph.input:
            dims = entry.type.tensor_type.shape.dim
            found[entry.name] = {kind: _filled(dims, sizes) for kind, sizes in kinds.items()}
        return found


def _filled(dims: Sequence[Any], sizes: Sizes) -> tuple[int, ...]:
    """Fill in varying dimensions: batch is the first one, height and width are the last two."""
    varying = dict(zip((0, len(dims) - 2, len(dims) - 1), sizes, strict=True))
    return tuple(d.dim_value if d.dim_value else varying[i] for i, d in enumerate(dims))


def read_profile(
    low: str | None, usual: str | None, high: str | None, batch: str, *, heavy: bool
) -> Profile:
    """Read the options of a command.

    Args:
        low: smallest height and width, such as ``32x32``; None for the default.
        usual: height and width that the engine is optimised for; None for the default.
        high: largest height and width; None for the default.
        batch: batch size: one number, or smallest, usual and largest, as in ``1,4,8``.
        heavy: whether to use the smaller defaults, for networks that need much memory.

    Raises:
        ShapeError: if a size is malformed, or smallest, usual and largest are not in order.
    """
    defaults = dict(zip(("min", "opt", "max"), HEAVY if heavy else IMAGE, strict=True))
    asked = {"min": low, "opt": usual, "max": high}
    sides = {name: _sides(name, text or defaults[name]) for name, text in asked.items()}
    # Defaults adapt to the sizes that are given.
    if high is None:
        sides["max"] = _largest(sides[name] for name in ("max", *_given(asked, "min", "opt")))
    if low is None:
        sides["min"] = _smallest(sides[name] for name in ("min", *_given(asked, "opt", "max")))
    if usual is None:
        sides["opt"] = _largest((sides["min"], _smallest((sides["opt"], sides["max"]))))
    batches = _batches(batch)
    for axis, name in enumerate(("height", "width")):
        low_, usual_, high_ = (sides[kind][axis] for kind in ("min", "opt", "max"))
        if not low_ <= usual_ <= high_:
            raise ShapeError(
                f"--min, --opt and --max: {name} is {low_}, {usual_}, {high_}; it must not decrease"
            )
    return Profile(
        (batches[0], *sides["min"]), (batches[1], *sides["opt"]), (batches[2], *sides["max"])
    )


def _given(asked: dict[str, str | None], *names: str) -> list[str]:
    return [name for name in names if asked[name] is not None]


def _largest(sides: Iterable[tuple[int, int]]) -> tuple[int, int]:
    heights, widths = zip(*sides, strict=True)
    return max(heights), max(widths)


def _smallest(sides: Iterable[tuple[int, int]]) -> tuple[int, int]:
    heights, widths = zip(*sides, strict=True)
    return min(heights), min(widths)


def _sides(name: str, text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([1-9]\d{0,5})x([1-9]\d{0,5})", text)
    if not found:
        raise ShapeError(f"--{name} {text}: write height x width in pixels, such as 256x256")
    return int(found[1]), int(found[2])


def _batches(text: str) -> Sizes:
    if not re.fullmatch(r"[1-9]\d{0,3}(,[1-9]\d{0,3}){2}|[1-9]\d{0,3}", text):
        raise ShapeError(f"--batch {text}: write one number, or three as in 1,4,8")
    numbers = [int(word) for word in text.split(",")]
    low, usual, high = numbers * 3 if len(numbers) == 1 else numbers
    if not low <= usual <= high:
        raise ShapeError(f"--batch {text}: smallest, usual and largest must not decrease")
    return low, usual, high
