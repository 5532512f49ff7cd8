"""Writing bursts in the layout of the public sets, with facts and a preview."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zoo.data.burst.facts import FACTS_JSON
from zoo.data.burst.finding import NPZ, PREVIEW
from zoo.data.burst.stored import CLEAN, WHITE, is_raw, write_image
from zoo.data.burst.synthesis import SyntheticBurst
from zoo.data.images import Photo, write_photo
from zoo.data.pixels import to_array
from zoo.errors import ImageError
from zoo.files import partial_folder, write_text

_OURS = re.compile(
    r"(im_raw|frame)_\d{2,}\.png|gt|" + "|".join(map(re.escape, (NPZ, FACTS_JSON, PREVIEW)))
)
"""Names of the files of a burst that is written here, and of their folder."""


def write_burst(
    folder: str | Path,
    burst: SyntheticBurst,
    facts: Mapping[str, Any] | None = None,
    *,
    npz: bool = False,
) -> None:
    """Write a burst: RAW in the public layout, RGB as 16-bit images, with facts and a preview.

    The files are ``im_raw_NN.png`` or ``frame_NN.png``, ``gt/im_rgb.png`` (the clean image),
    ``meta.json``, and ``preview.png``, which shows the reference and the clean image. The folder is
    written whole or not at all. A burst that was written there before is replaced with all its
    files: frames of both would be read as one burst.

    Args:
        folder: folder to write to; it is created if missing.
        burst: the burst to write.
        facts: further entries of ``meta.json``.
        npz: whether frames and flow are also written as ``burst.npz``.

    Raises:
        ImageError: if the folder holds anything but such a burst.
        WriteError: if the folder cannot be written.
    """
    folder = Path(folder)
    _check_replaceable(folder)
    with partial_folder(folder) as temporary:
        _write_files(temporary, burst, facts or {})
        if npz:
            flow = burst.flow.numpy()
            np.savez_compressed(temporary / NPZ, frames=burst.frames.numpy(), flow=flow)


def _check_replaceable(folder: Path) -> None:
    """Check that nothing but an older burst is lost if the folder is replaced."""
    if not folder.is_dir():
        return  # missing; partial_folder refuses a file
    others = sorted(path.name for path in folder.iterdir() if not _OURS.fullmatch(path.name))
    if (folder / "gt").is_dir():
        others += sorted(f"gt/{path.name}" for path in (folder / "gt").iterdir())
        others = [name for name in others if name != f"gt/{CLEAN}"]
    if others or (any(folder.iterdir()) and not (folder / FACTS_JSON).exists()):
        name = others[0] if others else min(path.name for path in folder.iterdir())
        raise ImageError(
            f"folder {str(folder)!r} holds {name[:80]!r}, which is of no burst that this command "
            "wrote; choose another folder, or move the file"
        )


def _write_files(folder: Path, burst: SyntheticBurst, facts: Mapping[str, Any]) -> None:
    raw = is_raw(burst.frames)
    name = "im_raw" if raw else "frame"
    for t, frame in enumerate(burst.frames):
        write_image(folder / f"{name}_{t:02d}.png", frame, raw=raw)
    write_image(folder / "gt" / CLEAN, burst.clean, raw=raw)
    known = {
        **burst.camera.data(),
        "shot_noise_level": burst.noise.shot,
        "read_noise_level": burst.noise.read,
        "channels": ["R", "Gr", "Gb", "B"] if raw else ["R", "G", "B"],
        "white_level": WHITE if raw else 2**16 - 1,
        **facts,
    }
    write_text(folder / FACTS_JSON, json.dumps(known, indent=1) + "\n")
    write_photo(folder / PREVIEW, preview(burst))


def preview(burst: SyntheticBurst) -> Photo:
    """An sRGB picture of the reference frame, enlarged by repeating pixels, and the clean image."""
    first = burst.frames[0]
    color = first if len(first) == 3 else torch.stack([first[0], first[1:3].mean(0), first[3]])
    repeat = burst.clean.shape[-1] // color.shape[-1]
    color = color.repeat_interleave(repeat, 1).repeat_interleave(repeat, 2)
    both = torch.cat([color, burst.clean], dim=2)
    if len(first) == 4:
        both = burst.camera.process(both)
    return Photo(to_array(both))
