"""The burst network: several frames in, one image out, as in QMambaBSR.

Shape suffixes: B batch, T frames, S other frames (T - 1), H height, W width, C feature channels,
I channels of a frame, s scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from zoo.blocks.align import AlignerFactory
from zoo.blocks.burst_fusion import BurstFusionFactory
from zoo.blocks.contract import BlockFactory
from zoo.blocks.eda import EDA
from zoo.blocks.group import check_scans_are_taken, in_a_row
from zoo.blocks.layers import Conv2d
from zoo.blocks.msfm import MSFM
from zoo.blocks.qssm import QSSM
from zoo.heads import DoublingHead, HeadFactory
from zoo.networks.contract import NETWORKS, FlowPrior, Network
from zoo.networks.frame_merge import MergedSkip
from zoo.networks.phase import PhaseSkip
from zoo.networks.size import check_depths, check_scale
from zoo.ops.padding import crop, margin_to_grid, pad
from zoo.ops.registration import register_burst
from zoo.registry import Capabilities, capabilities_of
from zoo.scans import Raster, ScanOrder


@NETWORKS.register(
    "burst",
    capabilities=Capabilities(input="burst", size_multiple=4, dtypes=("float32", "bfloat16")),
)
class BurstNetwork(Network):
    """Aligns a burst, fuses it into the reference, and upsamples (QMambaBSR, Sec. 3.1).

    ``(B, T, I, H, W) -> (B, 3, s*H, s*W)``, linear light in [0, 1]; frame 0 is the reference. The
    output is clipped to [0, 1] in evaluation only, so that gradients never vanish in training.

    Args:
        scale: output over input size: 8 for the planes of a x4 RAW burst, 4 for RGB.
        channels: channels I of a frame: 4 for the planes R, Gr, Gb, B, or 3 for RGB.
        burst: number of frames T that the fusion is built for.
        dim: feature channels C.
        align: builds the aligner of the frames' features.
        flow_prior: displacement that the alignment starts from: "none" (the paper), "registration"
            (one robust affine motion per frame, estimated from the burst unless a flow is passed),
            or "given" (a flow must be passed; for training with known motion).
        fusion: builds the fusion of the frames into the reference; each stage starts with one.
        stages: number of body blocks in each stage.
        body: builds a block of the body.
        scans: scan orders; the body's blocks use them cyclically.
        head: builds the head.
        skip: image that is added to the output. "corner" and "centre" add the upsampled reference
            frame, registered at its corner or centre (:mod:`zoo.networks.phase`). "merged" adds all
            frames, merged by their displacements (:mod:`zoo.networks.frame_merge`). "none" adds
            nothing.
        other_lengths: what to do if the fusion needs another number of frames than the burst has.
            "adapt" repeats the reference or picks frames at equal distances; "error" raises an
            error.
    """

    def __init__(
        self,
        *,
        scale: int = 8,
        channels: int = 4,
        burst: int = 14,
        dim: int = 48,
        align: AlignerFactory = EDA,
        flow_prior: FlowPrior = "none",
        fusion: BurstFusionFactory = QSSM,
        stages: Sequence[int] = (3, 3),
        body: BlockFactory = MSFM,
        scans: Sequence[ScanOrder] = (Raster(),),
        head: HeadFactory = DoublingHead,
        skip: Literal["none", "corner", "centre", "merged"] = "none",
        other_lengths: Literal["adapt", "error"] = "adapt",
    ) -> None:
        super().__init__()
        check_scale(scale)
        if dim < 1:
            raise ValueError(f"dim is {dim}; it must be at least 1")
        if channels not in (3, 4):
            raise ValueError(f"channels is {channels}; a frame has 4 RAW planes or 3 RGB channels")
        if burst < 2:
            raise ValueError(f"burst is {burst}; a burst has at least 2 frames")
        if not stages or min(stages) < 0:
            raise ValueError(
                f"stages is {list(stages)}; give the number of blocks of at least one stage"
            )
        check_depths(stages, "stages")
        if not scans:
            raise ValueError("scans is empty; name at least one scan order")
        self.scale, self.channels, self.burst = scale, channels, burst
        self.flow_prior, self.other_lengths = flow_prior, other_lengths
        self.shallow = Conv2d(channels, dim, 3, padding=1)
        self.align = align(dim)
        self.capabilities = replace(capabilities_of(self), size_multiple=self.align.grid)
        self.fusions = nn.ModuleList(fusion(dim, burst=burst) for _ in stages)
        numbers = iter(range(sum(stages)))
        bodies = [
            nn.Sequential(
                *in_a_row(body(dim, scan=scans[next(numbers) % len(scans)]) for _ in range(depth))
            )
            for depth in stages
        ]
        self.bodies = nn.ModuleList(bodies)
        check_scans_are_taken(scans, bodies)
        self.head = head(dim, scale=scale, channels=self.out_channels)
        self.skip: PhaseSkip | MergedSkip | None = None
        if skip == "merged":
            if flow_prior == "none":
                raise ValueError(
                    "skip is 'merged', which needs the motion of the frames; set flow_prior to "
                    "'registration' or 'given'"
                )
            self.skip = MergedSkip(channels, scale=scale)
        elif skip != "none":
            self.skip = PhaseSkip(channels, scale=scale, registration=skip)

    def forward(self, burst_BTIHW: Tensor, flow_BT2HW: Tensor | None = None) -> Tensor:
        return self.forward_with_displacements(burst_BTIHW, flow_BT2HW)[0]

    def example(self, height: int, width: int) -> Tensor:
        return torch.rand(1, self.burst, self.channels, height, width)

    def forward_with_displacements(
        self, burst_BTIHW: Tensor, flow_BT2HW: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the image, and the displacements found at each level of the alignment.

        Args:
            burst_BTIHW: frames, the reference first.
            flow_BT2HW: displacement of each frame in pixels, rows before columns; ignored if
                ``flow_prior`` is "none".

        Returns:
            The image (B, 3, s*H, s*W), and the displacements as in
            :class:`zoo.blocks.align.Aligned`.

        Raises:
            ValueError: if the burst or the flow has a wrong shape or length, or a required flow is
                missing.
        """
        if burst_BTIHW.dim() != 5 or burst_BTIHW.shape[2] != self.channels:
            raise ValueError(
                f"a burst has shape (B, T, {self.channels}, H, W), not {tuple(burst_BTIHW.shape)}"
            )
        flow_BT2HW = self._prior(burst_BTIHW, flow_BT2HW)
        burst_BTIHW, flow_BT2HW = self._of_length(burst_BTIHW, flow_BT2HW)
        batch, frames = burst_BTIHW.shape[:2]
        margin = margin_to_grid(burst_BTIHW, self.align.grid)
        padded = pad(burst_BTIHW, margin)
        flow = None if flow_BT2HW is None else pad(flow_BT2HW, margin)

        frames_BTHWI = padded.permute(0, 1, 3, 4, 2)
        features = self.shallow(frames_BTHWI.flatten(0, 1).contiguous())
        features, displacements = self.align(features.unflatten(0, (batch, frames)), flow)
        reference_BHWC, others_BSHWC = features[:, 0], features[:, 1:]
        x_BHWC = reference_BHWC
        for fusion, body in zip(self.fusions, self.bodies, strict=True):
            x_BHWC = body(fusion(x_BHWC, others_BSHWC))
        output_BHW3 = self.head(x_BHWC + reference_BHWC, frames_BTHWI[:, 0])
        output_B3HW = output_BHW3.permute(0, 3, 1, 2)
        if self.skip is not None:
            output_B3HW = output_B3HW + self.skip(padded, flow)
        output_B3HW = crop(output_B3HW, margin, self.scale).contiguous()
        return (output_B3HW if self.training else output_B3HW.clamp(0, 1)), displacements

    def _prior(self, burst_BTIHW: Tensor, flow_BT2HW: Tensor | None) -> Tensor | None:
        if not self.takes_flow:
            return None
        if flow_BT2HW is None:
            if self.needs_flow:
                raise ValueError(
                    "flow_prior is 'given', but no flow was passed; pass one, or set "
                    "network.flow_prior to 'registration'"
                )
            return register_burst(burst_BTIHW)
        expected = (*burst_BTIHW.shape[:2], 2, *burst_BTIHW.shape[3:])
        if tuple(flow_BT2HW.shape) != expected:
            raise ValueError(
                f"flow has shape {tuple(flow_BT2HW.shape)}; this burst needs {expected}"
            )
        return flow_BT2HW

    def _of_length(
        self, burst_BTIHW: Tensor, flow_BT2HW: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Repeat or drop frames until the burst has the length that the fusion needs."""
        frames = burst_BTIHW.shape[1]
        wanted = self.burst
        if all(fusion.any_length for fusion in self.fusions):
            wanted = max(frames, 2)
        if frames == wanted:
            return burst_BTIHW, flow_BT2HW
        if self.other_lengths == "error":
            raise ValueError(
                f"the burst has {frames} frames, but the fusion is built for {wanted}; set "
                "network.other_lengths to 'adapt', or use a fusion that takes any number, such as "
                "{type: qssm, frame_mix: mean_max, denoise: mean_max}"
            )
        if frames < wanted:
            chosen = [*range(frames), *([0] * (wanted - frames))]
        else:
            chosen = [round(i * (frames - 1) / (wanted - 1)) for i in range(wanted)]
        return burst_BTIHW[:, chosen], None if flow_BT2HW is None else flow_BT2HW[:, chosen]
