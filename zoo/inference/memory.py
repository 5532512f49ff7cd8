"""Restoring images in memory: arrays, PIL images, encoded files as bytes, and tensors.

The result is of the same kind as the image: its type, its number of axes, its dtype.

Shape suffixes: B batch, T frames, I image channels, H height, W width in pixels, C channels of a
picture, s scale.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.data.burst.reading import BurstFiles
from zoo.data.formats import check_saving, encoded, format_of
from zoo.data.metadata import JPEG_EXIF, Metadata, checked
from zoo.data.photo import AS_USUAL, Photo, Saving
from zoo.data.pixels import dequantise, quantise, to_array, to_tensor
from zoo.data.raster import IN_MEMORY
from zoo.data.value_range import in_range, range_of
from zoo.errors import ImageError
from zoo.inference.burst import restore_burst
from zoo.inference.image import restore_photo
from zoo.inference.runner import RestoreSettings, restore_tensor
from zoo.inference.tiling import Progress
from zoo.networks import Network

logger = logging.getLogger(__name__)

_PICTURES = (1, 3)
"""Channels of networks for pictures, which are converted between gray and RGB as files are."""

_LEVELS = {"uint8": 255, "uint16": 65535}

_MODES = {
    "1": "L", "L": "L", "LA": "LA", "P": "RGB", "PA": "RGBA", "RGB": "RGB", "RGBA": "RGBA",
    "I;16": "I;16",
}  # fmt: skip
"""Modes of PIL images, and the mode in which each is restored."""

_TRANSPARENT = {"1": "LA", "L": "LA", "P": "RGBA", "RGB": "RGBA"}
"""The same for images with a colour that is transparent."""


def restore_in_memory(
    network: Network,
    image: Any,
    settings: RestoreSettings,
    progress: Progress,
    saving: Saving,
) -> Any:
    """Restore an image in memory and return one of the same kind; see :func:`zoo.restore`.

    Raises:
        ImageError: if the image is of another kind, or its shape or dtype is not that of an image
            for this network.
    """
    _check_saving(image, saving)
    if isinstance(image, Tensor):
        return _restored_tensor(network, image, settings, progress)
    if network.takes_burst:
        raise ImageError(
            f"bursts are given as a path or as a tensor (T, {network.channels}, H, W), not as "
            f"{type(image).__name__}"
        )
    if isinstance(image, np.ndarray):
        return _restored_array(network, image, settings, progress)
    if isinstance(image, (bytes, bytearray, memoryview)):
        return _restored_bytes(network, bytes(image), settings, progress, saving)
    pil = sys.modules.get("PIL.Image")  # without it, the image is none of its own
    if pil is not None and isinstance(image, pil.Image):
        return _restored_pil(network, image, settings, progress, pil, saving)
    raise ImageError(
        "an image is a path, a NumPy array, a PIL image, the bytes of a file or a tensor, not "
        f"{type(image).__name__}"
    )


def _check_saving(image: Any, saving: Saving) -> None:
    """Check that each option that says how files are written has an effect.

    Raises:
        ImageError: if one has none.
    """
    if isinstance(image, (bytes, bytearray, memoryview)) or saving == AS_USUAL:
        return
    kind = type(image).__name__
    for name, given in (("quality", saving.quality is not None), ("lossless", saving.lossless)):
        if given:
            raise ImageError(f"{name} is for files; leave it out for an image of type {kind}")
    if isinstance(image, (Tensor, np.ndarray)):
        raise ImageError(f"strip_metadata has no effect: an image of type {kind} has no metadata")


def _restored_tensor(
    network: Network, image: Tensor, settings: RestoreSettings, progress: Progress
) -> Tensor:
    """Restore (I, H, W) or (B, I, H, W); of a burst network, the same with T before I."""
    axes = "TIHW" if network.takes_burst else "IHW"
    _check_tensor(network, image, axes)
    batched = image if image.dim() == len(axes) + 1 else image[None]
    values = _as_floats(batched)
    if network.takes_burst:
        restored = torch.stack(
            [
                restore_burst(network, BurstFiles("tensor", frames), settings, progress)
                for frames in values
            ]
        )
    else:
        restored = restore_tensor(network, values, settings, progress)
    restored = _as_before(restored, image.dtype).to(image.device)
    return restored if image.dim() == len(axes) + 1 else restored[0]


def _check_tensor(network: Network, image: Tensor, axes: str) -> None:
    channels, shape = network.channels, tuple(image.shape)
    wanted = f"({', '.join(axes)}) or (B, {', '.join(axes)}) with I = {channels}"
    if image.dim() not in (len(axes), len(axes) + 1) or 0 in shape:
        raise ImageError(f"the tensor has the shape {shape}; for this network it is {wanted}")
    if shape[-3] != channels:
        last = shape[-1] == channels
        fix = "; its channels are last: use x.movedim(-1, -3)" if last else ""
        raise ImageError(f"the tensor has the shape {shape}; for this network it is {wanted}{fix}")
    if not image.is_floating_point() and _name(image.dtype) not in _LEVELS:
        raise ImageError(_wrong_dtype("tensor", _name(image.dtype)))


def _as_floats(image: Tensor) -> Tensor:
    levels = _LEVELS.get(_name(image.dtype))
    return image.float() if levels is None else image.float() / levels


def _as_before(restored: Tensor, dtype: torch.dtype) -> Tensor:
    levels = _LEVELS.get(_name(dtype))
    if levels is None:
        return restored.to(dtype)
    return torch.from_numpy(quantise(restored.numpy(), 8 if levels == 255 else 16))


def _restored_array(
    network: Network, image: np.ndarray, settings: RestoreSettings, progress: Progress
) -> np.ndarray:
    """Restore (H, W) or (H, W, C)."""
    pictures = network.channels in _PICTURES
    _check_array(network, image, (1, 2, 3, 4) if pictures else (network.channels,))
    dtype = image.dtype
    values_HWC = np.atleast_3d(image)
    values_HWC = dequantise(values_HWC) if dtype.name in _LEVELS else values_HWC.astype(np.float32)
    if not pictures:
        restored_BIHW = restore_tensor(network, to_tensor(values_HWC)[None], settings, progress)
        restored_HWC = to_array(restored_BIHW[0])
    else:
        restored_HWC = _restored_picture(network, values_HWC, settings, progress)
    if dtype.name in _LEVELS:
        restored_HWC = quantise(restored_HWC, 8 if dtype == np.uint8 else 16)
    restored_HWC = restored_HWC.astype(dtype)
    return restored_HWC[..., 0] if image.ndim == 2 else restored_HWC


def _restored_picture(
    network: Network, values_HWC: np.ndarray, settings: RestoreSettings, progress: Progress
) -> np.ndarray:
    """Restore gray or RGB with or without alpha, as files are."""
    transparent = values_HWC.shape[2] in (2, 4)
    colors = values_HWC.shape[2] - transparent
    alpha_HW = values_HWC[..., -1] if transparent else None
    color_HWC = np.ascontiguousarray(values_HWC[..., :colors])
    found = restore_photo(network, Photo(color_HWC, alpha_HW), settings, progress)
    if found.alpha_HW is None:
        return found.color_HWC
    return np.concatenate([found.color_HWC, found.alpha_HW[..., None]], axis=2)


def _check_array(network: Network, image: np.ndarray, channels: tuple[int, ...]) -> None:
    shape = image.shape
    counts = " or ".join(map(str, channels))
    wanted = f"(H, W, C) with C = {counts}" + (", or (H, W)" if 1 in channels else "")
    if image.ndim != 3 and not (image.ndim == 2 and 1 in channels):
        many = (
            "; restore the images of a batch one by one, or as a tensor" if image.ndim > 3 else ""
        )
        raise ImageError(f"the array has the shape {shape}; an image is {wanted}{many}")
    if 0 in shape or (image.ndim == 3 and shape[2] not in channels):
        first = image.ndim == 3 and shape[0] in channels
        fix = "; its channels are first: use image.transpose(1, 2, 0)" if first else ""
        raise ImageError(f"the array has the shape {shape}; an image is {wanted}{fix}")
    if image.dtype.name not in _LEVELS and image.dtype.kind != "f":
        raise ImageError(_wrong_dtype("array", image.dtype.name))


def _wrong_dtype(kind: str, name: str) -> str:
    return (
        f"the {kind} has {name} values; an image has uint8 from 0 to 255, uint16 from 0 to 65535, "
        "or floats from 0 to 1"
    )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _restored_bytes(
    network: Network, data: bytes, settings: RestoreSettings, progress: Progress, saving: Saving
) -> bytes:
    """Restore an encoded image, and encode it in its format; PNG where that is only read."""
    name = IN_MEMORY
    found = format_of(name, data)
    output = name.with_suffix(found.extensions[0] if found.encode else ".png")
    check_saving([output], saving)
    image = in_range(name, found.read(name, data), range_of(network.recipe))
    photo = restore_photo(network, image, settings, progress)
    return encoded(output, photo, saving)


def _restored_pil(
    network: Network,
    image: Any,
    settings: RestoreSettings,
    progress: Progress,
    pil: Any,
    saving: Saving,
) -> Any:
    if image.mode not in _MODES:
        raise ImageError(
            f"the PIL image has the mode {image.mode}, which has no defined range here; use "
            "image.convert('RGB')"
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
    pixels = np.asarray(image if image.mode == mode else image.convert(mode))
    restored = pil.fromarray(_restored_array(network, pixels, settings, progress))
    if saving.metadata:
        restored.info.update(_info(image.info, network.scale, restored.size))
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
