"""Loading pickles that hold plain data: numbers, text, containers, arrays and tensors.

A pickle names the functions that build its objects, so loading one can run any code. The loader
here knows a few names, and builds the objects itself. It refuses a pickle that needs anything else.

The public BurstSR set keeps the EXIF tags of its photos as objects of the package exifread, of any
of its versions. They become objects of our own, which hold the same data.
"""

from __future__ import annotations

import io
import pickle
import re
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.pickles import check_pickle, check_tensors, load_tensors

_STEPS = 100_000
"""Largest number of steps of a pickle, with the pickles inside. The notes of a camera's maker are
bytes that exifread keeps as numbers, each of which is a step."""

_NUMBERS_OR_TEXT = re.compile(r"[biufcSU][0-9]{1,4}")
"""Codes of the dtypes that arrays may have."""


def load_plain(data: bytes) -> Any:
    """Load a pickle that holds plain data.

    Raises:
        pickle.UnpicklingError: if the pickle needs something else, which could run code, or has too
            many values. A damaged pickle raises any other exception.
    """
    return _Unpickler(data).load()


class _Unpickler(pickle.Unpickler):
    """Gives the pickle builders of our own.

    They are classes without attributes and methods, because a pickle can set attributes: it could
    change a function for the whole process, or the flags of a dtype, so that numbers are taken for
    addresses of objects.
    """

    def __init__(self, data: bytes) -> None:
        self.steps_left = _STEPS - check_pickle(io.BytesIO(data), _STEPS)
        super().__init__(io.BytesIO(data))

    def find_class(self, module: str, name: str) -> Any:
        known = {
            "collections.OrderedDict": OrderedDict,
            "torch._utils._rebuild_tensor_v2": self._tensor,
            "torch.storage._load_from_bytes": self._storage,
            "numpy.ndarray": _Array,
            "numpy.dtype": _Dtype,
            "numpy.core.multiarray._reconstruct": self._empty_array,
            "numpy.core.multiarray.scalar": self._scalar,
            "numpy.core.numeric._frombuffer": self._array,
            "_codecs.encode": self._encoded,
            "exifread.classes.IfdTag": ExifTag,
            "exifread.core.ifd_tag.IfdTag": ExifTag,
            "exifread.utils.Ratio": ExifRatio,
            "exifread.tags.fields.FieldType": self._number,
        }
        path = f"{module}.{name}"
        found = known.get(path.replace("numpy._core.", "numpy.core."))
        if found is None:
            raise pickle.UnpicklingError(f"needs {path[:80]}, which could run code")
        return found

    def _tensor(
        self, storage: Any, offset: int, size: Sequence[int], stride: Sequence[int], *_: Any
    ) -> Tensor:
        values = torch.empty(0, dtype=storage.dtype).set_(storage)
        return values.as_strided(size, stride, offset)  # checks the bounds

    def _storage(self, data: bytes) -> Any:
        self.steps_left -= check_tensors(io.BytesIO(data), self.steps_left)
        try:
            return load_tensors(io.BytesIO(data))
        except pickle.UnpicklingError as error:
            message = "contains a tensor whose storage could run code"
            raise pickle.UnpicklingError(message) from error

    def _empty_array(self, *_: Any) -> _Array:
        return np.empty(0).view(_Array)

    def _scalar(self, dtype: _Dtype, data: bytes) -> Any:
        return np.frombuffer(data, dtype.dtype, 1)[0]

    def _array(self, data: bytes, dtype: _Dtype, shape: Sequence[int], order: Any) -> np.ndarray:
        return np.frombuffer(data, dtype.dtype).reshape(shape, order=order)

    def _number(self, value: int) -> int:
        return value

    def _encoded(self, text: str, encoding: str) -> bytes:
        if encoding != "latin1":
            raise pickle.UnpicklingError("needs an encoding other than latin1")
        return text.encode("latin1")


class _Dtype:
    """A dtype of numbers or text."""

    __slots__ = ("dtype",)

    def __init__(self, code: str, *_: Any) -> None:
        if _NUMBERS_OR_TEXT.fullmatch(code) is None:
            raise pickle.UnpicklingError(
                f"needs arrays of {str(code)[:20]!r}, which could run code"
            )
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array(np.ndarray):
    """An array whose state has a :class:`_Dtype`."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        version, shape, dtype, by_columns, data = state
        super().__setstate__((version, shape, dtype.dtype, by_columns, data))


class ExifTag:
    """A tag of EXIF data.

    Attributes:
        printable: its values as text.
        values: its values: text, or a list of numbers and of :class:`ExifRatio`.
    """

    __slots__ = ("printable", "values")

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.printable, self.values = state["printable"], state["values"]


class ExifRatio:
    """A fraction, whose denominator may be 0.

    Attributes:
        numerator: a whole number.
        denominator: a whole number.
    """

    __slots__ = ("denominator", "numerator")

    def __init__(self, numerator: int | str = 0, denominator: int = 1) -> None:
        if isinstance(numerator, str):  # as fractions.Fraction is pickled before Python 3.11
            first, _, second = numerator.partition("/")
            numerator, denominator = int(first), int(second or 1)
        self.numerator, self.denominator = numerator, denominator

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.numerator, self.denominator = state["num"], state["den"]
