"""Norms: the normalisation of each token over its channels.

Shape suffixes: C channels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor, nn

from zoo.ops import passes
from zoo.registry import Registry


class Norm(nn.Module):
    """Normalises each token over its channels, ``(..., C) -> (..., C)``; built as ``norm(dim)``."""

    def forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError


NormFactory: TypeAlias = Callable[..., Norm]

NORMS = Registry("norm", Norm, supplied=("dim",))


@NORMS.register("layer")
class LayerNorm(nn.LayerNorm, Norm):
    """Layer norm with weight and bias: mean 0 and variance 1 over the channels (Ba et al., 2016).

    Args:
        dim: channels C.
        eps: number added to the variance, from 1e-12 to 1.
    """

    def __init__(self, dim: int, *, eps: float = 1e-5) -> None:
        if not 1e-12 <= eps <= 1:
            raise ValueError(f"eps is {eps}; it must be from 1e-12 to 1")
        super().__init__(dim, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        y = passes.normalised(x, self.weights)
        return super().forward(x) if y is None else y

    @property
    def weights(self) -> passes.NormWeights:
        """The parameters, for a pass over the tokens."""
        return passes.NormWeights(self.weight, self.bias, self.eps)
