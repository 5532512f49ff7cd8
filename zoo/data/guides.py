"""Files of guides: each belongs to the clean image of the same name.

Shape suffixes: H height, W width in pixels, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from zoo.data.pairing import counterparts
from zoo.data.photos import AnyPhoto, all_faults
from zoo.data.pixels import to_tensor, with_channels
from zoo.errors import ImageError, ZooError
from zoo.networks.guide import Guide


class GuidePhotos(NamedTuple):
    """The guide of each clean photo.

    Attributes:
        photos: the guides, in the sequence of the clean photos.
        guide: channels and size of a guide.
    """

    photos: Sequence[AnyPhoto]
    guide: Guide


def check_named(guides: Mapping[str, Guide], given: Mapping[str, object], option: str) -> None:
    """Check that there are files for each guide of a network, and for no other.

    Args:
        guides: the guides of the network, by name.
        given: folders or files, by name of the guide.
        option: how the files of a guide are given, up to its name, for the error message.

    Raises:
        ZooError: if the names differ.
    """
    for name, guide in guides.items():
        if name not in given:
            raise ZooError(
                f"the network needs the guide {name} ({guide}); give its files with {option}{name}="
                "PATH"
            )
    for name in given:
        if name not in guides:
            takes = f"takes {', '.join(guides)}" if guides else "takes no guide"
            raise ZooError(f"{option}{name}: the network {takes}; leave this out")


def match_guides(
    photos: Sequence[AnyPhoto], guides: Sequence[AnyPhoto], guide: Guide, scale: int, name: str
) -> GuidePhotos:
    """Find the guide of each clean photo: by folder and name, with the size that belongs to it.

    Args:
        photos: clean photos.
        guides: their guides, in any order.
        guide: channels and size of a guide.
        scale: clean size divided by degraded size.
        name: name of the guide, for error messages.

    Raises:
        ImageError: if photos have no guide or one of another size; the message names them.
    """
    numbers = counterparts([p.name for p in photos], [g.name for g in guides], scale, name)
    found, faults = [guides[number] for number in numbers], []
    for photo, other in zip(photos, found, strict=True):
        fault = _fault(other.shape, guide, photo.shape[0] // scale, photo.shape[1] // scale)
        if fault:
            faults.append(f"{other.name!r}, the {name} of {photo.name!r}, {fault}")
    if faults:
        raise ImageError(all_faults(faults, len(photos), "photos have no guide that fits"))
    return GuidePhotos(found, guide)


def fitted(guide_HWC: np.ndarray, guide: Guide, height: int, width: int, name: str) -> Tensor:
    """Return a guide with the channels and the size that belong to an image, (C, H, W).

    Args:
        guide_HWC: the guide, float32. At the bottom and on the right, it may have the pixels that
            the image lacks to be a multiple of the scale.
        guide: channels and size of a guide.
        height: height of the network's input in pixels.
        width: width of the network's input in pixels.
        name: name of the guide, for the error message.

    Raises:
        ImageError: if it has another size, or channels that cannot be converted.
    """
    fault = _fault(guide_HWC.shape, guide, height, width)
    if fault:
        raise ImageError(f"the guide {name} {fault}")
    cropped_HWC = guide_HWC[: height * guide.scale, : width * guide.scale]
    return to_tensor(with_channels(cropped_HWC, guide.channels))


def _fault(shape: Sequence[int], guide: Guide, height: int, width: int) -> str:
    """Say what is wrong with a guide (H, W, C) of an input of this size; "" if nothing is."""
    if shape[0] // guide.scale != height or shape[1] // guide.scale != width:
        return (
            f"has {shape[1]}x{shape[0]} pixels, but must have "
            f"{width * guide.scale}x{height * guide.scale}"
        )
    if shape[2] != guide.channels and not {shape[2], guide.channels} <= {1, 3}:
        return f"has {shape[2]} channels, but must have {guide.channels}"
    return ""


__all__ = ["GuidePhotos", "check_named", "fitted", "match_guides"]
