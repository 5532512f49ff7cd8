"""The authors' MambaIR checkpoints: recognising them, and renaming their keys both ways.

The names are from csguoh/MambaIR (commit 33d7b34), including the three generations of the light
network.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from zoo.checkpoints.keymap import KeyMap, MissingKeyError, chained
from zoo.errors import CheckpointError, shown
from zoo.key_rules import Rule, flat
from zoo.scans import ScanOrder

State = Mapping[str, Tensor]

BLOCK = [
    Rule("skip_scale", "skip_scale"),
    Rule("skip_scale2", "branch_scale"),
    Rule("ln_1.{rest}", "norm.{rest}"),
    Rule("ln_2.{rest}", "branch_norm.{rest}"),
    Rule("self_attention.dt_projs_weight", "mixer.dt_proj_weight"),
    Rule("self_attention.dt_projs_bias", "mixer.dt_proj_bias"),
    Rule("self_attention.A_logs", "mixer.A_log", flat),
    Rule("self_attention.Ds", "mixer.D", flat),
    Rule("self_attention.conv2d.{rest}", "mixer.conv.{rest}"),
    Rule("self_attention.x_proj_weight", "mixer.x_proj_weight"),
    Rule("self_attention.in_proj.{rest}", "mixer.in_proj.{rest}"),
    Rule("self_attention.out_norm.{rest}", "mixer.out_norm.{rest}"),
    Rule("self_attention.out_proj.{rest}", "mixer.out_proj.{rest}"),
    Rule("conv_blk.cab.{n}.attention.1.{rest}", "branch.layers.{n}.reduce.{rest}"),
    Rule("conv_blk.cab.{n}.attention.3.{rest}", "branch.layers.{n}.expand.{rest}"),
    Rule("conv_blk.cab.{n}.{rest}", "branch.layers.{n}.{rest}"),
]
"""Names of a block's tensors, which are the same in both networks."""


def body_rules(block: Sequence[Rule], *, blocks: str = "blocks", norm: str = "norm") -> list[Rule]:
    """Return the rules of everything before the head.

    Args:
        block: rules of a block.
        blocks: the authors' name of the row of blocks in a group.
        norm: the authors' name of the norm after the groups.
    """
    row = f"layers.{{i}}.residual_group.{blocks}.{{j}}."
    return [
        Rule("conv_first.{rest}", "shallow.{rest}"),
        Rule("patch_embed.norm.{rest}", "patch_norm.{rest}"),
        *chained([(row, "groups.{i}.blocks.{j}.")], block),
        Rule("layers.{i}.conv.{rest}", "groups.{i}.conv.{rest}"),
        Rule(f"{norm}.{{rest}}", "norm.{rest}"),
        Rule("conv_after_body.{rest}", "after_body.{rest}"),
    ]


BODY = body_rules(BLOCK)

HEADS = {
    "pixelshuffle": [
        Rule("conv_before_upsample.0.{rest}", "head.before.{rest}"),
        Rule("upsample.{n}.{rest}", "head.upsample.{n}.{rest}"),
        Rule("conv_last.{rest}", "head.last.{rest}"),
    ],
    "pixelshuffle_direct": [Rule("upsample.0.{rest}", "head.conv.{rest}")],
    "residual": [Rule("conv_last.{rest}", "head.conv.{rest}")],
}

LEVELS = {
    "encoder_level1": "encoders.0",
    "encoder_level2": "encoders.1",
    "encoder_level3": "encoders.2",
    "latent": "latent",
    "decoder_level3": "decoders.0",
    "decoder_level2": "decoders.1",
    "decoder_level1": "decoders.2",
    "refinement": "refinement",
}
"""Names of the rows of blocks in a U-Net that follows Restormer."""


def unet_rules(block: Sequence[Rule]) -> list[Rule]:
    """Return the rules of a U-Net that follows Restormer, with the rules of its blocks."""
    rows = [(f"{theirs}.{{j}}.", f"{ours}.{{j}}.") for theirs, ours in LEVELS.items()]
    return [
        Rule("patch_embed.proj.{rest}", "shallow.{rest}"),
        *chained(rows, block),
        Rule("down1_2.body.0.{rest}", "downs.0.conv.{rest}"),
        Rule("down2_3.body.0.{rest}", "downs.1.conv.{rest}"),
        Rule("down3_4.body.0.{rest}", "downs.2.conv.{rest}"),
        Rule("up4_3.body.0.{rest}", "ups.0.conv.{rest}"),
        Rule("up3_2.body.0.{rest}", "ups.1.conv.{rest}"),
        Rule("up2_1.body.0.{rest}", "ups.2.conv.{rest}"),
        Rule("reduce_chan_level3.{rest}", "reduces.0.{rest}"),
        Rule("reduce_chan_level2.{rest}", "reduces.1.{rest}"),
        Rule("output.{rest}", "output.{rest}"),
    ]


def unet_sizes(state: State) -> dict[str, Any]:
    """Return channels, widths and depths of a U-Net that follows Restormer."""
    dim, channels = state["patch_embed.proj.weight"].shape[:2]
    levels = ("encoder_level1", "encoder_level2", "encoder_level3", "latent")
    return {
        "channels": channels,
        "dim": dim,
        "depths": [depth_of(state, f"{level}.") for level in levels],
        "refinement": depth_of(state, "refinement."),
    }


UNET = KeyMap(unet_rules(BLOCK))

FOUR_WALKS = ["row", "column", "row_reversed", "column_reversed"]
DIRECTIONS = {1: ["row"], 2: ["row", "row_reversed"], 4: FOUR_WALKS}


PARTS = (
    (".multi_scan.", "merge", "block: {mixer: {merge: {type: YOURS}}}"),
    (".self_attention.", "mixer", "block: {mixer: {type: YOURS}}"),
    (".conv_blk.", "branch", "block: {branch: {type: YOURS}}"),
    (".conv_block.", "branch", "block: {branch: {type: YOURS}}"),
    (".win_mhsa.", "attention", "block: {attention: {type: YOURS}}"),
    (".assm.", "mixer", "block: {mixer: {type: YOURS}}"),
    (".mixer.", "mixer", "block: {mixer: {type: YOURS}}"),
    (".convffn", "branch", "block: {branch: {type: YOURS}}"),
    ("layers2.", "coarse branch", "coarse: {...}"),
    ("layers3.", "fusion of scales", "coarse: {fusion: {type: YOURS}}"),
    (".blocks.", "block", "block: {type: YOURS}"),
    (".residual_group.layers.", "block", "block: {type: YOURS}"),
    ("upsample", "head", "head: {type: YOURS}"),
    ("conv_last", "head", "head: {type: YOURS}"),
)
"""Part of a key, the kind of part that its tensor belongs to, and how a recipe names the part."""


class MambaIRFormat:
    """State dicts of the authors' ``MambaIR``."""

    name = "MambaIR"
    wrapper = "params"
    published = "mambair_classic_x4"
    facts: tuple[str, ...] = ()
    every_key = KeyMap([*BODY, *(rule for rules in HEADS.values() for rule in rules)])

    def recognises(self, state: State) -> bool:
        """Return whether the keys are those of this network, and not of MaIR."""
        attention = "layers.0.residual_group.blocks.0.self_attention."
        return (
            f"{attention}A_logs" in state
            and f"{attention}gating.gating.1.weight" not in state
            and any(".conv_blk." in key for key in state)
        )

    def network(self, state: State, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Return the ``network`` section of a recipe, without ``img_range``.

        The tensors do not show ``img_range``.
        """
        first = "layers.0.residual_group.blocks.0."
        return {
            **skeleton(state),
            "block": _block(state, first),
            "scans": [_scan(state, first)],
        }

    def facts_of(self, walks: Mapping[str, ScanOrder]) -> dict[str, Any]:
        """Return the settings that the tensors do not show: none."""
        return {}

    def key_map(self, network: Mapping[str, Any]) -> KeyMap:
        """Return the key map for the ``network`` section of a recipe."""
        head = network.get("head", {"type": "pixelshuffle"})
        name = head if isinstance(head, str) else head["type"]
        return KeyMap([*BODY, *HEADS.get(name, [])])


class MambaIRUNetFormat:
    """State dicts of the authors' ``MambaIRUNet`` for real-image denoising."""

    name = "MambaIRUNet"
    wrapper = "params"
    published = "mambair_realdn"
    facts: tuple[str, ...] = ()
    every_key = UNET

    def recognises(self, state: State) -> bool:
        """Return whether the keys are those of this network."""
        return "encoder_level1.0.self_attention.A_logs" in state

    def network(self, state: State, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Return the ``network`` section of a recipe; the tensors show all of it."""
        return {
            "type": "unet",
            **unet_sizes(state),
            # The widest level shows the ratio of inner to outer channels most precisely.
            "block": _block(state, "latent.0."),
            "scans": [_scan(state, "latent.0.")],
        }

    def facts_of(self, walks: Mapping[str, ScanOrder]) -> dict[str, Any]:
        """Return the settings that the tensors do not show: none."""
        return {}

    def key_map(self, network: Mapping[str, Any]) -> KeyMap:
        """Return the key map for the ``network`` section of a recipe."""
        return UNET


def depths_of(state: State, layers: str, blocks: str = "blocks") -> list[int]:
    """Return the number of blocks in each of the groups with the key prefix ``layers``.

    Args:
        state: tensors by the authors' key names.
        layers: key prefix of the groups.
        blocks: name of the row of blocks in a group.
    """
    number = "([0-9]{1,9})"
    pattern = re.compile(rf"{layers}\.{number}\.residual_group\.{blocks}\.{number}\.")
    found: dict[int, set[int]] = {}
    for match in filter(None, map(pattern.match, state)):
        found.setdefault(int(match[1]), set()).add(int(match[2]))
    depths: list[int] = []
    while len(depths) in found:
        depths.append(len(found[len(depths)]))
    return depths


def skeleton(state: State, blocks: str = "blocks") -> dict[str, Any]:
    """Return what the tensors around the blocks show of a network of one resolution.

    Args:
        state: tensors by the authors' key names.
        blocks: the authors' name of the row of blocks in a group.
    """
    channels = state["conv_first.weight"].shape[1]
    head, scale = head_of(state, channels)
    return {
        "type": "single_image",
        "scale": scale,
        "channels": channels,
        "dim": state["conv_first.weight"].shape[0],
        "depths": depths_of(state, "layers", blocks),
        "head": head,
        "conv": "3conv" if "conv_after_body.0.weight" in state else "1conv",
        "patch_norm": "patch_embed.norm.weight" in state,
    }


def depth_of(state: State, prefix: str) -> int:
    """Return how many different numbers follow ``prefix`` in the keys."""
    return len({k.removeprefix(prefix).split(".")[0] for k in state if k.startswith(prefix)})


def head_of(state: State, channels: int) -> tuple[dict[str, Any], int]:
    if "conv_before_upsample.0.weight" in state:
        hidden = state["conv_before_upsample.0.weight"].shape[0]
        scale, stage = 1, 0
        while f"upsample.{stage}.weight" in state:
            scale *= round((state[f"upsample.{stage}.weight"].shape[0] / hidden) ** 0.5)
            stage += 2
        return {"type": "pixelshuffle", "hidden": hidden}, scale
    if "upsample.0.weight" in state:
        scale = round((state["upsample.0.weight"].shape[0] / channels) ** 0.5)
        return {"type": "pixelshuffle_direct"}, scale
    return {"type": "residual"}, 1


def _scan(state: State, prefix: str) -> dict[str, Any]:
    directions = state[f"{prefix}self_attention.x_proj_weight"].shape[0]
    if directions not in DIRECTIONS:
        raise CheckpointError(
            f"the checkpoint has {directions} scan directions, but MambaIR has 1, 2 or 4; "
            "pass the recipe it was trained with"
        )
    return {"type": "raster", "directions": DIRECTIONS[directions]}


def _block(state: State, prefix: str) -> dict[str, Any]:
    dim = state[f"{prefix}ln_1.weight"].shape[0]
    mixer = mixer_of(state, f"{prefix}self_attention.", dim)
    return {"type": "rssb", "mixer": mixer, "branch": _branch(state, f"{prefix}conv_blk.cab.", dim)}


def mixer_of(
    state: State, attention: str, dim: int, *, norm: str = "out_norm", conv: str = "conv2d"
) -> dict[str, Any]:
    """Return the options of the mixer at the key prefix ``attention``.

    Args:
        state: the authors' tensors.
        attention: key prefix.
        dim: channels of the block.
        norm: name of the norm after the scan.
        conv: name of the convolution before it.
    """
    d_inner = state[f"{attention}{norm}.weight"].shape[0]
    dt_rank = state[f"{attention}dt_projs_weight"].shape[2]
    mixer: dict[str, Any] = {
        "type": "ss2d",
        "d_state": state[f"{attention}A_logs"].shape[1],
        "d_conv": state[f"{attention}{conv}.weight"].shape[-1],
    }
    expand = ratio_of(dim, d_inner)
    mixer |= {"d_inner": d_inner} if expand is None else {"expand": expand}
    if dt_rank != math.ceil(dim / 16):
        mixer["dt_rank"] = dt_rank
    return mixer


def _branch(state: State, cab: str, dim: int) -> dict[str, Any]:
    """Return the options of the branch; its keys show the generation of the light network."""
    attention = next(
        (key for key in state if key.startswith(cab) and "attention.1.weight" in key), None
    )
    if attention is None:
        found = next((key for key in state if key.startswith(cab)), "nothing")
        raise MissingKeyError(
            f"the key '{cab}N.attention.1.weight' is missing, while {shown(found)} is there; if "
            "its branch is another, register that part and pass recipe={extends: "
            f"{MambaIRFormat.published}, network: {{block: {{branch: {{type: YOURS}}}}}}}}"
        )
    squeeze = divisor(dim, state[attention].shape[0], 30)
    if f"{cab}4.weight" in state:
        compress = divisor(dim, state[f"{cab}0.weight"].shape[0], 2)
        return {"type": "cab_light", "compress": compress, "squeeze": squeeze}
    if f"{cab}1.attention.1.weight" in state:
        return {"type": "cab_depthwise", "squeeze": squeeze}
    compress = divisor(dim, state[f"{cab}0.weight"].shape[0], 3)
    return {"type": "cab", "compress": compress, "squeeze": squeeze}


def ratio_of(dim: int, hidden: int) -> float | None:
    """Return a ratio of at most two decimals with ``int(ratio * dim) == hidden``, or None."""
    for decimals in (1, 2):
        ratio = round(hidden / dim, decimals)
        if int(ratio * dim) == hidden:
            return ratio
    return None


def any_ratio_of(dim: int, hidden: int) -> float:
    """Return a ratio with ``int(ratio * dim) == hidden``: that of :func:`ratio_of` if there is one.

    The quotient itself would not do: ``int(123 / 60 * 60)`` is 122.
    """
    return ratio_of(dim, hidden) or (hidden + 0.5) / dim


def divisor(dim: int, hidden: int, usual: int) -> int:
    """Return a divisor with ``dim // divisor == hidden``, the usual one if possible."""
    for candidate in (usual, 6, 24, dim // hidden):
        if dim // candidate == hidden:
            return candidate
    raise CheckpointError(
        f"no integer divides {dim} channels into {hidden}; pass the recipe it was trained with"
    )
