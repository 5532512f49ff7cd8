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
        widths: possible numbers of channels per program, largest first; one warp for every 32.
        gradient_blocks: possible numbers of channels per program of the gradient kernel, each with
            the number of steps that fit in registers at once. The kernel has one warp, so with 64
            channels each lane has two: sums over channels are shorter, but fewer steps fit.
        carry_block: number of channels, and of boundaries between chunks, that one warp processes
            at once.
        shortest: steps of the shortest possible chunk.
        longest: steps of the longest possible chunk. States at chunk boundaries take
            K N / longest times the memory of the tokens.
        warps: warps per multiprocessor; a launch should have at least twice as many.
        gradient_warps: programs per multiprocessor in the gradient kernel. Each needs its own
            scratch memory and its own copy of the sums of parameter gradients.
    """

    widths: tuple[int, ...] = (128, 64, 32)
    gradient_blocks: tuple[tuple[int, int], ...] = ((64, 3), (32, 4))
    carry_block: tuple[int, int] = (32, 16)
    shortest: int = 32
    longest: int = 256
    warps: int = 16
    gradient_warps: int = 8


CONFIGURATIONS: dict[tuple[int, int], Configuration] = {}
"""Measured configurations by compute capability. Any other GPU gets :data:`DEFAULT`."""

DEFAULT = Configuration()
"""Chosen from the compiler's output for 16 states: no kernel spills registers for compute
capability 9.0, and the gradient kernel spills none for 8.0 and 12.0
(tests/helpers/triton_compiled.py). Not yet measured on any GPU."""

INTERPRETED = Configuration(
    widths=(4,),
    gradient_blocks=((4, 2),),
    carry_block=(4, 2),
    shortest=4,
    longest=4,
    warps=1,
    gradient_warps=2,
)
"""For Triton's interpreter: many small chunks and blocks, so that tiny tests cross every kind of
boundary."""


def configuration(device: torch.device) -> Configuration:
    """The configuration for a device; a CPU means Triton's interpreter."""
    if device.type != "cuda":
        return INTERPRETED
    return CONFIGURATIONS.get(torch.cuda.get_device_capability(device), DEFAULT)


def width(channels: int, widths: tuple[int, ...]) -> int:
    """The widest block that needs at most 10 % more lanes than the best of ``widths``."""

    def padded(block: int) -> int:
        return -(-channels // block) * block

    least = min(map(padded, widths))
    return next(block for block in widths if padded(block) <= 1.1 * least)


def chunk_length(steps: int, lanes: int, processors: int, table: Configuration) -> int:
    """Number of steps of a chunk: the largest that still gives every multiprocessor enough work.

    Args:
        steps: number of steps of the sequence.
        lanes: number of warps needed for one chunk of all images, directions and channels.
        processors: number of multiprocessors of the GPU.
        table: the configuration of the GPU.
    """
    wanted = 2 * table.warps * processors
    length = table.longest
    while length > table.shortest and -(-steps // length) * lanes < wanted:
        length //= 2
    return length
