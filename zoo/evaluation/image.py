"""Evaluating networks on photographs with a known clean image.

Shape suffixes: B batch, I image channels, H height, W width in pixels.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from zoo.data.bicubic import resize_bicubic
from zoo.data.degradations import Degradation
from zoo.data.guides import fitted
from zoo.data.pixels import to_array, to_tensor, with_channels
from zoo.data.testsets import TestImage
from zoo.errors import ImageError
from zoo.inference import RestoreSettings, restore_tensor
from zoo.metrics import Metric
from zoo.metrics.image import SSIM_WINDOW, mean_psnrs, psnr, psnr_y, ssim, ssim_y
from zoo.metrics.volume import SsimOf, ssim_volume
from zoo.networks import Network

NOTHING: Mapping[str, float] = {}

MEASURES = ("psnr", "ssim", "baseline_psnr", "baseline_ssim")
"""Fields of a score that are numbers."""


class Score(NamedTuple):
    """PSNR in dB and SSIM of one photo: of the restored image, and of a baseline.

    The baseline is bicubic upsampling, or the degraded image itself if the sizes are equal. Its
    numbers are NaN where there is none; see :class:`Restored`. SSIM is NaN if the photo is smaller
    than the SSIM window. Other metrics of the restored image are in
    ``others``, by name.
    """

    name: str
    psnr: float
    ssim: float
    baseline_psnr: float
    baseline_ssim: float
    others: Mapping[str, float] = NOTHING

    def data(self) -> dict[str, Any]:
        """Return the name and all numbers, by name."""
        return {name: getattr(self, name) for name in ("name", *MEASURES)} | dict(self.others)


class Restored(NamedTuple):
    """The images of one score, ``(H, W, I)`` float32 in [0, 1].

    All but ``degraded`` have the channels of the network's output. ``baseline`` is None if the
    input has other channels, unless one is gray and the other RGB.
    """

    degraded: np.ndarray
    baseline: np.ndarray | None
    restored: np.ndarray
    clean: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How images are measured; the defaults are the papers' protocols.

    Attributes:
        channel: "y" for luma, or "all" channels. None means "y" for super-resolution and "all"
            otherwise.
        crop: number of border pixels excluded at each side. None means the scale for
            super-resolution and 0 otherwise.
        photographic: whether images are gray or RGB photographs. Others are measured on all
            channels, and without rounding to 8 bits.
        rounded: whether images are rounded to 8 bits if measured on all channels; None means yes if
            they are photographic.
        ssim: "planes" for the mean of the channels' SSIM, "volume" for that of the image as a
            volume (:func:`zoo.metrics.volume.ssim_volume`), if measured on all channels.
        metrics: what else is measured.
    """

    channel: Literal["y", "all"] | None = None
    crop: int | None = None
    photographic: bool = True
    rounded: bool | None = None
    ssim: SsimOf = "planes"
    metrics: tuple[Metric, ...] = ()

    @property
    def rounds(self) -> bool:
        """Whether images are rounded to 8 bits before they are measured."""
        return self.photographic if self.rounded is None else self.rounded

    def for_scale(self, scale: int) -> tuple[Literal["y", "all"], int]:
        """Return the channel and crop for a scale."""
        enlarges = scale > 1
        channel = self.channel or ("y" if enlarges and self.photographic else "all")
        return channel, (scale if enlarges else 0) if self.crop is None else self.crop


Run = Callable[..., Tensor]
"""Takes degraded images (B, I, H, W) and their guides, and returns restored images, on the CPU."""


def whole(network: Network) -> Run:
    """Return a function that restores whole images, or tiles if memory runs out."""
    settings = RestoreSettings(tile=0)
    return lambda image_BIHW, *guides: restore_tensor(network, image_BIHW, settings, guides=guides)


@torch.inference_mode()
def restore_clean(
    network: Network,
    clean_IHW: Tensor,
    degradation: Degradation | None,
    seed: int = 0,
    *,
    degraded_IHW: Tensor | None = None,
    guides: Sequence[np.ndarray] = (),
    run: Run | None = None,
) -> Restored:
    """Degrade a clean image and restore it.

    The clean image is cropped to a multiple of the scale. It is converted to the channels of the
    network's output, and before it is degraded, to those of its input.

    Args:
        network: the network.
        clean_IHW: the clean image, float32 in [0, 1].
        degradation: computes the degraded image if ``degraded_IHW`` is None.
        seed: random seed of the degradation.
        degraded_IHW: the degraded image; None to compute it from the clean image.
        guides: the guides, each (H, W, C), in the network's sequence.
        run: runs the network on an image; None to restore the whole image at once.

    Raises:
        ImageError: if the clean image is smaller than the scale, the degraded image has a wrong
            size, or neither a degraded image nor a degradation is given.
    """
    scale = network.scale
    height, width = (side // scale * scale for side in clean_IHW.shape[1:])
    if min(height, width) == 0:
        raise ImageError(
            f"an image of {tuple(clean_IHW.shape[1:])} pixels is too small for x{scale}"
        )
    cropped = to_array(clean_IHW[:, :height, :width])
    clean = with_channels(cropped, network.out_channels)
    if degraded_IHW is not None:
        degraded_IHW = to_tensor(with_channels(to_array(degraded_IHW), network.channels))
        if tuple(degraded_IHW.shape[1:]) != (height // scale, width // scale):
            raise ImageError(
                f"the degraded image has {tuple(degraded_IHW.shape[1:])} pixels; for a clean image "
                f"of {(height, width)} at x{scale} it must have {(height // scale, width // scale)}"
            )
    elif degradation is not None:
        degraded_IHW = degradation.for_test(
            to_tensor(with_channels(cropped, network.channels)), seed
        )
    else:
        raise ImageError("neither a degraded image nor a degradation is given")
    fitting = _fitting(network, guides, (height // scale, width // scale))
    restored_IHW = (run or whole(network))(degraded_IHW[None], *fitting)[0]
    baseline_IHW = degraded_IHW
    if scale > 1:
        baseline_IHW = resize_bicubic(degraded_IHW[None], scale)[0]
    return Restored(
        degraded=to_array(degraded_IHW.clamp(0, 1)),
        baseline=_comparable(to_array(baseline_IHW.clamp(0, 1)), network.out_channels),
        restored=to_array(restored_IHW.clamp(0, 1)),
        clean=clean,
    )


def _comparable(image_HWC: np.ndarray, channels: int) -> np.ndarray | None:
    """Return an input with the channels of the output, or None if it cannot be converted."""
    if image_HWC.shape[2] == channels or {image_HWC.shape[2], channels} == {1, 3}:
        return with_channels(image_HWC, channels)
    return None


def _fitting(
    network: Network, guides: Sequence[np.ndarray], size: tuple[int, int]
) -> tuple[Tensor, ...]:
    """Return the guides (1, C, H, W) for an input of this size."""
    if len(guides) != len(network.guides):
        raise ImageError(f"got {len(guides)} guides, but the network takes {len(network.guides)}")
    return tuple(
        fitted(guide_HWC, guide, *size, name)[None]
        for (name, guide), guide_HWC in zip(network.guides.items(), guides, strict=True)
    )


def score(name: str, images: Restored, scale: int, protocol: Protocol | None = None) -> Score:
    """Compute PSNR and SSIM of the restored image and of the baseline.

    Args:
        name: name of the image.
        images: the images.
        scale: output over input size of the network.
        protocol: how to measure; None for the papers' protocol.
    """
    protocol = protocol or Protocol()
    channel, crop = protocol.for_scale(scale)
    large_enough = min(images.clean.shape[:2]) - 2 * crop >= SSIM_WINDOW
    decibels: Callable[..., float] = psnr_y
    likeness: Callable[..., float] = ssim_y
    if channel == "all":
        decibels = partial(psnr, rounded=protocol.rounds)
        of_all = ssim_volume if protocol.ssim == "volume" else ssim
        likeness = partial(of_all, rounded=protocol.rounds)

    def measure(image: np.ndarray | None) -> tuple[float, float]:
        if image is None:
            return float("nan"), float("nan")
        found = decibels(image, images.clean, crop_border=crop)
        if not large_enough:
            return found, float("nan")
        return found, likeness(image, images.clean, crop_border=crop)

    others: dict[str, float] = {}
    for metric in protocol.metrics:
        others.update(metric(cropped(images.restored, crop), cropped(images.clean, crop), scale))
    return Score(name, *measure(images.restored), *measure(images.baseline), others)


def cropped(image_HWC: np.ndarray, border: int) -> np.ndarray:
    """Return an image without the border, which excludes ``border`` pixels at each side."""
    height, width = image_HWC.shape[:2]
    return image_HWC[border : height - border, border : width - border]


def evaluate(
    network: Network,
    images: Iterable[TestImage],
    degradation: Degradation | None,
    *,
    protocol: Protocol | None = None,
    run: Run | None = None,
    seen: Callable[[str, Restored], None] | None = None,
) -> list[Score]:
    """Compute the scores of a network on test images; degradations are the same in every call.

    Args:
        network: the network.
        images: the test images.
        degradation: computes the degraded images that have no file.
        protocol: how to measure; None for the papers' protocol.
        run: runs the network on an image; None to restore the whole image at once.
        seen: called with the name and the images of each score.

    Raises:
        ImageError: if an image cannot be read or evaluated; the message names it.
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
                guides=image.read_guides(),
                run=run,
            )
            scores.append(score(image.name, found, network.scale, protocol))
        except ImageError as error:
            raise ImageError(f"{image.name}: {error}") from error
        if seen is not None:
            seen(image.name, found)
    return scores


def mean_score(scores: Sequence[Score]) -> Score:
    """Return the mean over photos, without the SSIM of photos that are too small to have one.

    Means of PSNR are those of :func:`zoo.metrics.mean_psnrs`, without photos that equal the
    restored image or the baseline; :func:`exact` counts them. The mean of another metric is over
    the photos where it is finite.
    """

    def mean_ssim(values: list[float]) -> float:
        found = [value for value in values if value == value]
        return sum(found) / len(found) if found else float("nan")

    others = {}
    for name in {name: None for score in scores for name in score.others}:
        found = [score.others[name] for score in scores if math.isfinite(score.others[name])]
        others[name] = sum(found) / len(found) if found else float("nan")
    psnr_mean, baseline_mean = mean_psnrs(
        [[score.psnr for score in scores], [score.baseline_psnr for score in scores]]
    )
    return Score(
        "mean",
        psnr_mean,
        mean_ssim([score.ssim for score in scores]),
        baseline_mean,
        mean_ssim([score.baseline_ssim for score in scores]),
        others,
    )


def exact(scores: Sequence[Score]) -> tuple[int, int]:
    """Return how many restored images and how many baselines equal the clean image."""
    infinity = float("inf")
    return (
        sum(score.psnr == infinity for score in scores),
        sum(score.baseline_psnr == infinity for score in scores),
    )


def strip(images: Restored, side: int = 160) -> np.ndarray:
    """Return the centres of input, baseline, result and clean image, side by side.

    Args:
        images: the images; the input is upsampled by nearest neighbour. Without a baseline, it is
            left out.
        side: side of each picture, in pixels of the clean image.

    Returns:
        (H, W, 1) or (H, W, 3) float32 in [0, 1]: of several bands, the first three or the first.
    """
    height, width, channels = images.clean.shape
    scale = height // images.degraded.shape[0]
    enlarged = images.degraded.repeat(scale, axis=0).repeat(scale, axis=1)
    top, left = max(0, height - side) // 2, max(0, width - side) // 2
    parts = []
    for bands in (enlarged, images.baseline, images.restored, images.clean):
        if bands is None:
            continue
        part = _picture(bands, 3 if channels >= 3 else 1)[top : top + side, left : left + side]
        parts += [part, np.ones((part.shape[0], 6, part.shape[2]), np.float32)]
    return np.concatenate(parts[:-1], axis=1)


def _picture(bands_HWC: np.ndarray, channels: int) -> np.ndarray:
    """Show the first band in gray, or the first three as red, green and blue."""
    found = _comparable(bands_HWC, channels)
    if found is not None:
        return found
    shown = bands_HWC[..., : 3 if bands_HWC.shape[2] >= 3 else 1]
    return with_channels(shown, channels)
