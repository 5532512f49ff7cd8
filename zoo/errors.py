"""The errors a user can mend.

Every message is one sentence that names the thing, the place and the likely fix. Command-line
tools print it and exit with code 2; the traceback is shown only with ``--debug``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ZooError(Exception):
    """Base of all errors caused by the input rather than by a defect of the package."""


class RecipeError(ZooError, ValueError):
    """A recipe, an override or a part's option is wrong; the message holds its full path."""


class CheckpointError(ZooError, ValueError):
    """A weights file cannot be read, is not recognised, or does not fit its network."""


class MisfitError(CheckpointError):
    """Weights can be read, but are those of another network."""


class ImageError(ZooError, ValueError):
    """An image, a burst or a folder of them cannot be read, or does not fit its task."""


class WriteError(ZooError, OSError):
    """A file cannot be written, for want of permission or space, or because a folder is there."""


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
