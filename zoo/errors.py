"""Errors that a user can fix.

Each message is one sentence that names the thing, the place and the likely fix. Commands print it
and exit with code 2; they show the traceback only with ``--debug``.
"""

from __future__ import annotations

import contextlib
import difflib
import logging
import reprlib
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import NamedTuple

logger = logging.getLogger(__name__)

LONGEST_MESSAGE = 480
"""Characters of a message; a longer one loses its middle."""

LONGEST_REASON = 160
"""Characters that are repeated of what other code says of an error."""


_ONNX = ("onnx", "onnxruntime", "onnxscript")
EXTRAS = {
    "app": ("gradio",),
    "dnd": ("h5py", "scipy"),
    "heif": ("pillow", "pillow-heif"),
    "hub": ("huggingface_hub",),
    "mat": ("scipy",),
    "metrics": ("pyiqa",),
    "onnx": _ONNX,
    "openvino": ("openvino",),
    "raw": ("rawpy",),
    "spandrel": ("spandrel",),
    "tiff": ("tifffile",),
    "timm": ("timm",),
    "trt": (*_ONNX, "tensorrt"),
    "trt-rtx": (*_ONNX, "tensorrt-rtx-cu13"),
}
"""The packages of the extras that messages name; ``pyproject.toml`` has all, with versions."""


def pip_install(extra: str) -> str:
    """Return the command that installs an extra's packages, however this package was installed."""
    return f"pip install {' '.join(EXTRAS[extra])} (the extra [{extra}])"


class ZooError(Exception):
    """Base class of all errors that come from the input and not from a bug in the package.

    The message is always one printable line of less than 500 characters, even where it quotes
    names from a hostile file.

    Args:
        message: the sentence to print.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(_one_line(str(message)))


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


class ToldElsewhereError(ZooError):
    """An error that another process of the same task raises too, and prints; commands print it
    once."""


_told: ContextVar[set[str] | None] = ContextVar("_told", default=None)
"""What was said within :func:`no_effect_is_told`; None outside it."""


def refuse_no_effect(message: str) -> None:
    """Refuse an option that would have no effect.

    Raises:
        RecipeError: with this message; within :func:`no_effect_is_told`, it is logged instead.
    """
    told = _told.get()
    if told is None:
        raise RecipeError(message)
    if message not in told:
        told.add(message)
        logger.warning("%s", message)


@contextlib.contextmanager
def no_effect_is_told() -> Iterator[None]:
    """Within the context, options without effect are only told, once each.

    Files of weights and runs of earlier versions may have such options.
    """
    token = _told.set(set())
    try:
        yield
    finally:
        _told.reset(token)


def nearest(name: str, known: Iterable[str], count: int = 1) -> str:
    """Return ``"; did you mean 'x'?"``, or the known names if none is close; the nearest first.

    Args:
        name: the unknown name.
        known: the known names.
        count: how many close names to suggest at most.
    """
    names = sorted(set(known))
    if not names:
        return "; there are none"
    likeness = {known_name: _likeness(name[:_LONGEST_NAME], known_name) for known_name in names}
    names.sort(key=lambda known_name: sum(likeness[known_name]), reverse=True)
    close = [repr(n) for n in names[:count] if likeness[n].letters >= _CLOSE]
    if close:
        *first, last = close
        return f"; did you mean {' or '.join([', '.join(first), last] if first else [last])}?"
    shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return f"; known: {shown}"


class _Likeness(NamedTuple):
    """How alike two names are: by their letters, and by the words in them; each from 0 to 1."""

    letters: float
    words: float


def _likeness(name: str, known: str) -> _Likeness:
    texts = [text.lower().replace("-", "_") for text in (name, known)]
    words, known_words = (set(text.split("_")) for text in texts)
    letters = difflib.SequenceMatcher(a=texts[1], b=texts[0], autojunk=False).ratio()
    return _Likeness(letters, len(words & known_words) / len(words | known_words))


_CLOSE, _LONGEST_NAME = 0.6, 200


def shown(value: object) -> str:
    """Return the ``repr`` of a value from a file for a message: short, whatever the value is."""
    try:
        text = _SHORT.repr(value)
    except ValueError:  # an integer of thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= 160 else f"{text[:157]}..."


def reason_of(error: BaseException, *, kind: bool = False) -> str:
    """Return what an error of other code says, in one short line, for a message of ours.

    Args:
        error: the error. If it says nothing, its type is what is returned.
        kind: whether its type comes first, for errors whose words say little alone.
    """
    said, name = " ".join(str(error).split()), type(error).__name__
    if kind and said:
        said = f"{name}: {said}"
    return said[:LONGEST_REASON] or name


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80
_SHORT.maxlevel = 3


def _one_line(message: str) -> str:
    line = " ".join(part.strip() for part in message.splitlines())
    if not line.isprintable():
        # Such as escape sequences of a terminal, or bytes that are no text.
        line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)
    if len(line) <= LONGEST_MESSAGE:
        return line
    # The start names the thing and the place, the end the likely fix.
    return f"{line[: LONGEST_MESSAGE // 2]} ... {line[5 - LONGEST_MESSAGE // 2 :]}"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that the device or the machine is out of memory."""
    text = str(error).lower()
    return (
        isinstance(error, MemoryError)
        or "out of memory" in text  # of GPUs
        or "can't allocate memory" in text
    )
