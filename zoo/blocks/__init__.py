"""Blocks and the parts they are made of, all working on ``(B, H, W, C)``."""

from zoo.blocks.align import ALIGNERS, Aligned, Aligner, NoAlignment, Warp
from zoo.blocks.attentive import Attentive
from zoo.blocks.attentive_layer import AttentiveLayer
from zoo.blocks.axial import AxialSS2D
from zoo.blocks.bare import BareBlock
from zoo.blocks.burst_baselines import NRFE, PBFF
from zoo.blocks.burst_fusion import BURST_FUSIONS, BurstFusion, ConcatFusion
from zoo.blocks.channel_attention import (
    CAB,
    MLP,
    ChannelAttention,
    ChannelAttentionBranch,
    DepthwiseCAB,
    LightCAB,
)
from zoo.blocks.channel_transformer import ChannelTransformer
from zoo.blocks.contract import (
    BLOCKS,
    BRANCHES,
    MERGES,
    MIXERS,
    Block,
    BlockFactory,
    Branch,
    BranchFactory,
    Merge,
    MergeFactory,
    Mixer,
    MixerFactory,
    Placed,
)
from zoo.blocks.cross_scale_mixer import CrossScaleMixer
from zoo.blocks.direction_merge import GatedMerge, ShuffleAttention, SumMerge
from zoo.blocks.eda import EDA, GroupFlow
from zoo.blocks.feed_forward import ConvFFN, GatedMLP
from zoo.blocks.gates import GatedFeedForward, SimpleGate
from zoo.blocks.group import ResidualGroup, build_blocks, group_conv
from zoo.blocks.guided import (
    GUIDED_BLOCKS,
    GuidedBlock,
    GuidedBlockFactory,
    HighFrequencyBlock,
    nearest_channels,
)
from zoo.blocks.head_scan import HeadScan
from zoo.blocks.layers import Conv2d, DropPath
from zoo.blocks.levels import (
    DOWNSAMPLERS,
    SKIPS,
    ConcatConvSkip,
    ConcatSkip,
    Downsampler,
    DownsamplerFactory,
    Skip,
    SkipFactory,
    StridedDown,
    SumSkip,
    UnshuffleDown,
)
from zoo.blocks.mamba1d import Mamba1D
from zoo.blocks.msfm import MSFM, ResBlock
from zoo.blocks.norm import NORMS, LayerNorm, Norm, NormFactory
from zoo.blocks.omni_scan import ChannelScan, OmniScan
from zoo.blocks.qssm import QSSM
from zoo.blocks.rlmb import RLMB
from zoo.blocks.router import Router, Routes
from zoo.blocks.rssb import RSSB
from zoo.blocks.scale_fusion import (
    SCALE_FUSIONS,
    CrossScaleFusion,
    ScaleFusion,
    ScaleFusionFactory,
)
from zoo.blocks.scan_core import (
    GatedScan,
    ScanSizes,
    TokenScan,
    linear_projections,
    scan_sizes,
)
from zoo.blocks.ss2d import SS2D
from zoo.blocks.window_attention import WindowAttention

__all__ = [
    "ALIGNERS",
    "BLOCKS",
    "BRANCHES",
    "BURST_FUSIONS",
    "CAB",
    "DOWNSAMPLERS",
    "EDA",
    "GUIDED_BLOCKS",
    "MERGES",
    "MIXERS",
    "MLP",
    "MSFM",
    "NORMS",
    "NRFE",
    "PBFF",
    "QSSM",
    "RLMB",
    "RSSB",
    "SCALE_FUSIONS",
    "SKIPS",
    "SS2D",
    "Aligned",
    "Aligner",
    "Attentive",
    "AttentiveLayer",
    "AxialSS2D",
    "BareBlock",
    "Block",
    "BlockFactory",
    "Branch",
    "BranchFactory",
    "BurstFusion",
    "ChannelAttention",
    "ChannelAttentionBranch",
    "ChannelScan",
    "ChannelTransformer",
    "ConcatConvSkip",
    "ConcatFusion",
    "ConcatSkip",
    "Conv2d",
    "ConvFFN",
    "CrossScaleFusion",
    "CrossScaleMixer",
    "DepthwiseCAB",
    "Downsampler",
    "DownsamplerFactory",
    "DropPath",
    "GatedFeedForward",
    "GatedMLP",
    "GatedMerge",
    "GatedScan",
    "GroupFlow",
    "GuidedBlock",
    "GuidedBlockFactory",
    "HeadScan",
    "HighFrequencyBlock",
    "LayerNorm",
    "LightCAB",
    "Mamba1D",
    "Merge",
    "MergeFactory",
    "Mixer",
    "MixerFactory",
    "NoAlignment",
    "Norm",
    "NormFactory",
    "OmniScan",
    "Placed",
    "ResBlock",
    "ResidualGroup",
    "Router",
    "Routes",
    "ScaleFusion",
    "ScaleFusionFactory",
    "ScanSizes",
    "ShuffleAttention",
    "SimpleGate",
    "Skip",
    "SkipFactory",
    "StridedDown",
    "SumMerge",
    "SumSkip",
    "TokenScan",
    "UnshuffleDown",
    "Warp",
    "WindowAttention",
    "build_blocks",
    "group_conv",
    "linear_projections",
    "nearest_channels",
    "scan_sizes",
]
