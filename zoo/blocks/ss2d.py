"""The 2D selective scan module: the mixer of MambaIR's and MambaCSR's blocks.

Shape suffixes: B batch, H height, W width, C channels, L tokens (H * W), E inner channels,
K directions, X outputs of a projection.
"""

from __future__ import annotations

from torch import Tensor, nn

from zoo.blocks.contract import MIXERS, MergeFactory, Mixer
from zoo.blocks.direction_merge import SumMerge
from zoo.blocks.joined import Methods
from zoo.blocks.norm import LayerNorm, NormFactory
from zoo.blocks.scan_core import GatedScan, scan_sizes
from zoo.scans import Raster, ScanOrder


@MIXERS.register("ss2d")
class SS2D(GatedScan, Mixer):
    """Gated selective scan over an image (MambaIR, Sec. 3.3 and 3.4, "VSSM").

    Projections act on each token alone, so the scan order does not affect them. They are computed
    once, in row-major order, in one product for all directions. The operator reads the tokens in
    scan order.

    Args:
        dim: channels C.
        scan: the scan order, with K directions; raster by default.
        expand: inner channels E as a multiple of C, rounded down to an integer; 2 by default.
        d_inner: inner channels E, instead of ``expand``; None to use ``expand``.
        d_state: number of states N of each inner channel.
        dt_rank: rank R of the step size delta; ceil(C / 16) by default.
        d_conv: kernel size of the depthwise convolution in pixels, odd.
        merge: builds the part that merges the directions.
        norm: builds the norm after the scan.
        bias: whether the two projections have biases.
    """

    def __init__(
        self,
        dim: int,
        *,
        scan: ScanOrder | None = None,
        expand: float | None = None,
        d_inner: int | None = None,
        d_state: int = 16,
        dt_rank: int | None = None,
        d_conv: int = 3,
        merge: MergeFactory = SumMerge,
        norm: NormFactory = LayerNorm,
        bias: bool = False,
    ) -> None:
        super().__init__(
            dim,
            sizes=scan_sizes(dim, expand=expand, d_inner=d_inner, d_state=d_state, dt_rank=dt_rank),
            scan=Raster() if scan is None else scan,
            d_conv=d_conv,
            merge=merge,
            norm=norm,
            bias=bias,
        )

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return self.leave(*self.begin(x_BHWC))

    def is_ordinary(self) -> bool:
        """Whether calling the mixer runs nothing but :meth:`begin` and :meth:`leave`."""
        return _METHODS.are_those_of(self)

    def begin(self, x_BHWC: Tensor, norm: nn.Module | None = None) -> tuple[Tensor, Tensor]:
        """Return the scanned tokens and their gate, each (B, H, W, E): all but :meth:`leave`.

        Args:
            x_BHWC: features.
            norm: a norm that comes first, or None.
        """
        u_BHWE, gate_BHWE, projected_BHWKX = self.enter_and_project(x_BHWC, norm)
        return self.scanned(u_BHWE, projected_BHWKX), gate_BHWE

    def scanned(self, u_BHWE: Tensor, projected_BHWKX: Tensor | None = None) -> Tensor:
        """Scan the tokens in all directions and merge these, (B, H, W, E).

        Args:
            u_BHWE: the tokens.
            projected_BHWKX: their projection, if it is known already.
        """
        _, height, width, _ = u_BHWE.shape
        order_KS = self.scan.order(height, width, u_BHWE.device)
        projected_BLKX = None if projected_BHWKX is None else projected_BHWKX.flatten(1, 2)
        y_BLE = self.merge(self.scan_inputs(u_BHWE.flatten(1, 2), order_KS, projected_BLKX))
        return y_BLE.unflatten(1, (height, width))


_METHODS = Methods(
    SS2D,
    *("begin", "leave", "scanned", "enter_and_project", "first_stages", "leave_stages", "gated"),
    *("project", "scan_inputs", "operands", "decays"),
)
