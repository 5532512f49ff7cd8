"""Upsamplers by 2: AdaUp of QMambaBSR and its alternatives.

Shape suffixes: B batch, H height, W width, I input channels, O output channels, K kernel size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.blocks.layers import Conv2d
from zoo.heads.super_resolution import pixel_shuffle
from zoo.registry import Registry


class Upsampler(nn.Module):
    """Doubles the size: ``(B, H, W, I) -> (B, 2*H, 2*W, O)``; built as ``upsampler(dim, out=)``.

    ``dim`` is I and ``out`` is O.
    """

    def forward(self, x_BHWI: Tensor) -> Tensor:
        raise NotImplementedError


UpsamplerFactory: TypeAlias = Callable[..., Upsampler]

UPSAMPLERS = Registry("upsampler", Upsampler, supplied=("dim", "out"))

# Taps of bilinear upsampling by 2. With 3 taps, output 2i is input i, and output 2i+1 is the mean
# of its two neighbours. With 4 taps, the centres of the two images coincide.
_BILINEAR = {3: (0.5, 1.0, 0.5), 4: (0.25, 0.75, 0.75, 0.25)}
_NOISE = 0.3


def double(x_BHWI: Tensor, weight_IOKK: Tensor, bias_O: Tensor | None = None) -> Tensor:
    """Compute a transposed convolution of stride 2: ``(B, H, W, I) -> (B, 2H, 2W, O)``.

    The kernel size K is 3 or 4. With 3, input pixel i is at output pixel 2i. With 4, the centres of
    the two images coincide.
    """
    x_BIHW = x_BHWI.permute(0, 3, 1, 2)
    odd = weight_IOKK.shape[-1] % 2
    y = F.conv_transpose2d(x_BIHW, weight_IOKK, bias_O, stride=2, padding=1, output_padding=odd)
    return y.permute(0, 2, 3, 1).contiguous()


def init_double(weight_IOKK: Tensor, kind: Literal["bilinear", "normal"]) -> None:
    """Initialise the kernel of :func:`double` so that the output variance is about the input's.

    "normal" draws from a normal distribution with variance 2 / (I * K * K / 4): only a quarter of
    the K * K taps contributes to each output. "bilinear" is bilinear upsampling of each channel
    plus 0.3 times those values.
    """
    inputs, outputs, side, _ = weight_IOKK.shape
    with torch.no_grad():
        weight_IOKK.normal_(std=(2 / (inputs * side * side / 4)) ** 0.5)
        if kind == "bilinear":
            taps = torch.tensor(_BILINEAR[side])
            weight_IOKK.mul_(_NOISE)
            for channel in range(min(inputs, outputs)):
                weight_IOKK[channel, channel] += taps[:, None] * taps


def _check_kernel(kernel: int) -> None:
    if kernel not in _BILINEAR:
        raise ValueError(f"kernel is {kernel}; it must be 3 (keeps pixel i at 2i) or 4 (centred)")


@UPSAMPLERS.register("adaup")
class AdaUp(Upsampler):
    """Transposed convolution whose kernel depends on the image (QMambaBSR, Sec. 3.4).

    The paper multiplies the kernel by the mean L of each input channel and by L1 = conv1x1(L) of
    each output channel. This code scales the input channels, convolves with the fixed kernel, and
    scales the output channels. The result is exactly the same, without one kernel per image.

    Args:
        dim: input channels.
        out: output channels.
        kernel: kernel size: 3 (output pixel 2i lies on input pixel i) or 4 (centred).
        gate: "residual" scales by 1 + tanh(L) and 1 + tanh(L1), where L1 is initially 0. "raw"
            scales by L and L1, as in the paper; in an untrained network the features then vanish
            over three layers.
        init: initial kernel, "bilinear" or "normal"; see :func:`init_double`.
    """

    def __init__(
        self,
        dim: int,
        *,
        out: int,
        kernel: int = 3,
        gate: Literal["residual", "raw"] = "residual",
        init: Literal["bilinear", "normal"] = "bilinear",
    ) -> None:
        super().__init__()
        _check_kernel(kernel)
        self.gate = gate
        self.weight = nn.Parameter(torch.empty(dim, out, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out))
        self.to_out = nn.Linear(dim, out)
        init_double(self.weight, init)
        if gate == "residual":
            nn.init.zeros_(self.to_out.weight)
            nn.init.zeros_(self.to_out.bias)

    def scales(self, x_BHWI: Tensor) -> tuple[Tensor, Tensor]:
        """Return the factors of the input channels (B, 1, 1, I) and of the output (B, 1, 1, O)."""
        mean_B11I = x_BHWI.mean((1, 2), keepdim=True)
        out_B11O = self.to_out(mean_B11I)
        if self.gate == "raw":
            return mean_B11I, out_B11O
        return 1 + mean_B11I.tanh(), 1 + out_B11O.tanh()

    def forward(self, x_BHWI: Tensor) -> Tensor:
        into_B11I, out_B11O = self.scales(x_BHWI)
        return double(x_BHWI * into_B11I, self.weight) * out_B11O + self.bias


@UPSAMPLERS.register("transposed")
class Transposed(Upsampler):
    """A transposed convolution whose kernel is the same for all images.

    Args:
        dim: input channels.
        out: output channels.
        kernel: kernel size: 3 (output pixel 2i lies on input pixel i) or 4 (centred).
        init: initial kernel, "bilinear" or "normal"; see :func:`init_double`.
    """

    def __init__(
        self,
        dim: int,
        *,
        out: int,
        kernel: int = 3,
        init: Literal["bilinear", "normal"] = "bilinear",
    ) -> None:
        super().__init__()
        _check_kernel(kernel)
        self.weight = nn.Parameter(torch.empty(dim, out, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out))
        init_double(self.weight, init)

    def forward(self, x_BHWI: Tensor) -> Tensor:
        return double(x_BHWI, self.weight, self.bias)


@UPSAMPLERS.register("pixelshuffle")
class ShuffleUp(Upsampler):
    """A 1x1 convolution and a pixel shuffle, as in Burstormer.

    Args:
        dim: input channels.
        out: output channels.
    """

    def __init__(self, dim: int, *, out: int) -> None:
        super().__init__()
        self.conv = Conv2d(dim, 4 * out, 1)

    def forward(self, x_BHWI: Tensor) -> Tensor:
        return pixel_shuffle(self.conv(x_BHWI), 2)


@UPSAMPLERS.register("conv_pixelshuffle")
class ConvShuffleUp(Upsampler):
    """A 3x3 convolution without bias and a pixel shuffle, as in Restormer.

    Args:
        dim: input channels.
        out: output channels.
    """

    def __init__(self, dim: int, *, out: int) -> None:
        super().__init__()
        self.conv = Conv2d(dim, 4 * out, 3, padding=1, bias=False)

    def forward(self, x_BHWI: Tensor) -> Tensor:
        return pixel_shuffle(self.conv(x_BHWI), 2).contiguous()


@UPSAMPLERS.register("bilinear")
class BilinearUp(Upsampler):
    """Bilinear interpolation and a 3x3 convolution.

    Args:
        dim: input channels.
        out: output channels.
    """

    def __init__(self, dim: int, *, out: int) -> None:
        super().__init__()
        self.conv = Conv2d(dim, out, 3, padding=1)

    def forward(self, x_BHWI: Tensor) -> Tensor:
        x_BIHW = x_BHWI.permute(0, 3, 1, 2)
        y_BIHW = F.interpolate(x_BIHW, scale_factor=2.0, mode="bilinear")
        return self.conv(y_BIHW.permute(0, 2, 3, 1).contiguous())
