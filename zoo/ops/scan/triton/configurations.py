"""Block and chunk sizes of the kernels for each GPU, in a table, so that users need no autotuning.

``benchmarks/gpu.py --tune`` measures the alternatives on a GPU. Put its result into this table.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Configuration:
    """Sizes for one GPU architecture.

    Attributes:
        tile: number of states, over all channels, of a program. It has one warp, so each lane holds
            1 / 32 of them in registers.
        gradient_tile: the same where gradients are wanted: the gradient kernel holds its states
            several times over.
        carry_block: number of channels, and of boundaries between chunks, that one warp processes
            at once.
        shortest: steps of the shortest possible chunk.
        longest: steps of the longest possible chunk. States at chunk boundaries take
            K N / longest times the memory of the tokens.
        warps: warps per multiprocessor; a launch should have at least twice as many.
        registers: largest number of registers of a lane where no gradients are wanted; 0 leaves it
            to the compiler. Fewer registers let more programs run at once.
        gradient_longest: steps of the longest possible chunk where gradients are wanted. Scratch
            memory grows with it, and memory at chunk boundaries shrinks.
        gradient_steps: number of steps that the gradient kernel processes at once. Registers hold
            the states of all of them.
        summary_registers: the same in the kernel of chunks where gradients are wanted.
        gradient_registers: the same in the gradient kernel.
        gradient_warps: programs per multiprocessor in the gradient kernel. Each needs its own
            scratch memory and its own copy of the sums of parameter gradients.
    """

    tile: int = 1024
    gradient_tile: int = 512
    carry_block: tuple[int, int] = (32, 16)
    shortest: int = 32
    longest: int = 256
    warps: int = 8
    registers: int = 152
    gradient_longest: int = 64
    gradient_steps: int = 1
    summary_registers: int = 128
    gradient_registers: int = 168
    gradient_warps: int = 12

    def channels(self, states: int, gradients: bool) -> int:
        """Number of channels of a program; ``states`` is a power of two."""
        return max(4, min(64, (self.gradient_tile if gradients else self.tile) // states))


CONFIGURATIONS: dict[tuple[int, int], Configuration] = {(9, 0): Configuration()}
"""Measured configurations by compute capability. Any other GPU gets :data:`DEFAULT`."""

DEFAULT = Configuration()
"""Measured on an H100 and an H200, with 16 states, E = 72 and 360, and 4,096 to 65,536 tokens."""

INTERPRETED = Configuration(
    tile=4,
    gradient_tile=4,
    carry_block=(4, 2),
    shortest=4,
    longest=4,
    warps=1,
    registers=0,
    gradient_longest=4,
    gradient_steps=2,
    summary_registers=0,
    gradient_registers=0,
    gradient_warps=2,
)
"""For Triton's interpreter: many small chunks and blocks, so that tiny tests cross every kind of
boundary."""


def configuration(device: torch.device) -> Configuration:
    """The configuration for a device; a CPU means Triton's interpreter."""
    if device.type != "cuda":
        return INTERPRETED
    return CONFIGURATIONS.get(torch.cuda.get_device_capability(device), DEFAULT)


def chunk_length(
    steps: int, lanes: int, processors: int, table: Configuration, gradients: bool = False
) -> int:
    """Number of steps of a chunk: the largest that still gives every multiprocessor enough work.

    Args:
        steps: number of steps of the sequence.
        lanes: number of warps needed for one chunk of all images, directions and channels.
        processors: number of multiprocessors of the GPU.
        table: the configuration of the GPU.
        gradients: whether the gradient kernel will walk the chunks.
    """
    wanted = 2 * table.warps * processors
    length = table.gradient_longest if gradients else table.longest
    while length > table.shortest and -(-steps // length) * lanes < wanted:
        length //= 2
    return length
