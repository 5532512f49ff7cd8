"""The exponential moving average of a network's weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class EMA:
    """Exponential moving average: ``average = decay * average + (1 - decay) * weight``.

    The average starts as the current weights. After n steps, ``decay`` is at most (1 + n) / (10 +
    n): early weights, which are random at first, are soon forgotten, so that the average is of use
    in a short training, too. Without it, 82 % of an average with 0.999 are the random weights after
    200 steps. A decay of 0.999 is reached after 8,990 steps; what was before is a factor of 1e-5
    11,500 steps later, so that trainings of 100,000s of steps end as with a constant decay.

    Args:
        network: the network to average, on its device. Its parameters are averaged, its buffers
            copied.
        decay: largest decay of the average per step, such as 0.999; 0 for no average.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network, self.decay = network, decay
        self.state: dict[str, Tensor] = {}
        if decay:
            self.state = {key: value.clone() for key, value in network.state_dict().items()}
        averaged = dict(network.named_parameters(remove_duplicate=False))
        self._averages = [average for key, average in self.state.items() if key in averaged]
        self._weights: list[Tensor] = [averaged[key] for key in self.state if key in averaged]
        self._copied = self.state.keys() - averaged.keys()

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Continue from the ``state`` of another average of the same network.

        Raises:
            KeyError: if a tensor is missing.
            RuntimeError: if a tensor has another shape.
        """
        for key, value in self.state.items():
            if value.shape != state[key].shape:
                raise RuntimeError(f"the average of {key} has shape {tuple(state[key].shape)}")
            value.copy_(state[key])

    @torch.no_grad()
    def update(self, steps: int) -> None:
        """Update the average after a training step.

        Args:
            steps: number of steps done, with this one.
        """
        if not self.decay:
            return
        decay = min(self.decay, (1 + steps) / (10 + steps))
        # All at once: a GPU would need a launch for each of some hundred tensors.
        torch._foreach_lerp_(self._averages, self._weights, 1 - decay)
        if self._copied:
            own = self.network.state_dict()
            for key in self._copied:
                self.state[key].copy_(own[key])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Context in which the network has the averaged weights."""
        if not self.decay:
            yield
            return
        own = {key: value.clone() for key, value in self.network.state_dict().items()}
        self.network.load_state_dict(self.state)
        try:
            yield
        finally:
            self.network.load_state_dict(own)
