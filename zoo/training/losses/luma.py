"""A loss of the luma channel, which PSNR-Y and SSIM-Y measure.

Shape suffixes: B batch, I image channels, H height, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.errors import RecipeError
from zoo.metrics.image import PEAK, Y_BLACK, Y_FROM_RGB
from zoo.training.losses.contract import LOSSES, Loss, one_number


@LOSSES.register("luma")
class Luma(Loss):
    """Another loss, on the luma channel Y of RGB images; gray images are compared as they are.

    It ignores errors of colour. Add a loss of all channels with ``sum``.

    Args:
        loss: the loss of Y, which is in [16/255, 235/255] for RGB in [0, 1].
    """

    def __init__(self, *, loss: Loss) -> None:
        super().__init__()
        self.loss = loss

    def prepare(self, channels: int) -> None:
        if channels not in (1, 3):
            raise RecipeError(
                f"the luma loss compares gray and RGB images, not {channels} channels; "
                "choose another loss, such as l1"
            )
        self.loss.prepare(1)

    def forward(self, output_BIHW: Tensor, clean_BIHW: Tensor) -> Tensor:
        return one_number(self.loss, self.loss(_y(output_BIHW), _y(clean_BIHW)))


def _y(image_BIHW: Tensor) -> Tensor:
    if image_BIHW.shape[1] == 1:
        return image_BIHW
    weights_I11 = torch.from_numpy(Y_FROM_RGB / PEAK).to(image_BIHW)[:, None, None]
    return (image_BIHW * weights_I11).sum(1, keepdim=True) + Y_BLACK / PEAK
