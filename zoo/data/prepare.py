"""Cuts large training photos into overlapping square sub-images, which load faster.

Decoding a 2K photo takes a tenth of a second, but a training patch needs only a hundredth of it.
Photos and their degraded versions are cut together: cut one folder after the other, they would be
apart by some pixels wherever the sides of a photo are not multiples of the scale.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from zoo.command import run_command, whole
from zoo.data.images import Photo, list_photos, read_photo, write_photo
from zoo.data.made_folders import by_stem, made_folder
from zoo.data.pair_scale import found_pairs, misfit_of
from zoo.data.photos import NUM_THREADS, all_faults
from zoo.data.value_range import ValueRange, check_range, is_photographic, refuse_no_data
from zoo.errors import ImageError, WriteError, ZooError

_SUB_IMAGE = re.compile(r"(.+)_s\d{3,}\.(?:png|npy)")


class _Place(NamedTuple):
    """A square in a photo: rows from ``top`` and columns from ``left``, in pixels."""

    top: int
    left: int


def starts(side: int, size: int, step: int) -> list[int]:
    """Start positions of sub-images along one side, in pixels; the last one ends at the border."""
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
    value_range: ValueRange | None = None,
) -> int:
    """Cut every photo of a folder into sub-images, ``NAME_s001.png`` and so on.

    Images that are no photographs become ``NAME_s001.npy``.

    A photo smaller than ``size`` becomes one sub-image. Existing sub-images are not written again,
    so an interrupted run can be continued; see :func:`zoo.data.made_folders.made_folder`. Alpha is
    dropped; the bit depth stays the same. For pairs of clean and degraded photos, use
    :func:`prepare_pairs`.

    Args:
        source: folder of photos.
        target: folder to write to; it is created if missing.
        size: side of a sub-image in pixels.
        step: distance between neighbouring sub-images in pixels.
        progress: whether to show a progress bar.
        value_range: the values of the files that are black and white; see
            :func:`zoo.data.read_photo`.

    Returns:
        The number of sub-images, including those that existed before.

    Raises:
        ImageError: if photos cannot be read; the message names them, and the others are done. If
            two photos have the same name except for the extension, or the target has sub-images of
            another size, step, range or photo; then nothing is done.
        ZooError: unless 1 <= step <= size.
        WriteError: if the target cannot be written, or another process writes there.
    """
    source, target = Path(source), Path(target)
    _check_step(size, step)
    photos = by_stem(list_photos(source))
    _check_apart(target, source)

    def cut(name: str) -> int:
        photo = _read(photos[name], value_range)
        return _write(target, name, photo, _places(photo, size, step), size)

    options = {"size": size, "step": step, "range": value_range}
    with made_folder(target, options, photos, lambda: _sub_images(target)):
        return _cut_all(cut, photos, progress)


def prepare_pairs(
    source: str | Path,
    degraded: str | Path,
    target: str | Path,
    degraded_target: str | Path,
    *,
    size: int = 480,
    step: int = 240,
    progress: bool = True,
    value_range: ValueRange | None = None,
) -> int:
    """Cut photos and their degraded versions into sub-images that show the same part.

    Pairs are found by name, as in training, and both sub-images get the name of the clean photo.
    The scale is found from the sizes. A clean photo is cropped at the right and bottom to the size
    of its degraded version times the scale. Otherwise this is :func:`prepare`.

    Args:
        source: folder of clean photos.
        degraded: folder of their degraded versions; those without a clean photo are left out.
        target: folder to write the clean sub-images to; it is created if missing.
        degraded_target: folder to write the degraded sub-images to; it is created if missing.
        size: side of a clean sub-image in pixels, a multiple of the scale.
        step: distance between neighbouring clean sub-images in pixels, a multiple of the scale.
        progress: whether to show a progress bar.
        value_range: the values of the files that are black and white, in both folders.

    Returns:
        The number of pairs of sub-images, including those that existed before.

    Raises:
        ImageError: as in :func:`prepare`; if photos have no degraded version, several of them, or
            one of another size.
        ZooError: unless 1 <= step <= size, and both are multiples of the scale.
        WriteError: if a target cannot be written, or another process writes there.
    """
    source, degraded, target, degraded_target = map(
        Path, (source, degraded, target, degraded_target)
    )
    _check_step(size, step)
    photos = by_stem(list_photos(source))
    _check_apart(target, source, degraded)
    _check_apart(degraded_target, source, degraded, target)
    small_files = list_photos(degraded)
    scale, numbers = found_pairs(
        list(photos.values()), small_files, lambda path: _read(path, value_range)
    )
    others = {name: small_files[number] for name, number in zip(photos, numbers, strict=True)}
    _check_multiples(size, step, scale)

    def cut(name: str) -> int:
        clean, small = (_read(side[name], value_range) for side in (photos, others))
        if fault := misfit_of(photos[name], clean, others[name], small, scale):
            raise ImageError(fault)
        # Places are chosen in the degraded photo, so that they are whole pixels of both.
        places = _places(small, size // scale, step // scale)
        height, width = (side * scale for side in small.color_HWC.shape[:2])
        cropped = replace(clean, color_HWC=clean.color_HWC[:height, :width])
        scaled = [_Place(top * scale, left * scale) for top, left in places]
        _write(target, name, cropped, scaled, size)
        return _write(degraded_target, name, small, places, size // scale)

    options = {"size": size, "step": step, "range": value_range, "scale": scale}
    small_options = {**options, "size": size // scale, "step": step // scale}
    with (
        made_folder(target, options, photos, lambda: _sub_images(target)),
        made_folder(degraded_target, small_options, others, lambda: _sub_images(degraded_target)),
    ):
        return _cut_all(cut, photos, progress)


def _check_step(size: int, step: int) -> None:
    if not 1 <= step <= size:
        raise ZooError(
            f"step is {step} and size is {size} pixels; step must be at least 1, and a step larger "
            "than size leaves gaps"
        )


def _check_multiples(size: int, step: int, scale: int) -> None:
    if size % scale or step % scale:
        raise ZooError(
            f"size is {size} and step is {step} pixels; for pairs of scale {scale} both must be "
            f"multiples of {scale}"
        )


def _check_apart(target: Path, *others: Path) -> None:
    if any(target.resolve() == other.resolve() for other in others):
        raise ImageError(
            f"{target}: the sub-images would be among the photos; choose another folder"
        )


def _read(path: Path, value_range: ValueRange | None) -> Photo:
    """Read a photo without its alpha and metadata; pixels without data are an error."""
    photo = read_photo(path, value_range)
    refuse_no_data(path, photo)
    return Photo(photo.color_HWC, bit_depth=photo.bit_depth, value_range=value_range)


def _places(photo: Photo, size: int, step: int) -> list[_Place]:
    height, width = photo.color_HWC.shape[:2]
    return [
        _Place(top, left)
        for top in starts(height, size, step)
        for left in starts(width, size, step)
    ]


def _write(folder: Path, name: str, photo: Photo, places: Sequence[_Place], size: int) -> int:
    """Write the squares of a photo that are not there yet; return the number of all."""
    color_HWC = photo.color_HWC
    picture = is_photographic(color_HWC.shape[2], photo.value_range) and photo.bit_depth != 32
    for number, (top, left) in enumerate(places, 1):
        output = folder / f"{name}_s{number:03d}{'.png' if picture else '.npy'}"
        if not output.exists():
            part = color_HWC[top : top + size, left : left + size]
            write_photo(output, replace(photo, color_HWC=part))
    return len(places)


def _sub_images(folder: Path) -> dict[str, Path]:
    """Return one of the sub-images of each photo that a folder has, by the name of the photo."""
    matches = ((_SUB_IMAGE.fullmatch(path.name), path) for path in sorted(folder.iterdir()))
    return {match[1]: path for match, path in matches if match}


def _cut_all(cut: Callable[[str], int], names: Collection[str], progress: bool) -> int:
    """Cut the photos of these names and return the number of sub-images; all faults are told."""

    def tried(name: str) -> int | ZooError:
        try:
            return cut(name)
        except (ImageError, WriteError) as error:
            return error

    written, faults = 0, []
    with ThreadPoolExecutor(NUM_THREADS) as threads:
        results = threads.map(tried, names)
        hidden = not progress or None
        for found in tqdm(results, total=len(names), unit="photo", disable=hidden):
            if isinstance(found, int):
                written += found
            else:
                faults.append(str(found))
    if faults:
        raise ImageError(all_faults(faults, len(names), "photos failed, the others are done"))
    return written


def main(arguments: Sequence[str] | None = None, prog: str = "zoo data prepare") -> int:
    """Run the command under the name ``prog`` and return its exit code, 2 for bad input."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Cut large training photos into overlapping sub-images, which load faster.\n"
        "Photos and their degraded versions are cut at the same places.",
        epilog="examples:\n"
        "  %(prog)s DIV2K -o DIV2K_sub\n"
        "  %(prog)s HR -o HR_sub --degraded LR --degraded-output LR_sub",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("input", type=Path, help="folder of photos")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to write to")
    parser.add_argument(
        "--degraded", type=Path, help="folder of the degraded versions of the photos"
    )
    parser.add_argument(
        "--degraded-output", type=Path, help="folder to write the degraded sub-images to"
    )
    parser.add_argument(
        "--size",
        type=whole("--size", 1),
        default=480,
        help="side of a sub-image in pixels; that of a degraded one is divided by the scale [480]",
    )
    parser.add_argument(
        "--step",
        type=whole("--step", 1),
        default=240,
        help="distance between sub-images in pixels [240]",
    )
    parser.add_argument(
        "--range",
        nargs=2,
        type=float,
        metavar=("LOW", "HIGH"),
        help="values of the files that are black and white, for data that is no photograph",
    )
    return run_command(parser, _run, arguments)


def _run(options: argparse.Namespace) -> None:
    value_range = check_range(options.range and tuple(options.range))
    degraded, degraded_output = options.degraded, options.degraded_output
    if (degraded is None) != (degraded_output is None):
        raise ZooError(
            "--degraded and --degraded-output go together: the folder of degraded photos, and the "
            "folder to write their sub-images to; give both, or neither"
        )
    shared = {"size": options.size, "step": options.step, "value_range": value_range}
    if degraded is None:
        count = prepare(options.input, options.output, **shared)
        print(f"{count} sub-images in {options.output}")  # noqa: T201
        return
    count = prepare_pairs(options.input, degraded, options.output, degraded_output, **shared)
    print(f"{count} pairs of sub-images in {options.output} and {degraded_output}")  # noqa: T201
