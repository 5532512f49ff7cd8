"""The authors' VmambaIR checkpoints: recognising them, and renaming their keys both ways.

The names are from AlphacatPlus/VmambaIR (commit 51c2efb), its deraining network.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from zoo.checkpoints.keymap import KeyMap
from zoo.checkpoints.mambair import FOUR_WALKS, any_ratio_of, mixer_of, unet_rules, unet_sizes
from zoo.key_rules import Rule, flat, kernel
from zoo.scans import ScanOrder

State = Mapping[str, Tensor]

WIDEST = "latent.0."
"""Key prefix of a block of the widest level, which shows ratios of channels most precisely."""

KEYS = KeyMap(
    unet_rules(
        [
            Rule("norm1.body.{rest}", "norm.{rest}"),
            Rule("norm2.body.{rest}", "branch_norm.{rest}"),
            Rule("attn.x_proj_weight", "mixer.x_proj_weight"),
            Rule("attn.dt_projs_weight", "mixer.dt_proj_weight"),
            Rule("attn.dt_projs_bias", "mixer.dt_proj_bias"),
            Rule("attn.A_logs", "mixer.A_log", flat),
            Rule("attn.Ds", "mixer.D", flat),
            Rule("attn.in_conv.weight", "mixer.in_proj.weight", kernel),
            Rule("attn.in_conv.bias", "mixer.in_proj.bias"),
            Rule("attn.conv2d.{rest}", "mixer.conv.{rest}"),
            Rule("attn.out_norm.body.{rest}", "mixer.out_norm.{rest}"),
            Rule("attn.out_conv.weight", "mixer.out_proj.weight", kernel),
            Rule("attn.out_conv.bias", "mixer.out_proj.bias"),
            Rule("attn.conv_cin.weight", "mixer.channels.rise.weight", kernel),
            Rule("attn.conv_cin.bias", "mixer.channels.rise.bias"),
            Rule("attn.conv_cout.weight", "mixer.channels.fall.weight", kernel),
            Rule("attn.conv_cout.bias", "mixer.channels.fall.bias"),
            Rule("attn.channel_norm.body.{rest}", "mixer.channels.norm.{rest}"),
            Rule("attn.xc_proj_weight", "mixer.channels.x_proj_weight"),
            Rule("attn.dtc_projs_weight", "mixer.channels.dt_proj_weight"),
            Rule("attn.dtc_projs_bias", "mixer.channels.dt_proj_bias"),
            Rule("attn.Ac_logs", "mixer.channels.A_log", flat),
            Rule("attn.Dsc", "mixer.channels.D", flat),
            Rule("ffn.project_in.{rest}", "branch.in_proj.{rest}"),
            Rule("ffn.dwconv.{rest}", "branch.conv.{rest}"),
            Rule("ffn.project_out.{rest}", "branch.out_proj.{rest}"),
        ]
    )
)


class VmambaIRFormat:
    """State dicts of the authors' ``Mamber32`` and ``Mamber33``, for deraining."""

    name = "VmambaIR"
    wrapper = "params"
    published = "vmambair_derain"
    every_key = KEYS
    facts: tuple[str, ...] = ()

    def recognises(self, state: State) -> bool:
        """Return whether the keys are those of this network."""
        return "encoder_level1.0.attn.conv_cin.weight" in state

    def network(self, state: State, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Return the ``network`` section of a recipe; the tensors show all of it.

        Of the authors' two classes, the one with four channels in the scan over channels adds its
        result, the one with two multiplies by it.
        """
        sizes = unet_sizes(state)
        widest = state[f"{WIDEST}norm1.body.weight"].shape[0]
        hidden = state[f"{WIDEST}ffn.project_out.weight"].shape[1]
        width, rank = state[f"{WIDEST}attn.dtc_projs_weight"].shape[1:]
        return {
            "type": "unet",
            **sizes,
            "block": {
                "type": "rssb",
                "skip_scale": False,
                "mixer": {
                    **mixer_of(state, f"{WIDEST}attn.", widest, norm="out_norm.body"),
                    "type": "omni_scan",
                    "channel_width": width,
                    "channel_rank": rank,
                    "combine": "scale" if width == 2 else "add",
                },
                "branch": {"type": "gdfn", "ratio": any_ratio_of(widest, hidden)},
            },
            "scans": [{"type": "raster", "directions": FOUR_WALKS}],
            "padding": "reflect",
        }

    def facts_of(self, walks: Mapping[str, ScanOrder]) -> dict[str, Any]:
        """Return the settings that the tensors do not show: none."""
        return {}

    def key_map(self, network: Mapping[str, Any]) -> KeyMap:
        """Return the key map for the ``network`` section of a recipe."""
        return KEYS
