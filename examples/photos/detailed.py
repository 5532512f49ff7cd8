"""Cut the detailed parts of training photos, as they are and at half their size.

    python examples/photos/detailed.py photos/training -o detailed

Much of a photograph is smooth. Bicubic enlargement restores such parts, so a network learns little
from them. A part is kept if bicubic enlargement x2 reaches less than a limit in PSNR. At half its
size, a photo is sharper, and shows more in each part.

Shape suffixes: B batch, C channels, H height, W width in pixels.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from torch import Tensor
from tqdm import tqdm

from zoo.data.bicubic import resize_bicubic
from zoo.data.images import list_photos, read_photo, write_photo
from zoo.data.photo import Photo
from zoo.data.pixels import to_array, to_tensor
from zoo.errors import ZooError

SIZE, STEP = 160, 140
"""Side of a part, and distance between neighbours, in pixels."""

LEAST = 128
"""Smallest side of a part in pixels; patches of 64 at scale 2 need as many."""

LIMIT, LIMIT_OF_MANY = 36.0, 30.0
"""A part is kept if bicubic enlargement reaches less than this PSNR in dB. The second is for a
package with more than MANY photos, so that one kind of picture does not prevail."""

MANY = 100


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the parts and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="folder of photos that collect.py wrote")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to write to")
    options = parser.parse_args(arguments)
    try:
        count = write_parts(options.folder, options.output)
    except (ZooError, OSError) as error:
        sys.stderr.write(f"detailed: error: {error}\n")
        return 2
    print(f"{count} parts in {options.output}")
    return 0


def write_parts(folder: Path, output: Path) -> int:
    """Write the detailed parts of the photos of a folder and return their number.

    Raises:
        ZooError: if a photo cannot be read, or parts would replace photos or one another.
    """
    paths = list_photos(folder)
    if folder.resolve() == output.resolve():
        raise ZooError(f"{output}: the parts would be among the photos; choose another folder")
    if output.exists() and not output.is_dir():
        raise ZooError(f"{output} is a file, not a folder; choose another folder")
    names: dict[str, str] = {}
    for path in paths:
        other = names.setdefault(path.stem, path.name)
        if other != path.name:
            raise ZooError(
                f"{folder}: the parts of {other} and {path.name} would have the same names; "
                "rename one"
            )
    output.mkdir(parents=True, exist_ok=True)
    many, count = of_large_packages(), 0
    for path in tqdm(paths, unit="photo"):
        limit = LIMIT_OF_MANY if path.stem in many else LIMIT
        for name, part_BCHW in detailed_parts(to_tensor(read_photo(path).color_HWC)[None], limit):
            write_photo(output / f"{path.stem}_{name}.png", Photo(to_array(part_BCHW[0])))
            count += 1
    return count


def of_large_packages(table: Path = Path(__file__).parent / "photos.csv") -> set[str]:
    """Names of the photos that come from a package with more than MANY."""
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    packages = [row["package"] for row in rows]
    return {row["name"] for row in rows if packages.count(row["package"]) > MANY}


def detailed_parts(photo_BCHW: Tensor, limit: float) -> Iterator[tuple[str, Tensor]]:
    """The parts of a photo, and of its half, that bicubic enlargement does not restore.

    Args:
        photo_BCHW: in [0, 1], B = 1.
        limit: PSNR in dB of bicubic enlargement x2 from which a part is left out.

    Yields:
        Shrinking, top and left, as in ``2_0_140``; and the part.
    """
    if min(photo_BCHW.shape[2:]) < LEAST:
        return  # one pixel has no half
    height, width = (side // 2 * 2 for side in photo_BCHW.shape[2:])
    half_BCHW = resize_bicubic(photo_BCHW[..., :height, :width], 0.5).clamp(0, 1)
    for shrink, image_BCHW in ((1, photo_BCHW), (2, half_BCHW)):
        height, width = image_BCHW.shape[2:]
        size = min(SIZE, height // 2 * 2, width // 2 * 2)
        if size < LEAST:
            continue
        # A border narrower than STEP is left out.
        for top in range(0, height - size + 1, STEP):
            for left in range(0, width - size + 1, STEP):
                part_BCHW = image_BCHW[..., top : top + size, left : left + size]
                if bicubic_psnr(part_BCHW) < limit:
                    yield f"{shrink}_{top}_{left}", part_BCHW


def bicubic_psnr(image_BCHW: Tensor) -> float:
    """PSNR in dB, over all channels, of bicubic enlargement x2 of the image at half its size."""
    enlarged_BCHW = resize_bicubic(resize_bicubic(image_BCHW, 0.5), 2.0)
    return float(-10 * (image_BCHW - enlarged_BCHW).square().mean().log10())


if __name__ == "__main__":
    sys.exit(main())
