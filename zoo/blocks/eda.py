"""Coarse-to-fine alignment of a burst by learnt displacements.

Shape suffixes: B batch, T frames, N images (B * T), H height, W width, C channels.

Source: Dudhane et al., "Burstormer", CVPR 2023, Sec. 3.1. QMambaBSR uses the same alignment.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.blocks.align import ALIGNERS, Aligned, Aligner
from zoo.blocks.channel_transformer import ChannelTransformer
from zoo.blocks.feature_alignment import FeatureAlignment, Upsample2
from zoo.blocks.layers import Conv2d

LEVELS = 3
"""Number of pyramid levels; each is half the size of the one before."""

HEAD_OF_LEVEL = (1, 2)
"""Attention heads in the encoders of the two finer levels, finest level first."""


class _Reference(NamedTuple):
    """What frames are compared with in one alignment: the reference's input and features."""

    x_BHWC: Tensor
    features_BHWC: Tensor | None


@ALIGNERS.register("eda")
class EDA(Aligner):
    """Enhanced deformable alignment over a pyramid of three levels (Burstormer, Sec. 3.1).

    Features are encoded at H, H/2 and H/4 and aligned from coarse to fine. Each level adds the
    upsampled result of the coarser level. A last alignment follows at full size. Each frame is
    compared with the reference only, so processing ``frame_chunk`` frames at a time gives the same
    result in less memory.

    Args:
        dim: channels C.
        groups: number of channel groups, each with its own displacements; must divide C.
        blocks: number of channel transformers in each encoder and in each refinement.
        refine: refine after every alignment ("all"), after the last one ("last"), or "none".
        frame_chunk: frames aligned at a time; 0 for all. All frames are aligned at once where
            gradients are on and in an export.
    """

    grid = 2 ** (LEVELS - 1)
    kernel = 3
    dilation = 2

    def __init__(
        self,
        dim: int,
        *,
        groups: int = 8,
        blocks: int = 2,
        refine: Literal["all", "last", "none"] = "all",
        frame_chunk: int = 4,
    ) -> None:
        super().__init__()
        if groups < 1 or dim % groups:
            raise ValueError(f"groups is {groups}; it must divide the {dim} channels")
        if blocks < 1 or frame_chunk < 0:
            raise ValueError(
                f"blocks is {blocks} and frame_chunk is {frame_chunk}; "
                "blocks must be at least 1, and frame_chunk at least 0 (0 aligns all at once)"
            )
        self.frame_chunk = frame_chunk
        self.encoders = nn.ModuleList(
            nn.Sequential(*(ChannelTransformer(dim, heads=heads) for _ in range(blocks)))
            for heads in HEAD_OF_LEVEL
        )
        self.downs = nn.ModuleList(
            Conv2d(dim, dim, 3, stride=2, padding=1) for _ in range(LEVELS - 1)
        )

        def alignment(first: bool, last: bool) -> FeatureAlignment:
            refined = refine == "all" or (refine == "last" and last)
            return FeatureAlignment(
                dim,
                groups=groups,
                kernel=self.kernel,
                dilation=self.dilation,
                from_before=not first,
                refine=blocks if refined else None,
                heads=1,
            )

        self.alignments = nn.ModuleList(
            alignment(index == 0, index == LEVELS) for index in range(LEVELS + 1)
        )
        self.up_features = nn.ModuleList(Upsample2(dim) for _ in range(LEVELS - 1))
        self.up_offsets = nn.ModuleList(Upsample2(dim) for _ in range(LEVELS - 1))

    def forward(self, frames_BTHWC: Tensor, flow_BT2HW: Tensor | None = None) -> Aligned:
        reference_BHWC = frames_BTHWC[:, 0]
        aligned_BHWC, references = self._reference(reference_BHWC)
        current = range(1, frames_BTHWC.shape[1])
        # Chunks would save nothing here: autograd keeps them all, and an exported graph repeats
        # the alignment for each one.
        whole = torch.is_grad_enabled() or torch.compiler.is_exporting()
        size = len(current) if whole else self.frame_chunk
        aligned, displacements = [aligned_BHWC[:, None]], []
        for start in range(1, len(current) + 1, size or max(len(current), 1)):
            chunk = slice(start, start + (size or len(current)))
            flow = None if flow_BT2HW is None else flow_BT2HW[:, chunk]
            frames, moves = self._frames(frames_BTHWC[:, chunk], references, flow)
            aligned.append(frames)
            displacements.append(moves)
        zero = [
            torch.zeros_like(level[:, :1]) for level in (displacements[0] if displacements else ())
        ]
        return Aligned(
            torch.cat(aligned, dim=1),
            tuple(
                torch.cat([still, *moves], dim=1)
                for still, *moves in zip(zero, *displacements, strict=True)
            ),
        )

    def _pyramid(self, x_NHWC: Tensor) -> list[Tensor]:
        """Return the features of all levels, coarsest first."""
        levels = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            x_NHWC = encoder(x_NHWC)
            levels.append(x_NHWC)
            x_NHWC = down(x_NHWC)
        return [x_NHWC, *reversed(levels)]

    def _reference(self, x_BHWC: Tensor) -> tuple[Tensor, list[_Reference]]:
        references = []
        y_BHWC: Tensor | None = None
        for index, level in enumerate([*self._pyramid(x_BHWC), None]):
            x = y_BHWC if level is None else level
            assert x is not None
            out, features = self.alignments[index].reference(x)  # type: ignore[operator]
            references.append(_Reference(x, features))
            if level is not None and y_BHWC is not None:
                out = out + self.up_features[index - 1](y_BHWC)
            y_BHWC = out
        assert y_BHWC is not None
        return y_BHWC, references

    def _frames(
        self, frames_BTHWC: Tensor, references: list[_Reference], flow_BT2HW: Tensor | None
    ) -> tuple[Tensor, list[Tensor]]:
        batch, count = frames_BTHWC.shape[:2]

        def each(x_BHWC: Tensor | None) -> Tensor | None:
            """Repeat the reference's features for every frame."""
            if x_BHWC is None:
                return None
            return x_BHWC[:, None].expand(-1, count, -1, -1, -1).flatten(0, 1)

        flow_N2HW = None if flow_BT2HW is None else flow_BT2HW.flatten(0, 1).float()
        y_NHWC: Tensor | None = None
        hidden_NHWC: Tensor | None = None
        moves = []
        for index, level in enumerate([*self._pyramid(frames_BTHWC.flatten(0, 1)), None]):
            x_NHWC = y_NHWC if level is None else level
            assert x_NHWC is not None
            flow = None
            if level is not None:
                shrink = 2 ** (LEVELS - 1 - index)
                if flow_N2HW is not None:
                    flow = F.avg_pool2d(flow_N2HW, shrink) / shrink
                if hidden_NHWC is not None:
                    hidden_NHWC = 2 * self.up_offsets[index - 1](hidden_NHWC)
            out, hidden_NHWC, move = self.alignments[index](
                x_NHWC,
                each(references[index].x_BHWC),
                each(references[index].features_BHWC),
                hidden_NHWC,
                flow,
            )
            if level is not None:
                moves.append(move.unflatten(0, (batch, count)))
                if y_NHWC is not None:
                    out = out + self.up_features[index - 1](y_NHWC)
            y_NHWC = out
        assert y_NHWC is not None
        return y_NHWC.unflatten(0, (batch, count)), moves


@ALIGNERS.register("gflow")
class GroupFlow(EDA):
    """EDA with one displacement per channel group instead of nine: a ninth of the memory.

    Meant for large images and small machines. A 3x3 convolution follows each displacement.

    Args:
        dim: channels C.
        groups: number of channel groups, each with its own displacements; must divide C.
        blocks: number of channel transformers in each encoder and in each refinement.
        refine: refine after every alignment ("all"), after the last one ("last"), or "none".
        frame_chunk: frames aligned at a time; 0 for all. All frames are aligned at once where
            gradients are on and in an export.
    """

    kernel = 1
    dilation = 1

    def __init__(
        self,
        dim: int,
        *,
        groups: int = 8,
        blocks: int = 1,
        refine: Literal["all", "last", "none"] = "none",
        frame_chunk: int = 4,
    ) -> None:
        super().__init__(dim, groups=groups, blocks=blocks, refine=refine, frame_chunk=frame_chunk)
