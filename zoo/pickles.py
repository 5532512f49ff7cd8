"""Pickles from anyone: their size is checked before they are loaded.

A pickle is a program that builds values on a stack. A few bytes can build a tuple nested a million
times, whose hash crashes Python, or a list of 2^50 entries, by using one list twice, fifty times.
So :func:`check_pickle` first follows the program without building anything.

:func:`load_tensors` loads what ``torch.save`` wrote. PyTorch allows only functions that are no
code of the file; the check here limits what they are called with.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import torch

from zoo.errors import shown

STEPS = 500_000
"""Steps of a file of tensors, by default; a tensor takes about 35."""

_DEEPEST = 100
"""Levels of a nested value."""

_LARGEST = 2**26
"""Bytes of text and number of values of one value, and of all that functions are called with."""

_LONG_NUMBERS = 1000
"""Numbers of more than 64 bits, such as states of random generators. Numbers of any length can all
have the same hash, which makes a mapping quadratic."""

_ZIP = b"PK\x03\x04"

_LEGACY_PARTS = 5
"""Pickles at the start of a file of PyTorch before 1.6: a number, the version, the system, the
values and the names of the storages."""

_MARK = pickletools.markobject
_ARGUMENTS = {"TUPLE", "TUPLE2"}  # what is in others need not be known one by one
_FILLS = {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"}
_CALLS = {"REDUCE", "NEWOBJ", "NEWOBJ_EX", "INST", "OBJ", "BUILD", "BINPERSID"}
_PUTS = {"PUT", "BINPUT", "LONG_BINPUT"}
_GETS = {"GET", "BINGET", "LONG_BINGET"}
_GLOBALS = {"GLOBAL", "INST"}

_REFUSED = {"builtins bytearray", "__builtin__ bytearray"}
"""Functions that PyTorch allows, but which reserve any memory for a number."""


def load_tensors(source: Path | IO[bytes], steps: int = STEPS) -> Any:
    """Load a file that ``torch.save`` wrote, in either of its formats, on the CPU.

    Args:
        source: a path, or an open file at its start.
        steps: largest number of steps of its pickles.

    Raises:
        pickle.UnpicklingError: if the file needs functions that could run code, or is too large.
        zipfile.BadZipFile: if an archive is damaged, or declares more data than it holds.
        Exception: any other one for a damaged file.
    """
    if isinstance(source, Path):
        with source.open("rb") as file:
            # Given a path, PyTorch chooses the format by its suffix.
            return load_tensors(file, steps)
    check_tensors(source, steps)
    return torch.load(source, map_location="cpu", weights_only=True)


def check_tensors(file: IO[bytes], steps: int = STEPS) -> int:
    """Check a file that ``torch.save`` wrote; the file is then at its start.

    Returns:
        The number of steps of its pickles.

    Raises:
        Exception: as :func:`load_tensors`.
    """
    if file.read(len(_ZIP)) == _ZIP:
        _check_archive(file)
        file.seek(0)
        # PyTorch's reader, because two readers may find two different entries in one archive.
        data = torch._C.PyTorchFileReader(file).get_record("data.pkl")
        taken = check_pickle(io.BytesIO(data), steps)
    else:
        file.seek(0)
        taken = 0
        for _ in range(_LEGACY_PARTS):
            taken += check_pickle(file, steps - taken)
    file.seek(0)
    return taken


def _check_archive(file: IO[bytes]) -> None:
    """Check sizes and checksums of a zip archive; PyTorch compares neither."""
    size = file.seek(0, io.SEEK_END)
    with zipfile.ZipFile(file) as archive:
        # PyTorch stores data as they are. Compressed data could fill all memory.
        if sum(entry.file_size for entry in archive.infolist()) > size:
            raise zipfile.BadZipFile("it declares more data than it holds")
        damaged = archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(f"the checksum of {shown(damaged)} is wrong")


def check_pickle(file: IO[bytes], steps: int) -> int:
    """Follow a pickle without building its values, and leave the file at its end.

    Args:
        file: the pickle.
        steps: largest number of steps.

    Returns:
        The number of its steps.

    Raises:
        pickle.UnpicklingError: if it takes more steps, nests values too deeply, uses a value too
            often, or calls a function that it should not.
        Exception: any other one for a damaged pickle.
    """
    run = _Run()
    for step, (opcode, argument, _) in enumerate(pickletools.genops(file), start=1):
        if step > steps:
            raise pickle.UnpicklingError("has too many values")
        run.step(opcode, argument, step)
    return step


class _Global(str):
    """The name of a function or a class."""


_ENCODE = _Global("_codecs encode")


class _Value:
    """What is known of a value.

    Attributes:
        cost: bytes of text and number of values in it; a value that is used twice counts twice.
        depth: levels of containers.
        constant: its text or number, or the name of a function or class.
        items: the values in it.
        whole: whether another value holds it, so that nothing may be added any more.
    """

    __slots__ = ("constant", "cost", "depth", "items", "whole")

    def __init__(self, constant: Any = None, items: Sequence[_Value] = ()) -> None:
        self.constant = constant
        self.cost = 1 + (len(constant) if isinstance(constant, (str, bytes, bytearray)) else 0)
        self.depth = 0
        self.items = items
        self.whole = False
        self.hold(items)

    def hold(self, items: Sequence[_Value]) -> None:
        """Let the value have more values in it."""
        if not items:
            return
        self.cost += sum(item.cost for item in items)
        self.depth = max(self.depth, 1 + max(item.depth for item in items))
        for item in items:
            item.whole = True
        if self.depth > _DEEPEST:
            raise pickle.UnpicklingError("has values that are nested too deeply")
        if self.cost > _LARGEST:
            raise pickle.UnpicklingError("has too many values, by repeating some")


class _Run:
    """A run of a pickle with :class:`_Value` for all values."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, _Value] = {}
        self.passed = 0
        self.long_numbers = 0

    def step(self, opcode: pickletools.OpcodeInfo, argument: Any, step: int) -> None:
        name = opcode.name
        if name in _PUTS or name == "MEMOIZE":
            index = len(self.memo) if name == "MEMOIZE" else int(argument)
            # The unpickler reserves memory for all entries below the largest, up to 4 billion.
            if not 0 <= index <= step:
                raise ValueError(f"memo entry {index} at step {step}")
            self.memo[index] = self._top()
        elif name in _GETS:
            self.stack.append(self.memo[int(argument)])
        elif name == "MARK":
            self.stack.append(_MARK)
        elif name == "DUP":
            self.stack.append(self._top())
        elif name == "POP":
            self.stack.pop()
        else:
            self._build(opcode, argument)

    def _build(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        name = opcode.name
        items = self._taken(opcode)
        if name in _CALLS:
            self._call(name, items)
        elif any(_is_encode(item) for item in items):
            raise pickle.UnpicklingError("passes on a function")
        if name in _ARGUMENTS:
            self.stack.append(_Value(items=items))
        elif name in _FILLS:
            container, *content = items
            if container.whole and content:
                raise pickle.UnpicklingError("has a value that changes after its use")
            container.hold(content)
            self.stack.append(container)
        elif opcode.stack_after:
            value = _Value(self._constant(name, argument))
            value.hold(items)
            self.stack.append(value)

    def _taken(self, opcode: pickletools.OpcodeInfo) -> list[_Value]:
        """Take what an operation needs from the stack."""
        before = opcode.stack_before
        items: list[_Value] = []
        count = len(before)
        if _MARK in before:
            count = before.index(_MARK)
            while (item := self.stack.pop()) is not _MARK:
                items.append(item)
        for _ in range(count):
            items.append(self.stack.pop())
            if items[-1] is _MARK:
                raise ValueError(f"{opcode.name} takes a mark")
        items.reverse()
        return items

    def _top(self) -> _Value:
        top = self.stack[-1]
        if top is _MARK:
            raise ValueError("a mark is used as a value")
        return top

    def _call(self, name: str, items: Sequence[_Value]) -> None:
        self.passed += sum(item.cost for item in items[1:])
        if self.passed > _LARGEST:
            raise pickle.UnpicklingError("has too many values, by repeating some")
        if not any(_is_encode(item) for item in items):
            return
        # Bytes are encoded as latin1; some other encodings take quadratic time.
        texts = [item.constant for item in items[-1].items]
        if name != "REDUCE" or len(texts) != 2 or texts[1] != "latin1":
            raise pickle.UnpicklingError("needs an encoding other than latin1")

    def _constant(self, name: str, argument: Any) -> Any:
        if name in _GLOBALS:
            if argument in _REFUSED:
                raise pickle.UnpicklingError(f"needs {argument}, which could fill the memory")
            return _Global(argument)
        if isinstance(argument, int) and argument.bit_length() > 64:
            self.long_numbers += 1
            if self.long_numbers > _LONG_NUMBERS:
                raise pickle.UnpicklingError("has too many long numbers")
        return argument


def _is_encode(value: _Value) -> bool:
    return isinstance(value.constant, _Global) and value.constant == _ENCODE
