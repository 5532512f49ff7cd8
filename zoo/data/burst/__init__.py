"""Bursts: synthesis from photos, datasets, files. Command: ``python -m zoo.data.burst --help``."""

from zoo.data.burst.camera import Camera, Noise, mosaic
from zoo.data.burst.dataset import BurstDataset, BurstSample, ValidationBursts
from zoo.data.burst.synthesis import SYNTHESES, BurstSynthesis, SyntheticBurst, bayer_flip

__all__ = [
    "SYNTHESES",
    "BurstDataset",
    "BurstSample",
    "BurstSynthesis",
    "Camera",
    "Noise",
    "SyntheticBurst",
    "ValidationBursts",
    "bayer_flip",
    "mosaic",
]
