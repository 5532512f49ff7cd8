"""Decoding images with OpenCV, and hearing what its decoders say about damage.

libjpeg and libtiff fill a damaged part with anything and go on. They only write a warning to the
standard error stream of the process, the first one to its file descriptor 2, the second one through
OpenCV's log. So the descriptor is a file in memory while a JPEG or TIFF image is decoded, which one
thread at a time does. What others write meanwhile is passed on.

Written for the messages of OpenCV 5. Older ones do not write those of libtiff.
"""

from __future__ import annotations

import os
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

import cv2
import numpy as np

_STDERR = 2

_LOG = re.compile(rb"^\[ ?(?:WARN|ERROR|FATAL):.*\n(?:(?:> .*\n)*\n)?", re.MULTILINE)
"""A message of OpenCV's log. That of an error goes on with the condition that is not met, and ends
with an empty line."""

_COMPLAINT = re.compile(
    # Warnings of libjpeg. It writes only the first. Some cameras write a few bytes that mean
    # nothing between the end of the picture and the end marker, 0xd9.
    rb"Corrupt JPEG data(?!: \d{1,2} extraneous bytes before marker 0xd9)|Premature end of JPEG"
    rb"|Inconsistent progression|Invalid SOS parameters|Unknown Adobe color"
    rb"|Warning: unknown JFIF revision"
    # Errors of libtiff, and warnings of its decoders, but not those about metadata.
    rb"|TIFF_Error|TIFF_Warning (?!\w*(?:Pre|Setup)Decode)\w*(?:Decode|JPEGLib|Fax)"
)


def decoded(data: bytes, *, listen: bool) -> tuple[np.ndarray | None, str]:
    """Decode an image.

    Args:
        data: the file.
        listen: whether to hear what the decoder says; only one thread at a time can.

    Returns:
        Samples, or None if the file cannot be decoded; and what the decoder says about damage.

    Raises:
        cv2.error: if the memory is too small.
    """
    buffer = np.frombuffer(data, np.uint8)
    if not listen:
        return _decoded(buffer), ""
    with _alone, _LEVELS.at(cv2.utils.logging.LOG_LEVEL_WARNING), _hearing() as said:
        samples = _decoded(buffer)
    return samples, said[0] if said else ""


def _decoded(buffer: np.ndarray) -> np.ndarray | None:
    with quiet_opencv():
        try:
            return cv2.imdecode(buffer, cv2.IMREAD_UNCHANGED)
        except cv2.error as error:
            if error.code == cv2.Error.StsNoMem:
                raise
            return None


class _Levels:
    """OpenCV's log level, which all threads share: the highest that one of them needs now."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.needed: list[int] = []
        self.before = 0

    @contextmanager
    def at(self, level: int) -> Iterator[None]:
        with self.lock:
            if not self.needed:
                self.before = cv2.utils.logging.getLogLevel()
            self.needed.append(level)
            cv2.utils.logging.setLogLevel(max(self.needed))
        try:
            yield
        finally:
            with self.lock:
                self.needed.remove(level)
                cv2.utils.logging.setLogLevel(max(self.needed, default=self.before))


_LEVELS = _Levels()


@contextmanager
def quiet_opencv() -> Iterator[None]:
    """Silence OpenCV's log, since its failures are raised as errors here."""
    with _LEVELS.at(cv2.utils.logging.LOG_LEVEL_SILENT):
        yield


_alone = threading.Lock()
# A process must not be forked while the descriptor is another one.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_alone.acquire, after_in_parent=_alone.release, after_in_child=_alone.release
    )


@contextmanager
def own_stderr() -> Iterator[None]:
    """In the block, standard error is that of the process: no other thread hears a decoder."""
    with _alone:
        yield


@contextmanager
def _hearing() -> Iterator[list[str]]:
    """Fill the list with complaints that are written to the standard error stream."""
    said: list[str] = []
    with _memory_file() as file:
        try:
            real = os.dup(_STDERR)
        except OSError:  # it is closed
            real = None
        os.dup2(file.fileno(), _STDERR)
        try:
            yield said
        finally:
            if real is None:
                os.close(_STDERR)
            else:
                os.dup2(real, _STDERR)
                os.close(real)
        file.seek(0)
        written = file.read()
    if written:
        _sort(written, said)


def _memory_file() -> IO[bytes]:
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("stderr"), "w+b")
    return tempfile.TemporaryFile()


def _only_complaint(message: re.Match[bytes]) -> bytes:
    return message[0] if _COMPLAINT.search(message[0]) else b""


def _sort(written: bytes, said: list[str]) -> None:
    """Take the complaints, drop the rest of OpenCV's log, and pass on what others wrote."""
    others = b""
    for line in _LOG.sub(_only_complaint, written).splitlines(keepends=True):
        if _COMPLAINT.search(line):
            text = line.decode(errors="replace").strip()
            said.append(re.sub(r"^\[.*TIFF_\w+ ", "", text))
        else:
            others += line
    with suppress(OSError):
        os.write(_STDERR, others)
