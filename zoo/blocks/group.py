"""Residual groups: a row of blocks, a convolution, and a skip around both.

Shape suffixes: B batch, H height, W width, C channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import count
from typing import Literal, TypeAlias, TypeVar, cast

from torch import Tensor, nn

from zoo.blocks.contract import Block, BlockFactory, Mixer, Placed
from zoo.blocks.layers import Conv2d, at_least_one
from zoo.errors import refuse_no_effect
from zoo.scans import Raster, ScanOrder

GroupConv: TypeAlias = Literal["1conv", "3conv"]
Schedule: TypeAlias = Sequence[ScanOrder]
"""Scan orders of one group; its blocks use them cyclically."""

Blocks: TypeAlias = BlockFactory | Sequence[BlockFactory]
"""The kind of block of one group, or several kinds that take turns."""

BlocksOfGroups: TypeAlias = Blocks | Sequence[Sequence[BlockFactory]]
"""The blocks of all groups, or a list of kinds for each group."""

T = TypeVar("T")


def group_conv(dim: int, kind: GroupConv, *, bias: bool = True) -> nn.Module:
    """Build the convolution that ends a group: one layer, or a bottleneck of three (SwinIR).

    Args:
        dim: channels C; at least 4 for "3conv".
        kind: "1conv" for one 3x3 convolution, "3conv" for 3x3, 1x1 and 3x3 with C / 4 hidden
            channels.
        bias: whether its layers have biases.
    """
    if kind == "1conv":
        return Conv2d(dim, dim, 3, padding=1, bias=bias)
    hidden = at_least_one(dim, 4, "group_conv '3conv'")
    return nn.Sequential(
        Conv2d(dim, hidden, 3, padding=1, bias=bias),
        nn.LeakyReLU(0.2),
        Conv2d(hidden, hidden, 1, bias=bias),
        nn.LeakyReLU(0.2),
        Conv2d(hidden, dim, 3, padding=1, bias=bias),
    )


def scans_of_groups(
    scans: Schedule | Sequence[Schedule], groups: int, what: str = "scans"
) -> list[Schedule]:
    """Return the scan orders of each group.

    Args:
        scans: one list of scan orders for all groups, or one such list for each group.
        groups: number of groups.
        what: name of the option, for error messages.

    Raises:
        ValueError: if the number of lists is not the number of groups.
    """
    return _of_groups(scans, groups, what)


def check_scans_are_taken(
    scans: Schedule | Sequence[Schedule], groups: Iterable[Iterable[nn.Module]], what: str = "scans"
) -> None:
    """Check that scan orders have an effect: a block of the network takes them.

    Raster, which all networks have by default, is no choice and passes.

    Args:
        scans: scan orders for all groups or for each group.
        groups: the blocks of each group, built.
        what: name of the option, for error messages.

    Raises:
        RecipeError: if no block takes a scan order; the message names the blocks and mixers.
    """
    row = [block for blocks in groups for block in blocks]
    orders = [o for each in scans for o in (each if isinstance(each, Sequence) else [each])]
    if all(order == Raster() for order in orders) or any(map(takes_scan, row)):
        return
    names = sorted({type(part).__name__ for block in row for part in _scanless(block)})
    takes = "takes" if len(names) == 1 else "take"
    reason = f"{' and '.join(names)} {takes} no scan order" if names else "there is no block"
    refuse_no_effect(
        f"{what} has no effect, because {reason}; leave it out, or set it to [raster] where it is "
        "inherited"
    )


def takes_scan(block: nn.Module) -> bool:
    """Whether a block, or a part in it, reads tokens along the scan order that it was built with.

    True where that is not known, as for a block from outside that says nothing about it.
    """
    if not getattr(block, "takes_scan", True):
        return False
    inner = [module for module in block.modules() if module is not block]
    parts = [module for module in inner if isinstance(module, Block | Mixer)]
    own = [block, *(module for module in inner if module not in parts)]
    keeps_one = any(isinstance(value, ScanOrder) for m in own for value in vars(m).values())
    return keeps_one or not parts or any(part.takes_scan for part in parts)


def _scanless(block: nn.Module) -> list[nn.Module]:
    parts = [module for module in block.modules() if isinstance(module, Block | Mixer)]
    return [part for part in parts if not part.takes_scan]


def blocks_of_groups(blocks: BlocksOfGroups, depths: Sequence[int]) -> list[Sequence[BlockFactory]]:
    """Return the kinds of block of each group.

    Args:
        blocks: the same for all groups, or a list of kinds for each group.
        depths: number of blocks of each group.

    Raises:
        ValueError: if the number of lists is not the number of groups, or no group has as many
            blocks as its list has kinds.
    """
    given = blocks if isinstance(blocks, Sequence) else [blocks]
    found = list(_of_groups(given, len(depths), "block"))
    # One list for all groups may be longer than some of them.
    most: dict[int, int] = {}
    for depth, kinds in zip(depths, found, strict=True):
        most[id(kinds)] = max(depth, most.get(id(kinds), 0))
    for index, kinds in enumerate(found):
        if len(kinds) > most[id(kinds)]:
            raise ValueError(
                f"block has {len(kinds)} kinds for group {index}, which take turns among at most "
                f"{most[id(kinds)]} blocks; name fewer kinds, or use more blocks"
            )
    return found


def _of_groups(
    values: Sequence[T] | Sequence[Sequence[T]], groups: int, what: str
) -> list[Sequence[T]]:
    if not any(isinstance(value, Sequence) for value in values):
        return [cast(Sequence[T], values)] * groups
    if len(values) != groups:
        raise ValueError(
            f"{what} has {len(values)} lists for {groups} groups; give one list for each group"
        )
    return list(cast(Sequence[Sequence[T]], values))


def build_blocks(
    dim: int, *, block: Blocks, scans: Sequence[ScanOrder], drop_paths: Sequence[float]
) -> nn.ModuleList:
    """Build one block for each drop-path rate; kinds of block and scan orders take turns."""
    factories = block if isinstance(block, Sequence) else [block]
    if not factories:
        raise ValueError("block is empty; name at least one block")
    if not scans:
        raise ValueError("scans is empty; name at least one scan order")
    for index, scan in enumerate(scans):
        if scan.grids != 1:
            raise ValueError(
                f"scans[{index}] is {type(scan).__name__}, which scans {scan.grids} grids, but a "
                "block has only one; set this order in coarse.fusion.scan instead"
            )
    kinds = [factories[index % len(factories)] for index in range(len(drop_paths))]
    blocks = [
        kind(dim, scan=scans[index % len(scans)], drop_path=rate)
        for index, (kind, rate) in enumerate(zip(kinds, drop_paths, strict=True))
    ]
    # Two kinds in turn would otherwise have even places and odd places only.
    places = [kinds[:index].count(kind) for index, kind in enumerate(kinds)]
    return nn.ModuleList(in_a_row(blocks, places))


def in_a_row(blocks: Iterable[Block], places: Iterable[int] | None = None) -> list[Block]:
    """Tell the parts that depend on it the place of their block in a row; return the blocks.

    Args:
        blocks: the blocks, from the first to the last.
        places: place of each among the blocks of its kind; None for one kind.
    """
    row = list(blocks)
    for block, place in zip(row, count() if places is None else places, strict=False):
        for part in block.modules():
            if isinstance(part, Placed):
                part.place(place)
    return row


class ResidualGroup(Block):
    """Residual state-space group (MambaIR, Sec. 3.2): ``x + conv(blocks(x))``.

    Args:
        dim: channels C.
        block: builds a block; of several kinds, the blocks use them cyclically.
        scans: scan orders; the blocks use them cyclically.
        drop_paths: drop-path rate of each block; the group has as many blocks as rates.
        conv: kind of the last convolution, "1conv" or "3conv"; see :func:`group_conv`.
    """

    def __init__(
        self,
        dim: int,
        *,
        block: Blocks,
        scans: Sequence[ScanOrder],
        drop_paths: Sequence[float],
        conv: GroupConv = "1conv",
    ) -> None:
        super().__init__()
        self.blocks = build_blocks(dim, block=block, scans=scans, drop_paths=drop_paths)
        self.conv = group_conv(dim, conv)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        skip_BHWC = x_BHWC
        for block in self.blocks:
            x_BHWC = block(x_BHWC)
        return skip_BHWC + self.conv(x_BHWC)
