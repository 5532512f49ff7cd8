"""Compares the norm in Triton, which networks use beside the scan, with PyTorch in float64."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.ops.scan import triton
from zoo.ops.scan.self_check.cases import TOLERANCE, relative

EPS = 0.5
"""Large, so that it matters beside a variance of 9."""


@dataclass(frozen=True)
class NormCheck:
    """A norm, with or without a gate, forward and backward.

    Attributes:
        tokens: number of tokens.
        channels: channels of a token, at least two.
        gated: whether there is a gate.
        dtype: dtype of the tokens.
    """

    tokens: int
    channels: int
    gated: bool
    dtype: torch.dtype

    def __str__(self) -> str:
        name = str(self.dtype).removeprefix("torch.")
        return f"{name} norm T{self.tokens}-C{self.channels}{'-gated' if self.gated else ''}"

    def fault(self, device: torch.device, runs: int) -> str | None:
        """Say what is computed wrongly in one of some runs; None if all is right.

        Where Triton cannot run, no network uses this norm, and nothing is wrong with it.
        """
        if triton.unavailable() is not None:
            return None
        from zoo.ops.scan.triton import norm as triton_norm

        x, weight, bias, gate, grad = (None if t is None else t.to(device) for t in self._made())
        assert x is not None and weight is not None and bias is not None and grad is not None
        right = self._right()
        for _ in range(runs):
            y, mean, scale = triton_norm.forward(x, weight, bias, gate, EPS, self.dtype, keep=True)
            found = triton_norm.backward(x, weight, bias, gate, mean, scale, grad)
            for name, ours in {"the norm": y, **found._asdict()}.items():
                if ours is None:
                    continue
                deviation, most = relative(ours.cpu(), right[name]), TOLERANCE[self.dtype]
                if not deviation <= most:
                    gradient = "" if name == "the norm" else "the gradient of "
                    return (
                        f"{gradient}{name} deviates by {deviation:.1e}, and {most:.1e} is allowed"
                    )
        return None

    def _made(self) -> tuple[Tensor | None, ...]:
        """x, weight, bias, gate and the gradient of the result."""
        generator = torch.Generator().manual_seed(0)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        shape = (self.tokens, self.channels)
        x, grad, gate = ((1 + 3 * normal(*shape)).to(self.dtype) for _ in range(3))
        weight, bias = normal(2, self.channels).float()
        return x, weight, bias, gate if self.gated else None, grad

    def _right(self) -> dict[str, Tensor]:
        *given, grad = (None if t is None else t.double() for t in self._made())
        named = dict(zip(("x", "weight", "bias", "gate"), given, strict=True))
        leaves = {n: t.requires_grad_() for n, t in named.items() if t is not None}
        y = F.layer_norm(leaves["x"], (self.channels,), leaves["weight"], leaves["bias"], EPS)
        y = y * F.silu(leaves["gate"]) if self.gated else y
        found = torch.autograd.grad(y, list(leaves.values()), grad)
        return {"the norm": y.detach(), **dict(zip(leaves, found, strict=True))}
