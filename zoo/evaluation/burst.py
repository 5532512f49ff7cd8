"""Evaluating burst networks on bursts with a known clean image.

Shape suffixes: B batch, T frames, I channels of a frame, H height, W width in pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from zoo.data.burst.dataset import BurstSample, ValidationBursts
from zoo.data.burst.finding import find_bursts
from zoo.data.burst.reading import BurstFiles, read_burst
from zoo.data.burst.stored import CLEAN, is_raw, read_clean
from zoo.data.photos import SAMPLES_SOURCE
from zoo.errors import ImageError
from zoo.evaluation import Score
from zoo.inference import RestoreSettings
from zoo.inference.burst import restore_burst
from zoo.metrics import mean_psnrs
from zoo.metrics.burst import linear_psnr, linear_ssim
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
def score_burst(network: Network, sample: BurstSample, border: int) -> BurstScore:
    """Restore one burst and return its scores.

    Args:
        network: a burst network; it runs in evaluation mode.
        sample: the burst, with its clean image and its flow.
        border: number of high-resolution pixels excluded at each side.
    """
    was_training = network.training
    network.eval()
    device = next(network.parameters()).device
    frames_BTIHW, flow_BT2HW = sample.frames[None].to(device), sample.flow[None].to(device)
    given = flow_BT2HW if network.needs_flow else None
    still = None if given is None else torch.zeros_like(given)
    restored = network(frames_BTIHW, given)[0].float().cpu()
    repeated = frames_BTIHW[:, :1].expand_as(frames_BTIHW)
    alone = network(repeated, still)[0].float().cpu()
    network.train(was_training)
    baseline = enlarge_frame(sample.frames[:1], network.scale, "corner")[0]

    def score(image: Tensor) -> float:
        return linear_psnr(image, sample.clean, border=border)

    return BurstScore(score(restored), score(baseline), score(alone))


def mean_burst_score(scores: list[BurstScore]) -> BurstScore:
    """Return the mean of each score over the bursts, in dB; see :func:`zoo.metrics.mean_psnrs`."""
    return BurstScore(*mean_psnrs(list(zip(*scores, strict=True))))


class BurstTest(NamedTuple):
    """A burst with its clean image; ``load`` reads or synthesises both."""

    name: str
    load: Callable[[], tuple[BurstFiles, Tensor]]


def burst_tests(source: str, validation: ValidationBursts) -> list[BurstTest]:
    """Return the bursts to evaluate on.

    Args:
        source: "samples" for the fixed synthetic bursts, or a folder of bursts in a public layout.
            The clean image of ``bursts/NAME`` is ``gt/NAME/im_rgb.png``, or ``gt/im_rgb.png`` in
            the burst's own folder.
        validation: the synthetic bursts.

    Raises:
        ImageError: if a burst has no clean image; the message names the first one.
    """
    if source == SAMPLES_SOURCE:

        def made(index: int) -> Callable[[], tuple[BurstFiles, Tensor]]:
            def load() -> tuple[BurstFiles, Tensor]:
                sample = validation[index]
                return BurstFiles(validation.names[index], sample.frames), sample.clean

            return load

        return [
            BurstTest(f"{Path(name).stem}-{index}", made(index))
            for index, name in enumerate(validation.names)
        ]
    return [_stored(path, _clean_of(path)) for path in find_bursts(source)]


def _stored(path: Path, clean: Path) -> BurstTest:
    def load() -> tuple[BurstFiles, Tensor]:
        burst = read_burst(path)
        return burst, read_clean(clean, raw=is_raw(burst.frames_TIHW))

    return BurstTest(path.name, load)


def _clean_of(burst: Path) -> Path:
    places = [
        burst / "gt" / CLEAN,
        burst.parent.parent / "gt" / burst.name / CLEAN,
    ]
    for place in places:
        if place.is_file():
            return place
    raise ImageError(
        f"burst {str(burst)!r} has no clean image: neither {places[0]} nor {places[1]} exists"
    )


def evaluate_burst(
    network: Network, test: BurstTest, border: int, settings: RestoreSettings
) -> Score:
    """Compute linear PSNR in dB and SSIM of one restored burst, and of the baseline.

    The baseline is the bilinearly upsampled reference frame.

    Args:
        network: a burst network.
        test: the burst.
        border: number of high-resolution pixels excluded at each side.
        settings: tiles and precision.
    """
    burst, clean_3HW = test.load()
    restored_3HW = restore_burst(network, burst, settings)
    enlarged_3HW = enlarge_frame(burst.frames_TIHW[:1], network.scale, "corner")[0]
    psnr, baseline_psnr = (
        linear_psnr(image, clean_3HW, border=border) for image in (restored_3HW, enlarged_3HW)
    )
    ssim, baseline_ssim = (
        linear_ssim(image, clean_3HW, border=border) for image in (restored_3HW, enlarged_3HW)
    )
    return Score(test.name, psnr, ssim, baseline_psnr, baseline_ssim)
