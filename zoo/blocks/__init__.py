"""Blocks and the parts they are made of, all working on ``(B, H, W, C)``."""

from zoo.blocks.align import ALIGNERS, Aligned, Aligner, NoAlignment, Warp
from zoo.blocks.axial import AxialSS2D
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
)
from zoo.blocks.cross_scale_mixer import CrossScaleMixer
from zoo.blocks.direction_merge import GatedMerge, SumMerge
from zoo.blocks.eda import EDA, GroupFlow
from zoo.blocks.group import ResidualGroup, build_blocks, group_conv
from zoo.blocks.layers import Conv2d, DropPath
from zoo.blocks.mamba1d import Mamba1D
from zoo.blocks.msfm import MSFM, ResBlock
from zoo.blocks.qssm import QSSM
from zoo.blocks.rlmb import RLMB
from zoo.blocks.rssb import RSSB
from zoo.blocks.scale_fusion import (
    SCALE_FUSIONS,
    CrossScaleFusion,
    ScaleFusion,
    ScaleFusionFactory,
)
from zoo.blocks.ss2d import SS2D

__all__ = [
    "ALIGNERS",
    "BLOCKS",
    "BRANCHES",
    "BURST_FUSIONS",
    "CAB",
    "EDA",
    "MERGES",
    "MIXERS",
    "MLP",
    "MSFM",
    "NRFE",
    "PBFF",
    "QSSM",
    "RLMB",
    "RSSB",
    "SCALE_FUSIONS",
    "SS2D",
    "Aligned",
    "Aligner",
    "AxialSS2D",
    "Block",
    "BlockFactory",
    "Branch",
    "BranchFactory",
    "BurstFusion",
    "ChannelAttention",
    "ChannelAttentionBranch",
    "ChannelTransformer",
    "ConcatFusion",
    "Conv2d",
    "CrossScaleFusion",
    "CrossScaleMixer",
    "DepthwiseCAB",
    "DropPath",
    "GatedMerge",
    "GroupFlow",
    "LightCAB",
    "Mamba1D",
    "Merge",
    "MergeFactory",
    "Mixer",
    "MixerFactory",
    "NoAlignment",
    "ResBlock",
    "ResidualGroup",
    "ScaleFusion",
    "ScaleFusionFactory",
    "SumMerge",
    "Warp",
    "build_blocks",
    "group_conv",
]
