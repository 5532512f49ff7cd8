"""Errors that a user can fix.

Each message is one sentence that names the thing, the place and the likely fix. Commands print it
and exit with code 2; they show the traceback only with ``--debug``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ZooError(Exception):
    """Base class of all errors that come from the input and not from a bug in the package."""


class RecipeError(ZooError, ValueError):
    """A recipe, an override or a part's option is wrong; the message gives its full path."""


class CheckpointError(ZooError, ValueError):
    """A weights file cannot be read, is not recognised, or does not match the network."""


class MisfitError(CheckpointError):
    """Weights can be read, but belong to another network."""


class ImageError(ZooError, ValueError):
    """An image, a burst or a folder cannot be read, or cannot be used for the task."""


class WriteError(ZooError, OSError):
    """A file cannot be written: no permission, no space, or a folder with the same name."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest known name, or the list of known names."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    if not names:
        return "; there are none"
    shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return f"; known: {shown}"
