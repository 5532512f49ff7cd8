"""Restore photos with the weights in the package: downscaled ones, and ones saved as JPEG.

    python examples/demo.py FOLDER

The photos were not used in training.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

import zoo
from zoo.data import Bicubic, Photo, write_photo
from zoo.data.degradations import Degradation
from zoo.data.one_pass import OnePass
from zoo.data.testsets import validation_images
from zoo.errors import ZooError
from zoo.evaluation import Restored, Score, mean_score, restore_clean, score

SHOWN = "coffee"
"""Photo to write the images of."""


class Task(NamedTuple):
    """What is done to the photos, and what restores them.

    Attributes:
        label: names the task in the names of images.
        what: a line for the table.
        model: the model whose weights restore them.
        degradation: what is done to them.
        without: what the scores are compared with.
    """

    label: str
    what: str
    model: str
    degradation: Degradation
    without: str


TASKS = (
    Task("x2", "enlarged x2", "mambair_tiny_x2", Bicubic(scale=2), "bicubic"),
    Task(
        "jpeg",
        "saved as JPEG of quality 40",
        "mambair_tiny_jpeg",
        OnePass(scale=1, quality=(40, 40)),
        "input",
    ),
)


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
    """Print the scores of all held-out photos in each task, and write the images of one photo."""
    folder.mkdir(parents=True, exist_ok=True)
    for task in TASKS:
        network = zoo.load(task.model)
        print(f"{task.model}: PSNR-Y in dB on photos held out of training, {task.what}")
        print(f"{'photo':<12}{task.without:>9}{'ours':>9}{'gain':>8}{'seconds':>9}")
        scores = []
        for photo in validation_images("samples"):
            begun = time.perf_counter()
            images = restore_clean(network, photo.read_clean(), task.degradation)
            seconds = time.perf_counter() - begun
            scores.append(score(photo.name, images, network.scale))
            print(_row(scores[-1]) + f"{seconds:>9.1f}")
            if photo.name == SHOWN:
                _write_images(folder, task, images)
        print(_row(mean_score(scores)) + "\n")
    print(f"images of {SHOWN!r}: {folder}/{SHOWN}_*.png (side by side: before, ours, original)")


def _write_images(folder: Path, task: Task, images: Restored) -> None:
    assert images.baseline is not None  # RGB goes in and comes out
    pictures = {
        "input": images.degraded,
        task.without: images.baseline,
        "ours": images.restored,
        "original": images.clean,
    }
    for label, picture in pictures.items():
        _write(folder / f"{SHOWN}_{task.label}_{label}.png", picture)
    beside = _side_by_side([images.baseline, images.restored, images.clean])
    _write(folder / f"{SHOWN}_{task.label}_side_by_side.png", beside)


def _row(found: Score) -> str:
    gain = found.psnr - found.baseline_psnr
    return f"{found.name:<12}{found.baseline_psnr:>9.2f}{found.psnr:>9.2f}{gain:>+8.2f}"


def _write(path: Path, picture_HWC: np.ndarray) -> None:
    write_photo(path, Photo(picture_HWC))


def _side_by_side(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Return the centres of the pictures side by side, enlarged by 2."""
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
