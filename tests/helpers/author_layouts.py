"""Toy test sets in the layouts in which the authors of the three papers keep theirs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from zoo.data import Photo, write_photo


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


def sidd(root: Path, name: str = "SIDD", files: tuple[str, ...] = ()) -> None:
    """SIDD's validation blocks: uint8 of 2 scenes x 3 blocks."""
    from scipy.io import savemat

    rng = np.random.default_rng(0)
    clean = rng.integers(40, 200, (2, 3, 16, 16, 3)).astype(np.uint8)
    noisy = (clean + rng.integers(-9, 10, clean.shape)).astype(np.uint8)
    (root / name).mkdir(parents=True, exist_ok=True)
    for key, values in {
        "ValidationNoisyBlocksSrgb": noisy,
        "ValidationGtBlocksSrgb": clean,
    }.items():
        savemat(root / name / f"{key}.mat", {key: values})
