"""Reading and writing weights files: safetensors, and pickled state dicts without running code."""

from __future__ import annotations

import json
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from zoo.errors import CheckpointError
from zoo.files import partial_file

State = dict[str, Tensor]

WRAPPERS = ("params_ema", "params", "state_dict")
"""Keys under which training code stores a state dict, preferred key first."""


def read_state(path: Path) -> tuple[State, dict[str, str]]:
    """Read tensors and metadata from ``.safetensors`` or a pickled ``.pth`` / ``.pt`` / ``.ckpt``.

    The wrappers ``params_ema``, ``params`` and ``state_dict`` and the prefix ``module.`` are
    removed.

    Returns:
        The tensors by key, and the metadata, which is empty for pickled files.

    Raises:
        CheckpointError: if the file is missing, corrupt or truncated, or has no state dict.
    """
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "does not exist"
        raise CheckpointError(f"{path}: cannot read weights: the file {kind}")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    return _unwrap(_read_pickled(path), path), {}


def _read_safetensors(path: Path) -> tuple[State, dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            return {key: file.get_tensor(key) for key in file.keys()}, metadata  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path}: not a readable safetensors file ({_short(error)}); "
            "it may be truncated: copy or download it again"
        ) from error


def _read_pickled(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "unsupported global" in str(error).lower() or "unsupported class" in str(error).lower():
            raise CheckpointError(
                f"{path}: contains other objects than tensors, which could run code when loaded; "
                "use a file with the state dict only"
            ) from error
        raise CheckpointError(f"{path}: not a PyTorch weights file ({_short(error)})") from error
    except (RuntimeError, EOFError, zipfile.BadZipFile, OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{path}: not a readable PyTorch weights file ({_short(error)}); "
            "it may be truncated: copy or download it again"
        ) from error


def _unwrap(content: Any, path: Path) -> State:
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(f"{path}: contains {type(content).__name__}, not a state dict")
    strangers = [key for key, value in content.items() if not isinstance(value, Tensor)]
    if strangers:
        raise CheckpointError(
            f"{path}: not a state dict: entry {strangers[0]!r} is not a tensor; "
            f"weights must be at the top level or under {', '.join(WRAPPERS)}"
        )
    return {str(key).removeprefix("module."): value for key, value in content.items()}


def write_safetensors(path: Path, state: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write tensors and metadata as safetensors; the file appears whole or not at all.

    The same tensors and metadata always give the same bytes.

    Raises:
        WriteError: if the file cannot be written.
    """
    tensors = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    with partial_file(path) as temporary:
        try:
            save_file(tensors, temporary, metadata)
        except SafetensorError as error:
            number = re.search(r"os error (\d+)", str(error))
            reason = _short(error)
            raise (OSError(int(number[1]), reason) if number else OSError(reason)) from error
        _sort_metadata(temporary)


def _sort_metadata(path: Path) -> None:
    """Sort the metadata of a safetensors file by key; the library writes them in random order."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":"))
        content = text.encode().ljust(length)
        assert len(content) == length, "the library writes JSON in another way"
        file.seek(8)
        file.write(content)


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


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
