"""A camera model: converts sRGB photos to linear sensor values, and back.

Shape suffixes: H height, W width in pixels; 3 the channels R, G, B. Any leading dimensions are
allowed.

Sources: Brooks et al., "Unprocessing images for learned raw denoising", CVPR 2019, Sec. 3, for the
model, the four camera matrices and the noise; the NTIRE 2021 burst challenge for the ranges.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zoo.data.burst.facts import numbers

GAMMA = 2.2

_XYZ_TO_CAMERA = torch.tensor(
    [
        [[1.0234, -0.2969, -0.2266], [-0.5625, 1.6328, -0.0469], [-0.0703, 0.2188, 0.6406]],
        [[0.4913, -0.0541, -0.0202], [-0.6130, 1.3513, 0.2906], [-0.1564, 0.2151, 0.7183]],
        [[0.8380, -0.2630, -0.0639], [-0.2887, 1.0725, 0.2496], [-0.0627, 0.1427, 0.5438]],
        [[0.6596, -0.2079, -0.0562], [-0.4782, 1.3016, 0.1933], [-0.0970, 0.1581, 0.5181]],
    ]
)
_RGB_TO_XYZ = torch.tensor(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)

_BRIGHT = 0.9
"""Mean brightness above which white balance fades out, so that highlights stay white."""


_LARGEST_GAIN = 1e6

_SINGULAR = 1e4
"""Condition number above which a matrix counts as singular; those of cameras have below 100."""


@dataclass(frozen=True, eq=False)
class Camera:
    """Colour model of one camera under one light.

    Attributes:
        rgb_to_camera: (3, 3) matrix from linear sRGB to the sensor's colours; rows sum to 1.
        brightness: gain of all channels from sensor values to sRGB.
        red: white balance gain of red.
        blue: white balance gain of blue.
    """

    rgb_to_camera: Tensor
    brightness: float
    red: float
    blue: float

    @staticmethod
    def draw(rng: torch.Generator) -> Camera:
        """Draw a random camera and light."""
        weights = torch.rand(4, 1, 1, generator=rng)
        xyz_to_camera = (weights * _XYZ_TO_CAMERA).sum(0) / weights.sum()
        matrix = xyz_to_camera @ _RGB_TO_XYZ
        # The normal distribution is unbounded; a gain near zero would give no usable photo.
        brightness = float(0.8 + 0.1 * torch.randn((), generator=rng))
        return Camera(
            rgb_to_camera=matrix / matrix.sum(1, keepdim=True),
            brightness=1 / min(max(brightness, 0.4), 1.2),
            red=uniform(1.9, 2.4, rng),
            blue=uniform(1.5, 1.9, rng),
        )

    @staticmethod
    def from_data(data: Mapping[str, Any]) -> Camera:
        """Build from a burst's facts ``rgb2cam``, ``rgb_gain``, ``red_gain``, ``blue_gain``.

        Raises:
            KeyError: if an entry is missing.
            ValueError: if a gain is not a positive number, or the matrix cannot be inverted; the
                message names the entry.
        """
        gains = [_positive(data[name], name) for name in ("rgb_gain", "red_gain", "blue_gain")]
        try:
            matrix = torch.tensor(numbers(data["rgb2cam"], 9)).reshape(3, 3)
        except ValueError as error:
            raise ValueError(f"rgb2cam {error}") from error
        if not torch.linalg.cond(matrix) < _SINGULAR:
            raise ValueError("rgb2cam is a matrix that cannot be inverted")
        return Camera(matrix, *gains)

    def data(self) -> dict[str, Any]:
        """Convert to plain data with the names of the public bursts; see :meth:`from_data`."""
        return {
            "rgb2cam": [[round(v, 7) for v in row] for row in self.rgb_to_camera.tolist()],
            "rgb_gain": self.brightness,
            "red_gain": self.red,
            "blue_gain": self.blue,
        }

    def unprocess(self, srgb_3HW: Tensor) -> Tensor:
        """Convert sRGB in [0, 1] to the sensor's linear colours in [0, 1]."""
        x = 0.5 - torch.sin(torch.asin(1 - 2 * srgb_3HW.clamp(0, 1)) / 3)  # inverse tone curve
        x = x.clamp(min=1e-8) ** GAMMA
        x = apply_matrix(self.rgb_to_camera, x)
        gain = torch.tensor([1 / self.red, 1.0, 1 / self.blue])[:, None, None] / self.brightness
        bright = ((x.mean(-3, keepdim=True) - _BRIGHT).clamp(min=0) / (1 - _BRIGHT)) ** 2
        return (x * torch.maximum(bright + (1 - bright) * gain, gain)).clamp(0, 1)

    def process(self, linear_3HW: Tensor) -> Tensor:
        """Convert linear sensor colours to sRGB in [0, 1]: gains, matrix, gamma, tone curve."""
        gain = torch.tensor([self.red, 1.0, self.blue])[:, None, None] * self.brightness
        x = (linear_3HW * gain).clamp(0, 1)
        x = apply_matrix(torch.linalg.inv(self.rgb_to_camera), x).clamp(1e-8, 1)
        x = x ** (1 / GAMMA)
        return 3 * x**2 - 2 * x**3


def _positive(value: Any, name: str) -> float:
    try:
        [gain] = numbers(value, 1)
    except ValueError as error:
        raise ValueError(f"{name} {error}") from error
    if not 0 < gain < _LARGEST_GAIN:
        raise ValueError(f"{name} is {gain:g}; it must be above 0 and below {_LARGEST_GAIN:g}")
    return gain


@dataclass(frozen=True)
class Noise:
    """Sensor noise with variance ``shot * x + read`` at the linear value x."""

    shot: float
    read: float

    @staticmethod
    def draw(rng: torch.Generator) -> Noise:
        """Draw the noise level of a random exposure (Brooks et al., Sec. 3.1)."""
        low, high = torch.tensor([1e-4, 0.012]).log().tolist()
        log_shot = uniform(low, high, rng)
        log_read = 2.18 * log_shot + 1.20 + 0.26 * float(torch.randn((), generator=rng))
        shot, read = torch.tensor([log_shot, log_read]).exp().tolist()
        return Noise(shot, read)

    def add(self, linear: Tensor, rng: torch.Generator) -> Tensor:
        """Add noise to linear values. The result is not clipped."""
        variance = self.shot * linear.clamp(min=0) + self.read
        return linear + torch.randn(linear.shape, generator=rng) * variance.sqrt()


def uniform(low: float, high: float, rng: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=rng))


def apply_matrix(matrix: Tensor, color_3HW: Tensor) -> Tensor:
    """Multiply the colours of an image by a (3, 3) matrix."""
    return torch.einsum("ij,...jhw->...ihw", matrix, color_3HW)


def mosaic(rgb_3HW: Tensor) -> Tensor:
    """Sample a Bayer mosaic as planes R, Gr, Gb, B: ``(..., 3, H, W) -> (..., 4, H/2, W/2)``.

    H and W must be even.
    """
    red, green, blue = rgb_3HW.unbind(-3)
    return torch.stack(
        [
            red[..., 0::2, 0::2],
            green[..., 0::2, 1::2],
            green[..., 1::2, 0::2],
            blue[..., 1::2, 1::2],
        ],
        dim=-3,
    )
