"""Reading bursts: the public layouts and our own.

The folder of a burst contains one of these:

* ``im_raw_00.png``, ``im_raw_01.png``, ...: 16-bit PNGs with four channels, the planes of a Bayer
  mosaic (the synthetic sets of the NTIRE challenge, and ours); see :mod:`zoo.data.burst.stored`.
* ``samsung_00/im_raw.png``, ..., each with its ``meta_info.pkl`` (BurstSR): 10 bits, from which
  its ``black_level`` is subtracted.
* DNG files, in natural order (phones, HDR+); see :mod:`zoo.data.burst.raw`.
* ``burst.npz`` with ``frames`` (T, 4 or 3, h, w), either floating point in [0, 1], or integers and
  ``white_level``; ``black_level``, for all channels or each, is subtracted from both. Other entries
  of up to 100 values are facts.
* ``*.png`` with four channels of 14 bits, a clean image ``*_rgb.png`` and a pickle of facts
  (RealBSR-RAW); the black level is subtracted already.
* any image files, in natural order: RGB frames. A clean image ``*rewarp.png`` (RealBSR-RGB) is no
  frame.

:mod:`zoo.data.burst.facts` reads the facts (gains and colour matrix) next to the frames.
:mod:`zoo.data.burst.writing` writes the first layout.

Shape suffixes: T frames, I channels of a frame, H height, W width in pixels.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.data.burst.camera import Camera
from zoo.data.burst.facts import FACTS_JSON, FACTS_PICKLE, facts_beside, numbers
from zoo.data.burst.finding import NPZ, dng_files, is_frame, real_raw_frames
from zoo.data.burst.raw import read_dng
from zoo.data.burst.stored import WHITE, read_planes
from zoo.data.images import list_photos, read_photo
from zoo.data.npy import read_arrays
from zoo.data.pixels import to_tensor, with_channels
from zoo.errors import ImageError
from zoo.files import natural_key
from zoo.limits import PIXELS_VARIABLE, max_pixels

logger = logging.getLogger(__name__)

SAMSUNG_WHITE = 1023

REAL_WHITE = 2**14 - 1
"""The value that means 1 in frames and clean images of RealBSR-RAW."""

_FACT = 100
"""Largest number of values of an array in an npz file that is kept as a fact."""

_BRIGHTEST = 16
"""Largest value of frames in which 1 can mean white."""

_SHOWN = 4
"""How many sizes an error message names."""


@dataclass(frozen=True, eq=False)
class BurstFiles:
    """A burst read from files.

    Attributes:
        name: name of its folder or file.
        frames_TIHW: float32, about [0, 1]: 4 planes R, Gr, Gb, B, or 3 channels R, G, B.
        facts: facts read from the folder, as plain data.
        bit_depth: largest bits per sample of RGB files, 8 or 16; 16 for other bursts.
        flips: how a restored picture becomes upright; see :func:`zoo.data.burst.raw.upright`.
    """

    name: str
    frames_TIHW: Tensor
    facts: Mapping[str, Any] = field(default_factory=dict)
    bit_depth: int = 8
    flips: int = 0

    @property
    def camera(self) -> Camera | None:
        """Gains and colour matrix; None if the facts lack them.

        Raises:
            ImageError: if the facts have them, but with wrong values.
        """
        try:
            return Camera.from_data(self.facts)
        except KeyError:
            return None
        except ValueError as error:
            raise ImageError(
                f"burst {self.name!r}: {error}; correct {FACTS_JSON} or {FACTS_PICKLE}, or use the "
                "look 'plain' or 'linear'"
            ) from error


def read_burst(path: str | Path) -> BurstFiles:
    """Read one burst in any of the layouts in the module's description.

    Raises:
        ImageError: if frames are missing, damaged, have different sizes, or an unsupported format.
    """
    path = Path(path)
    try:
        return _read_burst(path)
    except OSError as error:
        raise ImageError(
            f"burst {str(path)!r} cannot be read: {error.strerror}; check the path"
        ) from error


def _read_burst(path: Path) -> BurstFiles:
    if path.is_file():
        return _from_npz(path)
    if not path.is_dir():
        raise ImageError(f"burst {str(path)!r} does not exist; check the path")
    if os.path.lexists(path / NPZ):
        return _from_npz(path / NPZ)
    if planes := sorted(path.glob("im_raw_*.png"), key=natural_key):
        frames = _frames(path, (read_planes(file).div_(WHITE) for file in planes))
        return BurstFiles(path.name, frames, facts_beside(path), 16)
    if phone := sorted(path.glob("samsung_*/im_raw.png"), key=natural_key):
        known = _phone_facts(path, phone)
        frames = _frames(path, map(_phone_frame, phone, known))
        return BurstFiles(path.name, frames, known[0], 16)
    if files := dng_files(path):
        return _from_dng(path, files)
    if files := real_raw_frames(path):
        frames = _frames(path, (read_planes(file).div_(REAL_WHITE) for file in files))
        return BurstFiles(path.name, frames, {}, 16)
    return _from_photos(path)


def _from_dng(folder: Path, files: Sequence[Path]) -> BurstFiles:
    facts: dict[str, Any] = {}
    flips: list[int] = []

    def read(file: Path) -> Tensor:
        planes_4HW, camera, turned = read_dng(file)
        if not flips:
            facts.update(camera)
        flips.append(turned)
        return planes_4HW

    frames_TIHW = _frames(folder, map(read, files))
    facts.update(facts_beside(folder))
    return BurstFiles(folder.name, frames_TIHW, facts, 16, flips[0])


def _phone_facts(folder: Path, files: Sequence[Path]) -> list[dict[str, Any]]:
    """Read the facts beside each frame; those of the folder stand in for missing ones.

    Raises:
        ImageError: if only some frames have a black level: the others would be brighter.
    """
    shared = facts_beside(folder)
    known = [facts_beside(file.parent) or shared for file in files]
    bare = [file for file, facts in zip(files, known, strict=True) if "black_level" not in facts]
    if bare and len(bare) < len(files):
        raise ImageError(
            f"{str(bare[0])!r} has no black_level beside it, and other frames of the burst have "
            f"one; copy its {FACTS_PICKLE} again"
        )
    if bare:
        logger.warning(
            "burst %s: no frame has a black_level beside it in %s, so nothing is subtracted",
            folder,
            FACTS_PICKLE,
        )
    return known


def _phone_frame(file: Path, facts: Mapping[str, Any]) -> Tensor:
    try:
        black = _black_level(facts)
    except ValueError as error:
        raise ImageError(f"the facts beside {str(file)!r}: black_level {error}") from error
    return (read_planes(file) - black) / SAMSUNG_WHITE


def _from_photos(folder: Path) -> BurstFiles:
    files = [path for path in list_photos(folder) if is_frame(path)]
    if not files:
        raise ImageError(f"burst folder {str(folder)!r} has no frame; see 'zoo restore --help'")
    bits = 8

    def read(file: Path) -> Tensor:
        nonlocal bits
        photo = read_photo(file)
        if photo.alpha_HW is not None:
            raise ImageError(
                f"burst folder {str(folder)!r}: a frame has an alpha channel; planes of a RAW "
                "burst are named im_raw_00.png, im_raw_01.png, ..."
            )
        bits = max(bits, photo.bit_depth)
        return to_tensor(with_channels(photo.color_HWC, 3))

    frames_TIHW = _frames(folder, map(read, files))
    return BurstFiles(folder.name, frames_TIHW, facts_beside(folder), bits)


def _black_level(facts: Mapping[str, Any]) -> Tensor:
    """The black level, (4, 1, 1) or (1, 1, 1), to subtract from planes (4, h, w).

    Raises:
        ValueError: if it is not one or four numbers below white.
    """
    levels = numbers(facts.get("black_level", 0), 1, 4)
    if not all(0 <= level < SAMSUNG_WHITE for level in levels):
        raise ValueError(f"is {levels}; it must be from 0 to below {SAMSUNG_WHITE}")
    return torch.tensor(levels).reshape(-1, 1, 1)


def _from_npz(path: Path) -> BurstFiles:
    content = read_arrays(path, "frames", _FACT)
    frames = content.pop("frames", None)
    if frames is None or frames.ndim != 4 or frames.shape[1] not in (3, 4) or 0 in frames.shape:
        shape = "nothing" if frames is None else _shape(frames.shape)
        raise ImageError(
            f"npz file {str(path)!r} needs an array 'frames' of shape (T, 4 or 3, h, w), not "
            f"{shape}"
        )
    try:
        frames = _scaled(frames, content.get("white_level"), content.get("black_level"))
    except ValueError as error:
        raise ImageError(f"npz file {str(path)!r} {error}") from error
    facts = facts_beside(path.parent) if path.name == NPZ else {}
    facts.update({name: value.tolist() for name, value in content.items()})
    name = path.parent.name if path.name == NPZ else path.stem
    return BurstFiles(name, torch.from_numpy(frames), facts, 16)


def _scaled(frames: np.ndarray, white: np.ndarray | None, black: np.ndarray | None) -> np.ndarray:
    """Convert the frames of an npz file to float32, about [0, 1].

    Raises:
        ValueError: if their values have no such meaning.
    """
    level = 1.0
    if frames.dtype.kind in "iu":
        if white is None:
            raise ValueError(
                f"has {frames.dtype} frames; add an entry 'white_level', the value that means 1, "
                "such as 16383"
            )
        level = _white_level(white)
    elif frames.dtype.kind != "f":
        raise ValueError(f"has frames of type {frames.dtype}; they must be numbers")
    with np.errstate(over="ignore"):
        scaled = frames.astype(np.float32, order="C")
        dark = _black_levels(black, frames.shape[1], level)
        scaled -= dark
        scaled /= np.float32(level) - dark
    if not np.isfinite(scaled).all():
        raise ValueError("has NaN or infinite values")
    largest = max(-scaled.min(), scaled.max())
    if largest > _BRIGHTEST:
        raise ValueError(
            f"has values up to {largest:g}; 1 must mean white: divide floating-point "
            "frames by their white level, or correct 'white_level' of integers"
        )
    return scaled


def _black_levels(black: np.ndarray | None, channels: int, white: float) -> np.ndarray:
    """The black level of each channel, (1 or C, 1, 1) float32, from 0 to below white.

    Raises:
        ValueError: if it is something else.
    """
    try:
        levels = numbers(0 if black is None else black.tolist(), 1, channels)
    except ValueError as error:
        raise ValueError(f"has a 'black_level' that {error}") from error
    found = np.array(levels, np.float32)[:, None, None]
    if not ((found >= 0) & (found < np.float32(white))).all():
        raise ValueError(
            f"has a 'black_level' of {max(levels):g}; it must be from 0 to below white, which is "
            f"{white:g}: remove it if it is subtracted already"
        )
    return found


def _white_level(white: np.ndarray) -> float:
    try:
        [level] = numbers(white.tolist(), 1)
    except ValueError as error:
        raise ValueError(f"has a 'white_level' that {error}") from error
    if not 1 <= level <= 2**64:
        raise ValueError(f"has a 'white_level' of {level:g}; it must be at least 1")
    return level


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))[:60]


def _frames(path: Path, read: Iterable[Tensor]) -> Tensor:
    """Read frames one by one and stack them."""
    frames: list[Tensor] = []
    limit, pixels = max_pixels(), 0
    for frame_IHW in read:
        pixels += frame_IHW.shape[1] * frame_IHW.shape[2]
        if pixels > limit:
            raise ImageError(
                f"burst {str(path)!r}: its frames have more than {limit:,} pixels; use fewer or "
                f"smaller ones, or raise {PIXELS_VARIABLE}"
            )
        frames.append(frame_IHW)
    shapes = {frame.shape for frame in frames}
    if len(shapes) > 1:
        first = sorted(f"{shape[2]}x{shape[1]}" for shape in shapes)[:_SHOWN]
        sizes = ", ".join(first) + (", ..." if len(shapes) > _SHOWN else "")
        raise ImageError(f"burst {str(path)!r} has frames of different sizes: {sizes}")
    return torch.stack(frames)
