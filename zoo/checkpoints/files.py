"""Reading and writing weights files: safetensors, and pickled state dicts without running code."""

from __future__ import annotations

import codecs
import contextlib
import json
import logging
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save as serialised
from torch import Tensor

from zoo.checkpoints.archives import kind_of_archive
from zoo.checkpoints.averages import averages_without_names
from zoo.checkpoints.left_out import MOST_NAMES, left_out, one_at_a_time, other_names
from zoo.checkpoints.trainers import (
    DEEPEST,
    MOST_TENSORS,
    State,
    holds_tensors,
    joined,
    too_many_tensors,
)
from zoo.errors import CheckpointError, reason_of, shown
from zoo.files import partial_file
from zoo.limits import OPTION, VARIABLE, max_parameters
from zoo.pickles import load_tensors

logger = logging.getLogger(__name__)

SUFFIX = ".safetensors"
"""Suffix of files in our format, in upper or lower case."""

BYTES_PER_PARAMETER = 16
"""Largest file, per parameter of the limit: weights in float32 and the state of an optimiser."""


def read_state(path: Path) -> tuple[State, dict[str, str]]:
    """Read tensors and metadata from ``.safetensors`` or a pickled ``.pth`` / ``.pt`` / ``.ckpt``.

    Which of the two a file is shows its content, so a wrong suffix does not matter.

    Returns:
        The tensors, dense and on the CPU, by their joined names (see
        :func:`zoo.checkpoints.trainers.joined`), and the metadata, which is empty for pickled
        files.

    Raises:
        CheckpointError: if the file is missing, corrupt, truncated or too large, or has no state
            dict.
    """
    _check_file(path)
    if what := kind_of_archive(path):
        raise CheckpointError(f"{path}: {what}")
    if _is_safetensors(path):
        content, metadata = _read_safetensors(path)
    else:
        content, metadata = _read_pickled(path), {}
    return checked_state(content, str(path)), metadata


def checked_state(content: Any, what: str) -> State:
    """Return the tensors in what was loaded from a file, or was passed in place of one.

    Args:
        content: nested mappings that hold tensors.
        what: name of the file, for error messages.

    Raises:
        CheckpointError: if there are no tensors, too many, or some that are not dense.
    """
    state = joined(content, what)
    for place in averages_without_names(content, DEEPEST):
        logger.info(
            "%s: the moving average below %s is not used, because it is a list of tensors without "
            "names",
            *(what, shown(place)),
        )
    for key, tensor in state.items():
        fault = _fault(tensor)
        if fault:
            raise CheckpointError(
                f"{what}: {shown(key)} is a {fault} tensor; save the dense tensors of the network"
            )
    return state


def _check_file(path: Path) -> None:
    try:
        known = path.is_file()
        size = path.stat().st_size if known else 0
        kind = "is a pipe or a device" if path.exists() else "does not exist"
    except OSError as error:
        raise CheckpointError(f"{path}: cannot read weights: {error.strerror}") from error
    if not known:
        kind = "is a folder" if path.is_dir() else kind
        raise CheckpointError(f"{path}: cannot read weights: the file {kind}")
    limit = max_parameters()
    if size > BYTES_PER_PARAMETER * limit:
        raise CheckpointError(
            f"{path}: the file has {size / 1e9:,.1f} GB, too much for the limit of {limit:,} "
            f"parameters; raise it with {OPTION} or {VARIABLE}"
        )


def _is_safetensors(path: Path) -> bool:
    """Return whether a file is safetensors, by its content, or by its name if that is damaged."""
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot read weights: {error.strerror}") from error
    if path.suffix.lower() == SUFFIX:
        return not start.startswith((b"PK\x03\x04", b"\x80\x02"))  # an archive, a pickle
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size


def _read_safetensors(path: Path) -> tuple[State, dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            names = list(file.keys())
            if len(names) > MOST_TENSORS:
                raise CheckpointError(too_many_tensors(str(path), len(names)))
            return {name: file.get_tensor(name) for name in names}, metadata
    except CheckpointError:
        raise
    except Exception as error:  # a damaged header can raise any error
        raise CheckpointError(
            f"{path}: "
            + (
                _what_it_is(path)
                or f"not a readable safetensors file ({reason_of(error)}); "
                "it may be truncated: copy or download it again"
            )
        ) from error


def _read_pickled(path: Path) -> Any:
    try:
        return _without_other_objects(path)
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:
        if _has_other_objects(error):
            raise CheckpointError(
                f"{path}: contains other objects than tensors, which could run code when loaded; "
                "save the state_dict() of the network only"
            ) from error
        fault = _what_it_is(path) or f"not a PyTorch weights file ({reason_of(error)})"
        raise CheckpointError(f"{path}: {fault}") from error
    except Exception as error:  # a damaged pickle can raise any error
        # Those of its codes and keys, such as "opcode b'x' unknown", say nothing to people.
        reason = "" if isinstance(error, (LookupError, ValueError)) else f" ({reason_of(error)})"
        fault = _what_it_is(path) or (
            f"not a readable PyTorch weights file{reason}; "
            "it may be truncated, or no weights at all: copy or download it again"
        )
        raise CheckpointError(f"{path}: {fault}") from error


_START = 512
"""Bytes at the start of a file that show whether it is text."""

_PICKLES = (b"\x80\x03", b"\x80\x04", b"\x80\x05")
"""First bytes of what ``pickle.dump`` writes; ``torch.save`` has written protocol 2 only."""


def _what_it_is(path: Path) -> str | None:
    """Say what a file that cannot be read is, and what to do; None if it does not show."""
    with path.open("rb") as file:
        start = file.read(_START)
    if not start:
        return "the file is empty: copy or download it again"
    if start.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS, not the weights: run 'git lfs pull' where it was cloned"
    if start.startswith(_PICKLES):
        return "a pickle of Python, not of PyTorch: save the state dict with torch.save"
    if start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page, not weights: download the file that the page offers"
    with contextlib.suppress(UnicodeDecodeError):
        # Incremental: the last character may be cut.
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(start).strip()
        if all(char.isprintable() or char.isspace() for char in text):
            first = shown(text.partition("\n")[0])
            return f"text, not weights; it starts with {first}: name a file of weights"
    return None


def _without_other_objects(path: Path) -> Any:
    """Load what ``torch.save`` wrote, and leave out what is neither tensor nor plain value."""
    try:
        return load_tensors(path)
    except pickle.UnpicklingError as error:
        if not _has_other_objects(error):
            raise
        with one_at_a_time:
            names = other_names(path)
            if not 0 < len(names) <= MOST_NAMES:
                raise
            try:
                with left_out(names):
                    content = load_tensors(path)
            except pickle.UnpicklingError:
                raise error from None  # it needs what the objects were
    if isinstance(content, Mapping) and not holds_tensors(content):
        if all("numpy" in name for name in names):
            raise CheckpointError(
                f"{path}: holds NumPy arrays in place of tensors; make tensors of them with "
                "torch.from_numpy, and save them with torch.save"
            )
        raise CheckpointError(
            f"{path}: holds objects such as {shown(names[0])} in place of tensors; save the "
            "state_dict() of the network, not the network"
        )
    logger.info("%s: left out what is no tensor, such as %s", path, shown(names[0]))
    return content


def _has_other_objects(error: pickle.UnpicklingError) -> bool:
    message = str(error).lower()
    return "unsupported global" in message or "unsupported class" in message


def _fault(tensor: Tensor) -> str | None:
    if tensor.is_meta:
        return "meta"
    if tensor.is_quantized:
        return "quantized"
    if tensor.layout is not torch.strided or tensor.is_nested:
        return "sparse"
    if tensor.is_complex():
        return "complex"
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return "repeated"  # of any size, from one stored value
    return None


def write_safetensors(path: Path, state: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write tensors and metadata as safetensors; the file appears whole or not at all.

    The same tensors and metadata always give the same bytes.

    Raises:
        WriteError: if the file cannot be written.
    """
    tensors = {key: value.cpu().contiguous() for key, value in state.items()}
    # Given a path, the library replaces our temporary file, which has a lock and the right
    # permissions, with one of its own.
    content = memoryview(serialised(tensors, metadata))
    length = 8 + int.from_bytes(content[:8], "little")
    with partial_file(path) as temporary, temporary.open("wb") as file:
        file.write(content[:8])
        file.write(_with_sorted_metadata(bytes(content[8:length])))
        file.write(content[length:])


def _with_sorted_metadata(header: bytes) -> bytes:
    """Sort the metadata of a safetensors header by key; the library writes a random order."""
    found = json.loads(header)
    found["__metadata__"] = dict(sorted(found["__metadata__"].items()))
    text = json.dumps(found, ensure_ascii=False, separators=(",", ":"))
    content = text.encode().ljust(len(header))
    assert len(content) == len(header), "the library writes JSON in another way"
    return content


def write_pickled(path: Path, content: Mapping[str, Any]) -> None:
    """Write a mapping with ``torch.save``; the file appears whole or not at all.

    Raises:
        WriteError: if the file cannot be written.
    """
    # Given a path, PyTorch writes in C++, which does not tell why a write fails, and puts the
    # random temporary name into the file.
    with partial_file(path) as temporary, temporary.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):
                raise error.__context__ from error
            raise
