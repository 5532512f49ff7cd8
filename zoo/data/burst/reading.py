"""Reading bursts: the public layouts and our own.

What a folder of one burst may hold:

* ``im_raw_00.png``, ``im_raw_01.png``, ...: 16-bit PNGs of four channels, the planes of a Bayer
  mosaic, 14 bits in use (the synthetic sets of the NTIRE challenge and ours). The public files were
  written with OpenCV without swapping channels: read by any other library, or by one that swaps,
  the planes come out as Gb, Gr, R, B. Here they are read as R, Gr, Gb, B.
* ``samsung_00/im_raw.png``, ... each with its ``meta_info.pkl`` (BurstSR): 10 bits, black level
  still in the values.
* ``burst.npz`` with ``frames`` (T, 4 or 3, h, w), floating point in [0, 1], or integers and
  ``white_level``.
* any image files, in natural order: RGB frames.

Facts (gains and colour matrix) beside the frames are read by :mod:`zoo.data.burst.facts`, and
:mod:`zoo.data.burst.writing` writes the first layout.

Shape suffixes: T frames, I channels of a frame, H height, W width in pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from zoo.data.burst.camera import Camera
from zoo.data.burst.facts import facts_beside
from zoo.data.images import EXTENSIONS, list_photos, read_image_bytes, read_photo
from zoo.data.pixels import to_tensor, with_channels
from zoo.errors import ImageError
from zoo.files import natural_key

WHITE = 2**14
"""The value that stands for 1 in the public 16-bit files: they hold 14 bits."""

SAMSUNG_WHITE = 1023
NPZ = "burst.npz"
PREVIEW = "preview.png"
_NOT_FRAMES = (PREVIEW, "gt.png")


@dataclass(frozen=True, eq=False)
class BurstFiles:
    """A burst that was read.

    Attributes:
        name: of its folder or file.
        frames_TIHW: float32, about [0, 1]: 4 planes R, Gr, Gb, B, or 3 channels R, G, B.
        facts: what stood beside it, plain data.
        bit_depth: of RGB files, 8 or 16.
    """

    name: str
    frames_TIHW: Tensor
    facts: Mapping[str, Any] = field(default_factory=dict)
    bit_depth: int = 8

    @property
    def camera(self) -> Camera | None:
        """Gains and colour matrix, where the facts have them."""
        try:
            return Camera.from_data(self.facts)
        except (KeyError, ValueError, TypeError, RuntimeError):
            return None


def find_bursts(source: str | Path) -> list[Path]:
    """One burst, or the bursts of a folder of them, in order; only names are looked at.

    A folder whose sub-folders are bursts is a folder of bursts, whatever images lie beside them.

    Raises:
        ImageError: where there is none.
    """
    source = Path(source)
    if not source.exists():
        raise ImageError(f"burst {str(source)!r} does not exist; check the path")
    if source.suffix == ".npz" or _has_planes(source):
        return [source]
    inside = source / "bursts" if (source / "bursts").is_dir() else source
    if inside.is_dir():
        found = [
            path
            for path in sorted(inside.iterdir(), key=natural_key)
            if (path.is_dir() and path.name != "gt" and (_has_planes(path) or _has_images(path)))
            or (path.suffix == ".npz" and not path.name.startswith("."))
        ]
        if found:
            return found
        if _has_images(inside):
            return [inside]
    raise ImageError(
        f"{str(source)!r} holds no burst: it needs frames (im_raw_00.png, ..., burst.npz, or "
        "images), or folders with frames"
    )


def _has_planes(folder: Path) -> bool:
    return folder.is_dir() and (
        (folder / NPZ).is_file()
        or any(folder.glob("im_raw_*.png"))
        or any(folder.glob("samsung_*/im_raw.png"))
    )


def _has_images(folder: Path) -> bool:
    return any(
        path.suffix.lower() in EXTENSIONS
        and path.name not in _NOT_FRAMES
        and not path.name.startswith(".")
        for path in folder.iterdir()
        if path.is_file()
    )


def read_burst(path: str | Path) -> BurstFiles:
    """Read one burst; the module says what it may be.

    Raises:
        ImageError: for frames that are missing, damaged, of different sizes, or of a kind that is
            not read.
    """
    path = Path(path)
    if path.is_file():
        return _from_npz(path)
    if not path.is_dir():
        raise ImageError(f"burst {str(path)!r} does not exist; check the path")
    if (path / NPZ).is_file():
        return _from_npz(path / NPZ)
    facts = facts_beside(path)
    planes = sorted(path.glob("im_raw_*.png"), key=natural_key)
    if planes:
        frames = [read_planes(file) / WHITE for file in planes]
        return BurstFiles(path.name, _stacked(frames, path), facts, 16)
    phone = sorted(path.glob("samsung_*/im_raw.png"), key=natural_key)
    if phone:
        frames = []
        for file in phone:
            black = _black_level(facts_beside(file.parent))
            frames.append((read_planes(file) - black) / SAMSUNG_WHITE)
        facts = facts_beside(phone[0].parent) or facts
        return BurstFiles(path.name, _stacked(frames, path), facts, 16)
    photos = [read_photo(p) for p in list_photos(path) if p.name not in _NOT_FRAMES]
    if not photos:
        raise ImageError(f"burst folder {str(path)!r} holds no frame; see 'zoo restore --help'")
    if any(photo.alpha_HW is not None for photo in photos):
        raise ImageError(
            f"burst folder {str(path)!r}: a frame has an alpha channel; planes of a RAW burst are "
            "named im_raw_00.png, im_raw_01.png, ..."
        )
    frames = [to_tensor(with_channels(photo.color_HWC, 3)) for photo in photos]
    return BurstFiles(path.name, _stacked(frames, path), facts, max(p.bit_depth for p in photos))


def read_planes(path: Path) -> Tensor:
    """The planes R, Gr, Gb, B of a public file as they are stored, float32 (4, h, w).

    Raises:
        ImageError: unless it is a whole 16-bit PNG of four channels.
    """
    return _read_unswapped(path, 4, "a Bayer mosaic is a 16-bit PNG of four channels")


def read_clean(path: Path) -> Tensor:
    """A clean image of the public sets (``im_rgb.png``), linear RGB, float32 (3, H, W) in [0, 1].

    Raises:
        ImageError: unless it is a whole 16-bit PNG of three channels.
    """
    return _read_unswapped(path, 3, "a clean image is a 16-bit PNG of three channels") / WHITE


def _read_unswapped(path: Path, channels: int, wanted: str) -> Tensor:
    """The channels of a file that was written with OpenCV without swapping them."""
    data = np.frombuffer(read_image_bytes(path), np.uint8)
    # Read with OpenCV, they come back as they were.
    image_HWI = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    if image_HWI is None:
        raise ImageError(f"{str(path)!r} cannot be decoded; it is damaged or no PNG")
    if image_HWI.dtype != np.uint16 or image_HWI.ndim != 3 or image_HWI.shape[2] != channels:
        shape = "x".join(map(str, image_HWI.shape))
        raise ImageError(
            f"{str(path)!r} holds {image_HWI.dtype} values of shape {shape}; {wanted} "
            "(some libraries cut such files to 8 bits)"
        )
    return to_tensor(image_HWI.astype(np.float32))


def _black_level(facts: Mapping[str, Any]) -> Tensor:
    """The level of black, one for each plane or one for all, to subtract from (4, h, w)."""
    levels = np.asarray(facts.get("black_level", 0), dtype=np.float32).reshape(-1)
    return torch.tensor(levels if levels.size in (1, 4) else [0.0]).reshape(-1, 1, 1)


def _from_npz(path: Path) -> BurstFiles:
    try:
        with np.load(path, allow_pickle=False) as file:
            content = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, KeyError) as error:
        raise ImageError(f"{str(path)!r} is no readable npz file of arrays: {error}") from error
    frames = content.pop("frames", None)
    if frames is None or frames.ndim != 4 or frames.shape[1] not in (3, 4) or 0 in frames.shape:
        shape = None if frames is None else frames.shape
        raise ImageError(
            f"{str(path)!r} needs an array 'frames' of shape (T, 4 or 3, h, w), not {shape}"
        )
    if np.issubdtype(frames.dtype, np.integer):
        if "white_level" not in content:
            raise ImageError(
                f"{str(path)!r} holds {frames.dtype} frames; say what 1 is by 'white_level', "
                "such as 16383"
            )
        frames = frames.astype(np.float32) / float(content["white_level"])
    facts = facts_beside(path.parent) if path.name == NPZ else {}
    facts.update({name: value.tolist() for name, value in content.items()})
    tensor = torch.from_numpy(np.ascontiguousarray(frames, dtype=np.float32))
    if not tensor.isfinite().all():
        raise ImageError(f"{str(path)!r} holds NaN or infinite values")
    return BurstFiles(path.parent.name if path.name == NPZ else path.stem, tensor, facts, 16)


def _stacked(frames: list[Tensor], path: Path) -> Tensor:
    shapes = {frame.shape for frame in frames}
    if len(shapes) > 1:
        sizes = ", ".join(sorted(f"{s[2]}x{s[1]}" for s in shapes))
        raise ImageError(f"burst {str(path)!r}: its frames have different sizes: {sizes}")
    return torch.stack(frames)
