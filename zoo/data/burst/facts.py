"""Facts about a burst, such as gains and colour matrix, from ``meta.json`` or a public pickle."""

from __future__ import annotations

import json
import logging
import math
import os
import pickle
import reprlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zoo.data.burst.plain_pickle import load_plain
from zoo.data.inputs import read_input
from zoo.errors import ImageError

logger = logging.getLogger(__name__)

FACTS_JSON, FACTS_PICKLE = "meta.json", "meta_info.pkl"

LARGEST = 2**22
"""Largest file of facts in bytes."""

_VISITS = 1000
"""Values that are visited to count numbers; a colour matrix has 13."""


def facts_beside(folder: Path) -> dict[str, Any]:
    """Read the facts in a burst's folder, or in the ``gt`` folder of the public layout.

    Returns:
        The facts by name; empty if there is no file.

    Raises:
        ImageError: if the file is damaged, has no mapping, or could run code.
    """
    # A link to a missing file is a file that should be there: reading it is an error.
    if os.path.lexists(folder / FACTS_JSON):
        return _load_json(folder / FACTS_JSON)
    beside = [folder / FACTS_PICKLE]
    if folder.parent.name == "bursts":  # in the public layout, facts are beside the clean image
        beside.append(folder.parent.parent / "gt" / folder.name / FACTS_PICKLE)
    found = next((path for path in beside if os.path.lexists(path)), None)
    return load_facts(found) if found else {}


def load_facts(path: str | Path) -> dict[str, Any]:
    """Read the facts in a ``meta_info.pkl``: numbers, text, containers, arrays and tensors only.

    Raises:
        ImageError: if the file is damaged or could run code.
    """
    path = Path(path)
    data = read_input(path, "file of facts", LARGEST)
    try:
        loaded = load_plain(data)
    except pickle.UnpicklingError as error:
        raise ImageError(
            f"file of facts {str(path)!r} {_short(error)}; write the facts to {FACTS_JSON}"
        ) from error
    except Exception as error:
        raise ImageError(
            f"file of facts {str(path)!r} is damaged or not a pickle of facts; copy it again"
        ) from error
    return _mapping(path, loaded)


def _load_json(path: Path) -> dict[str, Any]:
    data = read_input(path, "file of facts", LARGEST)
    try:
        loaded = json.loads(data.decode("utf-8-sig"))
    except RecursionError as error:
        raise ImageError(f"file of facts {str(path)!r} is nested too deeply") from error
    except ValueError as error:
        raise ImageError(
            f"file of facts {str(path)!r} is not valid JSON: {_short(error)}"
        ) from error
    return _mapping(path, loaded)


def _mapping(path: Path, loaded: Any) -> dict[str, Any]:
    if not isinstance(loaded, dict):
        raise ImageError(
            f"file of facts {str(path)!r} contains {type(loaded).__name__}, not a mapping of facts"
        )
    return loaded


def numbers(value: Any, *counts: int) -> list[float]:
    """Convert a fact to numbers.

    Args:
        value: a number, or an array, a tensor or nested lists of numbers.
        counts: the allowed numbers of numbers.

    Raises:
        ValueError: if it is something else, or the values are not finite.
    """
    try:
        if _size(value, max(counts)) in counts:
            array = np.asarray(value.tolist() if isinstance(value, torch.Tensor) else value)
            if array.size in counts and array.dtype.kind in "iuf":
                found = [float(number) for number in array.ravel()]
                if all(map(math.isfinite, found)):
                    return found
    except Exception:  # a fact may be anything, and fail in any way
        logger.debug("not numbers", exc_info=True)
    wanted = " or ".join(map(str, counts))
    raise ValueError(
        f"is {_short(reprlib.repr(value))}; it must have {wanted} finite "
        f"number{'' if wanted == '1' else 's'}"
    )


def _size(value: Any, most: int) -> int:
    """Number of numbers in nested lists, arrays and tensors, as soon as it is above ``most``.

    A list can hold itself, or another list so often that counting would never end.
    """
    size, waiting = 0, [value]
    for _ in range(_VISITS):
        if not waiting or size > most:
            return size
        held = waiting.pop()
        if isinstance(held, torch.Tensor):
            size += held.numel()
        elif isinstance(held, np.ndarray):
            size += held.size
        elif isinstance(held, (list, tuple)):
            waiting.extend(held[:_VISITS])
        else:
            size += 1
    return most + 1


def _short(value: object) -> str:
    return " ".join(str(value).split())[:100]
