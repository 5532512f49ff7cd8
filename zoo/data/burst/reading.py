"""Reading bursts: the public layouts and our own.

The folder of a burst contains one of these:

* ``im_raw_00.png``, ``im_raw_01.png``, ...: 16-bit PNGs with four channels, the planes of a Bayer
  mosaic; 14 bits are used (the synthetic sets of the NTIRE challenge, and ours). The public files
  were written with OpenCV without swapping channels. Any other library, or code that swaps them,
  reads the planes as Gb, Gr, R, B. Here they are read as R, Gr, Gb, B.
* ``samsung_00/im_raw.png``, ..., each with its ``meta_info.pkl`` (BurstSR): 10 bits; the black
  level is not subtracted.
* ``burst.npz`` with ``frames`` (T, 4 or 3, h, w), either floating point in [0, 1], or integers and
  ``white_level``.
* any image files, in natural order: RGB frames.

:mod:`zoo.data.burst.facts` reads the facts (gains and colour matrix) next to the frames.
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
"""The value that means 1 in the public 16-bit files, which use 14 bits."""

SAMSUNG_WHITE = 1023
NPZ = "burst.npz"
PREVIEW = "preview.png"
_NOT_FRAMES = (PREVIEW, "gt.png")


@dataclass(frozen=True, eq=False)
class BurstFiles:
    """A burst read from files.

    Attributes:
        name: name of its folder or file.
        frames_TIHW: float32, about [0, 1]: 4 planes R, Gr, Gb, B, or 3 channels R, G, B.
        facts: facts read from the folder, as plain data.
        bit_depth: largest bits per sample of RGB files, 8 or 16; 16 for other bursts.
    """

    name: str
    frames_TIHW: Tensor
    facts: Mapping[str, Any] = field(default_factory=dict)
    bit_depth: int = 8

    @property
    def camera(self) -> Camera | None:
        """Gains and colour matrix; None if the facts lack them."""
        try:
            return Camera.from_data(self.facts)
        except (KeyError, ValueError, TypeError, RuntimeError):
            return None


def find_bursts(source: str | Path) -> list[Path]:
    """List the bursts at a path, which is one burst or a folder of bursts, in natural order.

    Only names are examined. If any subfolder is a burst, the folder is a folder of bursts, and
    image files directly in it are ignored.

    Raises:
        ImageError: if there is no burst.
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
        f"{str(source)!r} contains no burst: it needs frames (im_raw_00.png, ..., burst.npz, or "
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
    """Read one burst in any of the layouts in the module's description.

    Raises:
        ImageError: if frames are missing, damaged, have different sizes, or an unsupported format.
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
        raise ImageError(f"burst folder {str(path)!r} has no frame; see 'zoo restore --help'")
    if any(photo.alpha_HW is not None for photo in photos):
        raise ImageError(
            f"burst folder {str(path)!r}: a frame has an alpha channel; planes of a RAW burst are "
            "named im_raw_00.png, im_raw_01.png, ..."
        )
    frames = [to_tensor(with_channels(photo.color_HWC, 3)) for photo in photos]
    return BurstFiles(path.name, _stacked(frames, path), facts, max(p.bit_depth for p in photos))


def read_planes(path: Path) -> Tensor:
    """Read the planes R, Gr, Gb, B of a public file, unscaled, float32 (4, h, w).

    Raises:
        ImageError: if the file is damaged or not a 16-bit PNG with four channels.
    """
    return _read_unswapped(path, 4, "a Bayer mosaic is a 16-bit PNG with four channels")


def read_clean(path: Path) -> Tensor:
    """Read a clean image of the public sets (``im_rgb.png``).

    Returns:
        Linear RGB, float32 (3, H, W) in [0, 1].

    Raises:
        ImageError: if the file is damaged or not a 16-bit PNG with three channels.
    """
    return _read_unswapped(path, 3, "a clean image is a 16-bit PNG with three channels") / WHITE


def _read_unswapped(path: Path, channels: int, wanted: str) -> Tensor:
    """Read a file that was written with OpenCV without swapping its channels."""
    data = np.frombuffer(read_image_bytes(path), np.uint8)
    # OpenCV returns the channels in the order in which they were written.
    image_HWI = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    if image_HWI is None:
        raise ImageError(f"{str(path)!r} cannot be decoded; it is damaged or not a PNG")
    if image_HWI.dtype != np.uint16 or image_HWI.ndim != 3 or image_HWI.shape[2] != channels:
        shape = "x".join(map(str, image_HWI.shape))
        raise ImageError(
            f"{str(path)!r} has {image_HWI.dtype} values of shape {shape}; {wanted} "
            "(some libraries reduce such files to 8 bits)"
        )
    return to_tensor(image_HWI.astype(np.float32))


def _black_level(facts: Mapping[str, Any]) -> Tensor:
    """The black level, (4, 1, 1) or (1, 1, 1), to subtract from planes (4, h, w)."""
    levels = np.asarray(facts.get("black_level", 0), dtype=np.float32).reshape(-1)
    return torch.tensor(levels if levels.size in (1, 4) else [0.0]).reshape(-1, 1, 1)


def _from_npz(path: Path) -> BurstFiles:
    try:
        with np.load(path, allow_pickle=False) as file:
            content = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, KeyError) as error:
        raise ImageError(f"{str(path)!r} is not a readable npz file: {error}") from error
    frames = content.pop("frames", None)
    if frames is None or frames.ndim != 4 or frames.shape[1] not in (3, 4) or 0 in frames.shape:
        shape = None if frames is None else frames.shape
        raise ImageError(
            f"{str(path)!r} needs an array 'frames' of shape (T, 4 or 3, h, w), not {shape}"
        )
    if np.issubdtype(frames.dtype, np.integer):
        if "white_level" not in content:
            raise ImageError(
                f"{str(path)!r} has {frames.dtype} frames; add an entry 'white_level', the value "
                "that means 1, such as 16383"
            )
        frames = frames.astype(np.float32) / float(content["white_level"])
    facts = facts_beside(path.parent) if path.name == NPZ else {}
    facts.update({name: value.tolist() for name, value in content.items()})
    tensor = torch.from_numpy(np.ascontiguousarray(frames, dtype=np.float32))
    if not tensor.isfinite().all():
        raise ImageError(f"{str(path)!r} has NaN or infinite values")
    return BurstFiles(path.parent.name if path.name == NPZ else path.stem, tensor, facts, 16)


def _stacked(frames: list[Tensor], path: Path) -> Tensor:
    shapes = {frame.shape for frame in frames}
    if len(shapes) > 1:
        sizes = ", ".join(sorted(f"{s[2]}x{s[1]}" for s in shapes))
        raise ImageError(f"burst {str(path)!r} has frames of different sizes: {sizes}")
    return torch.stack(frames)
