"""Makes synthetic bursts from photos: ``python -m zoo.data.burst PHOTO -o DIR``."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from zoo.command import run_command, whole
from zoo.data.burst.dataset import BurstDataset
from zoo.data.burst.facts import FACTS_JSON
from zoo.data.burst.synthesis import BurstSynthesis
from zoo.data.burst.writing import write_burst
from zoo.data.images import list_photos, read_photo
from zoo.data.patches import TrainingPhoto
from zoo.data.pixels import quantise
from zoo.errors import ImageError

logger = logging.getLogger("zoo.data.burst")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m zoo.data.burst",
        description="Make synthetic bursts from a photo, or from every photo of a folder. A burst "
        "has RAW frames with simulated camera shake, the clean linear image, and meta.json.",
        epilog="The same photo, options and seed give the same burst. Restore a burst with: "
        "zoo restore DIR -o out.png -n qmambabsr_tiny",
    )
    parser.add_argument("photo", type=Path, help="photo, or a folder of photos")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to write to")
    numbers = {
        "--frames": (14, 1, 1000, "number of frames per burst"),
        "--crop": (384, 1, 2**14, "side of the clean image in pixels"),
        "--count": (1, 1, 10**6, "number of bursts per photo"),
        "--seed": (0, 0, 2**32 - 1, "random seed"),
    }
    for name, (default, least, most, text) in numbers.items():
        parser.add_argument(
            name, type=whole(name, least, most), default=default, help=f"{text} [{default}]"
        )
    parser.add_argument("--rgb", action="store_true", help="sRGB frames instead of RAW planes")
    parser.add_argument("--clean", action="store_true", help="no noise, no rounding to 8 bits")
    parser.add_argument(
        "--npz", action="store_true", help="also write frames and flow as burst.npz"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing bursts")
    return run_command(parser, _run, arguments)


def _run(options: argparse.Namespace) -> None:
    synthesis = BurstSynthesis(
        frames=options.frames,
        mode="rgb" if options.rgb else "raw",
        space="srgb" if options.rgb else "linear",
        noise=not options.clean,
        quantize="none" if options.clean else "official",
    )
    if options.crop < synthesis.scale or options.crop % synthesis.scale:
        raise ImageError(f"--crop {options.crop}: must be a multiple of {synthesis.scale}")
    in_folder = options.photo.is_dir()
    photos = list_photos(options.photo) if in_folder else [options.photo]
    jobs = [(photo, number) for photo in photos for number in range(options.count)]
    written = 0
    for path, number in tqdm(jobs, unit="burst", disable=None if len(jobs) > 1 else True):
        folder = options.output
        if in_folder or options.count > 1:
            folder = folder / (f"{path.stem}_{number:04d}" if options.count > 1 else path.stem)
        if (folder / FACTS_JSON).exists() and not options.overwrite:
            continue
        photo = read_photo(path)
        bursts = BurstDataset(
            [TrainingPhoto(path.name, quantise(photo.color_HWC, photo.bit_depth))],
            synthesis=synthesis,
            patch=options.crop // synthesis.scale,
            length=options.count,
            seed=options.seed,
            augment=False,
        )
        burst = bursts.burst(number)
        facts = {"photo": path.name, "seed": options.seed, "number": number}
        write_burst(folder, burst, facts, npz=options.npz)
        written += 1
    logger.info("wrote %d bursts to %s", written, options.output)
    if written < len(jobs):
        logger.info("skipped %d existing bursts; --overwrite replaces them", len(jobs) - written)


if __name__ == "__main__":
    sys.exit(main())
