"""Compares the norm in Triton, which networks use beside the scan, with PyTorch in float64."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

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
        # As without autocast, all in one dtype; and as with it, with a result in float32.
        for weights, out in dict.fromkeys([(self.dtype, self.dtype), (torch.float32,) * 2]):
            given = self._made(weights, out)
            right = self._right(*given)
            *tensors, grad = (None if t is None else t.to(device) for t in given)
            before: dict[str, Tensor] = {}
            for _ in range(runs):
                found = self._found(tensors, grad, out)
                wrong = self._difference(found, right, before)
                if wrong is not None:
                    return wrong
                before = found
        return None

    def _found(
        self, tensors: Sequence[Tensor | None], grad: Tensor | None, out: torch.dtype
    ) -> dict[str, Tensor]:
        """What the kernels compute, by name: in inference, and in training."""
        from zoo.ops.scan.triton import norm

        forward, backward = cast(Any, norm.forward), cast(Any, norm.backward)
        alone = forward(*tensors, EPS, out, keep=False).out
        y, mean, scale = forward(*tensors, EPS, out, keep=True)
        gradients = backward(*tensors, mean, scale, grad)._asdict()
        named = {"the norm": y, "the norm in inference": alone}
        named |= {f"the gradient of {name}": value for name, value in gradients.items()}
        return {name: value for name, value in named.items() if value is not None}

    def _difference(
        self, found: dict[str, Tensor], right: dict[str, Tensor], before: dict[str, Tensor]
    ) -> str | None:
        most = TOLERANCE[self.dtype]
        for name, wanted in right.items():
            if name not in found:
                return f"{name} is missing"
            ours = found[name]
            if ours.dtype != wanted.dtype:
                return f"{name} has dtype {ours.dtype}, not {wanted.dtype}"
            deviation = relative(ours.cpu(), wanted)
            if not deviation <= most:
                return f"{name} deviates by {deviation:.1e}, and {most:.1e} is allowed"
            if before and not torch.equal(ours, before[name]):
                return f"{name} differs from that of an equal run"
        return None

    def _made(self, weights: torch.dtype, out: torch.dtype) -> tuple[Tensor | None, ...]:
        """x, weight, bias, gate and the gradient of the result."""
        generator = torch.Generator().manual_seed(0)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        shape = (self.tokens, self.channels)
        x, gate = ((1 + 3 * normal(*shape)).to(self.dtype) for _ in range(2))
        weight, bias = normal(2, self.channels).to(weights)
        return x, weight, bias, gate if self.gated else None, normal(*shape).to(out)

    def _right(self, *made: Tensor | None) -> dict[str, Tensor]:
        """What is right, rounded to the dtypes in which it is wanted."""
        *given, grad = made
        named = dict(zip(("x", "weight", "bias", "gate"), given, strict=True))
        leaves = {n: t.double().requires_grad_() for n, t in named.items() if t is not None}
        y = F.layer_norm(leaves["x"], (self.channels,), leaves["weight"], leaves["bias"], EPS)
        y = y * F.silu(leaves["gate"]) if self.gated else y
        assert grad is not None
        found = torch.autograd.grad(y, list(leaves.values()), grad.double())
        right = {name: y.detach().to(grad.dtype) for name in ("the norm", "the norm in inference")}
        for (name, leaf), gradient in zip(leaves.items(), found, strict=True):
            like = named[name]
            assert like is not None and leaf.shape == gradient.shape
            right[f"the gradient of {name}"] = gradient.to(like.dtype)
        return right
