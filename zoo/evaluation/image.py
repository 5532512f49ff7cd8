"""How well a network restores photographs whose clean version is known.

Shape suffixes: B batch, I image channels, H height, W width in pixels.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from zoo.data.bicubic import resize_bicubic
from zoo.data.degradations import Degradation
from zoo.data.pixels import to_array, to_tensor, with_channels
from zoo.data.testsets import TestImage
from zoo.errors import ImageError
from zoo.inference import RestoreSettings, restore_tensor
from zoo.metrics.image import SSIM_WINDOW, psnr, psnr_y, ssim, ssim_y
from zoo.networks import Network


class Score(NamedTuple):
    """PSNR in dB and SSIM of one photo: restored, and without the network.

    The baseline is bicubic enlargement, or the degraded image itself where sizes are equal. SSIM is
    NaN where the photo is smaller than its window.
    """

    name: str
    psnr: float
    ssim: float
    baseline_psnr: float
    baseline_ssim: float


class Restored(NamedTuple):
    """The images behind a score, ``(H, W, I)`` float32 in [0, 1]."""

    degraded: np.ndarray
    baseline: np.ndarray
    restored: np.ndarray
    clean: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What of an image is measured; the defaults are the papers' protocols.

    Attributes:
        channel: "y" for luma or "all" channels; None for luma in super-resolution, all otherwise.
        crop: border pixels left out; None for the scale in super-resolution, 0 otherwise.
    """

    channel: Literal["y", "all"] | None = None
    crop: int | None = None

    def for_scale(self, scale: int) -> tuple[Literal["y", "all"], int]:
        """The channel and crop that hold for a scale."""
        enlarges = scale > 1
        channel = self.channel or ("y" if enlarges else "all")
        return channel, (scale if enlarges else 0) if self.crop is None else self.crop


Run = Callable[[Tensor], Tensor]
"""From a degraded image (B, I, H, W) to the restored one, on the CPU."""


def whole(network: Network) -> Run:
    """Put images through a network in one piece; in tiles, should memory run out."""
    settings = RestoreSettings(tile=0)
    return lambda image_BIHW: restore_tensor(network, image_BIHW, settings)


@torch.inference_mode()
def restore_clean(
    network: Network,
    clean_IHW: Tensor,
    degradation: Degradation | None,
    seed: int = 0,
    *,
    degraded_IHW: Tensor | None = None,
    run: Run | None = None,
) -> Restored:
    """Degrade a clean image and restore it.

    The clean image is cut to a multiple of the scale and converted to the network's channels.

    Args:
        network: what restores.
        clean_IHW: the clean image, float32 in [0, 1].
        degradation: makes the degraded image, where none is given.
        seed: of the degradation.
        degraded_IHW: the degraded image, where there is one.
        run: how an image is put through the network; as a whole, if None.

    Raises:
        ImageError: if the image is smaller than the scale, or the degraded one is of another size.
    """
    scale = network.scale
    height, width = (side // scale * scale for side in clean_IHW.shape[1:])
    if min(height, width) == 0:
        raise ImageError(
            f"an image of {tuple(clean_IHW.shape[1:])} pixels is too small for x{scale}"
        )
    clean = with_channels(to_array(clean_IHW[:, :height, :width]), network.channels)
    if degraded_IHW is not None:
        degraded_IHW = to_tensor(with_channels(to_array(degraded_IHW), network.channels))
        if tuple(degraded_IHW.shape[1:]) != (height // scale, width // scale):
            raise ImageError(
                f"a degraded image of {tuple(degraded_IHW.shape[1:])} pixels does not belong to a "
                f"clean one of {(height, width)} at x{scale}"
            )
    elif degradation is not None:
        degraded_IHW = degradation.for_test(to_tensor(clean), seed)
    else:
        raise ImageError("neither a degraded image nor a degradation is given")
    restored_IHW = (run or whole(network))(degraded_IHW[None])[0]
    baseline_IHW = degraded_IHW
    if scale > 1:
        baseline_IHW = resize_bicubic(degraded_IHW[None], scale)[0]
    return Restored(
        degraded=to_array(degraded_IHW.clamp(0, 1)),
        baseline=to_array(baseline_IHW.clamp(0, 1)),
        restored=to_array(restored_IHW.clamp(0, 1)),
        clean=clean,
    )


def score(name: str, images: Restored, scale: int, protocol: Protocol | None = None) -> Score:
    """PSNR and SSIM of the restored image and of the baseline."""
    channel, crop = (protocol or Protocol()).for_scale(scale)
    measures = (psnr_y, ssim_y) if channel == "y" else (psnr, ssim)
    large_enough = min(images.clean.shape[:2]) - 2 * crop >= SSIM_WINDOW

    def measure(image: np.ndarray) -> tuple[float, float]:
        decibels = measures[0](image, images.clean, crop_border=crop)
        if not large_enough:
            return decibels, float("nan")
        return decibels, measures[1](image, images.clean, crop_border=crop)

    return Score(name, *measure(images.restored), *measure(images.baseline))


def evaluate(
    network: Network,
    images: Iterable[TestImage],
    degradation: Degradation | None,
    *,
    protocol: Protocol | None = None,
    run: Run | None = None,
    seen: Callable[[str, Restored], None] | None = None,
) -> list[Score]:
    """Score a network on test images, each degraded in the same way at every call.

    Args:
        network: what restores.
        images: what to restore.
        degradation: makes the degraded images, where there are no files of them.
        protocol: what is measured.
        run: how an image is put through the network; as a whole, if None.
        seen: is shown the images behind each score.
    """
    scores = []
    for image in images:
        try:
            found = restore_clean(
                network,
                image.read_clean(),
                degradation,
                zlib.crc32(image.name.encode()),
                degraded_IHW=image.read_degraded(),
                run=run,
            )
        except ImageError as error:
            raise ImageError(f"{image.name}: {error}") from error
        scores.append(score(image.name, found, network.scale, protocol))
        if seen is not None:
            seen(image.name, found)
    return scores


def mean_score(scores: Sequence[Score]) -> Score:
    """The mean over photos; of SSIM, over those that have one."""

    def mean(values: Iterable[float]) -> float:
        found = [value for value in values if value == value]
        return sum(found) / len(found) if found else float("nan")

    columns = list(zip(*(found[1:] for found in scores), strict=True))
    return Score("mean", *(mean(column) for column in columns))


def strip(images: Restored, side: int = 160) -> np.ndarray:
    """The middle of the input, the baseline, the result and the clean image side by side.

    Args:
        images: what to show; the input is enlarged without interpolation.
        side: of a picture, in pixels of the clean image.

    Returns:
        (H, W, I) float32 in [0, 1].
    """
    height, width = images.clean.shape[:2]
    scale = height // images.degraded.shape[0]
    enlarged = images.degraded.repeat(scale, axis=0).repeat(scale, axis=1)
    top, left = max(0, height - side) // 2, max(0, width - side) // 2
    parts = []
    for picture in (enlarged, images.baseline, images.restored, images.clean):
        part = picture[top : top + side, left : left + side]
        parts += [part, np.ones((part.shape[0], 6, part.shape[2]), np.float32)]
    return np.concatenate(parts[:-1], axis=1)
