"""Local attribution maps: which input pixels the detail of a part of the result comes from.

Gu and Dong, "Interpreting Super-Resolution Networks with Local Attribution Maps", CVPR 2021.

Shape suffixes: B batch, I image channels, H height, W width in pixels, X taps of a kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.analysis.probing import check_image, check_inside, probed
from zoo.errors import ImageError, ZooError
from zoo.networks import Network

SIGMA, STEPS = 1.2, 50
"""Standard deviation in pixels of the first blur, and number of steps to the sharp image: the
values in the authors' code."""

TAPS = 9
"""Side of the blur kernel in pixels, as in the authors' code."""


@dataclass(frozen=True, eq=False)
class Attribution:
    """A local attribution map.

    Attributes:
        map_IHW: float64: what each input value adds to the detail of the target, of either sign.
        row: first row of the target, in pixels of the input.
        column: first column of the target.
        side: side of the target in pixels of the input.
        detail: detail of the target in the network's result.
        blurred_detail: its detail where the input is blurred; the map sums to about the difference.
        output_IHW: the network's result, float32.
    """

    map_IHW: Tensor
    row: int
    column: int
    side: int
    detail: float
    blurred_detail: float
    output_IHW: Tensor

    @property
    def magnitude(self) -> Tensor:
        """Size of the sum over channels (H, W), at least 0: what papers draw."""
        return self.map_IHW.sum(0).abs()


def local_attribution(
    network: Network,
    image_IHW: Tensor,
    *,
    at: tuple[int, int] | None = None,
    side: int = 8,
    sigma: float = SIGMA,
    steps: int = STEPS,
    seen: Callable[[], object] | None = None,
) -> Attribution:
    """Compute a local attribution map: gradients along a path from a blurred image to the image::

        map = sum over t of d detail(network(x_t)) / d x_t * (x_t - x_(t-1))

    where x_t is the image under a Gaussian blur whose standard deviation falls linearly from
    ``sigma`` (t = 0) to 0 (t = ``steps``), and ``detail`` is the sum over the target of
    ``sqrt((y[r, c] - y[r+1, c])^2 + (y[r, c] - y[r, c+1])^2)``.

    Args:
        network: a network of single images without guides.
        image_IHW: the image, float32 in [0, 1].
        at: first row and column of the target, in pixels of the input; None for the middle.
        side: side of the target in pixels of the input; the authors take 16 pixels of the output.
        sigma: standard deviation of the first blur in pixels of the input.
        steps: number of steps.
        seen: called after each step, for progress.

    Raises:
        ImageError: if the target is not inside the image.
        ZooError: if a number is out of range, or the network takes bursts or guides.
    """
    check_image(network, image_IHW)
    height, width = image_IHW.shape[1:]
    if steps < 1 or sigma <= 0 or side < 1:
        raise ZooError(f"steps ({steps}) and side ({side}) must be at least 1, sigma above 0")
    row, column = (height // 2 - side // 2, width // 2 - side // 2) if at is None else at
    check_inside("the target", row, column, height, width, side)
    sigmas = [sigma * (steps - t) / steps for t in range(steps + 1)]
    with probed(network) as device, torch.enable_grad():
        image_IHW = image_IHW.detach().to(device)
        sharp_IHW = image_IHW
        before_IHW = blurred(image_IHW, sigmas[0])
        lowest = float(_detail(network(before_IHW[None]), network.scale, row, column, side))
        total_IHW = torch.zeros(image_IHW.shape, dtype=torch.float64)
        for width_of_blur in sigmas[1:]:
            now_IHW = blurred(sharp_IHW, width_of_blur)
            input_BIHW = now_IHW[None].clone().requires_grad_(True)
            output_BIHW = network(input_BIHW)
            detail = _detail(output_BIHW, network.scale, row, column, side)
            (grad_BIHW,) = torch.autograd.grad(detail, input_BIHW)
            detail = detail.detach()
            total_IHW += grad_BIHW[0].cpu().double() * (now_IHW - before_IHW).cpu().double()
            before_IHW = now_IHW
            if seen is not None:
                seen()
    return Attribution(
        total_IHW,
        row,
        column,
        side,
        float(detail),
        lowest,
        output_BIHW[0].detach().cpu(),
    )


def _detail(output_BIHW: Tensor, scale: int, row: int, column: int, side: int) -> Tensor:
    """Return the sum of the sizes of the gradients in the target; its rows are in the input."""
    top, left, length = scale * row, scale * column, scale * side
    part_BIHW = output_BIHW[:, :, top : top + length + 1, left : left + length + 1]
    # At the lower and right border, the image has no next pixel: its last one is repeated.
    missing = [length + 1 - size for size in part_BIHW.shape[-2:]]
    part_BIHW = F.pad(part_BIHW, (0, missing[1], 0, missing[0]), mode="replicate")
    here_BIHW = part_BIHW[:, :, :-1, :-1]
    apart = torch.stack(
        [part_BIHW[:, :, 1:, :-1] - here_BIHW, part_BIHW[:, :, :-1, 1:] - here_BIHW]
    )
    # The gradient of a root is infinite at 0, and that of this norm is 0 there.
    return torch.linalg.vector_norm(apart, dim=0).sum()


def blurred(image_IHW: Tensor, sigma: float) -> Tensor:
    """Blur an image with a Gaussian of 9 x 9 taps; at its border the image is mirrored.

    Args:
        image_IHW: the image.
        sigma: standard deviation in pixels; 0 for no blur.
    """
    if sigma == 0:
        return image_IHW
    reach = TAPS // 2
    place_X = torch.arange(-reach, reach + 1, dtype=image_IHW.dtype, device=image_IHW.device)
    kernel_X = torch.softmax(-(place_X**2) / (2 * sigma**2), 0)
    for axis in (1, 2):
        # Mirrored without repeating the last pixel; small images are mirrored again and again.
        size = image_IHW.shape[axis]
        index = torch.arange(-reach, size + reach, device=image_IHW.device)
        period = max(2 * (size - 1), 1)
        index = index.remainder(period)
        index = torch.minimum(index, period - index) if size > 1 else torch.zeros_like(index)
        padded = image_IHW.index_select(axis, index)
        parts = [padded.narrow(axis, tap, size) * kernel_X[tap] for tap in range(TAPS)]
        image_IHW = torch.stack(parts).sum(0)
    return image_IHW


def diffusion_index(magnitude_HW: Tensor) -> float:
    """Return how widely a map is spread, 0 to 100: 100 times 1 less its Gini coefficient.

    0 is one pixel alone (in a large image), 100 all pixels alike. Networks that use more pixels
    have a higher index.

    Raises:
        ImageError: if the map is zero everywhere, or not finite.
    """
    values = magnitude_HW.double().flatten().sort().values
    total, count = float(values.sum()), len(values)
    if not 0 < total < float("inf"):
        raise ImageError(
            f"the attribution map sums to {total}, so it has no spread; choose a target with detail"
        )
    rank = torch.arange(1, count + 1)
    gini = float(((2 * rank - count - 1) * values).sum()) / (count * total)
    return 100 * (1 - gini)
