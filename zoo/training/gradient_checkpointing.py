"""Gradient checkpointing: blocks are computed again in the backward pass instead of remembered."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from zoo.blocks.contract import Block


def enable_gradient_checkpointing(network: nn.Module) -> int:
    """Make every innermost block keep only its input; gradients stay the same but for rounding.

    In evaluation, and without gradients, blocks run as before. Parameters keep their names.

    Returns:
        How many blocks there are.
    """
    blocks = [module for module in network.modules() if isinstance(module, Block)]
    innermost = [
        block
        for block in blocks
        if not any(isinstance(part, Block) for part in block.modules() if part is not block)
    ]
    for block in innermost:
        # Random states are kept, so that drop path falls as it fell in the forward pass.
        block.forward = _recomputed(block, block.forward)  # type: ignore[method-assign]
    return len(innermost)


def _recomputed(block: Block, forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def run(*inputs: Tensor) -> Tensor:
        if not block.training:
            return forward(*inputs)
        output: Tensor = checkpoint(forward, *inputs, use_reentrant=False)
        return output

    return run
