"""Heads: the last layers of a network, which turn features into the output image."""

from zoo.heads.contract import HEADS, Head, HeadFactory
from zoo.heads.doubling import DoublingHead
from zoo.heads.plain import ConvHead
from zoo.heads.residual import ResidualHead
from zoo.heads.super_resolution import (
    Enlarge,
    NearestConvHead,
    PixelShuffle,
    PixelShuffleDirectHead,
    PixelShuffleHead,
    pixel_shuffle,
)
from zoo.heads.upsamplers import (
    UPSAMPLERS,
    AdaUp,
    BilinearUp,
    ConvShuffleUp,
    ShuffleUp,
    Transposed,
    Upsampler,
    UpsamplerFactory,
)

__all__ = [
    "HEADS",
    "UPSAMPLERS",
    "AdaUp",
    "BilinearUp",
    "ConvHead",
    "ConvShuffleUp",
    "DoublingHead",
    "Enlarge",
    "Head",
    "HeadFactory",
    "NearestConvHead",
    "PixelShuffle",
    "PixelShuffleDirectHead",
    "PixelShuffleHead",
    "ResidualHead",
    "ShuffleUp",
    "Transposed",
    "Upsampler",
    "UpsamplerFactory",
    "pixel_shuffle",
]
