"""Make the picture at the top of the README: bicubic on the left, our network on the right.

    python examples/before_after.py [docs/images/before_after.png]

Each row is a crop of a photo that was not used in training. It is downscaled by 2, then upscaled by
2 in both ways. Each pixel is shown enlarged, by repeating it; nothing else is changed.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

import zoo
from zoo.data import Bicubic
from zoo.data.testsets import validation_images
from zoo.errors import ZooError
from zoo.evaluation import restore_clean

MODEL = "mambair_tiny_x2"
CROPS = {"chelsea": (92, 140), "rocket": (255, 5)}
"""Top and left of the crop of each photo, in pixels."""
HEIGHT, WIDTH, REPEAT, GAP, CAPTION = 56, 100, 4, 8, 34


def main(output: Path) -> None:
    """Restore the photos and write the picture."""
    network = zoo.load(MODEL)
    photos = {photo.name: photo for photo in validation_images("samples")}
    rows = [_captions(["bicubic x2", f"{MODEL}"])]
    for name, (top, left) in CROPS.items():
        clean = photos[name].read_clean()
        images = restore_clean(network, clean, Bicubic(scale=network.scale))
        assert images.baseline is not None  # RGB goes in and comes out
        crops = [
            picture[top : top + HEIGHT, left : left + WIDTH]
            .repeat(REPEAT, axis=0)
            .repeat(REPEAT, axis=1)
            for picture in (images.baseline, images.restored)
        ]
        rows += [_beside(crops), np.ones((GAP, rows[0].shape[1], 3), np.float32)]
    picture = (np.concatenate(rows[:-1]) * 255).round().astype(np.uint8)[..., ::-1]
    if not cv2.imwrite(str(output), picture, [cv2.IMWRITE_PNG_COMPRESSION, 9]):
        raise ZooError(f"cannot write '{output}'")


def _beside(pictures: list[np.ndarray]) -> np.ndarray:
    left, right = pictures
    return np.concatenate([left, np.ones((len(left), GAP, 3), np.float32), right], axis=1)


def _captions(texts: list[str]) -> np.ndarray:
    strips = []
    for text in texts:
        strip = np.full((CAPTION, WIDTH * REPEAT, 3), 255, np.uint8)
        cv2.putText(strip, text, (4, 22), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (0, 0, 0), 1, cv2.LINE_AA)
        strips.append(strip.astype(np.float32) / 255)
    return _beside(strips)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images/before_after.png"))
