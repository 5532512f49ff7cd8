"""Bursts on disk: reading the public layouts and our own, writing the public one.

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

Facts (gains and colour matrix) are read from ``meta.json`` or ``meta_info.pkl`` beside the frames.

Shape suffixes: T frames, I channels of a frame, H height, W width in pixels.
"""

from __future__ import annotations

import io
import json
import pickle
import re
import secrets
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from zoo.data.burst.camera import Camera
from zoo.data.burst.synthesis import Burst
from zoo.data.images import EXTENSIONS, Photo, list_photos, read_photo, write_photo
from zoo.errors import ImageError

WHITE = 2**14
"""The value that stands for 1 in the public 16-bit files: they hold 14 bits."""

SAMSUNG_WHITE = 1023
NPZ = "burst.npz"
FACTS_JSON, FACTS_PICKLE = "meta.json", "meta_info.pkl"
PREVIEW, CLEAN = "preview.png", "gt.png"
_NOT_FRAMES = (PREVIEW, CLEAN)


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
            for path in sorted(inside.iterdir(), key=_by_number)
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
    facts = _facts(path)
    planes = sorted(path.glob("im_raw_*.png"), key=_by_number)
    if planes:
        frames = [read_planes(file) / WHITE for file in planes]
        return BurstFiles(path.name, _stacked(frames, path), facts, 16)
    phone = sorted(path.glob("samsung_*/im_raw.png"), key=_by_number)
    if phone:
        frames = []
        for file in phone:
            black = _black_level(_facts(file.parent))
            frames.append((read_planes(file) - black[:, None, None]) / SAMSUNG_WHITE)
        return BurstFiles(path.name, _stacked(frames, path), _facts(phone[0].parent) or facts, 16)
    photos = [read_photo(p) for p in list_photos(path) if p.name not in _NOT_FRAMES]
    if not photos:
        raise ImageError(f"burst folder {str(path)!r} holds no frame; see 'zoo restore --help'")
    if any(photo.alpha_HW is not None for photo in photos):
        raise ImageError(
            f"burst folder {str(path)!r}: a frame has an alpha channel; planes of a RAW burst are "
            "named im_raw_00.png, im_raw_01.png, ..."
        )
    frames = [
        np.repeat(p.color_HWC, 3 // p.color_HWC.shape[2], 2).transpose(2, 0, 1) for p in photos
    ]
    return BurstFiles(path.name, _stacked(frames, path), facts, max(p.bit_depth for p in photos))


def read_planes(path: Path) -> np.ndarray:
    """The planes R, Gr, Gb, B of a public file as they are stored, float32 (4, h, w).

    Raises:
        ImageError: unless it is a whole 16-bit PNG of four channels.
    """
    data = np.frombuffer(path.read_bytes(), np.uint8)
    # OpenCV also wrote these files, so its own sequence of channels gives the planes back.
    image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    if image is None:
        raise ImageError(f"{str(path)!r} cannot be decoded; it is damaged or no PNG")
    if image.dtype != np.uint16 or image.ndim != 3 or image.shape[2] != 4:
        shape = "x".join(map(str, image.shape))
        raise ImageError(
            f"{str(path)!r} holds {image.dtype} values of shape {shape}; the planes of a Bayer "
            "mosaic are a 16-bit PNG of four channels (some libraries cut such files to 8 bits)"
        )
    return image.transpose(2, 0, 1).astype(np.float32)


def read_clean(path: Path) -> Tensor:
    """A clean image of the public sets (``im_rgb.png``), linear, float32 (3, H, W), 14 bits used.

    Like the planes it was written with OpenCV without swapping channels; it is returned as RGB.
    """
    image = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None or image.dtype != np.uint16 or image.ndim != 3 or image.shape[2] != 3:
        raise ImageError(f"{str(path)!r} is no 16-bit PNG of three channels")
    return torch.from_numpy(image.transpose(2, 0, 1).astype(np.float32) / WHITE)


def write_burst(folder: str | Path, burst: Burst, facts: Mapping[str, Any] | None = None) -> None:
    """Write a burst: RAW in the public layout, RGB as 16-bit images, with facts and a preview.

    ``im_raw_NN.png`` or ``frame_NN.png``, ``im_rgb.png`` (the clean image in the public form) or
    ``gt.png``, ``meta.json``, and ``preview.png``: the reference and the clean image to look at.
    Each file appears whole or not at all.

    Raises:
        ImageError: where the folder cannot be written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImageError(f"cannot make the folder {str(folder)!r}: {error.strerror}") from error
    raw = burst.frames.shape[1] == 4
    for t, frame in enumerate(burst.frames):
        if raw:
            _write_unswapped(folder / f"im_raw_{t:02d}.png", frame)
        else:
            _write_rgb(folder / f"frame_{t:02d}.png", frame)
    clean_folder = folder / "gt"
    clean_folder.mkdir(exist_ok=True)
    if raw:
        _write_unswapped(clean_folder / "im_rgb.png", burst.clean)
    else:
        _write_rgb(clean_folder / "im_rgb.png", burst.clean)
    known = {
        **burst.camera.data(),
        "shot_noise_level": burst.noise.shot,
        "read_noise_level": burst.noise.read,
        "channels": ["R", "Gr", "Gb", "B"] if raw else ["R", "G", "B"],
        "white_level": WHITE if raw else 2**16 - 1,
        **(facts or {}),
    }
    _write(folder / FACTS_JSON, (json.dumps(known, indent=1) + "\n").encode())
    write_photo(folder / PREVIEW, preview(burst))


def preview(burst: Burst) -> Photo:
    """The reference frame, enlarged by repetition, beside the clean image, in sRGB."""
    first = burst.frames[0]
    color = first if len(first) == 3 else torch.stack([first[0], first[1:3].mean(0), first[3]])
    repeat = burst.clean.shape[-1] // color.shape[-1]
    color = color.repeat_interleave(repeat, 1).repeat_interleave(repeat, 2)
    both = torch.cat([color, burst.clean], dim=2)
    if len(first) == 4:
        both = burst.camera.process(both)
    return Photo(np.ascontiguousarray(both.permute(1, 2, 0).numpy()))


def load_facts(path: str | Path) -> dict[str, Any]:
    """Read a ``meta_info.pkl``: numbers, text, containers, arrays and tensors, and nothing else.

    Raises:
        ImageError: if it is damaged or asks for anything that could run code.
    """
    path = Path(path)
    try:
        loaded = _Unpickler(io.BytesIO(path.read_bytes())).load()
    except pickle.UnpicklingError as error:
        raise ImageError(f"{str(path)!r}: {error}") from error
    except Exception as error:
        raise ImageError(f"{str(path)!r} is damaged, or no pickle of facts") from error
    if not isinstance(loaded, dict):
        raise ImageError(f"{str(path)!r} holds {type(loaded).__name__}, not a mapping of facts")
    return loaded


def _load_storage(data: bytes) -> Any:
    try:
        return torch.load(io.BytesIO(data), weights_only=True)
    except pickle.UnpicklingError as error:
        raise pickle.UnpicklingError(
            f"holds a tensor whose storage could run code; write the facts to {FACTS_JSON}"
        ) from error


def _allowed() -> dict[tuple[str, str], Any]:
    from torch._utils import _rebuild_tensor_v2

    reconstruct = np.zeros(1).__reduce__()[0]
    scalar = np.float64(1).__reduce__()[0]
    from_buffer = np.zeros(1).__reduce_ex__(5)[0]
    allowed: dict[tuple[str, str], Any] = {
        ("collections", "OrderedDict"): OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor_v2,
        # The original would unpickle without restrictions.
        ("torch.storage", "_load_from_bytes"): _load_storage,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): _encode_latin,
    }
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        allowed[module, "_reconstruct"] = reconstruct
        allowed[module, "scalar"] = scalar
    for module in ("numpy.core.numeric", "numpy._core.numeric"):
        allowed[module, "_frombuffer"] = from_buffer
    return allowed


def _encode_latin(text: str, encoding: str = "latin1") -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"asks for the encoding {encoding!r}; only latin1 is read")
    return text.encode("latin1")


class _Unpickler(pickle.Unpickler):
    """Knows only what builds plain data."""

    def find_class(self, module: str, name: str) -> Any:
        found = _allowed().get((module, name))
        if found is None:
            raise pickle.UnpicklingError(
                f"asks for {module}.{name}, which could run code; write the facts to {FACTS_JSON}"
            )
        return found


def _facts(folder: Path) -> dict[str, Any]:
    if (folder / FACTS_JSON).is_file():
        try:
            facts = json.loads((folder / FACTS_JSON).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ImageError(f"{str(folder / FACTS_JSON)!r} is no JSON: {error}") from error
        return facts if isinstance(facts, dict) else {}
    beside = [folder / FACTS_PICKLE]
    if folder.parent.name == "bursts":  # the clean half of the public layout
        beside.append(folder.parent.parent / "gt" / folder.name / FACTS_PICKLE)
    found = next((path for path in beside if path.is_file()), None)
    return load_facts(found) if found else {}


def _black_level(facts: Mapping[str, Any]) -> np.ndarray:
    levels = np.asarray(facts.get("black_level", 0), dtype=np.float32).reshape(-1)
    return np.broadcast_to(levels, (4,)) if levels.size in (1, 4) else np.zeros(4, np.float32)


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
    facts = _facts(path.parent) if path.name == NPZ else {}
    facts.update({name: value.tolist() for name, value in content.items()})
    tensor = torch.from_numpy(np.ascontiguousarray(frames, dtype=np.float32))
    if not tensor.isfinite().all():
        raise ImageError(f"{str(path)!r} holds NaN or infinite values")
    return BurstFiles(path.parent.name if path.name == NPZ else path.stem, tensor, facts, 16)


def _stacked(frames: list[np.ndarray], path: Path) -> Tensor:
    shapes = {frame.shape for frame in frames}
    if len(shapes) > 1:
        sizes = ", ".join(sorted(f"{s[2]}x{s[1]}" for s in shapes))
        raise ImageError(f"burst {str(path)!r}: its frames have different sizes: {sizes}")
    return torch.from_numpy(np.ascontiguousarray(np.stack(frames), dtype=np.float32))


def _write_unswapped(path: Path, planes: Tensor) -> None:
    levels = (planes.clamp(0, 1) * WHITE).round().to(torch.int32).numpy().astype(np.uint16)
    _, data = cv2.imencode(".png", np.ascontiguousarray(levels.transpose(1, 2, 0)))
    _write(path, data.tobytes())


def _write_rgb(path: Path, image_3HW: Tensor) -> None:
    color_HWC = np.ascontiguousarray(image_3HW.permute(1, 2, 0).numpy())
    write_photo(path, Photo(color_HWC, bit_depth=16))


def _write(path: Path, data: bytes) -> None:
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    except OSError as error:
        raise ImageError(f"cannot write {str(path)!r}: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)


def _by_number(path: Path) -> tuple[list[str | int], str]:
    parts = re.split(r"([0-9]+)", str(path).casefold())
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], str(path)
