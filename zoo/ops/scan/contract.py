"""What the selective scan takes, and what a backend must offer.

Shape suffixes, used by every file of this package:
    B batch, L tokens (row-major), K directions, S steps of a direction, E inner channels,
    R rank of the low-rank step (R = E where delta comes without a projection), N states.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor


class ScanInputs(NamedTuple):
    """The nine tensors of the operator, checked and with parameters already in state dtype.

    ``u``, ``delta``, ``B`` and ``C`` share one dtype and may be strided views; the parameters
    ``delta_weight``, ``delta_bias``, ``A`` and ``D`` have the dtype of the state: float64 for
    float64 tokens, float32 for all others.
    """

    u: Tensor
    """(B, L, E) tokens."""
    delta: Tensor
    """(B, L, K, R) low-rank step, or (B, L, K, E) where ``delta_weight`` is None."""
    delta_weight: Tensor | None
    """(K, E, R) projection of the step, or None."""
    delta_bias: Tensor
    """(K, E)"""
    A: Tensor
    """(K, E, N), negative."""
    B: Tensor
    """(B, L, K, N)"""
    C: Tensor
    """(B, L, K, N)"""
    D: Tensor
    """(K, E)"""
    order: Tensor
    """(K, S) int32, entries in -1 .. L-1, no token twice in a direction."""


class ScanGradients(NamedTuple):
    """Gradients in the sequence, shape and dtype of the inputs they belong to."""

    u: Tensor
    delta: Tensor
    delta_weight: Tensor | None
    delta_bias: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor


class Backend(Protocol):
    """One implementation of the operator. Modules of this package satisfy it by their names."""

    NAME: str

    def summary(self) -> str:
        """What the backend is, in a few words."""
        ...

    def unavailable(self) -> str | None:
        """Why the backend cannot run on this machine and what to do, or None if it can."""
        ...

    def declines(self, inputs: ScanInputs) -> str | None:
        """Why the backend cannot serve this call, or None if it can."""
        ...

    def forward(self, inputs: ScanInputs, reduce: bool) -> Tensor:
        """Return y in the dtype of u: (B, L, K, E), or (B, L, E) summed over directions."""
        ...

    def backward(self, inputs: ScanInputs, grad_y: Tensor, reduce: bool) -> ScanGradients:
        """Return the gradients of the inputs for the gradient of y."""
        ...
