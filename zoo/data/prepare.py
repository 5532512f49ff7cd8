"""Sub-images: large training photos cut into overlapping squares, which are quick to read.

A 2K photo takes a tenth of a second to decode, and a training patch needs a hundredth of it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from zoo.command import run_command
from zoo.data.images import Photo, list_photos, read_photo, write_photo
from zoo.data.photos import READERS, all_faults
from zoo.errors import ImageError, WriteError, ZooError


def starts(side: int, size: int, step: int) -> list[int]:
    """Where sub-images begin along one side; the last one ends at the border."""
    if side <= size:
        return [0]
    return [*range(0, side - size, step), side - size]


def prepare(
    source: str | Path,
    target: str | Path,
    *,
    size: int = 480,
    step: int = 240,
    progress: bool = True,
) -> int:
    """Cut every photo of a folder into sub-images, ``NAME_s001.png`` and so on.

    Photos smaller than ``size`` are taken over as they are. Sub-images that are there are not
    written again, so that an interrupted run goes on. Alpha is left out, the bit depth is kept.
    Pairs stay pairs: cut the degraded folder with size and step divided by the scale.

    Args:
        source: folder of photos.
        target: folder to write, made where it is missing.
        size: side of a sub-image in pixels.
        step: from one sub-image to the next, in pixels.
        progress: show a progress bar.

    Returns:
        How many sub-images there are now.

    Raises:
        ImageError: naming the photos that cannot be read; the others are done.
        ZooError: for a size or step that makes no sense.
    """
    source, target = Path(source), Path(target)
    if not 1 <= step <= size:
        raise ZooError(
            f"step is {step} and size {size}; both are pixels, and a step beyond the size leaves "
            "gaps"
        )
    paths = list_photos(source)
    if source.resolve() == target.resolve():
        raise ImageError(f"{target}: the sub-images would lie among the photos; choose another")
    written, faults = 0, []
    with ThreadPoolExecutor(READERS) as threads:
        results = threads.map(lambda path: _cut(path, target, size, step), paths)
        for found in _shown(results, len(paths), progress):
            if isinstance(found, int):
                written += found
            else:
                faults.append(str(found))
    if faults:
        raise ImageError(all_faults(faults, len(paths), "photos failed, the others are done"))
    return written


def _cut(path: Path, target: Path, size: int, step: int) -> int | ZooError:
    try:
        photo = read_photo(path)
        height, width = photo.color_HWC.shape[:2]
        places = [
            (top, left) for top in starts(height, size, step) for left in starts(width, size, step)
        ]
        for number, (top, left) in enumerate(places, 1):
            output = target / f"{path.stem}_s{number:03d}.png"
            if not output.exists():
                part = photo.color_HWC[top : top + size, left : left + size]
                write_photo(output, Photo(part, bit_depth=photo.bit_depth))
        return len(places)
    except (ImageError, WriteError) as error:
        return error


def _shown(
    results: Iterable[int | ZooError], total: int, progress: bool
) -> Iterable[int | ZooError]:
    return tqdm(results, total=total, unit="photo", disable=not progress or None)


def main(arguments: Sequence[str] | None = None, prog: str = "zoo data prepare") -> int:
    """Run the command as ``prog``; returns the exit code, 2 for bad input."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Cut large training photos into overlapping sub-images, which load faster.",
        epilog="example: %(prog)s DIV2K -o DIV2K_sub",
        allow_abbrev=False,
    )
    parser.add_argument("input", type=Path, help="folder of photos")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--size", type=int, default=480, help="side of a sub-image in pixels [480]")
    parser.add_argument(
        "--step", type=int, default=240, help="pixels from one sub-image to the next [240]"
    )
    return run_command(parser, _run, arguments)


def _run(options: argparse.Namespace) -> None:
    count = prepare(options.input, options.output, size=options.size, step=options.step)
    print(f"{count} sub-images in {options.output}")  # noqa: T201
