"""Denoising the photos of SIDD's and DND's servers, and writing the files that they take.

Neither benchmark gives its clean images away: the servers score what is sent to them. A submission
that is stopped goes on where it was.

Shape suffixes: N blocks, H height, W width in pixels; 3 the channels R, G, B.

Sources: the scripts of MambaIR's realDenoising for ``Idenoised.mat`` and DND; the sample code of
SIDD's competitions for ``SubmitSrgb.csv``.
"""

from __future__ import annotations

import base64
import csv
import importlib
import io
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from tqdm import tqdm

from zoo.data.arrays import mat_bytes, named_blocks
from zoo.errors import ImageError, ZooError, pip_install
from zoo.files import write_bytes

Denoiser: TypeAlias = Callable[[np.ndarray], np.ndarray]
"""Denoises a photo (H, W, 3), float32 in [0, 1]."""

NOISY = "noisyblocks"
"""What the name of the variable in SIDD's files of noisy blocks contains, in lower case."""

PHOTOS = 40
"""Photos of SIDD's files of blocks; each has as many blocks as the others."""

BOXES = 4
"""Numbers of a box of DND: first row and column, last row and column, counted from 1."""


def submit_sidd(
    denoise: Denoiser, source: Path, output: Path, of: str, *, progress: bool = True
) -> None:
    """Denoise SIDD's blocks and write one file of all.

    Args:
        denoise: the denoiser.
        source: ``BenchmarkNoisyBlocksSrgb.mat``, or the validation blocks.
        output: the file to write: ``.csv`` for the server of the benchmark (8 bits), ``.mat`` for
            the authors' MATLAB script (``Idenoised``, float32, not rounded).
        of: what is denoised with, in words: blocks that something else left are not used.
        progress: whether to show a progress bar.

    Raises:
        ZooError: if the output exists or its name ends in something else.
        ImageError: if the blocks cannot be read, or are not the noisy ones.
    """
    if output.suffix.lower() not in (".csv", ".mat"):
        raise ZooError(
            f"{output}: name a .csv file for SIDD's server, or a .mat file for the authors' script"
        )
    if output.exists():
        raise ZooError(f"{output} exists; remove it, or name another file")
    name, noisy_NHW3 = named_blocks(source)
    if NOISY not in name.lower():
        raise ImageError(
            f"{str(source)!r} holds {name[:40]!r}, which are not SIDD's noisy blocks; give "
            "BenchmarkNoisyBlocksSrgb.mat, or ValidationNoisyBlocksSrgb.mat, with their variables"
        )
    if noisy_NHW3.dtype != np.uint8 or noisy_NHW3.shape[-1] != 3:
        raise ImageError(
            f"{str(source)!r} holds blocks of {noisy_NHW3.dtype} with {noisy_NHW3.shape[-1]} "
            "channels; SIDD's are uint8 RGB"
        )
    with _parts(output.with_name(f".{output.name}.parts"), of) as parts:
        for number in tqdm(range(len(noisy_NHW3)), unit="block", disable=not progress or None):
            part = parts / f"{number:04d}.npy"
            if not part.exists():
                clean_HW3 = denoise(noisy_NHW3[number].astype(np.float32) / 255)
                write_bytes(part, _npy(clean_HW3.astype(np.float32)))
        found = (np.load(parts / f"{n:04d}.npy") for n in range(len(noisy_NHW3)))
        if output.suffix.lower() == ".csv":
            write_bytes(output, _csv(found))
        else:
            photos = PHOTOS if len(noisy_NHW3) % PHOTOS == 0 else 1
            blocks = np.stack(list(found)).reshape(photos, -1, *noisy_NHW3.shape[1:])
            write_bytes(output, mat_bytes(output, {"Idenoised": blocks}))
    shutil.rmtree(parts)


def _csv(blocks: Iterator[np.ndarray]) -> bytes:
    """One line for each block: its number, and its bytes in base64."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["ID", "BLOCK"])
    for number, block_HW3 in enumerate(blocks):
        levels = (block_HW3 * 255).round().astype(np.uint8)
        writer.writerow([number, base64.b64encode(levels.tobytes()).decode("ascii")])
    return text.getvalue().encode("ascii")


def submit_dnd(
    denoise: Denoiser, source: Path, output: Path, of: str, *, progress: bool = True
) -> None:
    """Denoise the boxes of DND's photos and write a MATLAB file for each photo.

    Args:
        denoise: the denoiser.
        source: the folder of DND, with ``info.mat`` and ``images_srgb``.
        output: the folder to write: ``0001.mat``, ...
        of: what is denoised with, in words: files that something else left are not used.
        progress: whether to show a progress bar.

    Raises:
        ZooError: if the output has files of something else, or h5py is missing.
        ImageError: if the photos cannot be read.
    """
    files = sorted((source / "images_srgb").glob("*.mat"))
    if not files or not (source / "info.mat").is_file():
        raise ImageError(
            f"{str(source)!r} is not the folder of DND: it needs info.mat, and images_srgb with "
            "0001.mat, ..."
        )
    mark = output.with_name(f".{output.name}.of")
    begun = mark.is_file() and mark.read_text(encoding="utf-8") == of
    if output.is_dir() and any(output.iterdir()) and not begun:
        raise ZooError(f"{output} has files of another run; remove it, or name another folder")
    output.mkdir(parents=True, exist_ok=True)
    write_bytes(mark, of.encode())
    for file in tqdm(files, unit="photo", disable=not progress or None):
        target = output / file.name
        if not target.exists():
            noisy_HW3, boxes = _dnd_photo(source, file)
            clean = np.empty(len(boxes), dtype=object)
            for number, (top, left, bottom, right) in enumerate(boxes):
                clean[number] = denoise(noisy_HW3[top - 1 : bottom, left - 1 : right])
            held = {"Idenoised": clean, "israw": False, "eval_version": "1.0"}
            write_bytes(target, mat_bytes(target, held))
    mark.unlink()


def _dnd_photo(source: Path, file: Path) -> tuple[np.ndarray, list[list[int]]]:
    """Read a photo of DND, float32 (H, W, 3), and the corners of its boxes."""
    h5py = _h5py()
    try:
        number = int(file.stem) - 1
        with h5py.File(source / "info.mat", "r") as held:
            info = held["info"]
            boxes = np.array(info[info["boundingboxes"][0][number]]).T
        with h5py.File(file, "r") as held:
            noisy_HW3 = np.array(held["InoisySRGB"], dtype=np.float32).T
    except (OSError, KeyError, IndexError, ValueError) as error:
        raise ImageError(
            f"{str(file)!r} or its boxes in info.mat cannot be read ({error}); copy DND again"
        ) from error
    if noisy_HW3.ndim != 3 or noisy_HW3.shape[2] != 3 or boxes.shape[1:] != (BOXES,):
        raise ImageError(f"{str(file)!r} holds no RGB photo with boxes; copy DND again")
    return np.ascontiguousarray(noisy_HW3), boxes.astype(int).tolist()


def _h5py() -> Any:
    try:
        return importlib.import_module("h5py")
    except ImportError as error:
        raise ZooError(
            f"DND's files need h5py, which cannot be imported ({error}); {pip_install('dnd')}"
        ) from error


@contextmanager
def _parts(folder: Path, of: str) -> Iterator[Path]:
    """A folder of finished parts, which stays if the work is stopped."""
    mark = folder / "of.json"
    stamp = json.dumps(of)
    if not mark.is_file() or mark.read_text(encoding="utf-8") != stamp:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_bytes(mark, stamp.encode())
    yield folder


def _npy(array: np.ndarray) -> bytes:
    held = io.BytesIO()
    np.save(held, array)
    return held.getvalue()
