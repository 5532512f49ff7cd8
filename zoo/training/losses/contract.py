"""The contract of training losses.

Shape suffixes: B batch, I image channels, H height, W width.
"""

from __future__ import annotations

from torch import Tensor, nn

from zoo.errors import ZooError
from zoo.registry import Registry


class Loss(nn.Module):
    """Compares output and clean image: ``(output_BIHW, clean_BIHW) -> scalar``, of shape ()."""

    def __init__(self) -> None:
        super().__init__()

    def prepare(self, channels: int) -> None:
        """Read the files that the loss needs. The trainer calls it once, before the first step.

        Args:
            channels: image channels I.

        Raises:
            ZooError: if a file cannot be read, or the loss does not take such images.
        """

    def forward(self, output_BIHW: Tensor, clean_BIHW: Tensor) -> Tensor:
        raise NotImplementedError


LOSSES = Registry("loss", Loss)


def one_number(loss: Loss, found: object) -> Tensor:
    """Return what a loss has returned, if it is one number.

    An image of numbers would be summed without a word, and the sum of a batch depends on how many
    parts it is computed in.

    Args:
        loss: the loss.
        found: what it returned.

    Raises:
        ZooError: if that is not a tensor of shape ().
    """
    if isinstance(found, Tensor) and found.shape == ():
        return found
    names = (entry.name for entry in LOSSES.entries() if entry.target is type(loss))
    name = next(names, type(loss).__name__)
    what = (
        f"a tensor of shape {tuple(found.shape)}"
        if isinstance(found, Tensor)
        else (f"a value of type {type(found).__name__}")
    )
    raise ZooError(
        f"train.loss: the loss {name!r} returned {what}; it must return one number, a tensor of "
        "shape (), such as the mean"
    )
