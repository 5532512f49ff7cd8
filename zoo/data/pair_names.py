"""What names of files and folders say of the pairs that they belong to: scale, role and topic."""

from __future__ import annotations

import re
from functools import lru_cache

CLEAN = (
    *("gt", "hr", "hq", "clean", "sharp", "target", "original", "clear", "norain"),
    *("high", "normal"),
)
"""Words in names of clean images, in lower case."""

DEGRADED = (
    *(
        "lr",
        "lrbi",
        "lq",
        "sr",
        "degraded",
        "noisy",
        "noise",
        "blur",
        "blurry",
        "input",
        "hazy",
        "haze",
    ),
    *("rain", "rainy", "low"),
)
"""Words in names of degraded images, in lower case."""

MAKERS = ("bicubic", "unknown", "mild", "difficult", "wild")
"""Words in names of folders that say how degraded images were made."""

ROLE = rf"(?:{'|'.join((*CLEAN, *DEGRADED))})s?"

_ATTACHED = re.compile(
    # A role before a number or a capital, as in low00001 and gtA, or after one, as in imgHR.
    rf"^(?i:{ROLE})(?=\d+$)|^(?:{ROLE})(?=[A-Z])|(?<=\d)(?i:{ROLE})$"
    rf"|(?<=[a-z])(?=[A-Z])(?i:{ROLE})$"
)

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+|\d+")


def without_scale(stem: str, scale: int) -> str:
    """Return a name without the scale at its end: ``0001`` for ``0001x2``.

    DIV2K adds a letter for the kind of its degradation, and a number: ``0001x4m``, ``0001x4w1``.
    The number of a sub-image may follow and stays: ``0001_s001`` for ``0001x2_s001``.
    """
    return re.sub(
        rf"(?<=.)[_-]?x{scale}(?:[mdw]\d?)?(?=(?:_s\d{{3,}})?$)", "", stem, flags=re.IGNORECASE
    )


def without_roles(stem: str, scale: int) -> str:
    """Return a name without the scale and the words that say which image of a pair it is.

    The name is returned in lower case.
    """
    # The scale 1 of a clean image is named in DRealSR: p_1_x1 and p_1_x4.
    dropped = re.compile(rf"{ROLE}(?:x?{scale})?|x{scale}|x1", re.IGNORECASE)
    pieces = re.split(r"[-_. ]+", without_scale(stem, scale))
    kept = [_ATTACHED.sub("", piece) for piece in pieces if not dropped.fullmatch(piece)]
    return "_".join(kept).lower() or stem.lower()


@lru_cache(maxsize=4096)
def words(path: str) -> frozenset[str]:
    """Return the words of all names in a path, in lower case.

    Words end at marks, at numbers and where capitals start: ``gtA`` has ``gt`` and ``a``.
    """
    return frozenset(word.lower() for word in _WORD.findall(path))


def says(names: frozenset[str], role: tuple[str, ...]) -> bool:
    """Return whether there is a word of a role among words."""
    return any(word in role or word.removesuffix("s") in role for word in names)


def topics(names: frozenset[str]) -> frozenset[str]:
    """Return the words that say neither the role of images nor how they were made."""
    return frozenset(
        word for word in names if not says(frozenset([word]), (*CLEAN, *DEGRADED, *MAKERS))
    )
