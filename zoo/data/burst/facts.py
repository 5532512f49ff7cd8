"""Facts about a burst, such as gains and colour matrix, from ``meta.json`` or a public pickle.

Loading a pickle can run any code. The loader here builds only plain data: numbers, text,
containers, arrays and tensors. It refuses a file that needs anything else.
"""

from __future__ import annotations

import io
import json
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zoo.errors import ImageError

FACTS_JSON, FACTS_PICKLE = "meta.json", "meta_info.pkl"


def facts_beside(folder: Path) -> dict[str, Any]:
    """Read the facts in a burst's folder, or in the ``gt`` folder of the public layout.

    Returns:
        The facts by name; empty if there is no file.

    Raises:
        ImageError: if the file is damaged or could run code.
    """
    if (folder / FACTS_JSON).is_file():
        try:
            facts = json.loads((folder / FACTS_JSON).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ImageError(f"{str(folder / FACTS_JSON)!r} is not valid JSON: {error}") from error
        return facts if isinstance(facts, dict) else {}
    beside = [folder / FACTS_PICKLE]
    if folder.parent.name == "bursts":  # in the public layout, facts are beside the clean image
        beside.append(folder.parent.parent / "gt" / folder.name / FACTS_PICKLE)
    found = next((path for path in beside if path.is_file()), None)
    return load_facts(found) if found else {}


def load_facts(path: str | Path) -> dict[str, Any]:
    """Read the facts in a ``meta_info.pkl``: numbers, text, containers, arrays and tensors only.

    Raises:
        ImageError: if the file is damaged or could run code.
    """
    path = Path(path)
    try:
        loaded = _Unpickler(io.BytesIO(path.read_bytes())).load()
    except pickle.UnpicklingError as error:
        raise ImageError(f"{str(path)!r}: {error}") from error
    except Exception as error:
        raise ImageError(f"{str(path)!r} is damaged or not a pickle of facts") from error
    if not isinstance(loaded, dict):
        raise ImageError(f"{str(path)!r} contains {type(loaded).__name__}, not a mapping of facts")
    return loaded


def _load_storage(data: bytes) -> Any:
    try:
        return torch.load(io.BytesIO(data), weights_only=True)
    except pickle.UnpicklingError as error:
        raise pickle.UnpicklingError(
            f"contains a tensor whose storage could run code; write the facts to {FACTS_JSON}"
        ) from error


def _allowed() -> dict[tuple[str, str], Any]:
    from torch._utils import _rebuild_tensor_v2

    reconstruct = np.zeros(1).__reduce__()[0]
    scalar = np.float64(1).__reduce__()[0]
    from_buffer = np.zeros(1).__reduce_ex__(5)[0]
    allowed: dict[tuple[str, str], Any] = {
        ("collections", "OrderedDict"): OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor_v2,
        # The original would unpickle without restrictions.
        ("torch.storage", "_load_from_bytes"): _load_storage,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): _encode_latin,
    }
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        allowed[module, "_reconstruct"] = reconstruct
        allowed[module, "scalar"] = scalar
    for module in ("numpy.core.numeric", "numpy._core.numeric"):
        allowed[module, "_frombuffer"] = from_buffer
    return allowed


def _encode_latin(text: str, encoding: str = "latin1") -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"needs the encoding {encoding!r}; only latin1 is supported")
    return text.encode("latin1")


class _Unpickler(pickle.Unpickler):
    """An unpickler that can build only plain data."""

    def find_class(self, module: str, name: str) -> Any:
        found = _allowed().get((module, name))
        if found is None:
            raise pickle.UnpicklingError(
                f"needs {module}.{name}, which could run code; write the facts to {FACTS_JSON}"
            )
        return found
