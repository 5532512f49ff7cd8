"""Allocates memory for the Triton kernels and launches them. Importing it needs Triton.

Memory besides inputs and outputs. Forward: (N + 1) K E / 256 floats per token for a long sequence;
a short one is cut into shorter chunks, and each halving of the chunk length doubles this. With
``reduce``, also the sum over directions in float32. Backward: twice that, the float32 sums that
become gradients, and scratch memory that depends on the GPU and not on the number of tokens.

Shape suffixes: see :mod:`zoo.ops.scan.triton.kernels`.
"""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import triton
from torch import Tensor

from zoo.ops.scan.contract import ScanGradients, ScanInputs
from zoo.ops.scan.triton import device, gradients, kernels
from zoo.ops.scan.triton.configurations import Configuration, chunk_length, configuration

PADDING = 16
"""The channels of stored states are padded to a multiple of this: the compiler knows that a size
divides by 16, and then moves four channels at once."""

STORE, ADD, ATOMIC = (m.value for m in (device.STORE, device.ADD, device.ATOMIC))


@functools.cache
def _processors(device: torch.device) -> int:
    if device.type != "cuda":
        return 1
    return torch.cuda.get_device_properties(device).multi_processor_count


class _Call:
    """One call: its sizes, its chunks and blocks, and the arguments that the kernels share."""

    def __init__(self, inputs: ScanInputs, grad_y: Tensor | None = None) -> None:
        u, delta, weight, bias, A, B, C, D, order = inputs
        self.batch, self.tokens, self.channels = u.shape
        self.directions, self.steps = order.shape[-2:]
        self.padded = -(-self.channels // PADDING) * PADDING
        self.states, self.rank = A.shape[2], 0 if weight is None else delta.shape[3]
        self.low_rank = weight is not None
        self.device = u.device
        self.table: Configuration = configuration(u.device)
        self.processors = _processors(u.device)

        states = triton.next_power_of_2(self.states)
        self.block = self.table.channels(states, gradients=grad_y is not None)
        self.blocks = -(-self.channels // self.block)
        lanes = self.batch * self.directions * self.blocks
        self.length = chunk_length(
            self.steps, lanes, self.processors, self.table, gradients=grad_y is not None
        )
        self.chunks = -(-self.steps // self.length)

        u, delta, B, C = (_dense_rows(t) for t in (u, delta, B, C))
        self.A = A.transpose(1, 2).contiguous()
        order = order.contiguous()
        tensors = {
            "u_ptr": u,
            "delta_ptr": delta,
            # Without a weight any pointer will do: the kernel never reads it.
            "weight_ptr": bias if weight is None else weight.transpose(1, 2).contiguous(),
            "bias_ptr": bias.contiguous(),
            "A_ptr": self.A,
            "B_ptr": B,
            "C_ptr": C,
            "D_ptr": D.contiguous(),
            "order_ptr": order,
        }
        shared = order.dim() == 2
        strides = {"order_b": 0 if shared else order.stride(0), "order_k": order.stride(-2)}
        for name, tensor in (("u", u), ("delta", delta), ("B", B), ("C", C)):
            strides.update(_strides(name, tensor))
        if grad_y is not None:
            grad_y = _dense_rows(grad_y)
            tensors["gy_ptr"] = grad_y
            strides.update({"gy_k": 0, **_strides("gy", grad_y)})
        sizes = {
            "tokens": self.tokens,
            "steps": self.steps,
            "directions": self.directions,
            "channels": self.channels,
            "padded": self.padded,
            "rank": self.rank,
            "states": self.states,
            "chunks": self.chunks,
            "length": self.length,
            "LOW_RANK": self.low_rank,
            "BLOCK_N": states,
            "BLOCK_E": self.block,
            "blocks": self.blocks,
            "BLOCK_R": triton.next_power_of_2(max(1, self.rank)),
        }
        self.shared: dict[str, Any] = tensors | strides | sizes

    def floats(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.float32, device=self.device)

    def zeros(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.zeros(shape, dtype=dtype, device=self.device)

    def boundaries(self) -> Tensor:
        """Allocate one state for each boundary, (B, K, M, N, padded E)."""
        shape = self.batch, self.directions, self.chunks - 1, self.states, self.padded
        return self.floats(*shape)

    def states_at_boundaries(self, backward: bool) -> tuple[Tensor, Tensor]:
        """The state before chunks 1, 2, ... and the gradient of the state after chunks 0, 1, ...

        Without ``backward`` the second tensor has no meaning; do not read it.
        """
        state = self.boundaries()
        carry = self.boundaries() if backward else state
        if self.chunks == 1:
            return state, carry
        total = self.floats(self.batch, self.directions, self.chunks, self.channels)
        grid = self.blocks * self.chunks * self.batch * self.directions
        given = self.shared
        if not backward:
            given = given | {"gy_ptr": state, **_strides("gy", state)}  # never read
        _launch(
            kernels.chunk_states,
            grid,
            **_known(kernels.chunk_states, given),
            state_ptr=state,
            carry_ptr=carry,
            total_ptr=total,
            BACKWARD=backward,
        )
        self._run_over_chunks(state, total, reverse=False)
        if backward:
            self._run_over_chunks(carry, total, reverse=True)
        return state, carry

    def _run_over_chunks(self, state: Tensor, total: Tensor, *, reverse: bool) -> None:
        block, at_once = self.table.carry_block
        blocks = -(-self.channels // block)
        _launch(
            kernels.carry_states,
            blocks * self.states * self.batch * self.directions,
            state_ptr=state,
            A_ptr=self.A,
            total_ptr=total,
            directions=self.directions,
            channels=self.channels,
            padded=self.padded,
            states=self.states,
            chunks=self.chunks,
            boundaries=self.chunks - 1,
            shift=int(reverse),
            blocks=blocks,
            REVERSED=reverse,
            BLOCK_E=block,
            BLOCK_M=at_once,
        )

    def launches(self, summed: bool) -> tuple[int, list[tuple[int, int]]]:
        """The write mode for sums over directions, and (first, walked) of each launch."""
        if not summed or self.directions == 1:
            return STORE, [(0, self.directions)]
        if torch.are_deterministic_algorithms_enabled():
            return ADD, [(k, 1) for k in range(self.directions)]
        return ATOMIC, [(0, self.directions)]

    def slots(self, pairs: int) -> int:
        """Number of programs that share the chunks of one of ``pairs`` (direction, channel block)
        pairs."""
        at_once = self.table.gradient_warps * self.processors // pairs
        return max(1, min(at_once, self.batch * self.chunks))


def forward(inputs: ScanInputs, reduce: bool) -> Tensor:
    call = _Call(inputs)
    dtype = inputs.u.dtype
    mode, launches = call.launches(reduce)
    place = torch.float32 if mode != STORE else dtype
    inner = () if reduce else (call.directions,)
    y = call.zeros(call.batch, call.tokens, *inner, call.channels, dtype=place)
    with _on(call.device):
        state, _ = call.states_at_boundaries(backward=False)
        for first, walked in launches:
            _launch(
                kernels.outputs,
                call.blocks * call.chunks * call.batch * walked,
                **_known(kernels.outputs, call.shared),
                **{"y_k": 0, **_strides("y", y)},
                state_ptr=state,
                y_ptr=y,
                first=first,
                walked=walked,
                MODE=mode,
            )
    return y.to(dtype)


def backward(inputs: ScanInputs, grad_y: Tensor, reduce: bool) -> ScanGradients:
    call = _Call(inputs, grad_y)
    rows = (call.batch, call.tokens, call.directions)
    mode, launches = call.launches(summed=True)
    gu = call.zeros(call.batch, call.tokens, call.channels)

    few = call.table.gradient_steps
    copies, shared_mode = _shared_sums(call.blocks)
    gB, gC = (call.zeros(copies, *rows, call.states) for _ in range(2))
    if call.low_rank:
        gdelta = call.zeros(copies, *rows, call.rank)
    else:
        gdelta = call.zeros(1, *rows, call.channels, dtype=inputs.delta.dtype)

    pairs = call.directions * call.blocks
    slots = call.slots(pairs)
    parameters = call.zeros(slots, call.directions, call.states + call.rank + 2, call.channels)
    kept = -(-call.length // few)
    with _on(call.device):
        state, carry = call.states_at_boundaries(backward=True)
        scratch = call.floats(slots, pairs, kept, call.shared["BLOCK_N"], call.block)
        for first, walked in launches:
            _launch(
                gradients.gradients,
                call.blocks * walked * slots,
                **_known(gradients.gradients, call.shared),
                state_ptr=state,
                carry_ptr=carry,
                scratch_ptr=scratch,
                gu_ptr=gu,
                gdelta_ptr=gdelta,
                gB_ptr=gB,
                gC_ptr=gC,
                parameter_ptr=parameters,
                batch=call.batch,
                first=first,
                walked=walked,
                slots=slots,
                part=call.batch * call.tokens * call.directions if copies > 1 else 0,
                MODE=mode,
                SHARED_MODE=shared_mode,
                FEW=few,
                **_at_most(call.table.gradient_registers),
            )
    gA, gweight, gbias, gD = parameters.sum(0).split((call.states, call.rank, 1, 1), dim=1)
    dtype = inputs.u.dtype
    return ScanGradients(
        u=gu.to(dtype),
        delta=_sum_copies(gdelta, dtype),
        delta_weight=gweight.transpose(1, 2).contiguous() if call.low_rank else None,
        delta_bias=gbias.squeeze(1).contiguous(),
        A=gA.transpose(1, 2).contiguous(),
        B=_sum_copies(gB, dtype),
        C=_sum_copies(gC, dtype),
        D=gD.squeeze(1).contiguous(),
    )


def _shared_sums(blocks: int) -> tuple[int, int]:
    """For sums over blocks of channels: the number of copies and the write mode."""
    if blocks == 1:
        return 1, STORE
    return (blocks, STORE) if torch.are_deterministic_algorithms_enabled() else (1, ATOMIC)


def _launch(kernel: Any, programs: int, **arguments: Any) -> None:
    # The recurrence consists of fused multiply-adds, and Triton's default is about to change.
    kernel[(programs,)](**arguments, num_warps=1, enable_fp_fusion=True)


def _at_most(registers: int) -> dict[str, int]:
    """Option of a launch that limits registers, which AMD's compiler does not have."""
    return {"maxnreg": registers} if registers and torch.version.hip is None else {}


@functools.cache
def _names(kernel: Any) -> frozenset[str]:
    return frozenset(kernel.arg_names)


def _known(kernel: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    names = _names(kernel)
    return {name: value for name, value in arguments.items() if name in names}


def _on(device: torch.device) -> AbstractContextManager[Any]:
    """Make ``device`` current: Triton launches on the current device, not on the tensors'."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _strides(name: str, tensor: Tensor) -> dict[str, int]:
    """Strides of all axes but the last, by argument name; K is missing in sums over directions."""
    axes = (f"{name}_b", f"{name}_l", f"{name}_k")
    return dict(zip(axes, tensor.stride()[:-1], strict=False))


def _dense_rows(tensor: Tensor) -> Tensor:
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def _sum_copies(copies: Tensor, dtype: torch.dtype) -> Tensor:
    return (copies[0] if len(copies) == 1 else copies.sum(0)).to(dtype)
