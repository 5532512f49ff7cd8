"""How well a network restores bursts whose clean image is known.

Shape suffixes: B batch, T frames, I channels of a frame, H height, W width in pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from zoo.burst_metrics import linear_psnr
from zoo.data.burst.dataset import BurstSample
from zoo.networks import Network
from zoo.networks.phase import enlarge_frame


class BurstScore(NamedTuple):
    """Linear PSNR in dB of one burst, or of the mean over bursts.

    Attributes:
        restored: by the network.
        baseline: the reference frame alone, enlarged bilinearly with its pixels in their places.
        all_reference: by the network that is fed the reference in place of every frame: what it
            does without the burst. Equal to ``restored`` where the burst is ignored.
    """

    restored: float
    baseline: float
    all_reference: float


@torch.inference_mode()
def score_burst(network: Network, sample: BurstSample, border: int) -> BurstScore:
    """Restore one burst and score it; see :class:`BurstScore`.

    Args:
        network: a burst network; used in evaluation mode.
        sample: a burst.
        border: high-resolution pixels left out at each side.
    """
    was_training = network.training
    network.eval()
    device = next(network.parameters()).device
    frames_BTIHW, flow_BT2HW = sample.frames[None].to(device), sample.flow[None].to(device)
    given = flow_BT2HW if getattr(network, "flow_prior", "none") == "given" else None
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
    """The mean over bursts, in dB."""
    return BurstScore(*(sum(column) / len(scores) for column in zip(*scores, strict=True)))
