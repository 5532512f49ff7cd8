"""Synthetic bursts: what a shaking hand would have shot of a photograph.

The procedure of the NTIRE 2021 burst challenge, by which the field trains and measures: the photo
is turned back to linear sensor values, moved for each frame, sampled every fourth pixel without a
low-pass (the aliasing is the information), mosaicked and made noisy.

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
"""Side of the clean image that the standard motion belongs to; other sides scale it."""


class SyntheticBurst(NamedTuple):
    """A burst and what is known of it.

    Attributes:
        frames: (T, I, h, w) float32 in [0, 1]: the planes R, Gr, Gb, B, or RGB; frame 0 is the
            reference.
        clean: (3, H, W) float32 in [0, 1], linear, or sRGB where the frames are.
        flow: (T, 2, h, w) displacement in pixels of a frame, rows then columns: frame t sampled at
            ``position + flow`` shows what frame 0 shows.
        camera: colours.
        noise: level.
    """

    frames: Tensor
    clean: Tensor
    flow: Tensor
    camera: Camera
    noise: Noise


@dataclass(frozen=True, kw_only=True)
class BurstSynthesis:
    """How bursts are made.

    Attributes:
        frames: T.
        factor: how many times smaller a low-resolution colour frame is; the planes of a RAW frame
            are twice that.
        mode: "raw" for Bayer planes, "rgb" for colour frames.
        space: of RGB frames and their clean image: "linear", or "srgb" as a finished photo.
        max_translation: largest shift in pixels of a clean image of 384, in proportion for others.
        max_rotation: largest rotation in degrees.
        quantize: "official" rounds to 8 bits where the challenge's tools do, "none" nowhere.
        noise: add sensor noise.
        exposure_jitter: largest relative change of a frame's brightness; 0 for none.
        moving_object: probability that a patch, which the reference does not show, passes by.
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
        if self.frames < 1 or self.factor < 1:
            raise RecipeError(
                f"frames is {self.frames} and factor {self.factor}; both are at least 1"
            )
        if self.mode == "raw" and self.space != "linear":
            raise RecipeError("space must be 'linear' for mode 'raw': a sensor's values are linear")
        if self.max_translation < 0 or self.max_rotation < 0:
            raise RecipeError("max_translation and max_rotation must not be negative")
        if not 0 <= self.exposure_jitter < 1:
            raise RecipeError(f"exposure_jitter is {self.exposure_jitter}; it must be in [0, 1)")
        for name in ("moving_object", "frame_dropout"):
            if not 0 <= getattr(self, name) <= 1:
                raise RecipeError(f"{name} is {getattr(self, name)}; a probability is 0 to 1")

    @property
    def scale(self) -> int:
        """Clean size over the size of a frame's planes."""
        return self.factor * (2 if self.mode == "raw" else 1)

    def translation(self, crop: int) -> float:
        """Largest shift in pixels of a clean image with this side."""
        return self.max_translation * crop / STANDARD_CROP

    def border(self, crop: int) -> int:
        """Pixels around the clean image that motion may bring into view."""
        return math.ceil(self.translation(crop))

    def window(self, crop: int) -> int:
        """Side of the photo's piece that a clean image of this side is made from."""
        return crop + 2 * self.border(crop)

    def __call__(self, srgb_3HW: Tensor, rng: torch.Generator) -> SyntheticBurst:
        """Make a burst of a square piece of a photo.

        Args:
            srgb_3HW: float32 sRGB in [0, 1], of side :meth:`window` of the clean side wanted.
            rng: source of all randomness.

        Raises:
            ImageError: where the piece is not square, or no clean side has this window that is a
                multiple of :attr:`scale`.
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
                f"a burst is made of a square piece, crop + 2 borders wide with crop a multiple of "
                f"{self.scale}, not of {width}x{height}; BurstSynthesis.window(crop) says the side"
            )
        return found[0]

    def _motions(self, side: int, crop: int, rng: torch.Generator) -> Tensor:
        """(T, 3, 3) maps of source to frame coordinates (column, row, 1) in clean pixels."""
        reach, centre = self.translation(crop), side / 2
        maps = []
        for t in range(self.frames):
            # Frame 0 is moved so that its pixel i lies on clean pixel factor * i.
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
        # Bilinear shrinking by an even factor is the mean of the two middle pixels of each side;
        # only those are computed. For an odd factor it is the middle pixel itself.
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
        """Let a square pass before all frames but the reference, which the clean image shows."""
        side = source_3HW.shape[-1]
        half, reach = side / 8, self.translation(side)
        centre = torch.tensor([uniform(side / 4, 3 * side / 4, rng) for _ in range(2)])
        drift = torch.tensor([[uniform(-reach, reach, rng) for _ in range(2)]] * self.frames)
        drift = drift * torch.linspace(-1, 1, self.frames)[:, None]
        away = position - drift[:, None, None].double()
        inside = ((away - centre).abs().amax(-1) < half)[:, None]
        inside[0] = False
        # The square shows another part of the photo, so that it differs from what is behind it.
        other = _gather(source_3HW.flip(-1), away)
        return torch.where(inside, other, moved)

    def _flow(self, motions_T33: Tensor, crop: int) -> Tensor:
        """(T, 2, h, w) in pixels of a frame's planes."""
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
    """Where maps send the points of a grid: (T, rows, columns, 2), column then row."""
    row, column = torch.meshgrid(rows, columns, indexing="ij")
    points = torch.stack([column, row, torch.ones_like(row)], dim=-1)
    return torch.einsum("tij,rcj->trci", maps_T33, points)[..., :2]


def _gather(source_3HW: Tensor, position_TRC2: Tensor) -> Tensor:
    """Bilinear samples at (column, row), zero outside: (T, 3, R, C)."""
    size = torch.tensor([source_3HW.shape[2], source_3HW.shape[1]], dtype=torch.float64)
    grid = ((2 * position_TRC2 + 1) / size - 1).float()
    images = source_3HW[None].expand(len(grid), -1, -1, -1)
    return F.grid_sample(images, grid, padding_mode="zeros", align_corners=False)


def _to_8_bits(values: Tensor) -> Tensor:
    return (values * 255 + 0.5).floor() / 255


def bayer_flip(planes: Tensor, *, rows: bool = False, columns: bool = False) -> Tensor:
    """Flip RGGB planes so that they stay RGGB: on the mosaic, less its outer pixels, padded again.

    Args:
        planes: (..., 4, h, w), R, Gr, Gb, B; h and w at least 2.
        rows: flip top and bottom.
        columns: flip left and right.

    Returns:
        The same shape. Along a flipped side one line of the mosaic is lost at each end and the
        last plane pixel repeated, because a mirrored mosaic begins with another colour.
    """
    flat = F.pixel_shuffle(planes, 2)
    for flip, side in ((rows, -2), (columns, -1)):
        if flip:
            flat = flat.flip(side).narrow(side, 1, flat.shape[side] - 2)
            # Two more lines at the end, of the colours that belong there.
            flat = torch.cat([flat, flat.narrow(side, flat.shape[side] - 2, 2)], dim=side)
    return F.pixel_unshuffle(flat, 2)
