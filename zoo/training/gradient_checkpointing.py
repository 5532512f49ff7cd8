"""Gradient checkpointing: compute blocks again in the backward pass to save memory."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from zoo.blocks.contract import Block


def enable_gradient_checkpointing(network: nn.Module) -> int:
    """Make every innermost block keep only its input instead of its activations.

    Gradients are the same, except for rounding. In evaluation mode, nothing changes. Parameters
    keep their names.

    Returns:
        The number of innermost blocks.
    """
    blocks = [module for module in network.modules() if isinstance(module, Block)]
    innermost = [
        block
        for block in blocks
        if not any(isinstance(part, Block) for part in block.modules() if part is not block)
    ]
    for block in innermost:
        # Random states are restored, so drop path drops the same samples in the backward pass.
        block.forward = _recomputed(block, block.forward)  # type: ignore[method-assign]
    return len(innermost)


def _recomputed(block: Block, forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def run(*inputs: Tensor) -> Tensor:
        if not block.training:
            return forward(*inputs)
        output: Tensor = checkpoint(forward, *inputs, use_reentrant=False)
        return output

    return run
