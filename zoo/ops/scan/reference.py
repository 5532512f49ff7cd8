"""The selective scan by its definition: a loop over steps, in the dtype of the state.

The outputs and gradients of every other backend are compared with this one. Its gradients come from
autograd, so they follow from the definition alone.

Shape suffixes: B batch, L tokens, K directions, S steps, E channels, R rank, N states.
Source: Gu and Dao, "Mamba", Sec. 3.2 and Algorithm 2, with an explicit order of tokens.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.ops.scan.contract import ScanGradients, ScanInputs, differentiable, gradients_of
from zoo.ops.scan.order import paths_of_images

NAME = "reference"


def summary() -> str:
    return "the definition: a readable loop over steps, for comparison"


def unavailable() -> str | None:
    return None


def declines(inputs: ScanInputs) -> str | None:
    return None


def scan(inputs: ScanInputs, reduce: bool) -> Tensor:
    """Compute y with differentiable tensor operations, in the dtype of the state."""
    u_BLE, delta_BLKR, weight_KER, bias_KE, A_KEN, B_BLKN, C_BLKN, D_KE, order = inputs
    state = bias_KE.dtype
    batch, tokens, channels = u_BLE.shape
    directions = len(bias_KE)

    # A zero token is appended; each -1 becomes its index.
    visit_BKS = paths_of_images(torch.where(order < 0, tokens, order).long(), batch)
    direction_K1 = torch.arange(directions, device=order.device)[:, None]
    image_B11 = torch.arange(batch, device=order.device)[:, None, None]

    def walk(tensor_BLKX: Tensor) -> Tensor:
        padded_BPKX = F.pad(tensor_BLKX.to(state), (0, 0, 0, 0, 0, 1))
        return padded_BPKX[image_B11, visit_BKS, direction_K1]

    u_BKSE = F.pad(u_BLE.to(state), (0, 0, 0, 1))[image_B11, visit_BKS]
    delta_BKSE = walk(delta_BLKR)
    if weight_KER is not None:
        delta_BKSE = torch.einsum("bksr,ker->bkse", delta_BKSE, weight_KER)
    raw_BKSE = delta_BKSE + bias_KE[:, None]
    delta_BKSE = torch.logaddexp(raw_BKSE, torch.zeros_like(raw_BKSE))  # softplus
    B_BKSN, C_BKSN = walk(B_BLKN), walk(C_BLKN)

    h_BKEN = u_BKSE.new_zeros(batch, directions, channels, A_KEN.shape[-1])
    y_BKSE = []
    # unbind, because indexing single steps of a large tensor makes autograd quadratic in S.
    sequences = (u_BKSE, delta_BKSE, B_BKSN, C_BKSN)
    for u_BKE, delta_BKE, B_BKN, C_BKN in zip(*(t.unbind(2) for t in sequences), strict=True):
        decay_BKEN = torch.exp(delta_BKE[..., None] * A_KEN)
        h_BKEN = decay_BKEN * h_BKEN + (delta_BKE * u_BKE)[..., None] * B_BKN[:, :, None]
        y_BKSE.append((h_BKEN * C_BKN[:, :, None]).sum(-1) + D_KE * u_BKE)

    y_BLKE = u_BKSE.new_zeros(batch, tokens + 1, directions, channels)
    if y_BKSE:
        y_BLKE[image_B11, visit_BKS, direction_K1] = torch.stack(y_BKSE, dim=2)
    y_BLKE = y_BLKE[:, :tokens]
    return y_BLKE.sum(2) if reduce else y_BLKE


def forward(inputs: ScanInputs, reduce: bool) -> Tensor:
    return scan(inputs, reduce).to(inputs.u.dtype, copy=True)


def backward(inputs: ScanInputs, grad_y: Tensor, reduce: bool) -> ScanGradients:
    given = differentiable(inputs)

    def of_given(tensors: dict[str, Tensor]) -> Tensor:
        return scan(inputs._replace(**tensors), reduce)

    # vjp, because plain autograd is off inside an operator's kernel.
    y, pull_back = torch.func.vjp(of_given, given)  # type: ignore[misc]
    (found,) = pull_back(grad_y.to(y.dtype))
    return gradients_of(found)
