"""Archives and programs that are named in place of a file of weights."""

from __future__ import annotations

import zipfile
from pathlib import Path

from zoo.errors import shown

_START = 512
"""Bytes at the start of a file that show what kind of archive it is."""

_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!": "RAR",
}
"""First bytes of compressed files."""

_TAR_AT, _TAR = 257, b"ustar"
_ZIP = b"PK\x03\x04"
_WEIGHTS = (".pth", ".pt", ".ckpt", ".safetensors")


def kind_of_archive(path: Path) -> str | None:
    """Say what a file is that is no weights but may hold some, and what to do; None if it is not.

    Raises:
        OSError: if the file cannot be read.
    """
    with path.open("rb") as file:
        start = file.read(_START)
    if start.startswith(_ZIP):
        return _kind_of_zip(path)
    compressed = next((kind for first, kind in _COMPRESSED.items() if start.startswith(first)), "")
    if compressed:
        return f"compressed with {compressed}: unpack it, and name the file of weights in it"
    if start[_TAR_AT:].startswith(_TAR):
        return "a tar archive: unpack it, and name the file of weights in it"
    return None


def _kind_of_zip(path: Path) -> str | None:
    """``torch.save`` writes a zip archive, too; it has a pickle called data.pkl in a folder."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return None  # damaged: loading it says so
    if any(name.endswith("/constants.pkl") for name in names):
        return (
            "a TorchScript program, which could run code when loaded: save the state_dict() of the "
            "network where it was made"
        )
    if any(name.endswith("/data.pkl") for name in names):
        return None
    if any(name.endswith(".npy") for name in names):
        return (
            "an archive of NumPy arrays: make tensors of them with torch.from_numpy, and save them "
            "with torch.save"
        )
    held = next((name for name in names if name.lower().endswith(_WEIGHTS)), None)
    if held is not None:
        return f"a zip archive that holds {shown(held)}: unpack it, and name that file"
    return "a zip archive without weights that PyTorch has written: name a file of weights"
