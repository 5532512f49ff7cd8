"""Downscale photos, restore them with the weights in the package, and compare with bicubic.

    python examples/demo.py FOLDER

The photos were not used in training.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import zoo
from zoo.data import Bicubic, Photo, write_photo
from zoo.data.testsets import validation_images
from zoo.errors import ZooError
from zoo.evaluation import Score, mean_score, restore_clean, score

MODEL = "mambair_tiny_x2"
SHOWN = "coffee"
"""Photo to write the images of."""


def main() -> int:
    """Run the demonstration and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="folder to write the images to")
    folder = parser.parse_args().folder
    try:
        demonstrate(folder)
    except (ZooError, OSError) as error:
        sys.stderr.write(f"demo: error: {error}\n")
        return 2
    return 0


def demonstrate(folder: Path) -> None:
    """Print the scores of all held-out photos, and write the images of one photo."""
    folder.mkdir(parents=True, exist_ok=True)
    network = zoo.load(MODEL)
    degradation = Bicubic(scale=network.scale)
    print(f"{MODEL}: PSNR-Y in dB on photos held out of training, x{network.scale}")
    print(f"{'photo':<12}{'bicubic':>9}{'ours':>9}{'gain':>8}{'seconds':>9}")
    scores = []
    for photo in validation_images("samples"):
        name = photo.name
        begun = time.perf_counter()
        images = restore_clean(network, photo.read_clean(), degradation)
        seconds = time.perf_counter() - begun
        found = score(name, images, network.scale)
        scores.append(found)
        print(_row(found) + f"{seconds:>9.1f}")
        if name == SHOWN:
            assert images.baseline is not None  # RGB goes in and comes out
            pictures = {
                "input": images.degraded,
                "bicubic": images.baseline,
                "ours": images.restored,
                "original": images.clean,
            }
            for label, picture in pictures.items():
                _write(folder / f"{name}_{label}.png", picture)
            _write(folder / f"{name}_side_by_side.png", _side_by_side(list(pictures.values())[1:]))
    print(_row(mean_score(scores)))
    print(f"images of {SHOWN!r}: {folder}/{SHOWN}_*.png (side by side: bicubic, ours, original)")


def _row(found: Score) -> str:
    gain = found.psnr - found.baseline_psnr
    return f"{found.name:<12}{found.baseline_psnr:>9.2f}{found.psnr:>9.2f}{gain:>+8.2f}"


def _write(path: Path, picture_HWC: np.ndarray) -> None:
    write_photo(path, Photo(picture_HWC))


def _side_by_side(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Return the centres of bicubic, ours and the original side by side, enlarged by 2."""
    crops = []
    for picture in pictures:
        height, width = picture.shape[:2]
        top, left = (height - 200) // 2, (width - 200) // 2
        crop = picture[top : top + 200, left : left + 200]
        crops.append(crop.repeat(2, axis=0).repeat(2, axis=1))
        crops.append(np.ones((crops[0].shape[0], 8, picture.shape[2]), np.float32))
    return np.concatenate(crops[:-1], axis=1)


if __name__ == "__main__":
    sys.exit(main())
