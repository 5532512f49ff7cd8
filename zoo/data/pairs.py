"""Writes pairs of clean and degraded images as files.

    python -m zoo.data.pairs photos/ -o prepared/ bicubic_jpeg scale=4 quality=10

writes ``prepared/clean/NAME.png`` and ``prepared/degraded/NAME.png``. The files are bit-identical
to what the degradation computes on the fly; with them, other code can use the same inputs.
"""

from __future__ import annotations

import argparse
import logging
import sys
import zlib
from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from zoo.command import run_command
from zoo.data.degradations import DEGRADATIONS, Degradation
from zoo.data.images import Photo, list_photos, read_photo, write_photo
from zoo.data.made_folders import by_stem, made_folder
from zoo.data.pixels import to_array, to_tensor
from zoo.errors import ImageError
from zoo.files import is_same_file
from zoo.recipe import parse_overrides
from zoo.schema import resolve, resolve_part

logger = logging.getLogger("zoo.data.pairs")


SIDES = ("clean", "degraded")
"""Names of the subfolders, in the sequence of the files of a pair."""


class Pair(NamedTuple):
    """Files of one clean image and its degraded version."""

    clean: Path
    degraded: Path


def write_pairs(source: str | Path, target: str | Path, degradation: Degradation) -> list[Pair]:
    """Degrade every image of a folder and write clean and degraded images as 8-bit PNG.

    JPEG degradations are stored as decoded pixels, not as JPEG files, because decoders differ.
    Images are cropped at the right and bottom to multiples of the scale; alpha is dropped. Pairs
    whose files both exist are skipped, so an interrupted run can be continued; see
    :func:`zoo.data.made_folders.made_folder`. Each file is written completely or not at all.

    Args:
        source: folder of clean images.
        target: folder to write to, with the subfolders ``clean`` and ``degraded``.
        degradation: makes the degraded image; its random seed depends only on the file name.

    Returns:
        The pairs, in the natural order of their names.

    Raises:
        ImageError: for an image that cannot be read, is smaller than the scale, has the same name
            as another except for the extension, or would be replaced. If the target has pairs of
            another degradation, scale or image.
        WriteError: if a file cannot be written, or another process writes to the target.
    """
    target = Path(target)
    images = by_stem(list_photos(source))
    pairs = {name: Pair(*(target / side / f"{name}.png" for side in SIDES)) for name in images}
    for name, pair in pairs.items():
        if any(is_same_file(images[name], file) for file in pair):
            raise ImageError(
                f"{images[name]}: a pair would replace the input; choose another folder"
            )
    with made_folder(target, _described(degradation), images, lambda: _images(target)):
        for name in tqdm(images, unit="image", disable=None):
            if not all(file.exists() for file in pairs[name]):
                _write_pair(images[name], pairs[name], degradation)
    return list(pairs.values())


def _described(degradation: Degradation) -> dict[str, Any]:
    """Return the class of a degradation and its options, for the note of the folder."""
    assert is_dataclass(degradation)  # by the contract of the class
    return {"degradation": type(degradation).__name__, **asdict(degradation)}


def _images(target: Path) -> dict[str, Path]:
    """Return one image of each pair that a folder has, by its name."""
    return {path.stem: path for side in SIDES for path in (target / side).glob("*.png")}


def _write_pair(path: Path, pair: Pair, degradation: Degradation) -> None:
    clean_HWC = read_photo(path).color_HWC
    scale = degradation.scale
    height, width = (side // scale * scale for side in clean_HWC.shape[:2])
    if not height or not width:
        raise ImageError(f"{path}: the image is smaller than {scale} pixels (the scale); remove it")
    clean_HWC = clean_HWC[:height, :width]
    clean_CHW = to_tensor(clean_HWC)
    rng = np.random.default_rng(zlib.crc32(path.stem.encode()))
    degraded_CHW = degradation(clean_CHW, rng)  # clipped when it is written
    write_photo(pair.degraded, Photo(to_array(degraded_CHW)))
    write_photo(pair.clean, Photo(clean_HWC))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m zoo.data.pairs",
        description="Write clean images and their degraded versions as pairs of PNG files.",
        epilog="example: python -m zoo.data.pairs DIV2K -o prepared bicubic_jpeg scale=4 "
        "quality=10",
    )
    parser.add_argument("input", type=Path, help="folder of clean images")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to write to")
    parser.add_argument(
        "degradation", help="name of a degradation; see 'zoo list --parts degradation'"
    )
    parser.add_argument(
        "options",
        nargs="*",
        default=[],
        metavar="key=value",
        help="options of the degradation, and its scale [scale=1]",
    )
    return run_command(parser, _run, arguments, intermixed=True)


def _run(options: argparse.Namespace) -> None:
    described = {"scale": 1, **parse_overrides(options.options, "quality=10")}
    scale = resolve(int, described.pop("scale"), "scale")
    described["type"] = options.degradation
    degradation = resolve_part(DEGRADATIONS, described, options.degradation)(scale=scale)
    pairs = write_pairs(options.input, options.output, degradation)
    logger.info("%d pairs in %s", len(pairs), options.output)


if __name__ == "__main__":
    sys.exit(main())
