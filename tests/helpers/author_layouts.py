"""Toy test sets in the layouts in which the authors of the three papers keep theirs."""

from __future__ import annotations

import pickle
import sys
import types
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import torch

from zoo.data import Photo, write_photo
from zoo.data.burst.dataset import generator
from zoo.data.burst.synthesis import BurstSynthesis, SyntheticBurst
from zoo.data.burst.writing import write_burst


def picture(path: Path, side: int, channels: int = 3) -> Path:
    """Write a smooth picture that depends on the file's name; return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows, columns = np.mgrid[:side, :side] / side
    waves = [np.sin((3 + c) * rows + 5 * columns + len(path.stem)) for c in range(channels)]
    write_photo(path, Photo((0.5 + 0.4 * np.stack(waves, axis=-1)).astype(np.float32)))
    return path


def super_resolution(root: Path) -> None:
    """MambaIR keeps scales in folders of their own, MambaCSR the qualities of JPEG.

    Some sets come as BasicSR prepares them. Sets differ in what the names of degraded files end in.
    """
    basicsr = ("Set5", "Set14")
    sets = {
        "Set5": ("butterfly", "x{}"),
        "Set14": ("comic", "x{}"),
        "B100": ("101085", "x{}"),
        "Urban100": ("img_001", "x{}"),
        "Manga109": ("AisazuNihaIrarenai", "_LRBI_x{}"),
    }
    for name, (stem, end) in sets.items():
        clean, degraded = ("GTmod12", "LRbicx{}") if name in basicsr else ("HR", "LR_bicubic/X{}")
        picture(root / name / clean / f"{stem}.png", 48)
        for scale in (2, 3, 4):
            folder = root / name / degraded.format(scale)
            picture(folder / f"{stem}{end.format(scale)}.png", 48 // scale)
        for quality in (10, 20, 30, 40):
            picture(root / name / f"LR_q{quality}" / f"{stem}.png", 12)
    picture(root / "DIV2K" / "HR" / "0801.png", 48)
    for quality in (10, 20, 30, 40):
        picture(root / "DIV2K" / f"LR_q{quality}" / "0801x4.png", 12)


def denoising(root: Path) -> None:
    """Clean photographs only; the noise is made."""
    for name in ("CBSD68HQ", "Kodak24HQ", "McMasterHQ"):
        picture(root / name / "1.PNG", 24)


def jpeg(root: Path) -> None:
    """Gray photographs; LIVE1's are clean bitmaps with an upper-case ending."""
    picture(root / "classic5" / "Classic5_HQ" / "barbara.BMP", 24, 1)
    picture(root / "LIVE1" / "LIVE1_HQ" / "bikes.BMP", 24, 1)
    for quality in (10, 30, 40):
        picture(root / "classic5" / "Classic5_LQ" / str(quality) / "barbara.jpg", 24, 1)


def sidd(root: Path, name: str = "SIDD") -> None:
    """SIDD's blocks: uint8 of 2 scenes x 3 blocks to validate on, 2 x 2 of the benchmark."""
    from scipy.io import savemat

    rng = np.random.default_rng(0)
    clean = rng.integers(40, 200, (2, 3, 16, 16, 3)).astype(np.uint8)
    noisy = (clean + rng.integers(-9, 10, clean.shape)).astype(np.uint8)
    (root / name).mkdir(parents=True, exist_ok=True)
    held = {
        "ValidationNoisyBlocksSrgb": noisy,
        "ValidationGtBlocksSrgb": clean,
        "BenchmarkNoisyBlocksSrgb": noisy[:, :2],
    }
    for key, values in held.items():
        savemat(root / name / f"{key}.mat", {key: values})


def burst(seed: int = 0, frames: int = 3, side: int = 8, mode: str = "raw") -> SyntheticBurst:
    """A smooth burst of frames of ``side`` planes' pixels, with its clean image (x8; RGB: x4)."""
    synthesis = BurstSynthesis(
        frames=frames, factor=4, mode=mode, space="linear" if mode == "raw" else "srgb",
        max_translation=2.0, max_rotation=0.0, noise=False, quantize="none",
    )  # fmt: skip
    window = synthesis.window(side * synthesis.scale)
    rows, columns = torch.meshgrid(*[torch.arange(window) / window] * 2, indexing="ij")
    photo = torch.stack([0.5 + 0.3 * torch.sin(9 * rows + k + seed) * columns for k in range(3)])
    return synthesis(photo, generator(seed))


def levels(path: Path, image_IHW: torch.Tensor, white: float, black: float = 0.0) -> None:
    """Write an image as OpenCV does, 16 bits with its channels as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = (image_IHW * white + black).round().clamp(0, 65535).permute(1, 2, 0)
    assert cv2.imwrite(str(path), stored.numpy().astype(np.uint16))


def synthetic_bursts(root: Path, count: int = 2, frames: int = 3) -> None:
    """NTIRE's layout: bursts/NAME and gt/NAME."""
    for number in range(count):
        made = burst(number, frames)
        folder = root / "SyntheticBurst" / "bursts" / f"{number:04d}"
        write_burst(folder, made)
        clean = root / "SyntheticBurst" / "gt" / f"{number:04d}"
        clean.parent.mkdir(parents=True, exist_ok=True)
        (folder / "gt").rename(clean)


def tag(*values: object) -> object:
    """An EXIF tag as exifread pickles it; :func:`write_facts` writes it."""
    return types.SimpleNamespace(values=list(values), printable=", ".join(map(str, values)))


def write_facts(path: Path, facts: dict[str, object]) -> None:
    """Write a pickle of facts whose tags name classes of exifread, which is not needed."""

    class IfdTag:
        def __init__(self, held: types.SimpleNamespace) -> None:
            self.printable, self.values = held.printable, held.values

    class Ratio(Fraction):
        def __reduce__(self):
            return type(self), (str(Fraction(self)),)

    def named(cls: type, module: str) -> type:
        made = type(cls.__name__, (cls,), {"__module__": module, "__qualname__": cls.__name__})
        sys.modules[module] = types.ModuleType(module)
        setattr(sys.modules[module], cls.__name__, made)
        return made

    before = dict(sys.modules)
    try:
        sys.modules["exifread"] = types.ModuleType("exifread")
        kind, ratio = named(IfdTag, "exifread.classes"), named(Ratio, "exifread.utils")
        facts = dict(facts)
        if isinstance(facts.get("exif_data"), dict):
            made = {}
            for name, held in facts["exif_data"].items():
                values = [ratio(v) if isinstance(v, Fraction) else v for v in held.values]
                made[name] = kind(types.SimpleNamespace(values=values, printable=held.printable))
            facts["exif_data"] = made
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pickle.dumps(facts))
    finally:
        for module in set(sys.modules) - set(before):
            del sys.modules[module]


PHONE = {
    "Image ExposureTime": tag(Fraction(1, 100)), "Image ISOSpeedRatings": tag(200),
    "Image FNumber": tag(Fraction(17, 10)),
}  # fmt: skip
CANON = {
    "EXIF ExposureTime": tag(Fraction(1, 50)), "EXIF ISOSpeedRatings": tag(100),
    "EXIF FNumber": tag(Fraction(56, 10)),
}  # fmt: skip
LIGHT = (200 / 100 / 1.7**2) / (100 / 50 / 5.6**2)
"""Light of the phone's pixels over that of the other camera's."""


def burstsr(root: Path, count: int = 2, frames: int = 3, half: str = "val", side: int = 8) -> None:
    """BurstSR: phone frames of 10 bits with a black level, and another camera's image of 14."""
    for number in range(count):
        made = burst(number, frames, side)
        folder = root / "burstsr_dataset" / half / f"{number:04d}_0001"
        for index, frame in enumerate(made.frames):
            place = folder / f"samsung_{index:02d}"
            levels(place / "im_raw.png", frame, 1023, 63)
            facts = {"black_level": [63] * 4, "cam_wb": [2.0, 1.0, 1.5, 0.0], "exif_data": PHONE}
            write_facts(place / "meta_info.pkl", facts)
        levels(folder / "canon" / "im_raw.png", made.clean / LIGHT, 16383, 2048)
        facts = {"black_level": [2048] * 4, "cam_wb": [2.0, 1.0, 1.0, 1.5], "exif_data": CANON}
        write_facts(folder / "canon" / "meta_info.pkl", facts)


def realbsr_raw(root: Path, count: int = 2, frames: int = 3, half: str = "test") -> None:
    """RealBSR-RAW: frames, clean image and facts of a burst in one folder."""
    for number in range(count):
        made = burst(number, frames)
        folder = root / "RealBSR" / "RAW" / f"{half}patch" / f"{number:03d}_{number:02d}"
        stem = f"MFSR_Sony_{number:04d}"
        for index, frame in enumerate(made.frames):
            levels(folder / f"{stem}_x1_{index:02d}.png", frame, 16383)
        levels(folder / f"{stem}_x4_rgb.png", made.clean, 16383)
        write_facts(
            folder / f"{stem}.pkl", {"cam_wb": [2.0, 1.0, 1.0, 1.5], "black_level": [512] * 4}
        )


def realbsr_rgb(root: Path, count: int = 2, frames: int = 3, half: str = "test") -> None:
    """RealBSR-RGB as its authors' code reads it: LR_aligned and HR."""
    for number in range(count):
        made = burst(number, frames, mode="rgb")
        name = f"{number:03d}_{number:02d}"
        base = root / "RealBSR" / "RGB" / half
        stem = f"{number:03d}_MFSR_Sony_{number:04d}"
        for index, frame in enumerate(made.frames):
            pixels = frame.clamp(0, 1).permute(1, 2, 0).numpy()
            place = base / "LR_aligned" / name / f"{stem}_x1_{index:02d}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            write_photo(place, Photo(pixels))
        place = base / "HR" / name / f"{stem}_x4.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        write_photo(place, Photo(made.clean.clamp(0, 1).permute(1, 2, 0).numpy()))
