"""The authors' MambaCSR checkpoints: recognising them, and renaming their keys both ways.

The names are from renyulin-f/MambaCSR (commit f71199e).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from zoo.checkpoints.keymap import KeyMap, chained
from zoo.checkpoints.mambair import HEADS, any_ratio_of, depths_of, divisor, head_of, mixer_of
from zoo.errors import CheckpointError
from zoo.key_rules import Rule, flat
from zoo.scans import ScanOrder, Window

State = Mapping[str, Tensor]

SCAN = [
    Rule("dt_projs_weight", "dt_proj_weight"),
    Rule("dt_projs_bias", "dt_proj_bias"),
    Rule("A_logs", "A_log", flat),
    Rule("Ds", "D", flat),
    Rule("x_proj_weight", "x_proj_weight"),
    Rule("in_proj.{rest}", "in_proj.{rest}"),
    Rule("conv2d.{rest}", "conv.{rest}"),
    Rule("out_norm.{rest}", "out_norm.{rest}"),
    Rule("out_proj.{rest}", "out_proj.{rest}"),
    Rule("multi_scan.attn.norm.{rest}", "merge.norm.{rest}"),
    Rule("multi_scan.attn.global_reduce.{rest}", "merge.reduce.{rest}"),
    Rule("multi_scan.attn.channel_select.{rest}", "merge.select.{rest}"),
]
"""Names of the mixer's tensors, which are the same in blocks and fusions."""

SCALES = [
    Rule("skip_scale", "skip_scale"),
    Rule("skip_scale2", "mlp_scale"),
    Rule("ln_1.{rest}", "norm.{rest}"),
    Rule("ln_2.{rest}", "mlp_norm.{rest}"),
    Rule("mlp.{rest}", "mlp.{rest}"),
]
"""Names of the tensors around the mixer, which are the same in blocks and fusions."""

BLOCK = [
    *SCALES,
    *chained([("self_attention.", "mixer.")], SCAN),
    Rule("conv_block.cab.{n}.attention.1.{rest}", "branch.layers.{n}.reduce.{rest}"),
    Rule("conv_block.cab.{n}.attention.3.{rest}", "branch.layers.{n}.expand.{rest}"),
    Rule("conv_block.cab.{n}.{rest}", "branch.layers.{n}.{rest}"),
]

FUSION = [
    *SCALES,
    Rule("in_proj_down.{rest}", "coarse_proj.{rest}"),
    Rule("conv2d2.{rest}", "coarse_conv.{rest}"),
    *chained([("", "mixer.")], SCAN),
]

KEYS = [
    Rule("conv_first.{rest}", "shallow.{rest}"),
    Rule("patch_embed.norm.{rest}", "patch_norm.{rest}"),
    Rule("patch_embed2.norm.{rest}", "coarse.norm.{rest}"),
    *chained(
        [
            ("layers.{i}.residual_group.blocks.{j}.", "groups.{i}.blocks.{j}."),
            ("layers2.{i}.residual_group.blocks.{j}.", "coarse.groups.{i}.blocks.{j}."),
        ],
        BLOCK,
    ),
    Rule("layers.{i}.conv.{rest}", "groups.{i}.conv.{rest}"),
    Rule("layers2.{i}.conv.{rest}", "coarse.groups.{i}.conv.{rest}"),
    *chained([("layers3.{i}.", "coarse.fusions.{i}.")], FUSION),
    Rule("norm.{rest}", "norm.{rest}"),
    Rule("conv_after_body.{rest}", "after_body.{rest}"),
    *HEADS["pixelshuffle"],
]

ROWS, COLUMNS = ["row", "row_reversed"], ["column", "column_reversed"]
GLOBAL = 64
"""Side of a window of the authors' "global" scan, in tokens."""
COARSE = 8
"""Side of the local windows in coarse groups, in tokens, whatever ``scan_size`` is."""


def authors_schedule(
    scan_size: int, depth: int, *, directions: int, coarse: bool
) -> list[dict[str, Any]]:
    """Return the scan orders that the authors' constructor gives to the blocks of a group.

    Args:
        scan_size: side of the local windows in tokens.
        depth: number of blocks in the group.
        directions: number of directions in each block: 2 if rows and columns alternate from block
            to block, 4 if each block scans both.
        coarse: whether the network fuses two scales; groups of fewer than six blocks then use only
            windows of 32 tokens.
    """

    def window(size: int, names: list[str]) -> dict[str, Any]:
        return {"type": "window", "size": size, "directions": list(names)}

    if directions == 4:
        return [window(scan_size, ROWS + COLUMNS)]
    sizes = [32] if coarse and depth < 6 else [scan_size, GLOBAL]
    return [window(size, names) for size in sizes for names in (ROWS, COLUMNS)]


class MambaCSRFormat:
    """State dicts of the authors' ``MambaCSR``, with or without the fusion of two scales."""

    name = "MambaCSR"
    wrapper = "params_ema"
    published = "mambacsr_final"
    facts: tuple[str, ...] = ("scan_size",)
    every_key = KeyMap(KEYS)

    def recognises(self, state: State) -> bool:
        """Return whether the keys are those of this network."""
        return (
            "layers.0.residual_group.blocks.0.self_attention.multi_scan.attn.norm.weight" in state
        )

    def network(self, state: State, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Return the ``network`` section of a recipe, from the tensors and the authors' schedule.

        Args:
            state: the authors' tensors.
            facts: ``scan_size`` is the side of the local windows in tokens, which the tensors do
                not show.

        Raises:
            CheckpointError: if ``scan_size`` is missing or not a positive integer.
        """
        depths = depths_of(state, "layers")
        coarse_depths = depths_of(state, "layers2")
        scan_size = _scan_size(facts, coarse=bool(coarse_depths))
        first = "layers.0.residual_group.blocks.0."
        dim = state["conv_first.weight"].shape[0]
        directions = _directions(state, first)

        def schedules(sizes: list[int], local: int) -> list[Any]:
            found = [
                authors_schedule(local, depth, directions=directions, coarse=bool(coarse_depths))
                for depth in sizes
            ]
            return found[0] if all(one == found[0] for one in found) else found

        head, scale = head_of(state, state["conv_first.weight"].shape[1])
        network: dict[str, Any] = {
            "type": "single_image",
            "scale": scale,
            "channels": state["conv_first.weight"].shape[1],
            "dim": dim,
            "depths": depths,
            "block": {
                "type": "rlmb",
                "mlp_ratio": any_ratio_of(dim, state[f"{first}mlp.fc1.weight"].shape[0]),
                "mixer": _mixer(state, f"{first}self_attention.", dim),
                "branch": _branch(state, f"{first}conv_block.cab.", dim),
            },
            "scans": schedules(depths, scan_size),
            "head": head,
            "conv": "3conv" if "conv_after_body.0.weight" in state else "1conv",
            "patch_norm": "patch_embed.norm.weight" in state,
        }
        if coarse_depths:
            network["coarse"] = {
                "depths": coarse_depths,
                "scans": schedules(coarse_depths, COARSE),
                "fusion": _fusion(state, "layers3.0.", dim),
            }
        return network

    def facts_of(self, walks: Mapping[str, ScanOrder]) -> dict[str, Any]:
        """Return the ``scan_size`` of these scan orders, which are listed by mixer name."""
        coarse = any(place.startswith("coarse.") for place in walks)
        for group in range(len(walks)):
            first = walks.get(f"groups.{group}.blocks.0.mixer")
            # In a network with two scales, groups of fewer than six blocks do not show it.
            if isinstance(first, Window) and (
                not coarse or f"groups.{group}.blocks.5.mixer" in walks
            ):
                return {"scan_size": first.size}
        return {"scan_size": COARSE}

    def key_map(self, network: Mapping[str, Any]) -> KeyMap:
        """Return the key map for the ``network`` section of a recipe."""
        return self.every_key


def _scan_size(facts: Mapping[str, Any], *, coarse: bool) -> int:
    """Return the given side of the local windows, after checking it."""
    scan_size = facts.get("scan_size")
    if scan_size is None:
        published = "mambacsr_final" if coarse else "mambacsr_wo"
        raise CheckpointError(
            "this is a MambaCSR checkpoint, and its tensors do not show the window sizes and the "
            f"schedule of the scans: name the published network with -n {published}, in Python "
            f"with recipe={published!r}; for other sizes, -n a recipe of yours, or in Python "
            "scan_size=8 (the authors' option) with the authors' schedule"
        )
    if not isinstance(scan_size, int) or scan_size < 1:
        raise CheckpointError(
            f"scan_size is {scan_size!r}; it must be the side of a window in tokens, such as 8"
        )
    return scan_size


def _directions(state: State, prefix: str) -> int:
    """Return the number of scan directions of the block at the key prefix ``prefix``."""
    directions = state[f"{prefix}self_attention.x_proj_weight"].shape[0]
    if directions not in (2, 4):
        raise CheckpointError(
            f"the checkpoint has {directions} scan directions, but MambaCSR has 2 or 4; "
            "pass the recipe it was trained with"
        )
    return directions


def _mixer(state: State, prefix: str, dim: int) -> dict[str, Any]:
    return {**mixer_of(state, prefix, dim), "merge": _merge(state, prefix)}


def _merge(state: State, prefix: str) -> dict[str, Any]:
    hidden, inner = state[f"{prefix}multi_scan.attn.global_reduce.weight"].shape
    return {"type": "gated", "reduction": divisor(inner, hidden, 8)}


def _branch(state: State, cab: str, dim: int) -> dict[str, Any]:
    return {
        "type": "cab",
        "compress": divisor(dim, state[f"{cab}0.weight"].shape[0], 24),
        "squeeze": divisor(dim, state[f"{cab}3.attention.1.weight"].shape[0], 24),
    }


def _fusion(state: State, prefix: str, dim: int) -> dict[str, Any]:
    return {
        "type": "cross_scale",
        # The authors' constructor has no other window size here.
        "scan": {"type": "cross_scale", "size": 16},
        "expand": any_ratio_of(dim, state[f"{prefix}out_norm.weight"].shape[0]),
        "d_state": state[f"{prefix}A_logs"].shape[1],
        "d_conv": state[f"{prefix}conv2d.weight"].shape[-1],
        "mlp_ratio": any_ratio_of(dim, state[f"{prefix}mlp.fc1.weight"].shape[0]),
    }
