"""Make the pictures of docs/gallery.md: what each model gets, what it makes of it, the original.

    python examples/before_after.py [MODEL ...] [-o docs/images/models]

Each row is a crop of a photo that was not used in training; ``before_after.yaml`` lists them. Each
pixel is shown enlarged, by repeating it; nothing else is changed.

Shape suffixes: H height, W width in pixels, C channels (RGB).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

import zoo
from zoo.data.degradations import DEGRADATIONS
from zoo.data.pixels import with_channels
from zoo.data.testsets import validation_images
from zoo.errors import ZooError
from zoo.evaluation import restore_clean
from zoo.networks import Network
from zoo.schema import resolve_part

ROWS = Path(__file__).with_suffix(".yaml")
HEIGHT, WIDTH, REPEAT, GAP, CAPTION = 56, 80, 3, 6, 26


def main(arguments: Sequence[str] | None = None) -> int:
    """Restore the photos, write the pictures and return the exit code."""
    listed = yaml.safe_load(ROWS.read_text())
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="*", help=f"models [all of {ROWS.name}]")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("docs/images/models"), help="folder [%(default)s]"
    )
    options = parser.parse_args(arguments)
    try:
        if unknown := set(options.models) - set(listed):
            raise ZooError(f"{ROWS.name} has no model {min(unknown)!r}; it has {', '.join(listed)}")
        options.output.mkdir(parents=True, exist_ok=True)
        for name in options.models or listed:
            _write(options.output / f"{name}.webp", picture(zoo.load(name).eval(), listed[name]))
    except (ZooError, OSError) as error:
        sys.stderr.write(f"before_after: error: {error}\n")
        return 2
    return 0


def picture(network: Network, rows: Sequence[dict[str, Any]]) -> np.ndarray:
    """Return the rows below each other, (H, W, 3) in [0, 1]: input, network, original.

    Of a network that enlarges, the input is shown enlarged by bicubic interpolation, which its
    caption says.
    """
    photos = {photo.name: photo for photo in validation_images("samples")}
    parts = []
    for row in rows:
        degradation = resolve_part(DEGRADATIONS, row["input"], "input")(scale=network.scale)
        found = restore_clean(network, photos[row["photo"]].read_clean(), degradation)
        assert found.baseline is not None  # as many channels come out as go in
        before = f"{row['name']}, bicubic" if network.scale > 1 else row["name"]
        after = network.recipe.name.replace("mambair_", "").replace("mambacsr_", "csr_")
        columns = {before: found.baseline, after: found.restored, "original": found.clean}
        top, left = row["at"]
        crops = [
            with_channels(image_HWC, 3)[top : top + HEIGHT, left : left + WIDTH]
            .repeat(REPEAT, axis=0)
            .repeat(REPEAT, axis=1)
            for image_HWC in columns.values()
        ]
        parts += [_beside([_caption(text) for text in columns]), _beside(crops)]
    return np.concatenate(parts)


def _beside(pictures: Sequence[np.ndarray]) -> np.ndarray:
    gap = np.ones((len(pictures[0]), GAP, 3), np.float32)
    return np.concatenate([part for one in pictures for part in (one, gap)][:-1], axis=1)


def _caption(text: str) -> np.ndarray:
    strip = np.full((CAPTION, WIDTH * REPEAT, 3), 255, np.uint8)
    cv2.putText(strip, text, (2, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return strip.astype(np.float32) / 255


def _write(path: Path, picture_HWC: np.ndarray) -> None:
    levels_HWC = (picture_HWC * 255).round().astype(np.uint8)[..., ::-1]
    if not cv2.imwrite(str(path), levels_HWC, [cv2.IMWRITE_WEBP_QUALITY, 101]):  # without loss
        raise ZooError(f"cannot write '{path}'")


if __name__ == "__main__":
    sys.exit(main())
