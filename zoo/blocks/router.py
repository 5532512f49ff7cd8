"""The router of MambaIRv2: it puts every token into a class.

Shape suffixes: B batch, L tokens (row-major), C channels, T classes.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.blocks.joined import is_plain
from zoo.blocks.layers import at_least_one
from zoo.errors import RecipeError
from zoo.ops.precision import without_autocast

Routing: TypeAlias = Literal["argmax", "sample"]


class Routes(NamedTuple):
    """The class of each token.

    Attributes:
        class_BL: int64, the class.
        one_hot_BLT: the class as a vector that carries the router's gradient (straight-through);
            None if the routes have no gradient.
    """

    class_BL: Tensor
    one_hot_BLT: Tensor | None


class Router(nn.Module):
    """Chooses one of T classes for each token: ``(B, L, C) -> Routes`` (MambaIRv2, Sec. 3.3)::

        z = log_softmax(classify(gelu(reduce(x))))
        class = argmax(z + noise)

    Training always samples: the noise is Gumbel noise, and the gradient is that of
    softmax(z + noise) (Jang et al., "Categorical reparameterization with Gumbel-softmax", 2017).

    The arithmetic is float32 in every precision (float64 for float64 tokens), because another class
    moves a token to another place in the scan.

    Args:
        dim: channels C, at least 3; the hidden layer has C / 3, rounded down.
        classes: number of classes T.
        routing: "argmax" takes the most likely class in evaluation, the lowest one of equals.
            "sample" draws it with noise in evaluation too, as the authors' code does; the noise
            follows from ``torch.manual_seed``, and is that of the authors. It cannot be exported.
    """

    keeps_float32 = True
    """Half-precision exports leave the weights in float32."""

    def __init__(self, dim: int, *, classes: int, routing: Routing) -> None:
        super().__init__()
        hidden = at_least_one(dim, 3, "the router")
        self.reduce = nn.Linear(dim, hidden)
        self.classify = nn.Linear(hidden, classes)
        self.routing = routing

    def forward(self, x_BLC: Tensor) -> Routes:
        logits_BLT = self.logits(x_BLC)
        if not self.training and self.routing == "argmax":
            return Routes(logits_BLT.argmax(-1), None)
        noisy_BLT = logits_BLT.log_softmax(-1)
        noisy_BLT = noisy_BLT + self.noise(noisy_BLT)
        class_BL = noisy_BLT.argmax(-1)
        if not self.training:
            return Routes(class_BL, None)
        likely_BLT = noisy_BLT.softmax(-1)
        one_hot_BLT = F.one_hot(class_BL, likely_BLT.shape[-1]).to(likely_BLT.dtype)
        return Routes(class_BL, one_hot_BLT - likely_BLT.detach() + likely_BLT)

    def logits(self, x_BLC: Tensor) -> Tensor:
        """Return the unnormalised log-likelihood of each class, (B, L, T), float32 or float64."""
        dtype = torch.float64 if x_BLC.dtype == torch.float64 else torch.float32
        with without_autocast(x_BLC.device):
            for layer in (self.reduce, self.classify):
                if layer is self.classify:
                    x_BLC = F.gelu(x_BLC)
                x_BLC = x_BLC.to(dtype)
                if type(layer) is nn.Linear and is_plain(layer):
                    x_BLC = F.linear(x_BLC, layer.weight.to(dtype), layer.bias.to(dtype))
                else:  # another kind of layer, such as a quantised one
                    x_BLC = layer(x_BLC)
        return x_BLC

    def noise(self, like_BLT: Tensor) -> Tensor:
        """Draw Gumbel noise, in the way of ``torch.nn.functional.gumbel_softmax``.

        Raises:
            RecipeError: in an export: no runtime would draw this noise, and none takes the seed.
        """
        if torch.compiler.is_exporting():
            raise RecipeError(
                "routing is 'sample', which cannot be exported, because the runtime would draw "
                "other noise in every run; build with block.mixer.routing=argmax"
            )
        return -torch.empty_like(like_BLT).exponential_().log()
