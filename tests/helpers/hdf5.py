"""DND's files, which are HDF5: written and read by h5py, or by a stand-in where it is missing.

The stand-in has what DND's reader uses of h5py: files, datasets, and references to datasets.
"""

from __future__ import annotations

import importlib
import io
import types
from pathlib import Path

import numpy as np


class _File:
    """A file of the stand-in: an npz file; boxes are found by reference, as in MATLAB's files."""

    def __init__(self, path: Path, mode: str) -> None:
        assert mode == "r"
        self.held = dict(np.load(io.BytesIO(Path(path).read_bytes()), allow_pickle=False))

    def __enter__(self):
        return _Info(self.held["boxes"]) if "boxes" in self.held else self.held

    def __exit__(self, *_):
        pass


class _Info(dict):
    def __init__(self, boxes: np.ndarray) -> None:
        references = [f"ref{number}" for number in range(len(boxes))]
        info = {"boundingboxes": [references], **dict(zip(references, boxes, strict=True))}
        super().__init__(info=info)


def h5py() -> types.ModuleType:
    """The module, or its stand-in."""
    try:
        return importlib.import_module("h5py")
    except ImportError:
        return types.SimpleNamespace(File=_File)


def dnd(root: Path, photos: int = 2, boxes: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Write a small DND; return the photos (P, H, W, 3) and their boxes (P, B, 4), from 1."""
    folder, module = root / "DND", h5py()
    (folder / "images_srgb").mkdir(parents=True)
    rng = np.random.default_rng(0)
    noisy = rng.random((photos, 24, 32, 3)).astype(np.float32)
    top, left = rng.integers(1, 8, (2, photos, boxes))
    corners = np.stack([top, left, top + 15, left + 15], axis=-1).astype(np.float64)
    real = not isinstance(module, types.SimpleNamespace)
    for number in range(photos):
        path = folder / "images_srgb" / f"{number + 1:04d}.mat"
        if real:
            with module.File(path, "w") as held:
                held["InoisySRGB"] = noisy[number].T
        else:
            path.write_bytes(_npz(InoisySRGB=noisy[number].T))
    stored = [corner.T for corner in corners]
    if real:
        with module.File(folder / "info.mat", "w") as held:
            info = held.create_group("info")
            references = []
            for number, box in enumerate(stored):
                held[f"#refs#/{number}"] = box
                references.append(held[f"#refs#/{number}"].ref)
            kind = module.special_dtype(ref=module.Reference)
            info.create_dataset("boundingboxes", (1, photos), dtype=kind)[0] = references
    else:
        (folder / "info.mat").write_bytes(_npz(boxes=np.stack(stored)))
    return noisy, corners.astype(int)


def _npz(**arrays: np.ndarray) -> bytes:
    held = io.BytesIO()
    np.savez(held, **arrays)
    return held.getvalue()
