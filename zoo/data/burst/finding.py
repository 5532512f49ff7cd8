"""Finding bursts on disk by the names of their files.

:mod:`zoo.data.burst.reading` lists the layouts.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from zoo.data.burst.raw import SUFFIX
from zoo.data.formats import PHOTO_EXTENSIONS
from zoo.errors import ImageError
from zoo.files import is_same_file, natural_key

NPZ = "burst.npz"
PREVIEW = "preview.png"
NOT_FRAMES = (PREVIEW, "gt.png")
CLEAN_END = "rewarp.png"
"""How the names of clean images among the frames of RealBSR-RGB end."""

REAL_RAW_CLEAN = "_rgb.png"
"""How the names of clean images among the frames of RealBSR-RAW end."""

INSIDE = ("bursts", "LR_aligned", "LR")
"""Folders of bursts in a set that also has a folder of clean images."""

LEVELS = 3
"""How far below a folder without bursts folders with some are looked for: RealBSR/RGB/test/..."""

MOST_TOLD = 4
"""Folders that are named at most."""

_CONVERT = {
    (".3fr", ".arw", ".cr2", ".cr3", ".nef", ".orf", ".pef", ".raf", ".rw2", ".srw"):
        "convert them to DNG, with Adobe DNG Converter or 'dnglab convert'",
    (".avi", ".mkv", ".mov", ".mp4", ".webm"):
        "write their frames as images, with 'ffmpeg -i VIDEO frame_%03d.png'",
    (".jxl",): "convert them to PNG or JPEG",
}  # fmt: skip
"""What is not read, and how to convert it."""


def find_bursts(source: str | Path, without: Path | None = None) -> list[Path]:
    """List the bursts at a path, which is one burst or a folder of bursts, in natural order.

    Only names are examined. If any subfolder is a burst, the folder is a folder of bursts, and
    image files directly in it are ignored.

    Args:
        source: the path.
        without: a folder in it that is left out: that of the outputs.

    Raises:
        ImageError: if there is no burst.
    """
    source = Path(source)
    try:
        return _find_bursts(source, without)
    except OSError as error:
        raise ImageError(
            f"burst {str(source)!r} cannot be read: {error.strerror}; check the path"
        ) from error


def _find_bursts(source: Path, without: Path | None) -> list[Path]:
    if not source.exists():
        raise ImageError(f"burst {str(source)!r} does not exist; check the path")
    if found := _bursts_at(source, without):
        return found
    raise ImageError(
        f"{str(source)!r} contains no burst: it needs frames (im_raw_00.png, ..., burst.npz, DNG "
        f"files or images), or folders with frames{_advice(source)}"
    )


def _bursts_at(source: Path, without: Path | None = None) -> list[Path]:
    """The bursts at a path that exists; none if there are none."""
    if source.suffix == ".npz" or _has_planes(source):
        return [source]
    inside = next((source / name for name in INSIDE if _has_folders(source / name)), source)
    if inside.is_dir():
        found = [
            path
            for path in sorted(inside.iterdir(), key=natural_key)
            if (path.is_dir() and path.name != "gt" and (_has_planes(path) or _has_images(path)))
            or (path.suffix == ".npz" and not path.name.startswith("."))
        ]
        found = [path for path in found if without is None or not is_same_file(path, without)]
        if found:
            return found
        if _has_images(inside):
            return [inside]
    return []


def _advice(source: Path) -> str:
    """How to convert what is at the path, if it is known."""
    files = [source] if source.is_file() else sorted(source.iterdir(), key=natural_key)
    for file in files:
        suffix = file.suffix.lower()
        if suffix == SUFFIX:
            return f"; {file.name} is one frame, so put all frames of the burst in a folder"
        for suffixes, advice in _CONVERT.items():
            if suffix in suffixes:
                return f"; {suffix} files are not read: {advice}"
    inside = [folder.relative_to(source).as_posix() for folder in _with_bursts(source, LEVELS)]
    if not inside:
        return ""
    more = ", ..." if len(inside) > MOST_TOLD else ""
    return f"; folders in it that have bursts: {', '.join(inside[:MOST_TOLD])}{more}"


def _with_bursts(folder: Path, levels: int) -> list[Path]:
    """Folders below that contain bursts, such as the halves of a set."""
    found: list[Path] = []
    inside = folder.iterdir() if folder.is_dir() and levels else ()
    for path in sorted(inside, key=natural_key):
        if not path.is_dir() or path.name.startswith("."):
            continue
        with suppress(OSError):  # what cannot be read is nothing to choose
            found += [path] if _bursts_at(path) else _with_bursts(path, levels - 1)
        if len(found) > MOST_TOLD:
            break
    return found


def _has_planes(folder: Path) -> bool:
    return folder.is_dir() and (
        os.path.lexists(folder / NPZ)
        or any(folder.glob("im_raw_*.png"))
        or any(folder.glob("samsung_*/im_raw.png"))
        or bool(dng_files(folder))
    )


def dng_files(folder: Path) -> list[Path]:
    """DNG files directly in a folder, in natural order, without hidden ones."""
    found = [path for path in folder.iterdir() if path.suffix.lower() == SUFFIX]
    return sorted((path for path in found if not path.name.startswith(".")), key=natural_key)


def real_raw_clean(burst: Path) -> Path | None:
    """The clean image among the frames of a burst of RealBSR-RAW; None for other bursts.

    Such a folder also holds a pickle of facts: there, names of photos do not say what they are.
    """
    if not burst.is_dir() or not any(burst.glob("*.pkl")):
        return None
    return next(iter(sorted(burst.glob(f"*{REAL_RAW_CLEAN}"))), None)


def real_raw_frames(burst: Path) -> list[Path]:
    """The frames of a burst of RealBSR-RAW, in natural order; none for other bursts."""
    clean = real_raw_clean(burst)
    if clean is None:
        return []
    return sorted((path for path in burst.glob("*.png") if path != clean), key=natural_key)


def is_frame(path: Path) -> bool:
    """Whether the name of an image in a burst's folder may be that of a frame."""
    return path.name not in NOT_FRAMES and not path.name.endswith(CLEAN_END)


def _has_folders(folder: Path) -> bool:
    """Whether a folder may hold bursts: folders, or npz files."""
    return folder.is_dir() and any(
        path.is_dir() or path.suffix == ".npz" for path in folder.iterdir()
    )


def _has_images(folder: Path) -> bool:
    return any(
        path.suffix.lower() in PHOTO_EXTENSIONS and is_frame(path) and not path.name.startswith(".")
        for path in folder.iterdir()
        if not path.is_dir()
    )
