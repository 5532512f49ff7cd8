"""Make the small pictures of scan orders in docs/networks.md.

    python examples/scan_pictures.py [docs/images/scans]

Each picture shows the first two directions of an order on a grid of 8 x 10 tokens; the path goes
from dark to bright. ``zoo scans plot`` draws them in full size.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import cv2
import numpy as np

from zoo.data import Photo, write_photo
from zoo.plots.scan_order import render_order
from zoo.scans import (
    CrossScale,
    Diagonal,
    Dilated,
    Hilbert,
    HilbertCropped,
    Raster,
    ScanOrder,
    Serpentine,
    Shuffled,
    Spiral,
    Stripes,
    Window,
    Zigzag,
    ZOrder,
)

HEIGHT, WIDTH = 8, 10
PIXELS = 220
"""Width of a picture."""

ORDERS: dict[str, ScanOrder] = {
    "raster": Raster(),
    "window": Window(size=4),
    "window_shifted": Window(size=4, shift=2),
    "window_serpentine": Window(size=(4, 5), serpentine=True),
    "cross_scale": CrossScale(size=4),
    "stripes": Stripes(width=4),
    "stripes_shifted": Stripes(width=4, shift=2),
    "serpentine": Serpentine(),
    "diagonal": Diagonal(),
    "zigzag": Zigzag(),
    "spiral": Spiral(),
    "dilated": Dilated(step=2),
    "z_order": ZOrder(),
    "hilbert": Hilbert(),
    "hilbert_cropped": HilbertCropped(),
    "shuffled": Shuffled(count=2),
}


def main(folder: Path) -> None:
    """Draw all orders."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, order in ORDERS.items():
        assert dataclasses.is_dataclass(order)
        if not isinstance(order, Shuffled):
            order = dataclasses.replace(order, directions=order.directions[:2])
        size = (HEIGHT, WIDTH) if order.grids == 1 else (8, 8)
        picture = render_order(order, *size)
        height = round(PIXELS * picture.shape[0] / picture.shape[1])
        small = cv2.resize(picture, (PIXELS, height), interpolation=cv2.INTER_AREA)
        write_photo(folder / f"{name}.png", Photo(color_HWC=small.astype(np.float32) / 255))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images/scans"))
