"""PIL images: the pixels to restore, and the image that these become.

Shape suffixes: H height, W width in pixels, C channels.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from zoo.data.metadata import JPEG_EXIF, Metadata, checked
from zoo.errors import ImageError
from zoo.networks import Network

logger = logging.getLogger(__name__)

PICTURES = (1, 3)
"""Channels of networks for pictures, which are converted between gray and RGB as files are."""

_MODES = {
    "1": "L", "L": "L", "LA": "LA", "P": "RGB", "PA": "RGBA", "RGB": "RGB", "RGBA": "RGBA",
    "I;16": "I;16",
}  # fmt: skip
"""Modes of PIL images, and the mode in which each is restored."""

_WHOLE = "give numpy.asarray(image).astype('uint16'), if its values are from 0 to 65535"
_FIXES = {
    **dict.fromkeys(("I", "I;16B", "I;16L", "I;16N"), _WHOLE),
    "F": "give numpy.asarray(image), with value_range=(LOW, HIGH) unless it is from 0 to 1",
}
"""What to do with modes that ``convert`` would clip."""

_TRANSPARENT = {"1": "LA", "L": "LA", "P": "RGBA", "RGB": "RGBA"}
"""The same for images with a colour that is transparent."""


def pixels_of(image: Any) -> np.ndarray:
    """Return the pixels (H, W) or (H, W, C) of an image, in the mode in which it is restored.

    Raises:
        ImageError: if its mode has no defined range, it is an animation, or its transparent level
            cannot be kept.
    """
    if image.mode not in _MODES:
        fix = _FIXES.get(image.mode, "use image.convert('RGB')")
        raise ImageError(
            f"the PIL image has the mode {image.mode}, which has no defined range here; {fix}"
        )
    _check_frames(image)
    mode = _MODES[image.mode]
    if "transparency" in image.info:
        mode = _TRANSPARENT.get(image.mode, mode)
        if mode == "I;16":
            raise ImageError(
                "the PIL image has 16 bits and a transparent level, which PIL cannot keep; restore "
                "its file, or delete image.info['transparency']"
            )
    return np.asarray(image if image.mode == mode else image.convert(mode))


def check_channels_for_pil(network: Network) -> None:
    """Check that what the network returns can be a PIL image.

    Raises:
        ImageError: if it has too many channels.
    """
    if network.out_channels != network.channels and network.out_channels not in PICTURES:
        raise ImageError(
            f"the network returns {network.out_channels} channels, which no PIL image has; give an "
            "array"
        )


def pil_image(pil: Any, restored_HWC: np.ndarray, image: Any, scale: int, *, metadata: bool) -> Any:
    """Return the restored pixels as an image, with what it keeps of the one before.

    Args:
        pil: the module ``PIL.Image``.
        restored_HWC: (H, W) or (H, W, C).
        image: the image before.
        scale: how many times larger the result is.
        metadata: whether it keeps any.

    Raises:
        ImageError: if PIL has no such image.
    """
    restored_HWC = np.atleast_3d(restored_HWC)
    if restored_HWC.shape[2] > 1 and restored_HWC.dtype != np.uint8:
        raise ImageError(
            f"a PIL image of mode {image.mode} becomes one of 16 bits and "
            f"{restored_HWC.shape[2]} channels, which PIL does not have; give an array"
        )
    restored = pil.fromarray(restored_HWC[..., 0] if restored_HWC.shape[2] == 1 else restored_HWC)
    if metadata:
        restored.info.update(_info(image.info, scale, restored.size))
    return restored


def _check_frames(image: Any) -> None:
    """Refuse an animation. Beside its picture, an MPO photo has previews or a second view."""
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format == "MPO":
        logger.warning("the PIL image has %d pictures; the current one is restored", frames)
    elif frames > 1:
        raise ImageError(
            f"the PIL image has {frames} frames, and one at a time is restored; give frame.copy() "
            "for each frame of PIL.ImageSequence.Iterator(image)"
        )


def _info(info: dict[str, Any], scale: int, size: tuple[int, int]) -> dict[str, Any]:
    """What the result keeps of the ``info`` of a PIL image, with the numbers of its size.

    The orientation stays, because PIL does not apply it.
    """
    kept: dict[str, Any] = {key: info[key] for key in ("icc_profile", "xmp") if key in info}
    if "dpi" in info:
        kept["dpi"] = tuple(value * scale for value in info["dpi"])
    if exif := info.get("exif"):
        said = checked(Metadata(exif=exif)).enlarged(scale).of_size(*size).exif
        prefix = JPEG_EXIF if exif.startswith(JPEG_EXIF) else b""
        kept["exif"] = exif if said is None else prefix + said
    return kept
