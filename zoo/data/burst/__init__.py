"""Bursts: synthesis from any photo, datasets, files. ``python -m zoo.data.burst --help``."""

from zoo.data.burst.camera import Camera, Noise, mosaic
from zoo.data.burst.dataset import BurstDataset, BurstSample, ValidationBursts
from zoo.data.burst.synthesis import SYNTHESES, Burst, BurstSynthesis, bayer_flip

__all__ = [
    "SYNTHESES",
    "Burst",
    "BurstDataset",
    "BurstSample",
    "BurstSynthesis",
    "Camera",
    "Noise",
    "ValidationBursts",
    "bayer_flip",
    "mosaic",
]
