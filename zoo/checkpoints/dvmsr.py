"""The authors' DVMSR checkpoint: recognising it, and renaming its keys both ways.

The names are from nathan66666/DVMSR (commit 86663ce) and the ``Mamba`` of mamba-ssm that it uses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from zoo.checkpoints.keymap import KeyMap, chained
from zoo.checkpoints.mambair import HEADS, any_ratio_of, body_rules, skeleton
from zoo.key_rules import Rule, flat
from zoo.scans import ScanOrder


def _with_axis(weight_EW: Tensor) -> Tensor:
    """Add the axis of input channels that a depthwise ``nn.Conv1d`` has."""
    return weight_EW[:, None]


MIXER = [
    Rule("A_log", "A_log", flat),
    Rule("D", "D", flat),
    Rule("in_proj.{rest}", "in_proj.{rest}"),
    Rule("conv1d.weight", "conv_weight", _with_axis),
    Rule("conv1d.bias", "conv_bias"),
    Rule("x_proj.weight", "x_proj_weight", flat),
    Rule("dt_proj.weight", "dt_proj_weight", flat),
    Rule("dt_proj.bias", "dt_proj_bias", flat),
    Rule("out_proj.{rest}", "out_proj.{rest}"),
]

BLOCK = [Rule("norm.{rest}", "norm.{rest}"), *chained([("mixer.", "mixer.")], MIXER)]

KEYS = KeyMap([*body_rules(BLOCK, norm="norm_f"), *HEADS["pixelshuffle_direct"]])

FIRST = "layers.0.residual_group.blocks.0."


class DVMSRFormat:
    """State dicts of the authors' ``DVMSR``."""

    name = "DVMSR"
    wrapper = ""  # their test program loads the file's content as it is
    published = "dvmsr_x4"
    every_key = KEYS
    facts: tuple[str, ...] = ()

    def recognises(self, state: Mapping[str, Tensor]) -> bool:
        """Return whether the keys are those of this network."""
        return f"{FIRST}mixer.A_log" in state and "norm_f.weight" in state

    def network(self, state: Mapping[str, Tensor], facts: Mapping[str, Any]) -> dict[str, Any]:
        """Return the ``network`` section of a recipe, without ``img_range``.

        The tensors do not show ``img_range``, nor the drop path of training.
        """
        network = skeleton(state)
        inner, rank = state[f"{FIRST}mixer.dt_proj.weight"].shape
        mixer = {
            "type": "mamba1d",
            "expand": any_ratio_of(network["dim"], inner),
            "d_state": state[f"{FIRST}mixer.A_log"].shape[1],
            "dt_rank": rank,
            "d_conv": state[f"{FIRST}mixer.conv1d.weight"].shape[-1],
        }
        return network | {"block": {"type": "bare", "mixer": mixer}}

    def facts_of(self, walks: Mapping[str, ScanOrder]) -> dict[str, Any]:
        """Return the settings that the tensors do not show: none."""
        return {}

    def key_map(self, network: Mapping[str, Any]) -> KeyMap:
        """Return the key map for the ``network`` section of a recipe."""
        return KEYS
