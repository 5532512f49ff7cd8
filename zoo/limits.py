"""Limits on the sizes of networks and images, which options and environment variables change.

A recipe, a weights file or an image may come from anyone, and one wrong number in it can ask for
more memory than any computer has. So larger networks and images than the limits are errors.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from zoo.errors import ZooError, shown

VARIABLE = "ZOO_MAX_PARAMETERS"
"""Environment variable with the limit."""

OPTION = "--max-parameters"
"""Option of the commands with the limit; it takes precedence."""

MAX_PARAMETERS = 250_000_000
"""Default limit: 1 GB in float32, nine times the largest published network."""

PIXELS_VARIABLE = "ZOO_MAX_PIXELS"
"""Environment variable with the limit on the size of images and bursts."""

MAX_PIXELS = 2**26
"""Default limit: 67 million. Reading such an image takes up to 2 GB."""

_chosen: ContextVar[int | None] = ContextVar("max_parameters", default=None)


def max_parameters() -> int:
    """Return the largest number of parameters that a network may have.

    Raises:
        ZooError: if the environment variable is not a positive integer.
    """
    chosen = _chosen.get()
    return (
        _checked(os.environ.get(VARIABLE, str(MAX_PARAMETERS)), VARIABLE)
        if chosen is None
        else chosen
    )


def max_pixels() -> int:
    """Return the largest number of pixels that an image, or all frames of a burst, may have.

    Raises:
        ZooError: if the environment variable is not a positive integer.
    """
    return _checked(os.environ.get(PIXELS_VARIABLE, str(MAX_PIXELS)), PIXELS_VARIABLE)


@contextmanager
def use_max_parameters(limit: str | int | None) -> Iterator[None]:
    """Within the block, networks may have so many parameters; None changes nothing.

    Raises:
        ZooError: if the limit is not a positive integer.
    """
    token = _chosen.set(_chosen.get() if limit is None else _checked(str(limit), OPTION))
    try:
        yield
    finally:
        _chosen.reset(token)


def _checked(text: str, what: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 19 and int(text) > 0):
        raise ZooError(f"{what} is {shown(text)}; it must be a positive integer such as 1000000")
    return int(text)
