"""Evaluating burst networks on bursts with a known clean image.

Shape suffixes: B batch, T frames, I channels of a frame, H height, W width in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from zoo.data.burst.clean import CleanImage, Kind, clean_of
from zoo.data.burst.dataset import BurstSample, ValidationBursts
from zoo.data.burst.finding import find_bursts
from zoo.data.burst.pairs import RealValidation
from zoo.data.burst.reading import BurstFiles, read_burst
from zoo.data.burst.stored import is_raw
from zoo.data.photos import SAMPLES_SOURCE
from zoo.evaluation import Score
from zoo.inference import RestoreSettings
from zoo.inference.burst import restore_burst
from zoo.inference.evaluation_mode import evaluating
from zoo.metrics import mean_psnrs
from zoo.metrics.burst import aligned_psnr, as_rgb, developed_pair, linear_psnr, linear_ssim
from zoo.networks import Network
from zoo.networks.phase import enlarge_frame


class BurstScore(NamedTuple):
    """Linear PSNR in dB of one burst, or the mean over bursts.

    Attributes:
        restored: PSNR of the network's output.
        baseline: PSNR of the bilinearly upsampled reference frame, registered at the corner.
        all_reference: PSNR of the network's output if every frame is the reference. If it equals
            ``restored``, the network ignores the other frames.
    """

    restored: float
    baseline: float
    all_reference: float


@torch.inference_mode()
def score_burst(
    network: Network, sample: BurstSample, border: int, *, aligned: bool = False
) -> BurstScore:
    """Restore one burst and return its scores.

    Args:
        network: a burst network; it runs in evaluation mode.
        sample: the burst, with its clean image and its flow.
        border: number of high-resolution pixels excluded at each side.
        aligned: whether place and colours are aligned first, to a clean image of another camera.
    """
    device = next(network.parameters()).device
    frames_BTIHW, flow_BT2HW = sample.frames[None].to(device), sample.flow[None].to(device)
    given = flow_BT2HW if network.needs_flow else None
    still = None if given is None else torch.zeros_like(given)
    repeated = frames_BTIHW[:, :1].expand_as(frames_BTIHW)
    with evaluating(network):
        restored = network(frames_BTIHW, given)[0].cpu()
        alone = network(repeated, still)[0].cpu()
    baseline = enlarge_frame(sample.frames[0][None], network.scale, "corner")[0]

    def score(image: Tensor) -> float:
        if aligned:
            reference = as_rgb(sample.frames[0])
            return aligned_psnr(image, sample.clean, reference, border=border)
        return linear_psnr(image, sample.clean, border=border)

    return BurstScore(score(restored), score(baseline), score(alone))


def mean_burst_score(scores: list[BurstScore]) -> BurstScore:
    """Return the mean of each score over the bursts, in dB; see :func:`zoo.metrics.mean_psnrs`."""
    return BurstScore(*mean_psnrs(list(zip(*scores, strict=True))))


class BurstTest(NamedTuple):
    """A burst with its clean image.

    Attributes:
        name: its name.
        load: reads or synthesises both.
        clean: the file of the clean image; None for synthetic bursts.
    """

    name: str
    load: Callable[[], tuple[BurstFiles, Tensor]]
    clean: CleanImage | None = None

    @property
    def kind(self) -> Kind:
        """How the clean image belongs to the burst."""
        return "same" if self.clean is None else self.clean.kind


def burst_tests(
    source: str, validation: Callable[[], ValidationBursts | RealValidation]
) -> list[BurstTest]:
    """Return the bursts to evaluate on.

    Args:
        source: "samples" for the fixed synthetic bursts, or a folder of bursts in a public layout.
            :mod:`zoo.data.burst.clean` says where the clean images are.
        validation: returns the synthetic bursts.

    Raises:
        ImageError: if a burst has no clean image; the message names the first one.
    """
    if source == SAMPLES_SOURCE:
        fixed = validation()

        def made(index: int) -> Callable[[], tuple[BurstFiles, Tensor]]:
            def load() -> tuple[BurstFiles, Tensor]:
                sample = fixed[index]
                return BurstFiles(fixed.names[index], sample.frames), sample.clean

            return load

        return [
            BurstTest(f"{Path(name).stem}-{index}", made(index))
            for index, name in enumerate(fixed.names)
        ]
    return [_stored(path, clean_of(path)) for path in find_bursts(source)]


def _stored(path: Path, clean: CleanImage) -> BurstTest:
    def load() -> tuple[BurstFiles, Tensor]:
        burst = read_burst(path)
        return burst, clean.read(raw=is_raw(burst.frames_TIHW))

    return BurstTest(path.name, load, clean)


def evaluate_burst(
    network: Network, test: BurstTest, border: int, settings: RestoreSettings
) -> Score:
    """Compute PSNR in dB and SSIM of one restored burst, and of the baseline.

    The baseline is the bilinearly upsampled reference frame. What is measured depends on the clean
    image:

    * of the burst itself: linear PSNR and SSIM;
    * of another camera (BurstSR): PSNR after aligning place and colours, by one affine motion; SSIM
      is NaN;
    * of RealBSR-RAW: PSNR and SSIM of the developed pictures, and ``l_psnr``, the linear PSNR.

    Args:
        network: a burst network.
        test: the burst.
        border: number of high-resolution pixels excluded at each side.
        settings: tiles and precision.
    """
    burst, clean_3HW = test.load()
    reference_IHW = burst.frames_TIHW[0]
    images = (
        restore_burst(network, burst, settings),
        enlarge_frame(reference_IHW[None], network.scale, "corner")[0],
    )
    others: dict[str, float] = {}
    if test.kind == "other_camera":
        found = [
            (aligned_psnr(image, clean_3HW, as_rgb(reference_IHW), border=border), math.nan)
            for image in images
        ]
    elif test.kind == "raw_photo":
        assert test.clean is not None
        gains_311 = test.clean.white_balance()
        pairs = [developed_pair(image, clean_3HW, gains_311) for image in images]
        found = [_scores(picture, clean, border) for picture, clean in pairs]
        others["l_psnr"] = linear_psnr(images[0], clean_3HW, border=border)
    else:
        found = [_scores(image, clean_3HW, border) for image in images]
    (psnr, ssim), (baseline_psnr, baseline_ssim) = found
    return Score(test.name, psnr, ssim, baseline_psnr, baseline_ssim, others)


def measured(network: Network, kind: Kind) -> str:
    """Say what :func:`evaluate_burst` measures, for people.

    Args:
        network: the burst network.
        kind: how the clean images belong to the bursts.
    """
    if kind == "other_camera":
        return (
            "Linear PSNR (dB) after aligning place and colours to the clean image of another "
            "camera, by one affine motion (published: by the flow of PWC-Net)"
        )
    if kind == "raw_photo":
        return "PSNR (dB) and SSIM of developed pictures, l_psnr of linear values"
    if network.channels == 4:
        return "Linear PSNR (dB) and SSIM"
    return "PSNR (dB) and SSIM of RGB values, as they are stored"


def _scores(image_3HW: Tensor, clean_3HW: Tensor, border: int) -> tuple[float, float]:
    return (
        linear_psnr(image_3HW, clean_3HW, border=border),
        linear_ssim(image_3HW, clean_3HW, border=border),
    )
