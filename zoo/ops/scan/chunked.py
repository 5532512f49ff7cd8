"""The selective scan in vectorised PyTorch: needs no compiler and runs wherever torch does.

The sequence is processed in chunks. A chunk of steps is gathered for all directions and images at
once, and its decays and inputs are computed in a few large operations; only the recurrence itself
runs step by step, in place. Channels are innermost, so each step is one long contiguous
multiply-add. The backward pass stores only the states at chunk boundaries and recomputes the rest,
so memory grows with the square root of the sequence length.

Shape suffixes: B batch, L tokens, K directions, S steps, T steps of one chunk, E channels,
R rank, N states. Gathered tensors are time-major: (T, K, B, ...). In tokens (T, K, b), b is B if
each image has an order of its own, and 1 if all share one.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from zoo.ops.scan.contract import ScanGradients, ScanInputs

NAME = "chunked"


def summary() -> str:
    return "vectorised PyTorch, no compiler needed, any device"


STATE_ELEMENTS = 1 << 19
"""States held at once by the forward pass: 2 MiB in float32, the fastest of 2^14 to 2^20 tried."""


def unavailable() -> str | None:
    return None


def declines(inputs: ScanInputs) -> str | None:
    return None


class _Chunk(NamedTuple):
    """The values of T consecutive steps, in the dtype of the state, zero where order is -1."""

    token_TKb: Tensor
    """Token visited; L if order is -1. Sums over tokens have one extra row, which is dropped."""
    u_TKBE: Tensor
    step_TKBR: Tensor
    raw_TKBE: Tensor
    delta_TKBE: Tensor
    B_TKBN: Tensor
    C_TKBN: Tensor


class _Walk:
    """Gathers the chunks of a scan and runs the recurrence over them."""

    def __init__(self, inputs: ScanInputs, length: int) -> None:
        u_BLE, delta_BLKR, self.weight_KER, bias_KE, A_KEN, B_BLKN, C_BLKN, _, order = inputs
        self.dtype = bias_KE.dtype
        self.bias_K1E = bias_KE[:, None]
        self.A_K1NE = A_KEN.transpose(1, 2).contiguous()[:, None]
        self.u_LBE = u_BLE.transpose(0, 1)
        self.delta_LKBR, self.B_LKBN, self.C_LKBN = (
            t.permute(1, 2, 0, 3) for t in (delta_BLKR, B_BLKN, C_BLKN)
        )
        order_bKS = order if order.dim() == 3 else order[None]
        self.order_SKb = order_bKS.permute(2, 1, 0).contiguous().long()
        # On other devices the answer would have to be waited for.
        self.padded = order.device.type != "cpu" or bool((order < 0).any())
        self.batch, self.tokens, self.channels = u_BLE.shape
        self.directions, self.steps = order.shape[-2:]
        self.direction_K = torch.arange(self.directions, device=order.device)
        self.image_B = torch.arange(self.batch, device=order.device)
        # Reused by all chunks: allocating memory of this size costs more than the arithmetic.
        state_shape = (self.directions, self.batch, A_KEN.shape[2], self.channels)
        self.length = min(length, self.steps)
        self.decay_TKBNE, self.h_TKBNE = self.A_K1NE.new_empty(2, self.length, *state_shape)

    def empty_state(self) -> Tensor:
        """The state before the first step, ``h_KBNE``."""
        return torch.zeros_like(self.h_TKBNE[0])

    def visit(self, tensor_LKBX: Tensor, token_TKb: Tensor) -> Tensor:
        """Read the tokens of each direction and image, (T, K, B, X)."""
        if token_TKb.shape[2] == 1:
            return tensor_LKBX[token_TKb.squeeze(2), self.direction_K]
        return tensor_LKBX[token_TKb, self.direction_K[:, None], self.image_B]

    def gather(self, start: int) -> _Chunk:
        order_TKb = self.order_SKb[start : start + self.length]
        read_TKb = order_TKb.clamp(min=0)

        def read(tensor_LKBX: Tensor) -> Tensor:
            value_TKBX = self.visit(tensor_LKBX, read_TKb)
            if self.padded:
                value_TKBX = value_TKBX.masked_fill((order_TKb < 0)[..., None], 0)
            return value_TKBX.to(self.dtype)

        u_TKBE = read(self.u_LBE[:, None].expand(-1, self.directions, -1, -1))
        step_TKBR, B_TKBN, C_TKBN = map(read, (self.delta_LKBR, self.B_LKBN, self.C_LKBN))
        raw_TKBE = step_TKBR
        if self.weight_KER is not None:
            raw_TKBE = step_TKBR @ self.weight_KER.transpose(1, 2)
        raw_TKBE = raw_TKBE + self.bias_K1E
        delta_TKBE = raw_TKBE.clamp(min=0) + torch.log1p(torch.exp(-raw_TKBE.abs()))
        token_TKb = torch.where(order_TKb < 0, self.tokens, order_TKb)
        return _Chunk(token_TKb, u_TKBE, step_TKBR, raw_TKBE, delta_TKBE, B_TKBN, C_TKBN)

    def gather_gradient(self, chunk: _Chunk, grad_LKBE: Tensor) -> Tensor:
        """Gather the gradient of y."""
        padding_TKb = chunk.token_TKb == self.tokens
        gy_TKBE = self.visit(grad_LKBE, chunk.token_TKb.clamp(max=self.tokens - 1))
        return gy_TKBE.masked_fill(padding_TKb[..., None], 0).to(self.dtype)

    def run(self, chunk: _Chunk, h_KBNE: Tensor) -> tuple[Tensor, Tensor]:
        """Run the recurrence from the state ``h_KBNE``.

        Returns:
            The decay of each step and the state after each step, ``(T, K, B, N, E)``. Both are
            views of buffers that the next call overwrites.
        """
        decay_TKBNE, h_TKBNE = (b[: len(chunk.u_TKBE)] for b in (self.decay_TKBNE, self.h_TKBNE))
        delta_TKB1E = chunk.delta_TKBE[..., None, :]
        torch.mul(delta_TKB1E, self.A_K1NE, out=decay_TKBNE).exp_()
        du_TKB1E = delta_TKB1E * chunk.u_TKBE[..., None, :]
        torch.mul(du_TKB1E, chunk.B_TKBN[..., None], out=h_TKBNE)
        for decay_KBNE, step_KBNE in zip(decay_TKBNE.unbind(), h_TKBNE.unbind(), strict=True):
            h_KBNE = torch.addcmul(step_KBNE, decay_KBNE, h_KBNE, out=step_KBNE)
        return decay_TKBNE, h_TKBNE

    def states_before_chunks(self) -> dict[int, Tensor]:
        """Compute the state ``h_KBNE`` before each chunk. Keys are the chunks' first steps."""
        before, h_KBNE = {}, self.empty_state()
        for start in range(0, self.steps, self.length):
            before[start] = h_KBNE
            h_KBNE = self.run(self.gather(start), h_KBNE)[1][-1].clone()
        return before

    def run_back(self, decay_TKBNE: Tensor, gh_TKBNE: Tensor, carry_KBNE: Tensor) -> Tensor:
        """Add to ``gh_TKBNE``, in place, the gradients that reach each state from later steps.

        Args:
            decay_TKBNE: decays of the chunk's steps.
            gh_TKBNE: gradient of each state through the output of its own step.
            carry_KBNE: gradient of the chunk's last state through the chunks after it.

        Returns:
            The gradient of the state before the chunk: ``carry_KBNE`` of the chunk before.
        """
        gh_TKBNE[-1] += carry_KBNE
        decays, gradients = decay_TKBNE.unbind(), gh_TKBNE.unbind()
        for t in range(len(decays) - 2, -1, -1):
            torch.addcmul(gradients[t], decays[t + 1], gradients[t + 1], out=gradients[t])
        return decays[0] * gradients[0]


class _Total:
    """Sums that chunks add into: one for each token, or for each (token, direction) pair."""

    def __init__(self, walk: _Walk, width: int, *, per_direction: bool) -> None:
        self.walk = walk
        self.inner = (walk.directions,) if per_direction else ()
        rows = (walk.tokens + 1) * math.prod(self.inner)
        self.sum_PBX = walk.A_K1NE.new_zeros(rows, walk.batch, width)

    def add(self, chunk: _Chunk, value_TKBX: Tensor) -> None:
        row_TKb = chunk.token_TKb
        if self.inner:
            row_TKb = row_TKb * self.walk.directions + self.walk.direction_K[:, None]
        if row_TKb.shape[2] == 1:
            self.sum_PBX.index_add_(0, row_TKb.flatten(), value_TKBX.flatten(0, 1))
        else:
            row_TKB = row_TKb * self.walk.batch + self.walk.image_B
            self.sum_PBX.flatten(0, 1).index_add_(0, row_TKB.flatten(), value_TKBX.flatten(0, 2))

    def collect(self, dtype: torch.dtype) -> Tensor:
        """Return the sums as (B, L, K, X), or (B, L, X) without directions, in a dtype."""
        rows = self.sum_PBX.unflatten(0, (self.walk.tokens + 1, *self.inner))
        return rows[: self.walk.tokens].movedim(-2, 0).to(dtype).contiguous()


def _states_per_step(inputs: ScanInputs) -> int:
    return inputs.A.numel() * inputs.u.shape[0]


def forward(inputs: ScanInputs, reduce: bool) -> Tensor:
    walk = _Walk(inputs, max(1, STATE_ELEMENTS // _states_per_step(inputs)))
    y = _Total(walk, walk.channels, per_direction=not reduce)
    D_K1E = inputs.D[:, None]
    h_KBNE = walk.empty_state()
    for start in range(0, walk.steps, walk.length):
        chunk = walk.gather(start)
        _, h_TKBNE = walk.run(chunk, h_KBNE)
        h_KBNE = h_TKBNE[-1].clone()
        y_TKBE = (chunk.C_TKBN[..., None, :] @ h_TKBNE).squeeze(-2)
        y.add(chunk, torch.addcmul(y_TKBE, D_K1E, chunk.u_TKBE))
    return y.collect(inputs.u.dtype)


def backward(inputs: ScanInputs, grad_y: Tensor, reduce: bool) -> ScanGradients:
    # As many chunks as steps in a chunk: the least memory with a single recomputation.
    steps = inputs.order.shape[-1]
    walk = _Walk(inputs, max(math.isqrt(steps), STATE_ELEMENTS // _states_per_step(inputs)))
    states_before = walk.states_before_chunks()

    gu = _Total(walk, walk.channels, per_direction=False)
    gstep = _Total(walk, inputs.delta.shape[3], per_direction=True)
    gB, gC = (_Total(walk, inputs.B.shape[3], per_direction=True) for _ in range(2))
    gweight_KER = None if inputs.delta_weight is None else torch.zeros_like(inputs.delta_weight)
    gbias_KE, gD_KE = torch.zeros_like(inputs.delta_bias), torch.zeros_like(inputs.D)
    gA_KNE = torch.zeros_like(walk.A_K1NE[:, 0])
    D_K1E = inputs.D[:, None]
    grad_BLKE = grad_y[:, :, None].expand(-1, -1, walk.directions, -1) if reduce else grad_y
    grad_LKBE = grad_BLKE.permute(1, 2, 0, 3)

    carry_KBNE = walk.empty_state()  # gradient of the state that enters the next chunk
    for start, before_KBNE in reversed(states_before.items()):
        chunk = walk.gather(start)
        decay_TKBNE, h_TKBNE = walk.run(chunk, before_KBNE)
        gy_TKBE = walk.gather_gradient(chunk, grad_LKBE)

        gh_TKBNE = chunk.C_TKBN[..., None] * gy_TKBE[..., None, :]
        carry_KBNE = walk.run_back(decay_TKBNE, gh_TKBNE, carry_KBNE)

        du_TKBE = chunk.delta_TKBE * chunk.u_TKBE
        gC.add(chunk, (h_TKBNE @ gy_TKBE[..., None]).squeeze(-1))
        gB.add(chunk, (gh_TKBNE @ du_TKBE[..., None]).squeeze(-1))
        gdu_TKBE = (chunk.B_TKBN[..., None, :] @ gh_TKBNE).squeeze(-2)

        # d(decay) passes through delta * A; h_(t-1) is the state before the step.
        glog_TKBNE = decay_TKBNE.mul_(gh_TKBNE)
        glog_TKBNE[0] *= before_KBNE
        glog_TKBNE[1:] *= h_TKBNE[:-1]
        gdelta_TKBE = torch.addcmul((glog_TKBNE * walk.A_K1NE).sum(-2), gdu_TKBE, chunk.u_TKBE)
        gA_KNE += (glog_TKBNE * chunk.delta_TKBE[..., None, :]).sum((0, 2))
        gu.add(chunk, torch.addcmul(D_K1E * gy_TKBE, gdu_TKBE, chunk.delta_TKBE))
        gD_KE += (gy_TKBE * chunk.u_TKBE).sum((0, 2))

        graw_TKBE = gdelta_TKBE * torch.sigmoid(chunk.raw_TKBE)
        gbias_KE += graw_TKBE.sum((0, 2))
        if gweight_KER is None or inputs.delta_weight is None:
            gstep.add(chunk, graw_TKBE)
        else:
            gweight_KER += torch.einsum("tkbe,tkbr->ker", graw_TKBE, chunk.step_TKBR)
            gstep.add(chunk, graw_TKBE @ inputs.delta_weight)

    tokens = inputs.u.dtype
    return ScanGradients(
        u=gu.collect(tokens),
        delta=gstep.collect(tokens),
        delta_weight=gweight_KER,
        delta_bias=gbias_KE,
        A=gA_KNE.transpose(1, 2).contiguous(),
        B=gB.collect(tokens),
        C=gC.collect(tokens),
        D=gD_KE,
    )
