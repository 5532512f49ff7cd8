"""Show the error in the authors' MambaCSR code for column-first cross-scale scans.

    python examples/mapping_back.py [docs/images/mapping_back.png]

Each pixel of a photograph represents the result of the scan at its position. The right picture
shows where the authors' code puts this result. See docs/mambacsr.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from zoo.data import Photo, load_sample, write_photo
from zoo.scans.official import official_column_sources

HEIGHT, WIDTH, WINDOW, GAP = 128, 192, 16, 12


def main(target: Path) -> None:
    """Write the correct and the authors' mapping of a photograph, side by side."""
    photo_HWC = torch.from_numpy(load_sample("chelsea").color_HWC)
    cut_HWC = photo_HWC[20 : 20 + HEIGHT, 110 : 110 + WIDTH]
    sources_L = official_column_sources(HEIGHT, WIDTH, WINDOW)
    official_HWC = cut_HWC.flatten(0, 1)[sources_L].unflatten(0, (HEIGHT, WIDTH))
    gap_HWC = torch.ones(HEIGHT, GAP, 3)
    picture_HWC = torch.cat([cut_HWC, gap_HWC, official_HWC], dim=1)
    enlarged_HWC = picture_HWC.repeat_interleave(2, 0).repeat_interleave(2, 1)
    write_photo(target, Photo(np.ascontiguousarray(enlarged_HWC.numpy())))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images/mapping_back.png"))
