"""Blocks and the parts they are made of, all working on ``(B, H, W, C)``."""

from zoo.blocks.channel_attention import (
    CAB,
    MLP,
    ChannelAttention,
    ChannelAttentionBranch,
    DepthwiseCAB,
    LightCAB,
)
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
from zoo.blocks.cross_scale import (
    SCALE_FUSIONS,
    CrossScaleFusion,
    ScaleFusion,
    ScaleFusionFactory,
)
from zoo.blocks.group import ResidualGroup, build_blocks, group_conv
from zoo.blocks.layers import Conv2d, DropPath
from zoo.blocks.merge import GatedMerge, SumMerge
from zoo.blocks.rlmb import RLMB
from zoo.blocks.rssb import RSSB
from zoo.blocks.ss2d import SS2D

__all__ = [
    "BLOCKS",
    "BRANCHES",
    "CAB",
    "MERGES",
    "MIXERS",
    "MLP",
    "RLMB",
    "RSSB",
    "SCALE_FUSIONS",
    "SS2D",
    "Block",
    "BlockFactory",
    "Branch",
    "BranchFactory",
    "ChannelAttention",
    "ChannelAttentionBranch",
    "Conv2d",
    "CrossScaleFusion",
    "DepthwiseCAB",
    "DropPath",
    "GatedMerge",
    "LightCAB",
    "Merge",
    "MergeFactory",
    "Mixer",
    "MixerFactory",
    "ResidualGroup",
    "ScaleFusion",
    "ScaleFusionFactory",
    "SumMerge",
    "build_blocks",
    "group_conv",
]
