"""The authors' EAMamba checkpoints: recognising them, and renaming their keys both ways.

The names are from daidaijr/EAMamba (commit ec13c77): the class for all tasks at scale 1, and that
for light super-resolution.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from zoo.checkpoints.keymap import KeyMap, chained
from zoo.checkpoints.mambair import (
    HEADS,
    any_ratio_of,
    depth_of,
    head_of,
    mixer_of,
    unet_rules,
    unet_sizes,
)
from zoo.errors import CheckpointError
from zoo.key_rules import Rule, flat
from zoo.scans import ScanOrder

State = Mapping[str, Tensor]

WIDEST = "latent.0."
FIRST = "layers.0.blocks.0."

BLOCK = [
    Rule("norm1.body.{rest}", "norm.{rest}"),
    Rule("norm2.body.{rest}", "branch_norm.{rest}"),
    Rule("mamba.x_proj_weight", "mixer.x_proj_weight"),
    Rule("mamba.dt_projs_weight", "mixer.dt_proj_weight"),
    Rule("mamba.dt_projs_bias", "mixer.dt_proj_bias"),
    Rule("mamba.A_logs", "mixer.A_log", flat),
    Rule("mamba.Ds", "mixer.D", flat),
    Rule("mamba.in_proj.{rest}", "mixer.in_proj.{rest}"),
    Rule("mamba.conv.{rest}", "mixer.conv.{rest}"),
    Rule("mamba.out_norm.{rest}", "mixer.out_norm.{rest}"),
    Rule("mamba.out_proj.{rest}", "mixer.out_proj.{rest}"),
    Rule("ffn.project_in.{rest}", "branch.in_proj.{rest}"),
    Rule("ffn.project_out.{rest}", "branch.out_proj.{rest}"),
]
"""Names of a block's tensors, which are the same in both networks."""

# The authors' class makes an upsampler by default, which its forward pass cannot use.
KEYS = KeyMap(unet_rules(BLOCK), unused=["upsample.{n}.{rest}"])

SR_KEYS = KeyMap(
    [
        Rule("conv_first.{rest}", "shallow.{rest}"),
        *chained([("layers.{i}.blocks.{j}.", "groups.{i}.blocks.{j}.")], BLOCK),
        Rule("layers.{i}.conv.{rest}", "groups.{i}.conv.{rest}"),
        Rule("norm.body.{rest}", "norm.{rest}"),
        Rule("conv_after_body.{rest}", "after_body.{rest}"),
        *HEADS["pixelshuffle"],
    ]
)

ALL_AROUND = {
    "type": "compose",
    "orders": [
        {
            "type": "diagonal",
            "directions": [
                "diagonal",
                "diagonal_reversed",
                "antidiagonal",
                "antidiagonal_reversed",
            ],
        },
        {"type": "raster", "directions": ["row", "row_reversed", "column", "column_reversed"]},
    ],
}
"""The authors' scan with eight heads, "all-around"."""


class EAMambaFormat:
    """State dicts of the authors' ``EAMamba``."""

    name = "EAMamba"
    wrapper = "params"
    published = "eamamba_derain"
    every_key = KEYS
    facts: tuple[str, ...] = ()

    def recognises(self, state: State) -> bool:
        """Return whether the keys are those of this network."""
        return "encoder_level1.0.mamba.x_proj_weight" in state

    def network(self, state: State, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Return the ``network`` section of a recipe, for eight heads.

        Raises:
            CheckpointError: if there are not eight heads; the tensors do not show their paths.
        """
        sizes = unet_sizes(state)
        return {"type": "unet", **sizes, **_blocks(state, WIDEST), "padding": "reflect"}

    def facts_of(self, walks: Mapping[str, ScanOrder]) -> dict[str, Any]:
        """Return the settings that the tensors do not show: none."""
        return {}

    def key_map(self, network: Mapping[str, Any]) -> KeyMap:
        """Return the key map for the ``network`` section of a recipe."""
        return KEYS


class EAMambaSRFormat:
    """State dicts of the authors' ``EAMambaSR``, for light super-resolution."""

    name = "EAMambaSR"
    wrapper = "params"
    published = "eamamba_light_x2"
    every_key = SR_KEYS
    facts: tuple[str, ...] = ()

    def recognises(self, state: State) -> bool:
        """Return whether the keys are those of this network."""
        return f"{FIRST}mamba.x_proj_weight" in state

    def network(self, state: State, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Return the ``network`` section of a recipe, for eight heads.

        Raises:
            CheckpointError: if there are not eight heads; the tensors do not show their paths.
        """
        dim, channels = state["conv_first.weight"].shape[:2]
        head, scale = head_of(state, channels)
        groups = range(depth_of(state, "layers."))
        return {
            "type": "single_image",
            "scale": scale,
            "channels": channels,
            "dim": dim,
            "depths": [depth_of(state, f"layers.{group}.blocks.") for group in groups],
            **_blocks(state, FIRST),
            "head": {**head, "last_bias": "conv_last.bias" in state},
            "patch_norm": False,
            "subtract_mean": False,
            "body_bias": "conv_first.bias" in state,
            "drop_path": 0.0,
        }

    def facts_of(self, walks: Mapping[str, ScanOrder]) -> dict[str, Any]:
        """Return the settings that the tensors do not show: none."""
        return {}

    def key_map(self, network: Mapping[str, Any]) -> KeyMap:
        """Return the key map for the ``network`` section of a recipe."""
        return SR_KEYS


def _blocks(state: State, place: str) -> dict[str, Any]:
    """Return the options ``block`` and ``scans`` of the block at a key prefix.

    Raises:
        CheckpointError: if there are not eight heads; the tensors do not show their paths.
    """
    heads = state[f"{place}mamba.x_proj_weight"].shape[0]
    if heads != 8:
        raise CheckpointError(
            f"the checkpoint has {heads} scans, but the published EAMamba has 8; pass the recipe "
            "it was trained with"
        )
    dim = state[f"{place}norm1.body.weight"].shape[0]
    both = state[f"{place}ffn.project_in.weight"].shape[0]
    return {
        "block": {
            "type": "rssb",
            "skip_scale": False,
            "mixer": {**mixer_of(state, f"{place}mamba.", dim, conv="conv"), "type": "head_scan"},
            "branch": {"type": "simple_gate", "ratio": any_ratio_of(dim, both)},
        },
        "scans": [ALL_AROUND],
    }
