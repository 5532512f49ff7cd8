"""Writing bursts in the layout of the public sets, with facts and a preview."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from zoo.data.burst.facts import FACTS_JSON
from zoo.data.burst.finding import PREVIEW
from zoo.data.burst.stored import CLEAN, WHITE, is_raw, write_image
from zoo.data.burst.synthesis import SyntheticBurst
from zoo.data.images import Photo, write_photo
from zoo.data.pixels import to_array
from zoo.files import write_text


def write_burst(
    folder: str | Path, burst: SyntheticBurst, facts: Mapping[str, Any] | None = None
) -> None:
    """Write a burst: RAW in the public layout, RGB as 16-bit images, with facts and a preview.

    The files are ``im_raw_NN.png`` or ``frame_NN.png``, ``gt/im_rgb.png`` (the clean image),
    ``meta.json``, and ``preview.png``, which shows the reference and the clean image. Each file is
    written completely or not at all.

    Args:
        folder: folder to write to; it is created if missing.
        burst: the burst to write.
        facts: further entries of ``meta.json``.

    Raises:
        WriteError: if the folder cannot be written.
    """
    folder = Path(folder)
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
        **(facts or {}),
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
