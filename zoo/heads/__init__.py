"""Heads: from features to an image of the wanted size."""

from zoo.heads.contract import HEADS, Head, HeadFactory
from zoo.heads.residual import ResidualHead
from zoo.heads.upsample import (
    Enlarge,
    NearestConvHead,
    PixelShuffle,
    PixelShuffleDirectHead,
    PixelShuffleHead,
    pixel_shuffle,
)

__all__ = [
    "HEADS",
    "Enlarge",
    "Head",
    "HeadFactory",
    "NearestConvHead",
    "PixelShuffle",
    "PixelShuffleDirectHead",
    "PixelShuffleHead",
    "ResidualHead",
    "pixel_shuffle",
]
