"""Where the clean image of a burst is, and how it is read.

========================  =========================================================================
set                       clean image
========================  =========================================================================
synthetic, ours           ``gt/im_rgb.png`` in the burst's folder, or ``gt/NAME/im_rgb.png`` beside
                          ``bursts/NAME``; see :mod:`zoo.data.burst.stored`
BurstSR                   ``canon/im_raw.png`` in the burst's folder, of another camera: R, G, B of
                          14 bits, of which the black level in ``meta_info.pkl`` is subtracted. It
                          is made as bright as the burst, by exposure time, ISO and aperture
RealBSR-RAW               ``*_rgb.png`` among the frames, R, G, B of 14 bits
RealBSR-RGB               ``*rewarp.png`` among the frames; or ``HR/NAME/*.png`` or
                          ``GT/NAME/*.png`` beside ``LR_aligned/NAME`` or ``LR/NAME``
========================  =========================================================================

Shape suffixes: H height, W width in pixels; 3 the channels R, G, B.

Sources: the dataset code of deep-burst-sr for BurstSR; the README and the dataset code of FBANet
for RealBSR.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from zoo.data.burst.facts import FACTS_PICKLE, load_facts, numbers
from zoo.data.burst.finding import real_raw_clean
from zoo.data.burst.reading import REAL_WHITE
from zoo.data.burst.stored import CLEAN, read_clean, read_rgb
from zoo.data.formats import PHOTO_EXTENSIONS
from zoo.errors import ImageError
from zoo.files import natural_key

Kind: TypeAlias = Literal["same", "other_camera", "raw_photo"]
"""How a clean image belongs to its burst: it is registered and has its colours ("same"), it is
another camera's, or it is linear and the set is also scored as developed pictures ("raw_photo")."""

CANON_WHITE = 2**14 - 1
"""The value that means 1 in clean images of BurstSR."""

_LOW = ("LR_aligned", "LR")
_HIGH = ("HR", "GT")


@dataclass(frozen=True)
class CleanImage:
    """The clean image of a burst.

    Attributes:
        path: its file.
        kind: how it belongs to the burst.
    """

    path: Path
    kind: Kind = "same"

    def read(self, *, raw: bool) -> Tensor:
        """Read it, float32 (3, H, W), about [0, 1], linear for RAW bursts.

        Args:
            raw: whether the burst is RAW.

        Raises:
            ImageError: if it is damaged, or facts that it needs are missing.
        """
        if self.kind == "same":
            return read_clean(self.path, raw=raw)
        pixels_3HW = read_rgb(self.path)
        if self.kind == "raw_photo":
            return pixels_3HW / REAL_WHITE
        facts = _facts(self.path.parent)
        levels = _numbers(self.path.parent, facts, "black_level")
        black = torch.tensor(levels[:2] + levels[-1:] if len(levels) == 4 else levels)
        return (pixels_3HW - black.reshape(-1, 1, 1)) / CANON_WHITE * self._brightness(facts)

    def _brightness(self, facts: Mapping[str, Any]) -> float:
        """The light of the burst over that of this image."""
        folder = self.path.parent.parent / "samsung_00"
        return _light(folder, _facts(folder), "Image") / _light(self.path.parent, facts, "EXIF")

    def white_balance(self) -> Tensor:
        """Gains of R, G, B relative to G, (3, 1, 1), from the pickle beside a "raw_photo".

        Raises:
            ImageError: if there is none.
        """
        files = sorted(self.path.parent.glob("*.pkl"))
        if not files:
            raise ImageError(
                f"{str(self.path.parent)!r} has no pickle of facts (*.pkl) with its white balance; "
                "copy the burst again"
            )
        gains = _numbers(files[0], load_facts(files[0]), "cam_wb")
        if len(gains) == 4:
            gains = [gains[0], (gains[1] + gains[2]) / 2, gains[3]]
        return torch.tensor(gains).reshape(3, 1, 1) / gains[1]


def clean_of(burst: Path) -> CleanImage:
    """Find the clean image of a burst.

    Raises:
        ImageError: if it has none; the message names the first places that were searched.
    """
    name = burst.name
    places = [burst / "gt" / CLEAN, burst.parent.parent / "gt" / name / CLEAN]
    for place in places:
        if place.is_file():
            return CleanImage(place)
    if (canon := burst / "canon" / "im_raw.png").is_file():
        return CleanImage(canon, "other_camera")
    if found := real_raw_clean(burst):
        return CleanImage(found, "raw_photo")
    if burst.is_dir() and (files := sorted(burst.glob("*rewarp.png"))):
        return CleanImage(files[0])
    if burst.parent.name in _LOW:
        for folder in (burst.parent.parent / high for high in _HIGH):
            if found := _only_image(folder, name):
                return CleanImage(found)
    raise ImageError(
        f"burst {str(burst)!r} has no clean image: neither {places[0]} nor {places[1]} exists, and "
        "it is not laid out as BurstSR or RealBSR"
    )


def _only_image(folder: Path, name: str) -> Path | None:
    """The clean image of a burst: the image in the folder of its name, or a file of its name."""
    places = folder / name if (folder / name).is_dir() else folder
    if not places.is_dir():
        return None
    found = [p for p in places.iterdir() if p.suffix.lower() in PHOTO_EXTENSIONS]
    if places == folder:
        found = [path for path in found if path.stem == name]
    return min(found, key=natural_key, default=None)


def _facts(folder: Path) -> dict[str, Any]:
    if not (folder / FACTS_PICKLE).is_file():
        raise ImageError(
            f"{str(folder / FACTS_PICKLE)!r} does not exist; the clean images of BurstSR need the "
            "facts of both cameras: copy them again"
        )
    return load_facts(folder / FACTS_PICKLE)


def _numbers(where: Path, facts: Mapping[str, Any], name: str) -> list[float]:
    try:
        return numbers(facts[name], 3, 4)
    except (KeyError, ValueError) as error:
        raise ImageError(
            f"the facts in {str(where)!r} need {name!r}, three or four numbers; copy them again"
        ) from error


def _light(folder: Path, facts: Mapping[str, Any], group: str) -> float:
    """How much light reached a camera's pixels: exposure time x ISO / aperture squared."""
    try:
        tags = facts["exif_data"]
        values = (
            tags[f"{group} {name}"].values[0]
            for name in ("ExposureTime", "ISOSpeedRatings", "FNumber")
        )
        time, speed, stop = (float(v.numerator / v.denominator) for v in values)
        light = time * speed / stop**2
    except (KeyError, AttributeError, TypeError, ValueError, IndexError, ArithmeticError) as error:
        raise ImageError(
            f"the facts in {str(folder)!r} need exposure time, ISO and aperture as EXIF tags "
            f"({group} ExposureTime, ...); copy them again"
        ) from error
    if not 0 < light < float("inf"):
        raise ImageError(
            f"the exposure in the facts of {str(folder)!r} is {light}; copy them again"
        )
    return light
