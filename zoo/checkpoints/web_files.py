"""Files from the web in the cache: whole, as they came, and resumed where a download stopped.

Beside a file, its note (``.json`` added to the name) keeps where it came from and its SHA-256.
Beside a part of a file, the note keeps which version of the file the part is of.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

from zoo.files import owned_folder, write_text

_CHUNK, _SECONDS = 1 << 20, 30
"""Bytes that are read at a time, and how long a server may be silent."""


def keep_note(path: Path, **facts: str) -> None:
    """Write the note of a file: these facts, and its SHA-256.

    Raises:
        WriteError: if it cannot be written.
    """
    kept = {**facts, "sha256": _digest(path)}
    write_text(_note_of(path), json.dumps(kept, indent=2) + "\n")


def is_as_noted(path: Path, **facts: str) -> bool:
    """Whether a file is there, unchanged since its note was written, and has these facts."""
    note = _read_note(path)
    try:
        return facts.items() <= note.items() and note.get("sha256") == _digest(path)
    except OSError:
        return False


def remove(path: Path) -> None:
    """Remove a file and its note."""
    path.unlink(missing_ok=True)
    _note_of(path).unlink(missing_ok=True)


def cached(path: Path, source: str, get: Callable[[str, Path], Any]) -> Path:
    """Return a file of the cache, after getting it if it is not there as it came.

    Args:
        path: the file, in a folder of its own.
        source: where it comes from.
        get: writes what is at the source to a path.

    Raises:
        OSError: if it cannot be had, or another process is getting it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with owned_folder(path.parent, "a download"):
        if not is_as_noted(path, source=source):
            remove(path)
            get(source, path)
            keep_note(path, source=source)
    return path


def download_url(url: str, path: Path) -> None:
    """Download a file; go on with what an interrupted download of the same version has left.

    Raises:
        OSError: if the server does not answer, or the connection breaks.
        http.client.HTTPException: if it answers in another protocol.
    """
    part = path.with_name(f"{path.name}.part")
    with part.open("ab") as file:
        start, version = file.tell(), _read_note(part).get("version")
        if not (start and version and _goes_on(url, file, part, start, version)):
            file.truncate(0)
            with _asked(url) as answer:
                note = {"version": _version(answer)}
                write_text(_note_of(part), json.dumps(note) + "\n")
                _copy(answer, file, part)
    part.replace(path)
    _note_of(part).unlink(missing_ok=True)


def _goes_on(url: str, file: IO[bytes], part: Path, start: int, version: str) -> bool:
    """Append the rest of a file to its start; False if the server has it no more in this version.

    Also False if nothing is left: the part may be whole, but nothing says so.
    """
    try:
        # A server gives the whole file in place of the rest if it has another version.
        with _asked(url, {"Range": f"bytes={start}-", "If-Range": version}) as answer:
            place = answer.headers.get("Content-Range", "")
            if answer.status != http.HTTPStatus.PARTIAL_CONTENT or _version(answer) != version:
                return False
            if not place.startswith(f"bytes {start}-"):
                return False
            _copy(answer, file, part, start)
            return True
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return False
        raise


def _asked(url: str, headers: dict[str, str] | None = None) -> Any:
    return urllib.request.urlopen(
        urllib.request.Request(url, headers=headers or {}), timeout=_SECONDS
    )


def _version(answer: Any) -> str | None:
    """Return what tells one version of a file from another, or None if the server does not say."""
    tag: str | None = answer.headers.get("ETag")
    # A weak tag, W/"...", holds for files that are alike, not equal.
    return tag if tag and tag.startswith('"') else answer.headers.get("Last-Modified")


def _copy(answer: Any, file: IO[bytes], part: Path, start: int = 0) -> None:
    """Append what comes to a file that has its first ``start`` bytes."""
    size = int(answer.headers.get("Content-Length") or 0) + start
    bar = tqdm(
        total=size if size > start else None, initial=start, unit="B", unit_scale=True,
        desc=part.stem, disable=None,
    )  # fmt: skip
    with bar:
        while chunk := answer.read(_CHUNK):
            file.write(chunk)
            bar.update(len(chunk))
    if size > start and (came := file.tell()) != size:
        raise OSError(f"{came} of {size} bytes came; try again")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _note_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _read_note(path: Path) -> dict[str, Any]:
    try:
        note = json.loads(_note_of(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return note if isinstance(note, dict) else {}
