"""The authors' MambaIRv2 checkpoints: recognising them, and renaming their keys both ways.

The names are from csguoh/MambaIR (commit 33d7b34): ``MambaIRv2`` and ``MambaIRv2Light``, which
differ in the feed-forward branch alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import isqrt
from typing import Any

from torch import Tensor

from zoo.blocks.window_attention import relative_positions
from zoo.checkpoints.keymap import KeyMap, State, chained
from zoo.checkpoints.mambair import HEADS, any_ratio_of, body_rules, ratio_of, skeleton
from zoo.errors import CheckpointError
from zoo.key_rules import Rule, flat
from zoo.scans import ScanOrder

INDEX = "relative_position_index_SA"
"""A buffer that follows from the side of the window: it is dropped, and made again on writing."""

SCAN = [
    Rule("selectiveScan.x_proj_weight", "x_proj_weight"),
    Rule("selectiveScan.dt_projs_weight", "dt_proj_weight"),
    Rule("selectiveScan.dt_projs_bias", "dt_proj_bias"),
    Rule("selectiveScan.A_logs", "A_log", flat),
    Rule("selectiveScan.Ds", "D", flat),
    Rule("out_norm.{rest}", "out_norm.{rest}"),
    Rule("out_proj.{rest}", "out_proj.{rest}"),
    Rule("in_proj.0.{rest}", "in_proj.{rest}"),
    Rule("CPE.0.{rest}", "conv.{rest}"),
    Rule("embeddingB.weight", "prompt_classes"),
    Rule("route.0.{rest}", "router.reduce.{rest}"),
    Rule("route.2.{rest}", "router.classify.{rest}"),
]

BRANCH = [
    Rule("fc1.{rest}", "fc1.{rest}"),
    Rule("fc2.{rest}", "fc2.{rest}"),
]
BRANCHES = {
    "conv_ffn": [*BRANCH, Rule("dwconv.depthwise_conv.0.{rest}", "conv.{rest}")],
    "gated_mlp": [
        *BRANCH,
        Rule("sg.norm.{rest}", "norm.{rest}"),
        Rule("sg.conv.{rest}", "conv.{rest}"),
    ],
}


def rules_of(branches: Iterable[str]) -> list[Rule]:
    """Return the rules of everything but the head, for blocks with one of these branches."""
    halves = [("convffn1.", "near.branch."), ("convffn2.", "far.branch.")]
    block = [
        Rule("scale1", "near.skip_scale"),
        Rule("scale2", "far.skip_scale"),
        Rule("norm1.{rest}", "near.norm.{rest}"),
        Rule("norm2.{rest}", "near.branch_norm.{rest}"),
        Rule("norm3.{rest}", "far.norm.{rest}"),
        Rule("norm4.{rest}", "far.branch_norm.{rest}"),
        Rule("wqkv.{rest}", "near.mixer.qkv.{rest}"),
        Rule("win_mhsa.relative_position_bias_table", "near.mixer.bias_table"),
        Rule("win_mhsa.proj.{rest}", "near.mixer.proj.{rest}"),
        Rule("embeddingA.weight", "far.mixer.prompt_states"),
        *chained([("assm.", "far.mixer.")], SCAN),
        *(rule for name in branches for rule in chained(halves, BRANCHES[name])),
    ]
    return body_rules(block, blocks="layers")


NEAREST = [
    Rule("conv_before_upsample.0.{rest}", "head.before.{rest}"),
    Rule("conv_up1.{rest}", "head.upsample.2.{rest}"),
    Rule("conv_up2.{rest}", "head.upsample.5.{rest}"),
    Rule("conv_hr.{rest}", "head.high_resolution.{rest}"),
    Rule("conv_last.{rest}", "head.last.{rest}"),
]
"""The head of real-world super-resolution x4, which no published network has."""

ALL_HEADS = {**HEADS, "nearest_conv": NEAREST}

FIRST = "layers.0.residual_group.layers.0."


def _index(state: State) -> Tensor:
    return relative_positions(_window(state))


def _window(state: Mapping[str, Tensor]) -> int:
    rows = len(state[f"{FIRST}win_mhsa.relative_position_bias_table"])
    return (isqrt(rows) + 1) // 2


class MambaIRv2Format:
    """State dicts of the authors' ``MambaIRv2`` and ``MambaIRv2Light``."""

    name = "MambaIRv2"
    wrapper = "params"
    published = "mambairv2_x4"
    facts: tuple[str, ...] = ()
    every_key = KeyMap(
        [*rules_of(BRANCHES), *(rule for rules in ALL_HEADS.values() for rule in rules)],
        {INDEX: _index},
    )

    def recognises(self, state: Mapping[str, Tensor]) -> bool:
        """Return whether the keys are those of this network."""
        return f"{FIRST}assm.selectiveScan.A_logs" in state

    def network(self, state: Mapping[str, Tensor], facts: Mapping[str, Any]) -> dict[str, Any]:
        """Return the ``network`` section of a recipe, without ``img_range``.

        The tensors do not show ``img_range``.
        """
        network = skeleton(state, "layers")
        if "conv_up1.weight" in state:
            network |= {"head": {**network["head"], "type": "nearest_conv"}, "scale": 4}
        attention = _attention(state)
        return network | {
            "block": {
                "type": "attentive_layer",
                "attention": attention,
                "mixer": _mixer(state, network["dim"]),
                "branch": _branch(state, network["dim"]),
            },
            "scans": [{"type": "by_class"}],
            "drop_path": 0.0,
            "padding": "mirror",
            "pad_to": attention["window"],
        }

    def facts_of(self, walks: Mapping[str, ScanOrder]) -> dict[str, Any]:
        """Return the settings that the tensors do not show: none."""
        return {}

    def key_map(self, network: Mapping[str, Any]) -> KeyMap:
        """Return the key map for the ``network`` section of a recipe."""
        branch = _type(_options(network.get("block")).get("branch"), "conv_ffn")
        head = _type(network.get("head"), "pixelshuffle")
        branches = [branch] if branch in BRANCHES else []
        return KeyMap([*rules_of(branches), *ALL_HEADS.get(head, [])], {INDEX: _index})


def _options(part: Any) -> Mapping[str, Any]:
    return part if isinstance(part, Mapping) else {}


def _type(part: Any, default: str) -> str:
    name = part if isinstance(part, str) else _options(part).get("type", default)
    return str(name)


def _attention(state: Mapping[str, Tensor]) -> dict[str, Any]:
    tables = [v for k, v in state.items() if k.endswith("win_mhsa.relative_position_bias_table")]
    heads = {table.shape[1] for table in tables}
    if len(heads) > 1:
        raise CheckpointError(
            f"its groups have different numbers of heads ({sorted(heads)}), but a network here has "
            "one number"
        )
    return {"type": "window_attention", "window": _window(state), "heads": heads.pop()}


def _mixer(state: Mapping[str, Tensor], dim: int) -> dict[str, Any]:
    inner, states = state[f"{FIRST}assm.selectiveScan.A_logs"].shape
    classes, prompt_rank = state[f"{FIRST}assm.embeddingB.weight"].shape
    mixer: dict[str, Any] = {
        "type": "attentive",
        "d_state": states,
        "classes": classes,
        "prompt_rank": prompt_rank,
    }
    expand = ratio_of(dim, inner)
    mixer |= {"d_inner": inner} if expand is None else {"expand": expand}
    dt_rank = state[f"{FIRST}assm.selectiveScan.dt_projs_weight"].shape[2]
    if dt_rank != -(-inner // 16):
        mixer["dt_rank"] = dt_rank
    return mixer


def _branch(state: Mapping[str, Tensor], dim: int) -> dict[str, Any]:
    gated = f"{FIRST}convffn1.sg.conv.weight" in state
    conv = "sg.conv" if gated else "dwconv.depthwise_conv.0"
    hidden = state[f"{FIRST}convffn1.fc1.weight"].shape[0]
    return {
        "type": "gated_mlp" if gated else "conv_ffn",
        "ratio": any_ratio_of(dim, hidden),
        "kernel": state[f"{FIRST}convffn1.{conv}.weight"].shape[-1],
    }
