"""The scale of pairs of files whose network is not known: it is found from their sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from zoo.data.images import Photo
from zoo.data.pairing import counterparts, misfit
from zoo.errors import ImageError

LARGEST_TRIED = 8
"""Largest scale that is tried if the first photos do not tell it; published networks have up to
4."""


def found_pairs(
    clean: Sequence[Path], degraded: Sequence[Path], read: Callable[[Path], Photo]
) -> tuple[int, list[int]]:
    """Find the scale of pairs, and which degraded file belongs to each clean one.

    Names may state the scale, so they are compared for one scale after the other until names and
    the size of the first pair agree. The first files of both folders usually tell the scale; they
    do not if there are more degraded files, of photos of other sizes.

    Args:
        clean: the clean files of a folder.
        degraded: the degraded files of a folder.
        read: reads a file.

    Returns:
        The scale, and for each clean file the number of its degraded file.

    Raises:
        ImageError: if files cannot be read, or no scale fits; the message is of the likely scale.
    """
    first = read(clean[0])
    areas = [photo.color_HWC[..., 0].size for photo in (first, read(degraded[0]))]
    likely = max(1, round((areas[0] / areas[1]) ** 0.5))
    faults: list[ImageError] = []
    for scale in dict.fromkeys([likely, *range(1, LARGEST_TRIED + 1)]):
        try:
            numbers = counterparts(clean, degraded, scale)
        except ImageError as error:
            faults.append(error)
            continue
        other = degraded[numbers[0]]
        fault = misfit_of(clean[0], first, other, read(other), scale)
        if fault is None:
            return scale, numbers
        faults.append(ImageError(fault))
    raise faults[0]


def misfit_of(clean: Path, photo: Photo, degraded: Path, small: Photo, scale: int) -> str | None:
    """Return what is wrong with the sizes of a pair, or None; see :func:`zoo.data.pairing.misfit`.

    Channels may differ: one network may colour gray photos, and another needs them alike.
    """
    shapes = photo.color_HWC.shape, small.color_HWC.shape
    alike = shapes[0][2] == shapes[1][2]
    return misfit(str(clean), shapes[0], str(degraded), shapes[1], scale, alike)
