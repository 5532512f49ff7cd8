"""How well a network restores photographs whose clean version is known.

Shape suffixes: I image channels, H height, W width in pixels.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from zoo.data.bicubic import resize_bicubic
from zoo.data.degradations import Degradation
from zoo.data.images import list_photos, read_photo, with_channels
from zoo.data.samples import load_sample, sample_names
from zoo.errors import ImageError
from zoo.metrics import psnr, psnr_y
from zoo.networks import Network


class Score(NamedTuple):
    """PSNR in dB of one photo: restored, and without the network.

    ``baseline`` is bicubic enlargement, or the degraded image itself where sizes are equal.
    Super-resolution is scored on Y with as many border pixels cut as the scale, other tasks on all
    channels of the whole image: the papers' protocols.
    """

    name: str
    restored: float
    baseline: float


class Restored(NamedTuple):
    """The images behind a score, ``(H, W, I)`` float32 in [0, 1]."""

    degraded: np.ndarray
    baseline: np.ndarray
    restored: np.ndarray
    clean: np.ndarray


def validation_photos(source: str) -> list[tuple[str, Tensor]]:
    """Names and ``(I, H, W)`` clean images of a folder, or of the held-out "samples"."""
    if source == "samples":
        photos = [(name, load_sample(name)) for name in sample_names(held_out=True)]
    else:
        photos = [(path.name, read_photo(path)) for path in list_photos(Path(source))]
    return [(name, _to_tensor(photo.color_HWC)) for name, photo in photos]


@torch.inference_mode()
def restore_clean(
    network: Network, clean_IHW: Tensor, degradation: Degradation, seed: int = 0
) -> Restored:
    """Degrade a clean image and restore it.

    The clean image is cut to a multiple of the scale and converted to the network's channels.

    Raises:
        ImageError: if the image is smaller than the scale.
    """
    scale = network.scale
    height, width = (side // scale * scale for side in clean_IHW.shape[1:])
    if min(height, width) == 0:
        raise ImageError(
            f"an image of {tuple(clean_IHW.shape[1:])} pixels is too small for x{scale}"
        )
    clean = with_channels(_to_array(clean_IHW[:, :height, :width]), network.channels)
    degraded_IHW = degradation(_to_tensor(clean), np.random.default_rng(seed))
    was_training = network.training
    restored_IHW = network.eval()(degraded_IHW[None])[0].float()
    network.train(was_training)
    baseline_IHW = degraded_IHW
    if scale > 1:
        baseline_IHW = resize_bicubic(degraded_IHW[None], scale)[0]
    return Restored(
        degraded=_to_array(degraded_IHW.clamp(0, 1)),
        baseline=_to_array(baseline_IHW.clamp(0, 1)),
        restored=_to_array(restored_IHW.clamp(0, 1)),
        clean=clean,
    )


def score(name: str, images: Restored, scale: int) -> Score:
    """PSNR of the restored image and of the baseline; see :class:`Score`."""

    def measure(image: np.ndarray) -> float:
        if scale > 1:
            return psnr_y(image, images.clean, crop_border=scale)
        return psnr(image, images.clean)

    return Score(name, measure(images.restored), measure(images.baseline))


def evaluate(
    network: Network, photos: Iterable[tuple[str, Tensor]], degradation: Degradation
) -> list[Score]:
    """Score a network on clean photos, each degraded in the same way at every call."""
    return [
        score(
            name,
            restore_clean(network, clean, degradation, zlib.crc32(name.encode())),
            network.scale,
        )
        for name, clean in photos
    ]


def mean_score(scores: Sequence[Score]) -> Score:
    """The mean over photos, in dB."""
    count = len(scores)
    return Score(
        "mean", sum(s.restored for s in scores) / count, sum(s.baseline for s in scores) / count
    )


def _to_tensor(image_HWI: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image_HWI.transpose(2, 0, 1)))


def _to_array(image_IHW: Tensor) -> np.ndarray:
    return np.ascontiguousarray(image_IHW.permute(1, 2, 0).numpy())
