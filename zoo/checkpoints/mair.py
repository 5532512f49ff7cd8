"""The authors' MaIR checkpoints: recognising them, and renaming their keys both ways.

The names are from XLearning-SCU/2025-CVPR-MaIR (commit 2fb433e). They are MambaIR's, but for the
merge of directions and the feed-forward.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from zoo.checkpoints.keymap import KeyMap
from zoo.checkpoints.mambair import (
    BLOCK,
    HEADS,
    any_ratio_of,
    body_rules,
    head_of,
    mixer_of,
    skeleton,
)
from zoo.errors import CheckpointError
from zoo.key_rules import Rule
from zoo.scans import ScanOrder, Stripes

State = Mapping[str, Tensor]

FIRST = "layers.0.residual_group.blocks.0."

KEYS = [
    Rule("self_attention.gating.gating.1.{rest}", "mixer.merge.gate.{rest}"),
    Rule("conv_blk.fc{n}.{rest}", "branch.fc{n}.{rest}"),
    *(rule for rule in BLOCK if not rule.theirs.startswith("conv_blk.")),
]


def stripes(length: int) -> list[dict[str, Any]]:
    """Return the scan orders of the blocks of a group for the authors' ``scan_len``."""
    return [{"type": "stripes", "width": length, "shift": shift} for shift in (0, length // 2)]


def most_alike(state: State) -> tuple[str, int]:
    """Return the published model that tensors are most like, and its width of a stripe.

    The stripes are narrow in the denoisers and in the small light network.

    Args:
        state: the authors' tensors.
    """
    head, scale = head_of(state, state["conv_first.weight"].shape[1])
    if head["type"] == "residual":
        return "mair_dn15", 4
    suffix = f"x{min(max(scale, 2), 4)}"
    if head["type"] == "pixelshuffle":
        return f"mair_classic_{suffix}", 8
    small = state[f"{FIRST}self_attention.A_logs"].shape[1] > 1
    return (f"mair_light_s_{suffix}", 4) if small else (f"mair_light_t_{suffix}", 8)


class MaIRFormat:
    """State dicts of the authors' ``MaIR``."""

    name = "MaIR"
    wrapper = "params"
    published = "mair_classic_x4"
    every_key = KeyMap([*body_rules(KEYS), *(rule for rules in HEADS.values() for rule in rules)])
    facts: tuple[str, ...] = ("scan_len",)

    def recognises(self, state: State) -> bool:
        """Return whether the keys are those of this network."""
        return f"{FIRST}self_attention.gating.gating.1.weight" in state

    def network(self, state: State, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Return the ``network`` section of a recipe.

        Args:
            state: the authors' tensors.
            facts: ``scan_len`` is the width of a stripe in tokens, which the tensors do not show.

        Raises:
            CheckpointError: if ``scan_len`` is missing or not a positive integer.
        """
        length = facts.get("scan_len")
        if length is None:
            model, published = most_alike(state)
            raise CheckpointError(
                "this is a MaIR checkpoint, and its tensors do not show the width of the stripes: "
                f"name the model, as in -n {model}, which it is most like, or in Python pass "
                f"scan_len={published}, as published there"
            )
        if not isinstance(length, int) or length < 1:
            raise CheckpointError(
                f"scan_len is {length!r}; it must be the width of a stripe in tokens, such as 8"
            )
        hidden, dim = state[f"{FIRST}conv_blk.fc1.weight"].shape
        mixer = mixer_of(state, f"{FIRST}self_attention.", dim)
        branch = {"type": "mlp", "ratio": any_ratio_of(dim, hidden)}
        return {
            **skeleton(state),
            "block": {
                "type": "rssb",
                "mixer": {**mixer, "merge": "shuffle_attention"},
                "branch": branch,
            },
            "scans": stripes(length),
        }

    def facts_of(self, walks: Mapping[str, ScanOrder]) -> dict[str, Any]:
        """Return the ``scan_len`` of these scan orders, which are listed by mixer name."""
        first = walks.get("groups.0.blocks.0.mixer")
        return {"scan_len": first.width if isinstance(first, Stripes) else 8}

    def key_map(self, network: Mapping[str, Any]) -> KeyMap:
        """Return the key map for the ``network`` section of a recipe."""
        head = network.get("head", {"type": "pixelshuffle"})
        name = head if isinstance(head, str) else head["type"]
        return KeyMap([*body_rules(KEYS), *HEADS.get(name, [])])
