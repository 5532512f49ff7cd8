"""Restore synthetic bursts of two photos; write reference, result and original side by side.

``python examples/restore_burst.py [OUT.png] [MODEL or WEIGHTS]``
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

import zoo
from zoo.data import Photo, load_sample, write_photo
from zoo.data.burst import BurstDataset, BurstSample, BurstSynthesis
from zoo.data.photos import TrainingPhoto
from zoo.data.pixels import quantise, to_array
from zoo.errors import ZooError
from zoo.evaluation.burst import score_burst
from zoo.networks.phase import enlarge_frame

PHOTOS, SIDE = ("chelsea", "coffee"), 32


def main(output: Path, model: str) -> None:
    network = zoo.load(model)
    if not network.takes_burst:
        raise ZooError(f"{model} restores single images, not bursts")
    strips = []
    for name in PHOTOS:
        photo = TrainingPhoto(name, quantise(load_sample(name).color_HWC))
        bursts = BurstDataset(
            [photo],
            synthesis=BurstSynthesis(frames=network.burst),
            patch=SIDE,
            length=1,
            seed=3,
            augment=False,
        )
        burst = bursts.burst(0)
        with torch.inference_mode():
            restored = network(burst.frames[None])[0]
        enlarged = enlarge_frame(burst.frames[:1], network.scale, "corner")[0]
        score = score_burst(network, BurstSample(*burst[:3]), border=16)
        print(f"{name}: {score.restored:.2f} dB, reference {score.baseline:.2f} dB, ", end="")
        print(f"reference as every frame {score.all_reference:.2f} dB")
        images = [burst.camera.process(x) for x in (enlarged, restored, burst.clean)]
        strips.append(torch.cat(images, dim=2))
    write_photo(output, Photo(to_array(torch.cat(strips, dim=1))))
    print(f"wrote {output}: upsampled reference | {model} | original")


if __name__ == "__main__":
    words = sys.argv[1:]
    main(Path(words[0] if words else "burst.png"), words[1] if len(words) > 1 else "qmambabsr_tiny")
