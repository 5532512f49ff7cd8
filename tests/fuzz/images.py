"""Damaged image files of every kind that is read, and other things with the name of an image."""

from __future__ import annotations

import functools
import io
import os
import re
import struct
import tempfile
import zlib
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import cv2
import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from PIL import Image

import zoo
from tests.fuzz.frame import ACCEPTED, FaultError, refusal
from tests.helpers.damage import PLACES, Change, changed, changes, put
from tests.helpers.networks import Nearest
from tests.helpers.photographs import exif
from tests.helpers.profiles import rgb_profile
from tests.helpers.tiffs import tiff_with_alpha
from zoo.data import arrays, headers, multiband
from zoo.data.images import EXTENSIONS, Photo, read_frames, read_photo
from zoo.data.multiband import is_multiband
from zoo.data.photo import Saving
from zoo.data.value_range import image_of
from zoo.limits import PIXELS_VARIABLE

COUNT, SLICE = 4_000, 80

BANDS = np.random.default_rng(2).integers(0, 2**16, (6, 7, 5)).astype(np.uint16)
"""An image of five bands."""

DEFLATE_RATIO = 1032

FORMATS = (
    b"\x93NUMPY",
    b"PK",
    b"MATLAB 5",
    b"\x89PNG",
    b"\xff\xd8",
    b"BM",
    b"II",
    b"MM",
    b"RIFF",
    b"GIF8",
)
"""How the files start that may be read."""

COLOURS = np.random.default_rng(1).integers(0, 256, (5, 6, 3))
"""Colours of TIFF files with alpha."""

TOLD = {"icc_profile": rgb_profile(), "exif": exif(6)}
"""What a photo says beside its pixels."""

MOST_PIXELS = 2**24
"""The limit on the size of images here, because restoring takes more memory than reading."""

PIXELS_OF_A_BYTE = 512
"""No JPEG file can hold more."""


class Case(NamedTuple):
    """An image file.

    Attributes:
        base: name of an intact file.
        side: (height, width) that the header declares, or None; not for TIFF.
        damage: changes of its bytes.
        extension: of its name.
        place: what is at its path.
    """

    base: str
    side: tuple[int, int] | None
    damage: tuple[Change, ...]
    extension: str
    place: str


def cases() -> SearchStrategy[Case]:
    side = st.sampled_from([0, 1, 5, 3000, 20_000, 2**16 - 1])
    return st.builds(
        Case,
        st.sampled_from(sorted(bases())),
        st.none() | st.none() | st.tuples(side, side),
        changes(),
        st.sampled_from(EXTENSIONS),
        st.sampled_from(PLACES),
    )


def attempt(case: Case, folder: Path) -> str:
    data = bases()[case.base]
    if case.side is not None:
        data = declaring(data, *case.side)
    data = changed(data, case.damage)
    path, output = folder / f"photo{case.extension}", folder / "restored.png"
    put(path, data, case.place)
    seen: list[Photo] = []
    with mock.patch.dict(os.environ, {PIXELS_VARIABLE: str(MOST_PIXELS)}):
        said = refusal(lambda: seen.append(read_photo(path)))
        frames = refusal(lambda: read_frames(path))
        network = Nearest(1)
        if seen and seen[0].color_HWC.shape[2] not in (1, 3):  # no picture
            network = Nearest(1, seen[0].color_HWC.shape[2])
            output = folder / "restored.npy"
        again = refusal(lambda: zoo.restore(network, path, output, tile=0, progress=False))
    if said is None and case.place in ("file", "link"):
        check(seen[0], data)
        check_unchanged(seen[0], data, case)
    if said is None and frames is not None:
        raise FaultError(f"reading one frame is fine, and reading all gave {frames!r}")
    if (said is None) != (again is None):
        raise FaultError(f"reading gave {said!r}, restoring {again!r}")
    if again is not None and output.exists():
        raise FaultError("a refused image has an output")
    return ACCEPTED if said is None else f"refused: {reason(said)}"


def check(photo: Photo, data: bytes) -> None:
    """Check a photo that was read from a file with these bytes."""
    height, width, channels = photo.color_HWC.shape
    for plane in (photo.color_HWC, photo.alpha_HW):
        slack = 2e-3 if photo.bit_depth == 32 else 0
        if plane is not None and not (plane.min() >= -slack and plane.max() <= 1 + slack):
            raise FaultError("values are outside [0, 1]")
    if not data.startswith(FORMATS) and data[4:8] != b"ftyp":
        raise FaultError(f"a file that starts with {data[:8]!r} is read")
    if data.startswith(b"\xff\xd8") and height * width > len(data) * PIXELS_OF_A_BYTE:
        raise FaultError(f"{len(data)} bytes of a JPEG file became {width}x{height}x{channels}")
    if height * width > MOST_PIXELS:
        raise FaultError(f"an image of {width}x{height} is read")
    if height * width * channels > max(MOST_PIXELS * 8, len(data) * DEFLATE_RATIO):
        raise FaultError(f"an array of {width}x{height}x{channels} is read")
    if not is_multiband(data) and (said := complaint(data)):
        raise FaultError(f"the decoder said: {said}")


def complaint(data: bytes) -> str:
    """What the decoder writes about damage to the standard error stream."""
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
    real = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        finally:
            os.dup2(real, 2)
            os.close(real)
        file.seek(0)
        said = file.read().decode(errors="replace")
    few = re.search(r"\b\d\d? extraneous bytes before marker 0xd9", said)
    return said if ("JPEG" in said or "TIFF" in said) and not few else ""


def check_unchanged(photo: Photo, data: bytes, case: Case) -> None:
    """Check colours that are known: of an intact TIFF with alpha, and of data with checksums."""
    whole = bases()[case.base]
    known = case.base.startswith("tiff unassociated") and data == whole
    if known and np.abs(photo.color_HWC * 255 - COLOURS).max() > 1.1:
        raise FaultError("the colours of a TIFF with alpha are wrong")
    if case.base == "npz" and np.abs(photo.color_HWC - BANDS / 65535).max() > 1e-6:
        raise FaultError("damage in an archive with a checksum is not noticed")
    start = int.from_bytes(whole[4:8], "little")  # strips are before the directory
    if case.base == "tiff deflate" and data[:8] + data[start:] == whole[:8] + whole[start:]:
        right = cv2.imdecode(np.frombuffer(whole, np.uint8), cv2.IMREAD_UNCHANGED)
        if not np.array_equal(np.round(photo.color_HWC * 255)[..., ::-1], right):
            raise FaultError("damage in compressed data with a checksum is not noticed")


def reason(message: str) -> str:
    """The words that tell one reason of a refusal from another."""
    known = (
        "content is none of", "damaged or cut short", "the limit is", "is a folder",
        "missing file", "does not exist", "pipe or a device", "is empty", "samples", "channels",
        "cannot be read", "free memory", "frames or pages",
    )  # fmt: skip
    return next((words for words in known if words in message), "other")


def planted() -> AbstractContextManager[object]:
    return mock.patch.object(headers, "warns", lambda data: False)


@functools.cache
def bases() -> dict[str, bytes]:
    """Intact files of every format and mode, and of formats that are not read, by name."""
    random = np.random.default_rng(0)

    def encoded(extension: str, shape: tuple[int, ...], bits: int = 8, *options: int) -> bytes:
        samples = random.integers(0, 2**bits, shape)
        kind = {8: np.uint8, 16: np.uint16}[bits]
        return cv2.imencode(extension, samples.astype(kind), options)[1].tobytes()

    found = {}
    for bits in (8, 16):
        for name, shape in {"gray": (7, 9), "rgb": (9, 7, 3), "alpha": (5, 8, 4)}.items():
            found[f"png {name} {bits}"] = encoded(".png", shape, bits)
            found[f"tiff {name} {bits}"] = encoded(".tiff", shape, bits)
    for name, code in {"none": 1, "lzw": 5, "deflate": 8, "packbits": 32773}.items():
        option = cv2.IMWRITE_TIFF_COMPRESSION
        found[f"tiff {name}"] = encoded(".tiff", (12, 10, 3), 8, option, code)
    found["jpeg"] = encoded(".jpg", (40, 30, 3))
    found["jpeg gray"] = encoded(".jpg", (17, 33))
    found["jpeg progressive"] = encoded(".jpg", (40, 30, 3), 8, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    found["bmp"], found["bmp gray"] = encoded(".bmp", (9, 7, 3)), encoded(".bmp", (9, 7))
    found["webp"] = encoded(".webp", (20, 30, 3), 8, cv2.IMWRITE_WEBP_QUALITY, 80)
    found["webp lossless"] = encoded(".webp", (20, 30, 4), 8, cv2.IMWRITE_WEBP_QUALITY, 101)
    found["png palette"] = palette()
    found["tiff float"] = cv2.imencode(".tiff", random.random((5, 6), np.float32))[1].tobytes()
    found["bmp runs"] = solid_bmp(4, 1020, (b"\xff\x05" * 4 + b"\0\0") * 4)
    found["bmp no runs"] = solid_bmp(4, 4, b"")
    found["webp solid"] = solid_webp()
    plain = encoded(".jpg", (64, 64))
    found["jpeg metadata"] = plain[:2] + (b"\xff\xfe\xff\xff" + bytes(2**16 - 3)) * 13 + plain[2:]
    alpha = np.dstack([COLOURS, np.full(COLOURS.shape[:2], 128)])
    for kind in "BHI":
        for endian, big in (("<", False), (">", False), ("<", True), (">", True)):
            data = tiff_with_alpha(alpha, 2, endian=endian, big=big, kind=kind)
            found[f"tiff unassociated {kind} {endian} {big}"] = data
    image = Image.fromarray(random.integers(0, 256, (20, 30, 3), np.uint8))
    for name, kind, more in (
        ("gif", "GIF", {}), ("gif clear", "GIF", {"transparency": 3}), ("avif", "AVIF", {}),
        ("webp told", "WEBP", TOLD), ("png told", "PNG", TOLD), ("jpeg told", "JPEG", TOLD),
        ("tiff told", "TIFF", TOLD),
    ):  # fmt: skip
        held = io.BytesIO()
        image.quantize(60).save(held, kind, **more) if kind == "GIF" else image.save(
            held, kind, **more
        )
        found[name] = held.getvalue()
    found |= of_bands()
    found["ppm"] = encoded(".ppm", (9, 7, 3))
    found["text"] = b"no image\n" * 20
    return found


def of_bands() -> dict[str, bytes]:
    """Intact files of images that are no photographs."""
    found = {}
    for kind, array in {"uint16": BANDS, "float32": BANDS / np.float32(65535)}.items():
        photo = image_of(Path(kind), array)
        for name, encode in {
            "npy": arrays.encode_npy, "mat": arrays.encode_mat, "bands": multiband.encode,
        }.items():  # fmt: skip
            found[f"{name} {kind}"] = encode(Path(kind), photo, Saving())
    found["npz"] = arrays.encode_npz(Path("npz"), image_of(Path("npz"), BANDS), Saving())
    empty = BANDS / np.float32(65535)
    empty[2, 3] = np.nan
    found["npy empty"] = arrays.encode_npy(Path("a"), image_of(Path("a"), empty), Saving())
    found["mat 7.3"] = b"MATLAB 7.3 MAT-file" + bytes(600)
    return found


def palette() -> bytes:
    """A PNG file with a palette and transparent colours."""
    rows = b"".join(bytes([0, *range(row, row + 4)]) for row in range(4))
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", 4, 4, 8, 3, 0, 0, 0)),
        (b"PLTE", bytes(range(24))), (b"tRNS", bytes([51, 0])), (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )  # fmt: skip
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks)


def chunk(name: bytes, data: bytes) -> bytes:
    """A chunk of a PNG file."""
    body = name + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def solid_webp() -> bytes:
    """A lossless WebP of one colour, whose pixels take no space."""
    options = [cv2.IMWRITE_WEBP_QUALITY, 101]
    return cv2.imencode(".webp", np.full((16, 16, 3), 90, np.uint8), options)[1].tobytes()


def solid_bmp(height: int, width: int, runs: bytes = b"\0\1") -> bytes:
    """A BMP file of 8 bits with run lengths; without runs, its pixels are not defined."""
    palette = bytes(range(256)) * 4
    start = 54 + len(palette)
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(runs), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", start + len(runs), 0, 0, start) + header + palette + runs


def declaring(data: bytes, height: int, width: int) -> bytes:
    """A file with another size in its header; TIFF files and others are returned as they are."""
    if data.startswith(b"\x89PNG"):
        header = struct.pack(">II", width, height) + data[24:29]
        return data[:8] + chunk(b"IHDR", header) + data[33:]
    if data.startswith(b"BM"):
        return data[:18] + struct.pack("<ii", width, height) + data[26:]
    if data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little") >> 28 << 28
        bits |= min(width - 1, 2**14 - 1) % 2**14 | min(height - 1, 2**14 - 1) % 2**14 << 14
        return data[:21] + bits.to_bytes(4, "little") + data[25:]
    for marker in (b"\xff\xc0", b"\xff\xc2"):
        at = data.find(marker)
        if data.startswith(b"\xff\xd8") and at > 0:
            return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]
    return data
