"""Synthetic bursts: frames with simulated camera shake, made from a photo.

This is the procedure of the NTIRE 2021 burst challenge, the standard for training and evaluation.
The photo is converted to linear sensor values. For each frame it is moved, sampled at every fourth
pixel without a low-pass filter (the aliasing contains the detail), and mosaicked; then noise is
added.

Shape suffixes: T frames, I channels of a frame, H height, W width in pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.data.burst.camera import Camera, Noise, mosaic, uniform
from zoo.errors import ImageError, RecipeError
from zoo.registry import Registry

STANDARD_CROP = 384
"""Side in pixels of the clean image for which the largest motion is given; it scales with the
side."""


MOST_FRAMES, MOST_FACTOR = 1000, 64
"""Largest number of frames, and largest factor."""


class SyntheticBurst(NamedTuple):
    """A burst with its ground truth.

    Attributes:
        frames: (T, I, h, w) float32 in [0, 1]: the planes R, Gr, Gb, B, or RGB; frame 0 is the
            reference.
        clean: (3, H, W) float32 in [0, 1], linear; sRGB if the frames are sRGB.
        flow: (T, 2, h, w) displacement in pixels of a frame, rows then columns: frame t sampled at
            ``position + flow`` is aligned with frame 0.
        camera: colour model of the simulated camera.
        noise: noise level; used for the frames unless the synthesis adds no noise.
    """

    frames: Tensor
    clean: Tensor
    flow: Tensor
    camera: Camera
    noise: Noise


@dataclass(frozen=True, kw_only=True)
class BurstSynthesis:
    """Makes synthetic bursts from photos, as in the NTIRE 2021 burst challenge.

    Attributes:
        frames: number of frames.
        factor: downscaling factor of a colour frame; the planes of a RAW frame are downscaled by
            twice the factor.
        mode: "raw" for Bayer planes, "rgb" for colour frames.
        space: colour space of RGB frames and their clean image: "linear" or "srgb".
        max_translation: largest shift in pixels for a clean image of 384 pixels; it scales with the
            size of the image.
        max_rotation: largest rotation in degrees.
        quantize: "official" rounds to 8 bits at the same places as the challenge's tools; "none"
            does not round.
        noise: whether to add sensor noise.
        exposure_jitter: largest relative change of a frame's brightness; 0 for none.
        moving_object: probability that a moving square covers part of all frames except the
            reference.
        frame_dropout: probability that a frame is replaced by the reference.
    """

    frames: int = 14
    factor: int = 4
    mode: Literal["raw", "rgb"] = "raw"
    space: Literal["linear", "srgb"] = "linear"
    max_translation: float = 24.0
    max_rotation: float = 1.0
    quantize: Literal["official", "none"] = "official"
    noise: bool = True
    exposure_jitter: float = 0.0
    moving_object: float = 0.0
    frame_dropout: float = 0.0

    def __post_init__(self) -> None:
        for name, most in {"frames": MOST_FRAMES, "factor": MOST_FACTOR}.items():
            if not 1 <= getattr(self, name) <= most:
                raise RecipeError(f"{name} is {getattr(self, name)}; it must be from 1 to {most}")
        if self.mode == "raw" and self.space != "linear":
            raise RecipeError("space must be 'linear' for mode 'raw': sensor values are linear")
        for name, most in {"max_translation": STANDARD_CROP, "max_rotation": 180}.items():
            if not 0 <= getattr(self, name) <= most:
                raise RecipeError(f"{name} is {getattr(self, name)}; it must be from 0 to {most}")
        if not 0 <= self.exposure_jitter < 1:
            raise RecipeError(f"exposure_jitter is {self.exposure_jitter}; it must be in [0, 1)")
        for name in ("moving_object", "frame_dropout"):
            if not 0 <= getattr(self, name) <= 1:
                raise RecipeError(f"{name} is {getattr(self, name)}; it must be in [0, 1]")

    @property
    def scale(self) -> int:
        """Size of the clean image divided by the size of a frame's planes."""
        return self.factor * (2 if self.mode == "raw" else 1)

    def translation(self, crop: int) -> float:
        """Largest shift in pixels for a clean image with side ``crop``."""
        return self.max_translation * crop / STANDARD_CROP

    def border(self, crop: int) -> int:
        """Width in pixels of the border around the clean image that motion may bring into view."""
        return math.ceil(self.translation(crop))

    def window(self, crop: int) -> int:
        """Side in pixels of the square of a photo needed for a clean image with side ``crop``."""
        return crop + 2 * self.border(crop)

    def __call__(self, srgb_3HW: Tensor, rng: torch.Generator) -> SyntheticBurst:
        """Make a burst from a square piece of a photo.

        Args:
            srgb_3HW: float32 sRGB in [0, 1]; its side is :meth:`window` of the clean image's side.
            rng: source of all randomness.

        Raises:
            ImageError: if the piece is not square, or its side is not the window of any multiple
                of :attr:`scale`.
        """
        crop = self._crop(srgb_3HW)
        border = self.border(crop)
        camera, noise = Camera.draw(rng), Noise.draw(rng)
        linear_3HW = camera.unprocess(srgb_3HW)
        clean_3HW = linear_3HW[:, border : border + crop, border : border + crop].contiguous()
        motions_T33 = self._motions(len(linear_3HW[0]), crop, rng)
        frames = self._sample(linear_3HW, motions_T33, crop, rng)
        flow = self._flow(motions_T33, crop)

        if self.exposure_jitter:
            for t in range(1, self.frames):
                change = uniform(-self.exposure_jitter, self.exposure_jitter, rng)
                frames[t] = (frames[t] * (1 + change)).clamp(0, 1)
        if self.mode == "raw":
            frames = mosaic(frames)
        if self.noise:
            frames = noise.add(frames, rng).clamp(0, 1)
        if self.frame_dropout:
            dropped = torch.rand(self.frames, generator=rng) < self.frame_dropout
            frames[dropped], flow[dropped] = frames[0].clone(), 0.0
        if self.space == "srgb":
            frames, clean_3HW = camera.process(frames), camera.process(clean_3HW)
        return SyntheticBurst(frames, clean_3HW, flow, camera, noise)

    def _crop(self, srgb_3HW: Tensor) -> int:
        _, height, width = srgb_3HW.shape
        found = [
            crop
            for crop in range(self.scale, height + 1, self.scale)
            if self.window(crop) == height == width
        ]
        if not found:
            raise ImageError(
                f"a burst needs a square piece of side BurstSynthesis.window(crop), with crop a "
                f"multiple of {self.scale}, not {width}x{height} pixels"
            )
        return found[0]

    def _motions(self, side: int, crop: int, rng: torch.Generator) -> Tensor:
        """(T, 3, 3) maps from source to frame coordinates (column, row, 1), in clean pixels."""
        reach, centre = self.translation(crop), side / 2
        maps = []
        for t in range(self.frames):
            # Frame 0 is shifted so that the centre of its pixel i is at clean pixel factor * i.
            shift = ((self.factor - 1) / 2,) * 2
            angle = 0.0
            if t > 0:
                shift = (uniform(-reach, reach, rng), uniform(-reach, reach, rng))
                angle = math.radians(uniform(-self.max_rotation, self.max_rotation, rng))
            maps.append(_rotation(angle, centre) @ _translation(*shift))
        return torch.stack(maps)

    def _sample(
        self, linear_3HW: Tensor, motions_T33: Tensor, crop: int, rng: torch.Generator
    ) -> Tensor:
        """Low-resolution colour frames (T, 3, crop/factor, crop/factor)."""
        rounded = self.quantize == "official"
        source = (linear_3HW * 255).floor() / 255 if rounded else linear_3HW
        # Bilinear downscaling by an even factor is the mean of the two middle pixels along each
        # side; by an odd factor, it is the middle pixel. Only these pixels are computed.
        middle = [(self.factor - 1) // 2, self.factor // 2]
        cells = torch.arange(0, crop, self.factor)[:, None]
        places = (cells + torch.tensor(middle)).flatten() + self.border(crop)
        inverse_T33 = torch.linalg.inv(motions_T33)
        position = _apply(inverse_T33, places.double(), places.double())
        moved = _gather(source, position)
        if self.moving_object and uniform(0, 1, rng) < self.moving_object:
            moved = self._with_object(source, moved, position, rng)
        if rounded:
            moved = _to_8_bits(moved)
        small = F.avg_pool2d(moved, 2)
        return _to_8_bits(small) if rounded else small

    def _with_object(
        self, source_3HW: Tensor, moved: Tensor, position: Tensor, rng: torch.Generator
    ) -> Tensor:
        """Add a moving square to all frames but the reference, which must match the clean image."""
        side = source_3HW.shape[-1]
        half, reach = side / 8, self.translation(side)
        centre = torch.tensor([uniform(side / 4, 3 * side / 4, rng) for _ in range(2)])
        drift = torch.tensor([[uniform(-reach, reach, rng) for _ in range(2)]] * self.frames)
        drift = drift * torch.linspace(-1, 1, self.frames)[:, None]
        away = position - drift[:, None, None].double()
        inside = ((away - centre).abs().amax(-1) < half)[:, None]
        inside[0] = False
        # The square shows another part of the photo, so that it differs from the background.
        other = _gather(source_3HW.flip(-1), away)
        return torch.where(inside, other, moved)

    def _flow(self, motions_T33: Tensor, crop: int) -> Tensor:
        """Displacement (T, 2, h, w) from the reference, in pixels of a frame's planes."""
        scale = self.scale
        cells = torch.arange(0, crop, scale).double() + (scale - 1) / 2 + self.border(crop)
        to_frame = motions_T33 @ torch.linalg.inv(motions_T33[:1])
        moved = _apply(to_frame, cells, cells)
        still = _apply(torch.eye(3, dtype=torch.float64)[None], cells, cells)
        return ((moved - still) / scale).flip(-1).permute(0, 3, 1, 2).float().contiguous()


SYNTHESES = Registry("burst_synthesis", BurstSynthesis, supplied=("frames", "factor", "mode"))
SYNTHESES.register("ntire")(BurstSynthesis)


def _translation(column: float, row: float) -> Tensor:
    return torch.tensor([[1, 0, column], [0, 1, row], [0, 0, 1]], dtype=torch.float64)


def _rotation(angle: float, centre: float) -> Tensor:
    cosine, sine = math.cos(angle), math.sin(angle)
    turn = torch.tensor([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]], dtype=torch.float64)
    return _translation(centre, centre) @ turn @ _translation(-centre, -centre)


def _apply(maps_T33: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Map the points of a grid; returns (T, rows, columns, 2), column then row."""
    row, column = torch.meshgrid(rows, columns, indexing="ij")
    points = torch.stack([column, row, torch.ones_like(row)], dim=-1)
    return torch.einsum("tij,rcj->trci", maps_T33, points)[..., :2]


def _gather(source_3HW: Tensor, position_TRC2: Tensor) -> Tensor:
    """Sample an image bilinearly at (column, row), zero outside: (T, 3, R, C)."""
    size = torch.tensor([source_3HW.shape[2], source_3HW.shape[1]], dtype=torch.float64)
    grid = ((2 * position_TRC2 + 1) / size - 1).float()
    images = source_3HW[None].expand(len(grid), -1, -1, -1)
    return F.grid_sample(images, grid, align_corners=False)


def _to_8_bits(values: Tensor) -> Tensor:
    return (values * 255 + 0.5).floor() / 255


def bayer_flip(planes: Tensor, *, rows: bool, columns: bool) -> Tensor:
    """Flip Bayer planes so that they stay RGGB: flip the mosaic, crop its border and pad it again.

    Args:
        planes: (..., 4, h, w), R, Gr, Gb, B; h and w at least 2.
        rows: whether to flip top and bottom.
        columns: whether to flip left and right.

    Returns:
        Planes of the same shape. Along a flipped side, the mosaic loses one line at each end and
        the last plane pixel is repeated, because a mirrored mosaic starts with another colour.
    """
    flat = F.pixel_shuffle(planes, 2)
    for flip, side in ((rows, -2), (columns, -1)):
        if flip:
            flat = flat.flip(side).narrow(side, 1, flat.shape[side] - 2)
            # Repeat the last two lines, which have the right colours.
            flat = torch.cat([flat, flat.narrow(side, flat.shape[side] - 2, 2)], dim=side)
    return F.pixel_unshuffle(flat, 2)
