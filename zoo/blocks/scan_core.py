"""What all parts with a selective scan share: its parameters and the operator's inputs.

Shape suffixes: B batch, H height, W width, C channels, L tokens (H * W), K directions,
E inner channels, R rank of the step size, N states, X outputs of a projection.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.blocks.contract import MergeFactory
from zoo.blocks.joined import activated, gated_norm
from zoo.blocks.layers import Conv2d, check_kernel
from zoo.blocks.norm import LayerNorm, NormFactory
from zoo.blocks.row_stages import depthwise_stage, norm_stage, product_stage
from zoo.errors import refuse_no_effect
from zoo.ops.passes import NormStage, ProductStage, Stage, through_rows
from zoo.ops.scan.contract import ScanInputs
from zoo.scans import ScanOrder

STEP_RANGE = (1e-3, 1e-1)
"""Range of the initial step sizes; they are log-uniform in it (Mamba, Sec. 3.6)."""


USUAL_EXPAND = 2.0
"""Inner channels as a multiple of the channels, by default (Mamba, Sec. 3.4)."""


class ScanSizes(NamedTuple):
    """Sizes of a selective scan.

    Attributes:
        inner: inner channels E.
        rank: rank R of the step size delta.
        states: number of states N of each inner channel.
    """

    inner: int
    rank: int
    states: int


MOST_STATES = 256
"""Largest number of states of a channel. The time and memory of the scan are proportional to it."""


def scan_sizes(
    dim: int,
    *,
    expand: float | None,
    d_state: int,
    dt_rank: int | None = None,
    d_inner: int | None = None,
) -> ScanSizes:
    """Compute the sizes of a scan from a mixer's options.

    Args:
        dim: channels C.
        expand: inner channels E as a multiple of C, rounded down to an integer; None for 2, or
            ``d_inner``.
        d_state: number of states N of each inner channel.
        dt_rank: rank R of the step size delta; None for ceil(C / 16).
        d_inner: inner channels E, instead of ``expand``; None to use ``expand``.

    Raises:
        ValueError: if a size is below 1, the number of states is too large, or ``expand`` and
            ``d_inner`` are both given; the message names it.
    """
    if expand is not None and d_inner is not None:
        refuse_no_effect(
            f"expand is {expand:g} and d_inner is {d_inner}, but each sets the inner channels; "
            "leave expand out, or set it to null where it is inherited"
        )
    multiple = USUAL_EXPAND if expand is None else expand
    inner = int(multiple * dim) if d_inner is None else d_inner
    rank = math.ceil(dim / 16) if dt_rank is None else dt_rank
    width = "expand * dim" if d_inner is None else "d_inner"
    for name, value in {width: inner, "d_state": d_state, "dt_rank": rank}.items():
        if value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 1")
    if d_state > MOST_STATES:
        raise ValueError(f"d_state is {d_state}; it must be at most {MOST_STATES}")
    return ScanSizes(inner, rank, d_state)


class ScanCore(nn.Module):
    """Parameters of a selective scan in K directions; computes the operator's inputs.

    Parts that scan derive from it and call :meth:`reset_parameters` at the end of their
    constructor. A part that can compute an order from the content of the image sets
    ``takes_content``.

    Args:
        sizes: inner channels E, rank R and states N.
        scan: the scan order; it has K directions.
        projections: number of outputs X of each token projection, by the name of its weight, which
            has shape (K, X, E).

    Raises:
        ValueError: if the order depends on the image, and the part cannot compute it.
    """

    takes_content: ClassVar[bool] = False

    def __init__(
        self, sizes: ScanSizes, *, scan: ScanOrder, projections: Mapping[str, int]
    ) -> None:
        super().__init__()
        if scan.by_content and not self.takes_content:
            raise ValueError(
                f"the order of {type(scan).__name__} depends on the image, which "
                f"{type(self).__name__} cannot scan by; use the mixer 'attentive'"
            )
        self.scan = scan
        self.projections = tuple(projections)
        inner, rank, states = sizes
        directions = len(scan.directions)
        for name, outputs in projections.items():
            setattr(self, name, nn.Parameter(torch.empty(directions, outputs, inner)))
        self.dt_proj_weight = nn.Parameter(torch.empty(directions, inner, rank))
        self.dt_proj_bias = nn.Parameter(torch.empty(directions, inner))
        self.A_log = nn.Parameter(torch.empty(directions, inner, states))
        self.D = nn.Parameter(torch.ones(directions, inner))

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialise the scan's parameters (Mamba, Sec. 3.6), and no other layers."""
        _, inner, rank = self.dt_proj_weight.shape
        for name in self.projections:
            nn.init.uniform_(self.get_parameter(name), -(inner**-0.5), inner**-0.5)
        nn.init.uniform_(self.dt_proj_weight, -(rank**-0.5), rank**-0.5)
        low, high = (math.log(s) for s in STEP_RANGE)
        step = torch.exp(torch.rand_like(self.dt_proj_bias) * (high - low) + low).clamp_(min=1e-4)
        self.dt_proj_bias.copy_(step + torch.log(-torch.expm1(-step)))  # inverse softplus
        self.A_log.copy_(torch.arange(1, self.A_log.shape[-1] + 1).log())

    def project(self, name: str, x: Tensor, which: int | None = None) -> Tensor:
        """Project tokens for all directions in one matrix product: ``(..., E) -> (..., K, X)``.

        Args:
            name: name of the projection.
            x: the tokens.
            which: the only direction to return; None for all.
        """
        layer = self._modules.get(name)
        if layer is not None:
            y: Tensor = layer(x).unflatten(-1, (len(self.dt_proj_weight), -1))
            return y if which is None else y[..., which : which + 1, :]
        weight_KXE: Tensor = getattr(self, name)
        if which is not None:
            weight_KXE = weight_KXE[which : which + 1]
        return F.linear(x, weight_KXE.flatten(0, 1)).unflatten(-1, (len(weight_KXE), -1))

    @property
    def is_linear(self) -> bool:
        """Whether projections are in ``nn.Linear`` layers; see :func:`linear_projections`."""
        return any(name in self._modules for name in self.projections)

    def use_linear(self, name: str) -> None:
        """Put a projection into an ``nn.Linear`` of its name; see :func:`linear_projections`."""
        if name in self._modules:
            return
        weight_KXE = self.get_parameter(name)
        directions, outputs, inner = weight_KXE.shape
        with torch.device("meta"):  # its random values would only be thrown away
            layer = nn.Linear(inner, directions * outputs, bias=False)
        layer.weight = nn.Parameter(weight_KXE.detach().flatten(0, 1), weight_KXE.requires_grad)
        delattr(self, name)
        self.add_module(name, layer.train(self.training))

    def decays(self) -> Tensor:
        """The scan's A (K, E, N), from its parameter."""
        return -self.A_log.exp()

    def operands(
        self,
        u_BLE: Tensor,
        delta_BLKR: Tensor,
        B_BLKN: Tensor,
        C_BLKN: Tensor,
        order_KS: Tensor,
        which: slice | None = None,
    ) -> ScanInputs:
        """Return the inputs of the scan operator: these tensors and the parameters.

        Args:
            u_BLE: tokens.
            delta_BLKR: low-rank step sizes of the tokens.
            B_BLKN: input weights of the tokens.
            C_BLKN: output weights of the tokens.
            order_KS: the scan order.
            which: the directions that the K axis of the tensors holds; None for all.
        """
        weight, bias, A, D = (
            parameter if which is None else parameter[which]
            for parameter in (self.dt_proj_weight, self.dt_proj_bias, self.decays(), self.D)
        )
        return ScanInputs(
            u=u_BLE,
            delta=delta_BLKR,
            delta_weight=weight,
            delta_bias=bias,
            A=A,
            B=B_BLKN,
            C=C_BLKN,
            D=D,
            order=order_KS,
        )


def linear_projections(network: nn.Module) -> nn.Module:
    """Put the token projections of all scans into ``nn.Linear`` layers, in place.

    Quantisers look for such layers. The outputs stay the same. The names in the state dict change,
    so load the weights before, and save the network with the tool that quantises it.

    Args:
        network: the network; its scans derive from :class:`ScanCore`.

    Returns:
        The same network.
    """
    for core in list(network.modules()):
        if isinstance(core, ScanCore):
            for name in core.projections:
                core.use_linear(name)
    return network


class TokenScan(ScanCore):
    """A scan core that computes delta, B and C from the tokens it scans, as Mamba does.

    Args:
        sizes: inner channels E, rank R and states N.
        scan: the scan order; it has K directions.
    """

    x_proj_weight: nn.Parameter

    def __init__(self, sizes: ScanSizes, *, scan: ScanOrder) -> None:
        outputs = (sizes.rank, sizes.states, sizes.states)
        super().__init__(sizes, scan=scan, projections={"x_proj_weight": sum(outputs)})
        self.sizes = outputs

    def scan_inputs(
        self, u_BLE: Tensor, order_KS: Tensor, projected_BLKX: Tensor | None = None
    ) -> ScanInputs:
        """Return the inputs of the scan operator for these tokens and this order.

        Args:
            u_BLE: the tokens.
            order_KS: the scan order.
            projected_BLKX: the projection of the tokens, if it is known already.
        """
        if projected_BLKX is None:
            projected_BLKX = self.project("x_proj_weight", u_BLE)
        delta_BLKR, B_BLKN, C_BLKN = projected_BLKX.split(self.sizes, dim=-1)
        return self.operands(u_BLE, delta_BLKR, B_BLKN, C_BLKN, order_KS)


class GatedScan(TokenScan):
    """The layers around the scan of an image: projections, convolution, gate (MambaIR, Sec. 3.3)::

        u, gate = split(in_proj(x))
        out = out_proj(out_norm(scan(silu(conv(u)))) * silu(gate))

    Args:
        dim: channels C.
        sizes: inner channels E, rank R and states N.
        scan: the scan order; it has K directions.
        d_conv: kernel size of the depthwise convolution in pixels, odd.
        merge: builds the part that merges the directions; None if the mixer needs none.
        bias: whether the two projections have biases.
        norm: builds the norm after the scan.
        heads: number of scans that share the layers, each with E channels of its own.

    Raises:
        ValueError: if ``d_conv`` is even or below 1.
    """

    def __init__(
        self,
        dim: int,
        *,
        sizes: ScanSizes,
        scan: ScanOrder,
        d_conv: int,
        merge: MergeFactory | None,
        bias: bool = False,
        norm: NormFactory = LayerNorm,
        heads: int = 1,
    ) -> None:
        check_kernel(d_conv, "d_conv")
        super().__init__(sizes, scan=scan)
        inner = heads * sizes.inner
        self.in_proj = nn.Linear(dim, 2 * inner, bias=bias)
        self.conv = Conv2d(inner, inner, d_conv, padding=d_conv // 2, groups=inner)
        if merge is not None:
            self.merge = merge(inner, directions=len(scan.directions))
        self.out_norm = norm(inner)
        self.out_proj = nn.Linear(inner, dim, bias=bias)
        self.reset_parameters()

    def enter(self, x_BHWC: Tensor) -> tuple[Tensor, Tensor]:
        """Return the tokens to scan and their gate, each (B, H, W, E)."""
        x_BHWE, gate_BHWE = self.in_proj(x_BHWC).chunk(2, dim=-1)
        return activated(self.conv, x_BHWE, "silu"), gate_BHWE

    def enter_and_project(
        self, x_BHWC: Tensor, norm: nn.Module | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return what :meth:`enter` does and the tokens' projection (B, H, W, K, X).

        The projection is None where it is not computed on the way; see :meth:`scan_inputs`.

        Args:
            x_BHWC: features.
            norm: a norm that comes first, or None.
        """
        found = self._through_rows(x_BHWC, norm)
        if found is None:
            x_BHWC = x_BHWC if norm is None else norm(x_BHWC)
            return *self.enter(x_BHWC), None
        gate_BHWE, u_BHWE, projected_BHWY = found
        directions = len(self.dt_proj_weight)
        return u_BHWE, gate_BHWE, projected_BHWY.unflatten(-1, (directions, -1))

    def _through_rows(self, x_BHWC: Tensor, norm: nn.Module | None) -> tuple[Tensor, ...] | None:
        """The gate, the tokens and their projection, in one pass over rows where that runs."""
        stages = self.first_stages(norm)
        return None if stages is None else through_rows(x_BHWC, stages)

    def first_stages(self, norm: nn.Module | None) -> list[Stage] | None:
        """The stages that compute the gate, the tokens and their projection, and keep them.

        Args:
            norm: a norm that comes first, or None.
        """
        first, conv = product_stage(self.in_proj), depthwise_stage(self.conv, "silu")
        before = None if norm is None else norm_stage(norm)
        weight_KXE = self._parameters.get("x_proj_weight")
        unknown_norm = norm is not None and before is None
        if first is None or conv is None or weight_KXE is None or unknown_norm:
            return None
        projection = ProductStage(weight_KXE.flatten(0, 1), keep=0)
        inner = weight_KXE.shape[-1]
        stages: list[Stage] = [first._replace(keep=inner), conv._replace(keep=0), projection]
        return stages if before is None else [before, *stages]

    def leave_stages(self, gate_BHWE: Tensor) -> tuple[NormStage, ProductStage] | None:
        """The stages that compute what :meth:`leave` does from the scanned tokens, or None."""
        norm, product = norm_stage(self.out_norm, gate_BHWE), product_stage(self.out_proj)
        return None if norm is None or product is None else (norm, product)

    def gated(self, y_BHWE: Tensor, gate_BHWE: Tensor) -> Tensor:
        """Return the scanned tokens, normalised and multiplied by their gate, (B, H, W, E)."""
        return gated_norm(self.out_norm, y_BHWE, gate_BHWE)

    def leave(self, y_BHWE: Tensor, gate_BHWE: Tensor) -> Tensor:
        """Return the output (B, H, W, C) for the scanned tokens and their gate."""
        stages = self.leave_stages(gate_BHWE)
        if stages is not None:
            norm, product = stages
            found = through_rows(y_BHWE, [norm, product._replace(keep=0)])
            if found is not None:
                return found[0]
        return self.out_proj(self.gated(y_BHWE, gate_BHWE))
