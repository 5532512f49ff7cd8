"""What synthetic bursts are made of in tests: random numbers, and photos of noise."""

from __future__ import annotations

import numpy as np

from zoo.data.burst.dataset import generator
from zoo.data.patches import TrainingPhoto


def rng(seed=0):
    return generator(seed)


def photo(seed=0, height=160, width=150):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return TrainingPhoto(f"photo {seed}", pixels)
