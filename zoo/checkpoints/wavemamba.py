"""The authors' Wave-Mamba checkpoints: recognising them, and renaming their keys both ways.

The names are from AlexZou14/Wave-Mamba (commit 7e8c63f).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from zoo.checkpoints.keymap import KeyMap, chained
from zoo.checkpoints.mambair import BLOCK, FOUR_WALKS, any_ratio_of, depth_of, mixer_of
from zoo.key_rules import Rule
from zoo.scans import ScanOrder

State = Mapping[str, Tensor]

ROOT = "restoration_network."
FIRST = f"{ROOT}down_group1.l_blk.0."

LOW = [
    *(rule for rule in BLOCK if not rule.theirs.startswith("conv_blk.")),
    Rule("conv_blk.conv1.{rest}", "branch.in_proj.{rest}"),
    Rule("conv_blk.conv2.{rest}", "branch.conv.{rest}"),
    Rule("conv_blk.conv3.{rest}", "branch.out_proj.{rest}"),
]

HIGH = [
    Rule("norm1.{rest}", "norm.{rest}"),
    Rule("norm2.{rest}", "ffn_norm.{rest}"),
    Rule("LayerNorm.{rest}", "guide_norm.{rest}"),
    Rule("attn.temperature", "temperature"),
    Rule("attn.qkv.{rest}", "qkv.{rest}"),
    Rule("attn.qkv_dwconv.{rest}", "qkv_conv.{rest}"),
    Rule("attn.project_out.{rest}", "out.{rest}"),
    Rule("attn.matching_transformation.paconv.{rest}", "match.{rest}"),
    Rule("ffn.project_in.{rest}", "ffn_in.{rest}"),
    Rule("ffn.project_out.{rest}", "ffn_out.{rest}"),
    Rule("ffn.matching_transformation.paconv.{rest}", "ffn_match.{rest}"),
]


def _level(theirs: str, ours: str) -> list[Rule]:
    return [
        Rule(f"{theirs}l_conv.{{rest}}", f"{ours}join.{{rest}}"),
        *chained([(f"{theirs}l_blk.{{j}}.", f"{ours}low.{{j}}.")], LOW),
        Rule(f"{theirs}h_fusion.conv_du.{{rest}}", f"{ours}select.reduce.{{rest}}"),
        Rule(f"{theirs}h_fusion.fcs.{{rest}}", f"{ours}select.fcs.{{rest}}"),
        *chained([(f"{theirs}h_blk.{{j}}.", f"{ours}high.{{j}}.")], HIGH),
        Rule(f"{theirs}h_out_conv.{{rest}}", f"{ours}spread.{{rest}}"),
    ]


def _rules() -> list[Rule]:
    rules = [
        Rule(f"{ROOT}conv_01.{{rest}}", "shallow.{rest}"),
        Rule(f"{ROOT}last.{{rest}}", "last.{rest}"),
    ]
    for level in (1, 2, 3):
        image = (f"{ROOT}ps_down{level}.1.{{rest}}", f"downs.{level - 1}.image.{{rest}}")
        rules += [
            Rule(*image),
            *_level(f"{ROOT}down_group{level}.", f"downs.{level - 1}."),
            *_level(f"{ROOT}up_group{level}.", f"ups.{3 - level}."),
        ]
    return rules


KEYS = KeyMap(_rules())

GUIDED = {"type": "hfe", "norm": {"type": "layer", "eps": 1e-6}}


class WaveMambaFormat:
    """State dicts of the authors' ``WaveMamba``."""

    name = "Wave-Mamba"
    wrapper = "params"
    published = "wavemamba_uhdll"
    every_key = KEYS
    facts: tuple[str, ...] = ()

    def recognises(self, state: State) -> bool:
        """Return whether the keys are those of this network."""
        return f"{ROOT}down_group1.l_conv.weight" in state

    def network(self, state: State, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Return the ``network`` section of a recipe; the tensors show all of it."""
        dim, channels = state[f"{ROOT}conv_01.weight"].shape[:2]
        hidden = state[f"{FIRST}conv_blk.conv3.weight"].shape[1]

        def depths(part: str) -> list[int]:
            return [depth_of(state, f"{ROOT}down_group{n}.{part}.") for n in (1, 2, 3)]

        return {
            "type": "wavelet",
            "channels": channels,
            "dim": dim,
            "depths": depths("l_blk"),
            "high_depths": depths("h_blk"),
            "block": {
                "type": "rssb",
                "norm": {"type": "layer", "eps": 1e-6},
                "mixer": mixer_of(state, f"{FIRST}self_attention.", dim),
                "branch": {"type": "gdfn", "ratio": any_ratio_of(dim, hidden), "bias": True},
            },
            "guided": GUIDED,
            "scans": [{"type": "raster", "directions": FOUR_WALKS}],
        }

    def facts_of(self, walks: Mapping[str, ScanOrder]) -> dict[str, Any]:
        """Return the settings that the tensors do not show: none."""
        return {}

    def key_map(self, network: Mapping[str, Any]) -> KeyMap:
        """Return the key map for the ``network`` section of a recipe."""
        return KEYS
