"""Restoring images in memory: arrays, PIL images, encoded files as bytes, and tensors.

The result is of the same kind as the image: its type, its number of axes, its dtype.

Shape suffixes: B batch, T frames, I image channels, H height, W width in pixels, C channels of a
picture, s scale.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.data.burst.reading import BurstFiles
from zoo.data.formats import check_saving, encoded, format_of
from zoo.data.photo import AS_USUAL, Photo, Saving
from zoo.data.pixels import dequantise, quantise
from zoo.data.raster import IN_MEMORY
from zoo.data.value_range import (
    SLACK,
    ValueRange,
    check_finite,
    check_range,
    image_of,
    in_range,
    of_file,
    range_of,
    said_of_no_data,
    scaled,
    unscaled,
)
from zoo.errors import ImageError
from zoo.inference.burst import restore_burst
from zoo.inference.guides import GuidesInMemory
from zoo.inference.image import restore_photo
from zoo.inference.pil_images import PICTURES, check_channels_for_pil, pil_image, pixels_of
from zoo.inference.runner import RestoreSettings, restore_tensor
from zoo.inference.tiling import Progress, part_of
from zoo.networks import Network

logger = logging.getLogger(__name__)

_LEVELS = {"uint8": 255, "uint16": 65535}

_ARRAY = Path("(array)")
"""The path, in messages, of an array."""


def restore_in_memory(
    network: Network,
    image: Any,
    settings: RestoreSettings,
    progress: Progress,
    saving: Saving,
    value_range: ValueRange | None = None,
    guides: Mapping[str, Any] | None = None,
) -> Any:
    """Restore an image in memory and return one of the same kind; see :func:`zoo.restore`.

    Raises:
        ImageError: if the image is of another kind, or its shape, dtype or values are not those of
            an image for this network.
    """
    if network.takes_burst and value_range is not None:
        raise ImageError(
            "value_range is for images; divide the frames of a burst by their white level"
        )
    if not network.takes_burst:
        value_range = check_range(value_range) or range_of(network.recipe)
    beside = GuidesInMemory(network, guides or {}, value_range)
    _check_saving(image, saving)
    if isinstance(image, Tensor):
        return _restored_tensor(network, image, settings, progress, value_range, beside)
    if network.takes_burst:
        raise ImageError(
            f"bursts are given as a path or as a tensor (T, {network.channels}, H, W), not as "
            f"{type(image).__name__}"
        )
    if isinstance(image, np.ndarray):
        return _restored_array(network, image, settings, progress, value_range, beside)
    if isinstance(image, (bytes, bytearray, memoryview)):
        data = bytes(image)
        return _restored_bytes(network, data, settings, progress, saving, value_range, beside)
    pil = sys.modules.get("PIL.Image")  # without it, the image is none of its own
    if pil is not None and isinstance(image, pil.Image):
        pixels = pixels_of(image)
        check_channels_for_pil(network)
        restored_HWC = _restored_array(network, pixels, settings, progress, value_range, beside)
        return pil_image(pil, restored_HWC, image, network.scale, metadata=saving.metadata)
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
    network: Network,
    image: Tensor,
    settings: RestoreSettings,
    progress: Progress,
    value_range: ValueRange | None,
    beside: GuidesInMemory,
) -> Tensor:
    """Restore (I, H, W) or (B, I, H, W); of a burst network, the same with T before I."""
    axes = "TIHW" if network.takes_burst else "IHW"
    _check_tensor(network, image, axes)
    batched = image if image.dim() == len(axes) + 1 else image[None]
    values = _as_floats(batched, value_range)
    if network.takes_burst:
        restored = torch.stack(
            [
                restore_burst(
                    network,
                    BurstFiles("tensor", frames),
                    settings,
                    part_of(progress, number, len(values)),
                )
                for number, frames in enumerate(values)
            ]
        )
    else:
        height, width = values.shape[-2:]
        seen = beside.of(len(values), height, width)
        restored = restore_tensor(network, values, settings, progress, seen)
    restored = _as_before(restored, image.dtype, value_range).to(image.device)
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
    if image.is_meta:
        raise ImageError("the tensor is on the device meta, so it has no values")
    if image.layout is not torch.strided:
        raise ImageError(f"the tensor is stored as {image.layout}; use x.to_dense()")


def _as_floats(image: Tensor, value_range: ValueRange | None) -> Tensor:
    levels = _LEVELS.get(_name(image.dtype))
    if value_range is None:
        return image.float() if levels is None else image.float() / levels
    values = image.detach().cpu().double().numpy()
    return torch.from_numpy(scaled(Path("the tensor"), values, value_range))


def _as_before(restored: Tensor, dtype: torch.dtype, value_range: ValueRange | None) -> Tensor:
    levels = _LEVELS.get(_name(dtype))
    check_finite(Path("the tensor"), restored.numpy())
    values = restored.numpy() if value_range is None else unscaled(restored.numpy(), value_range)
    if levels is None:
        return torch.from_numpy(values).to(dtype)
    bits = 8 if levels == 255 else 16
    return torch.from_numpy(quantise(values if value_range is None else values / levels, bits))


def _restored_array(
    network: Network,
    image: np.ndarray,
    settings: RestoreSettings,
    progress: Progress,
    value_range: ValueRange | None,
    beside: GuidesInMemory,
) -> np.ndarray:
    """Restore (H, W) or (H, W, C), as a file of the array is restored."""
    pictures = network.channels in PICTURES
    _check_array(network, image, (1, 2, 3, 4) if pictures else (network.channels,))
    values_HWC, alpha_HW = np.atleast_3d(image), None
    if pictures and values_HWC.shape[2] in (2, 4):
        values_HWC, alpha_HW = values_HWC[..., :-1], _alpha(values_HWC[..., -1])
    photo = image_of(_ARRAY, values_HWC)
    if value_range is not None:
        photo = in_range(_ARRAY, photo, value_range)
    if photo.no_data_HWC is not None:
        logger.warning(
            "the array %s; the network sees their neighbours, and the result is NaN there",
            said_of_no_data(photo),
        )
    photo = replace(photo, alpha_HW=alpha_HW)
    restored = restore_photo(network, photo, settings, progress, _guides_of(photo, beside))
    restored_HWC = of_file(_ARRAY, restored)
    if restored.alpha_HW is not None:
        alpha_HW1 = restored.alpha_HW[..., None]
        if image.dtype.name in _LEVELS:
            alpha_HW1 = quantise(alpha_HW1, photo.bit_depth)
        restored_HWC = np.concatenate([restored_HWC, alpha_HW1], axis=2)
    restored_HWC = restored_HWC.astype(image.dtype)
    single = image.ndim == 2 and restored_HWC.shape[2] == 1
    return restored_HWC[..., 0] if single else restored_HWC


def _guides_of(photo: Photo, beside: GuidesInMemory) -> list[Tensor]:
    """Return the guides of one image, each (C, H, W)."""
    height, width, _ = photo.color_HWC.shape
    return [guide_BCHW[0] for guide_BCHW in beside.of(1, height, width)]


def _alpha(alpha_HW: np.ndarray) -> np.ndarray:
    """Convert the alpha of an array to float32 in [0, 1].

    Raises:
        ImageError: if floats are not from 0 to 1.
    """
    if alpha_HW.dtype.name in _LEVELS:
        return dequantise(alpha_HW)
    least, most = float(alpha_HW.min()), float(alpha_HW.max())
    if not (least >= -SLACK and most <= 1 + SLACK):  # also NaN
        raise ImageError(
            f"the last channel of the array has values from {least:g} to {most:g}; it is alpha, "
            "which is from 0 to 1"
        )
    return alpha_HW.astype(np.float32).clip(0, 1)


def _check_array(network: Network, image: np.ndarray, channels: tuple[int, ...]) -> None:
    if isinstance(image, np.ma.MaskedArray):
        raise ImageError("the array is masked; use image.filled(numpy.nan), of floats, instead")
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
    network: Network,
    data: bytes,
    settings: RestoreSettings,
    progress: Progress,
    saving: Saving,
    value_range: ValueRange | None,
    beside: GuidesInMemory,
) -> bytes:
    """Restore an encoded image, and encode it in its format; PNG where that is only read."""
    name = IN_MEMORY
    found = format_of(name, data)
    output = name.with_suffix(found.extensions[0] if found.encode else ".png")
    check_saving([output], saving)
    image = in_range(name, found.read(name, data), value_range)
    photo = restore_photo(network, image, settings, progress, _guides_of(image, beside))
    return encoded(output, photo, saving)
