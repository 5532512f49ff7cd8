"""How the kernels are cut for a GPU: a table, so that no user's first call searches for it.

``benchmarks/gpu.py --tune`` measures the alternatives on a GPU; what it finds is written here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Configuration:
    """Sizes for one architecture.

    Attributes:
        widths: channels that one program may own, largest first; a warp for every 32.
        gradient_blocks: the same for the gradient kernel, each width with the steps that registers
            then hold at once. It has one warp, so 64 channels are two a lane: sums over channels
            are shorter, and fewer steps fit.
        carry_block: channels, and boundaries between chunks, that one warp carries at once.
        shortest: steps of the shortest chunk that a sequence is cut into.
        longest: steps of the longest; a boundary costs K N / longest as much memory as a token.
        warps: warps of a multiprocessor that a launch should fill twice.
        gradient_warps: programs of a multiprocessor in the gradient kernel; each has scratch memory
            of its own, and one block more in the sums of the parameters.
    """

    widths: tuple[int, ...] = (128, 64, 32)
    gradient_blocks: tuple[tuple[int, int], ...] = ((64, 3), (32, 4))
    carry_block: tuple[int, int] = (32, 16)
    shortest: int = 32
    longest: int = 256
    warps: int = 16
    gradient_warps: int = 8


CONFIGURATIONS: dict[tuple[int, int], Configuration] = {}
"""Measured configurations by compute capability; any other GPU gets :data:`DEFAULT`."""

DEFAULT = Configuration()
"""From what the compiler says with 16 states: no kernel spills registers for compute capability
9.0, nor the one of the gradients for 8.0 and 12.0 (tests/helpers/triton_compiled.py). Not yet
measured on any GPU."""

INTERPRETED = Configuration(
    widths=(4,),
    gradient_blocks=((4, 2),),
    carry_block=(4, 2),
    shortest=4,
    longest=4,
    warps=1,
    gradient_warps=2,
)
"""For Triton's interpreter: many small chunks and blocks, so that tiny cases pass
every boundary."""


def configuration(device: torch.device) -> Configuration:
    """The configuration for a device; a CPU stands for the interpreter."""
    if device.type != "cuda":
        return INTERPRETED
    return CONFIGURATIONS.get(torch.cuda.get_device_capability(device), DEFAULT)


def width(channels: int, widths: tuple[int, ...]) -> int:
    """The widest block that wastes at most a tenth more lanes than the narrowest."""

    def padded(block: int) -> int:
        return -(-channels // block) * block

    least = min(map(padded, widths))
    return next(block for block in widths if padded(block) <= 1.1 * least)


def chunk_length(steps: int, lanes: int, processors: int, table: Configuration) -> int:
    """Steps of a chunk: as many as leave every multiprocessor enough to do.

    Args:
        steps: of the sequence.
        lanes: warps that one chunk of all images, directions and channels makes.
        processors: multiprocessors of the GPU.
        table: the configuration.
    """
    wanted = 2 * table.warps * processors
    length = table.longest
    while length > table.shortest and -(-steps // length) * lanes < wanted:
        length //= 2
    return length
