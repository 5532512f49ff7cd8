"""Writes the frames of an animation, or the pages of a TIFF file, as images to restore."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from zoo.command import run_command
from zoo.data.images import read_frames, write_photo
from zoo.errors import WriteError


def write_frames(source: str | Path, target: str | Path) -> list[Path]:
    """Write every frame or page of a file as ``NAME_0001.png`` and so on.

    Args:
        source: a GIF, APNG, WebP, AVIF, HEIC or TIFF file; any other image is one frame.
        target: folder to write to; it is created if missing.

    Returns:
        The files.

    Raises:
        ImageError: if the file cannot be read.
        WriteError: if one of the files exists, or cannot be written.
    """
    source, target = Path(source), Path(target)
    frames = read_frames(source)
    files = [target / f"{source.stem}_{number:04d}.png" for number in range(1, len(frames) + 1)]
    for file in files:
        if file.exists():
            raise WriteError(f"{file}: it exists; choose another folder")
    for file, frame in zip(files, frames, strict=True):
        write_photo(file, frame)
    return files


def main(arguments: Sequence[str] | None = None, prog: str = "zoo data frames") -> int:
    """Run the command under the name ``prog`` and return its exit code, 2 for bad input."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Write the frames of an animation, or the pages of a TIFF file, as PNG files.",
        epilog="example: %(prog)s dance.gif -o frames, then zoo restore frames -o restored, and to "
        "join them again ffmpeg -framerate 15 -i restored/dance_%%04d.png dance.webp",
        allow_abbrev=False,
    )
    parser.add_argument("input", type=Path, help="GIF, APNG, WebP, AVIF, HEIC or TIFF file")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to write to")
    return run_command(parser, _run, arguments)


def _run(options: argparse.Namespace) -> None:
    files = write_frames(options.input, options.output)
    print(f"wrote {len(files)} frames to {options.output}")  # noqa: T201
