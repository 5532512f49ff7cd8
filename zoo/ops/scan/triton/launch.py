"""Allocates memory for the Triton kernels and launches them. Importing it needs Triton.

Memory besides inputs and outputs. The rows of all steps: about 2 N + R floats for each step of each
direction. Forward: (N + 1) K E / 256 floats per token for a long sequence; a short one is cut into
shorter chunks, and each halving of the chunk length doubles this. With ``reduce``, also the sum
over directions in float32. Backward: twice that, the float32 sums that become gradients, and
scratch memory that depends on the GPU and not on the number of tokens.

Shape suffixes: see :mod:`zoo.ops.scan.triton.kernels`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zoo.ops.scan.contract import ScanGradients, ScanInputs
from zoo.ops.scan.triton import device, gradients, kernels
from zoo.ops.scan.triton.plan import STEPS_PACKED, Plan, on, plan_of, strides

STORE, ADD, ATOMIC = (m.value for m in (device.STORE, device.ADD, device.ATOMIC))


class _Call:
    """One call: its plan, and its tensors by the names that kernels give them."""

    def __init__(self, inputs: ScanInputs, grad_y: Tensor | None = None) -> None:
        u, delta, weight, bias, A, B, C, D, order = inputs
        u, delta, B, C = (_dense_rows(t) for t in (u, delta, B, C))
        bias, order = bias.contiguous(), order.contiguous()
        grad_y = None if grad_y is None else _dense_rows(grad_y)
        dense = ScanInputs(u, delta, weight, bias, A, B, C, D, order)
        self.plan: Plan = plan_of(dense, grad_y)
        self.device = u.device
        self.tensors: dict[str, Tensor] = {
            "u_ptr": u,
            "delta_ptr": delta,
            # Without a weight any pointer will do: the kernel never reads it.
            "weight_ptr": bias if weight is None else weight.transpose(1, 2).contiguous(),
            "bias_ptr": bias,
            "A_ptr": A.transpose(1, 2).contiguous(),
            "B_ptr": B,
            "C_ptr": C,
            "D_ptr": D.contiguous(),
            "order_ptr": order,
        }
        if grad_y is not None:
            self.tensors["gy_ptr"] = grad_y

    def floats(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.float32, device=self.device)

    def zeros(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.zeros(shape, dtype=dtype, device=self.device)

    def launch(
        self,
        kernel: Any,
        programs: int,
        tensors: dict[str, Tensor],
        registers: int = 0,
        **constants: Any,
    ) -> None:
        """Launch a kernel with these tensors beside those of the call: see :meth:`Plan.launch`."""
        self.plan.launch(kernel, programs, self.tensors | tensors, registers, **constants)

    def pack(self) -> None:
        """Allocate and write the rows of all steps, which the other kernels read."""
        plan = self.plan
        rows = self.floats(plan.batch, plan.directions, plan.held, plan.width)
        self.tensors["rows_ptr"] = rows
        groups = -(-plan.held // STEPS_PACKED)
        programs = groups * plan.batch * plan.directions
        self.launch(kernels.pack_rows, programs, {}, groups=groups, BLOCK_S=STEPS_PACKED)

    def boundaries(self) -> Tensor:
        """Allocate one state for each boundary, (B, K, M, N, E)."""
        plan = self.plan
        shape = plan.batch, plan.directions, plan.chunks - 1, plan.states, plan.channels
        return self.floats(*shape)

    def states_at_boundaries(self, backward: bool) -> tuple[Tensor, Tensor]:
        """The state before chunks 1, 2, ... and the gradient of the state after chunks 0, 1, ...

        Without ``backward`` the second tensor has no meaning; do not read it.
        """
        plan = self.plan
        state = self.boundaries()
        carry = self.boundaries() if backward else state
        if plan.chunks == 1:
            return state, carry
        total = self.floats(plan.batch, plan.directions, plan.chunks, plan.channels)
        self.launch(
            kernels.chunk_states,
            plan.blocks * plan.chunks * plan.batch * plan.directions,
            {
                **{"state_ptr": state, "carry_ptr": carry, "total_ptr": total},
                "gy_ptr": self.tensors["gy_ptr"] if backward else state,
            },
            plan.table.summary_registers if backward else plan.table.registers,
            BACKWARD=backward,
        )
        self._run_over_chunks(state, total, reverse=False)
        if backward:
            self._run_over_chunks(carry, total, reverse=True)
        return state, carry

    def _run_over_chunks(self, state: Tensor, total: Tensor, *, reverse: bool) -> None:
        plan = self.plan
        block, at_once = plan.table.carry_block
        blocks = -(-plan.channels // block)
        self.launch(
            kernels.carry_states,
            blocks * plan.states * plan.batch * plan.directions,
            {"state_ptr": state, "total_ptr": total},
            boundaries=plan.chunks - 1,
            shift=int(reverse),
            blocks=blocks,
            REVERSED=reverse,
            BLOCK_E=block,
            BLOCK_M=at_once,
        )


def forward(inputs: ScanInputs, reduce: bool) -> Tensor:
    call = _Call(inputs)
    plan, dtype = call.plan, inputs.u.dtype
    mode, launches = _sums_over_directions(plan.directions, reduce)
    place = torch.float32 if mode != STORE else dtype
    inner = () if reduce else (plan.directions,)
    y = call.zeros(plan.batch, plan.tokens, *inner, plan.channels, dtype=place)
    with on(call.device):
        call.pack()
        state, _ = call.states_at_boundaries(backward=False)
        for first, walked in launches:
            call.launch(
                kernels.outputs,
                plan.blocks * plan.chunks * plan.batch * walked,
                {"state_ptr": state, "y_ptr": y},
                plan.table.registers,
                **{"y_k": 0, **strides("y", y)},
                first=first,
                walked=walked,
                MODE=mode,
            )
    return y.to(dtype)


def backward(inputs: ScanInputs, grad_y: Tensor, reduce: bool) -> ScanGradients:
    call = _Call(inputs, grad_y)
    plan = call.plan
    rows = (plan.batch, plan.tokens, plan.directions)
    mode, launches = _sums_over_directions(plan.directions, summed=True)
    gu = call.zeros(plan.batch, plan.tokens, plan.channels)

    few = plan.table.gradient_steps
    copies, shared_mode = _shared_sums(plan.blocks)
    gB, gC = (call.zeros(copies, *rows, plan.states) for _ in range(2))
    if plan.low_rank:
        gdelta = call.zeros(copies, *rows, plan.rank)
    else:
        gdelta = call.zeros(1, *rows, plan.channels, dtype=inputs.delta.dtype)

    pairs = plan.directions * plan.blocks
    slots = plan.slots(pairs)
    parameters = call.zeros(slots, plan.directions, plan.states + plan.rank + 2, plan.channels)
    kept = -(-plan.length // few)
    with on(call.device):
        call.pack()
        state, carry = call.states_at_boundaries(backward=True)
        scratch = call.floats(slots, pairs, kept, plan.constants["BLOCK_N"], plan.block)
        for first, walked in launches:
            call.launch(
                gradients.gradients,
                plan.blocks * walked * slots,
                {
                    **{"state_ptr": state, "carry_ptr": carry, "scratch_ptr": scratch},
                    **{"gu_ptr": gu, "gdelta_ptr": gdelta, "gB_ptr": gB, "gC_ptr": gC},
                    "parameter_ptr": parameters,
                },
                plan.table.gradient_registers,
                first=first,
                walked=walked,
                slots=slots,
                part=plan.batch * plan.tokens * plan.directions if copies > 1 else 0,
                MODE=mode,
                SHARED_MODE=shared_mode,
                FEW=few,
            )
    gA, gweight, gbias, gD = parameters.sum(0).split((plan.states, plan.rank, 1, 1), dim=1)
    dtype = inputs.u.dtype
    return ScanGradients(
        u=gu.to(dtype),
        delta=_sum_copies(gdelta, dtype),
        delta_weight=gweight.transpose(1, 2).contiguous() if plan.low_rank else None,
        delta_bias=gbias.squeeze(1).contiguous(),
        A=gA.transpose(1, 2).contiguous(),
        B=_sum_copies(gB, dtype),
        C=_sum_copies(gC, dtype),
        D=gD.squeeze(1).contiguous(),
    )


def _sums_over_directions(directions: int, summed: bool) -> tuple[int, list[tuple[int, int]]]:
    """The write mode for sums over directions, and (first, walked) of each launch."""
    if not summed or directions == 1:
        return STORE, [(0, directions)]
    if torch.are_deterministic_algorithms_enabled():
        return ADD, [(k, 1) for k in range(directions)]
    return ATOMIC, [(0, directions)]


def _shared_sums(blocks: int) -> tuple[int, int]:
    """For sums over blocks of channels: the number of copies and the write mode."""
    if blocks == 1:
        return 1, STORE
    return (blocks, STORE) if torch.are_deterministic_algorithms_enabled() else (1, ATOMIC)


def _dense_rows(tensor: Tensor) -> Tensor:
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def _sum_copies(copies: Tensor, dtype: torch.dtype) -> Tensor:
    return (copies[0] if len(copies) == 1 else copies.sum(0)).to(dtype)
