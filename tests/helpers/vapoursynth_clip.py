"""Runs a clip through a model in VapourSynth, in a Python that has vs-mlrt and not this package.

    python vapoursynth_clip.py MODEL CLIP.npy OUTPUT.npy [OPTION=NUMBER ...]

CLIP.npy has frames (T, 3, H, W) in float32; the options go to vs-mlrt's ``ort.Model``.

Shape suffixes: T frames, H height, W width.
"""

from __future__ import annotations

import sys

import numpy as np
import vapoursynth as vs


def main(model, source, target, *words):
    frames_T3HW = np.load(source)
    count, planes, height, width = frames_T3HW.shape

    def filled(n, f):
        frame = f.copy()
        for plane in range(planes):
            np.asarray(frame[plane])[:] = frames_T3HW[n, plane]
        return frame

    blank = vs.core.std.BlankClip(width=width, height=height, format=vs.RGBS, length=count)
    clip = vs.core.std.ModifyFrame(blank, blank, filled)
    options = {key: int(value) for key, value in (word.split("=") for word in words)}
    output = vs.core.ort.Model(clip, network_path=model, provider="CPU", verbosity=0, **options)
    restored = [np.stack([np.array(frame[plane]) for plane in range(planes)])
                for frame in output.frames()]  # fmt: skip
    np.save(target, np.stack(restored))


if __name__ == "__main__":
    main(*sys.argv[1:])
