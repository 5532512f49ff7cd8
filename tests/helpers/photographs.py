"""Photographs with metadata, written and read by Pillow, which is independent of our code."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin, TiffImagePlugin

import zoo
from tests.helpers.networks import Nearest
from zoo.data.images import read_photo
from zoo.errors import ImageError

FORMATS = ["png", "jpg", "tif", "webp"]

XMP = (
    b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:'
    b'meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
    b'xmlns:dc="http://purl.org/dc/elements/1.1/" dc:title="a photo"/></rdf:RDF></x:xmpmeta>'
    b'<?xpacket end="w"?>'
)
"""A packet that says nothing of the orientation."""

EMPTY = b"II*\0" + struct.pack("<IHI", 8, 0, 0)
"""An EXIF block that says nothing."""

MAKER, EXPOSURE, LATITUDE = 271, 0x829A, 2


def colours(height: int = 24, width: int = 36, channels: int = 3) -> np.ndarray:
    """Smooth colours, uint8 (height, width, channels)."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    planes = [200 * x + 20, 200 * y + 30, 180 * (1 - x) + 40, 255 * (x + y > 0.4)]
    return np.stack(planes[:channels], axis=-1).round().astype(np.uint8)


def exif(orientation: int = 1, dpi: tuple[int, int] | None = (300, 200)) -> bytes:
    """An EXIF block with maker, exposure time, place, size and a note with a number in it."""
    block = Image.Exif()
    block[274], block[MAKER] = orientation, "camera"
    if dpi is not None:
        block[282], block[283], block[296] = (TiffImagePlugin.IFDRational(d) for d in (*dpi, 2))
        block[296] = 2
    below = block.get_ifd(0x8769)
    below[EXPOSURE] = TiffImagePlugin.IFDRational(1, 125)
    below[0x927C] = b"note of the maker"
    below[0xA002], below[0xA003] = 36, 24
    block.get_ifd(0x8825)[LATITUDE] = (48.0, 8.0, 14.0)
    return block.tobytes().removeprefix(b"Exif\0\0")


def save(
    path: Path,
    pixels: np.ndarray,
    *,
    profile: bytes | None = None,
    block: bytes | None = None,
    xmp: bytes | None = None,
    dpi: tuple[int, int] | None = None,
) -> None:
    """Write a photograph, losslessly where the format can."""
    image = Image.fromarray(pixels.squeeze())
    more: dict[str, object] = {}
    if profile is not None:
        more["icc_profile"] = profile
    if dpi is not None:
        more["dpi"] = dpi
    if path.suffix == ".tif":
        held = Image.Exif()
        held.load(b"Exif\0\0" + (block or EMPTY))
        more["exif"] = held
        if xmp is not None:
            held[700] = xmp
    elif block is not None:
        more["exif"] = block if path.suffix == ".png" else b"Exif\0\0" + block
    if path.suffix == ".png" and xmp is not None:
        chunks = PngImagePlugin.PngInfo()
        chunks.add_itxt("XML:com.adobe.xmp", xmp.decode())
        more["pnginfo"] = chunks
    elif path.suffix != ".tif" and xmp is not None:
        more["xmp"] = xmp
    if path.suffix == ".webp":
        more["lossless"] = True
    if path.suffix == ".jpg":
        more |= {"quality": 98, "subsampling": 0}
    image.save(path, **more)


def restored(source, target, scale=2):
    zoo.restore(Nearest(scale), source, target, progress=False)
    return opened(target)


def opened(path):
    image = Image.open(path)
    image.load()
    return image


def xmp_of(image):
    if image.format == "TIFF":
        return image.tag_v2.get(700)
    text = image.info.get("XML:com.adobe.xmp")
    return image.info.get("xmp") if text is None else text.encode()


def refused(path):
    """The message of the error that reading an image file ends with; it names the file."""
    with pytest.raises(ImageError) as error:
        read_photo(path)
    assert str(path) in str(error.value)
    return str(error.value)
