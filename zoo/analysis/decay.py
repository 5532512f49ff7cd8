"""How scans forget: what is left of a token's state after each step of a scan, and where it lies.

Between two steps of a direction, the state of channel e and number n is multiplied by
``exp(step[e] * A[e, n])``, where ``step = softplus(delta)`` depends on the token. What is left of a
token after d steps is the product of d such factors. It depends on the image, the direction and the
channel, and not on how far apart the two tokens are in the image: that is what scan orders are for.

Shape suffixes: B batch, I image channels, H height, W width in pixels or tokens, L tokens,
K directions, S steps, E inner channels, N states, R rank, D distances, T tokens that are looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from zoo.analysis.probing import check_image, probed
from zoo.blocks.scan_core import ScanCore
from zoo.errors import ZooError
from zoo.networks import Network
from zoo.ops.scan.contract import ScanInputs

MOST_ENDS = 64
"""Number of steps at which the mean over a path is taken; they are spread evenly over the path."""


@dataclass(frozen=True, eq=False)
class ScanDecay:
    """How the directions of one scan forget.

    Attributes:
        place: name of the mixer in the network.
        directions: names of the K directions.
        distance_D: int64: distances along the path in steps, from 1.
        kept_KD: float64: share of a state that is left after a distance, mean over channels,
            states and places on the path.
        kept_KHW: float64: share of each token's state that is left at the middle token; 0 for
            tokens that the direction reads later. None where the tokens are no image of one grid.
        weight_KHW: float64: size of what each token adds to the middle token through the scan, per
            unit of its input, mean over channels: the decay times the token's step and what B
            writes and C reads. None as above.
    """

    place: str
    directions: tuple[str, ...]
    distance_D: Tensor
    kept_KD: Tensor
    kept_KHW: Tensor | None
    weight_KHW: Tensor | None

    def half_life(self, direction: int) -> int | None:
        """Return the first distance in steps after which less than half is left; None if none."""
        below = (self.kept_KD[direction] < 0.5).nonzero()
        return int(self.distance_D[below[0, 0]]) if len(below) else None


class _Watch(TorchDispatchMode):
    """Keeps the inputs of all scans that run within it, by the module that is running."""

    def __init__(self) -> None:
        super().__init__()
        self.running: list[tuple[str, tuple[str, ...]]] = []
        self.grids: dict[str, tuple[int, int]] = {}
        self.directions: dict[str, tuple[str, ...]] = {}
        self.found: dict[str, list[ScanDecay]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.ops.zoo.selective_scan.default and self.running:
            place, directions = self.running[-1]
            given = args[: len(ScanInputs._fields)]
            tensors: Any = [tensor if tensor is None else tensor.cpu() for tensor in given]
            inputs = ScanInputs(*tensors)
            grid = self.grids.get(place)
            self.directions[place] = directions
            self.found.setdefault(place, []).append(_decay_of(place, directions, inputs, grid))
        return func(*args, **(kwargs or {}))


def scan_decays(network: Network, image_IHW: Tensor) -> list[ScanDecay]:
    """Run a network on an image, and return how each of its scans forgets.

    Args:
        network: a network of single images without guides.
        image_IHW: the image, float32 in [0, 1].

    Returns:
        One for each mixer that scans, in the sequence in which they run. A mixer that scans in
        several calls has the directions of all of them.

    Raises:
        ZooError: if the network has no scan, or takes bursts or guides.
    """
    check_image(network, image_IHW)
    watch = _Watch()
    with probed(network) as device, torch.no_grad(), _named(network, watch), watch:
        network(image_IHW.to(device)[None])
    if not watch.found:
        raise ZooError("this network has no selective scan, so there is no decay to show")
    return [_joined(parts, watch.directions[place]) for place, parts in watch.found.items()]


@contextmanager
def _named(network: nn.Module, watch: _Watch) -> Iterator[None]:
    """Within the block, the watch knows which mixer is running, and the grid of its tokens."""
    handles = []
    for name, module in network.named_modules():
        if not isinstance(module, ScanCore):
            continue

        def enter(
            module: nn.Module, inputs: tuple[Any, ...], name: str = name, core: ScanCore = module
        ) -> None:
            watch.running.append((name, tuple(core.scan.directions)))
            first = inputs[0] if inputs else None
            if isinstance(first, Tensor) and first.dim() == 4:
                watch.grids[name] = (first.shape[1], first.shape[2])

        def leave(*_: object) -> None:
            watch.running.pop()

        handles.append(module.register_forward_pre_hook(enter))
        handles.append(module.register_forward_hook(leave, always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _joined(parts: list[ScanDecay], directions: tuple[str, ...]) -> ScanDecay:
    """Return the directions of several calls of one mixer as those of one scan.

    Directions with a call each (heads) keep the names that the scan gives them.
    """
    first = parts[0]
    if len(parts) == 1 or any(len(part.distance_D) != len(first.distance_D) for part in parts):
        return first
    names = list(directions)
    if len(names) != sum(len(part.directions) for part in parts):
        names = [f"{index}.{name}" for index, part in enumerate(parts) for name in part.directions]
    maps = [
        None
        if any(m is None for m in of_parts)
        else torch.cat([m for m in of_parts if m is not None])
        for of_parts in zip(*((part.kept_KHW, part.weight_KHW) for part in parts), strict=True)
    ]
    kept_KD = torch.cat([part.kept_KD for part in parts])
    return ScanDecay(first.place, tuple(names), first.distance_D, kept_KD, *maps)


def _decay_of(
    place: str, directions: tuple[str, ...], inputs: ScanInputs, grid: tuple[int, int] | None
) -> ScanDecay:
    """Compute the decay of one call of the operator, for the first image of its batch."""
    order_KS = inputs.order if inputs.order.dim() == 2 else inputs.order[0]
    count, steps = order_KS.shape
    names = directions if len(directions) == count else tuple(map(str, range(count)))
    tokens = inputs.u.shape[1]
    is_image = grid is not None and grid[0] * grid[1] == tokens
    distance_D = _distances(steps)
    middle = (grid[0] // 2) * grid[1] + grid[1] // 2 if grid is not None and is_image else None
    kept, seen, weights = [], [], []
    for k in range(count):
        path_S = order_KS[k]
        clock_SE, step_SE = _clock(inputs, k, path_S)
        kept.append(_mean_kept(clock_SE, inputs.A[k].double(), distance_D))
        if middle is not None:
            at_L, weight_L = _towards(inputs, k, path_S, clock_SE, step_SE, middle)
            seen.append(at_L)
            weights.append(weight_L)
    if middle is None or grid is None:
        return ScanDecay(place, names, distance_D, torch.stack(kept), None, None)
    shape = (count, *grid)
    maps = (torch.stack(part).reshape(shape) for part in (seen, weights))
    return ScanDecay(place, names, distance_D, torch.stack(kept), *maps)


def _distances(steps: int) -> Tensor:
    """Return the distances at which the decay is measured: 1 to 20, then 5 % more each."""
    found, distance = [], 1.0
    while round(distance) < steps:
        found.append(round(distance))
        distance = max(distance + 1, distance * 1.05)
    return torch.tensor(found, dtype=torch.int64)


def _clock(inputs: ScanInputs, k: int, path_S: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sum of the steps up to each place on a path, and each step, (S, E) float64."""
    delta_LX = inputs.delta[0, :, k].double()
    # A zero token has no delta, but the bias still lets the state decay.
    delta_SX = torch.where((path_S >= 0)[:, None], delta_LX[path_S.clamp(min=0)], 0.0)
    if inputs.delta_weight is not None:
        delta_SX = delta_SX @ inputs.delta_weight[k].double().T
    step_SE = F.softplus(delta_SX + inputs.delta_bias[k].double())
    return step_SE.cumsum(0), step_SE


def _mean_kept(clock_SE: Tensor, A_EN: Tensor, distance_D: Tensor) -> Tensor:
    """Return the mean share of a state that is left after each distance, (D,)."""
    steps = len(clock_SE)
    means = []
    for distance in distance_D.tolist():
        end_T = torch.linspace(distance, steps - 1, min(MOST_ENDS, steps - distance)).round().long()
        time_TE = clock_SE[end_T] - clock_SE[end_T - distance]
        means.append(torch.exp(time_TE[..., None] * A_EN).mean())
    return torch.stack(means) if means else clock_SE.new_zeros(0)


def _towards(
    inputs: ScanInputs, k: int, path_S: Tensor, clock_SE: Tensor, step_SE: Tensor, token: int
) -> tuple[Tensor, Tensor]:
    """Return what is left of each token at one token, and what each adds to it, (L,) float64."""
    tokens = inputs.u.shape[1]
    kept_L, weight_L = clock_SE.new_zeros(tokens), clock_SE.new_zeros(tokens)
    places = (path_S == token).nonzero().flatten().tolist()
    if not places:
        return kept_L, weight_L  # this direction does not visit the token
    end = places[0]
    A_EN, C_N = inputs.A[k].double(), inputs.C[0, token, k].double()
    B_LN = inputs.B[0, :, k]
    for start in range(0, end + 1, _CHUNK):
        part = slice(start, min(start + _CHUNK, end + 1))
        path_T = path_S[part]
        real_T = path_T >= 0
        decay_TEN = torch.exp((clock_SE[end] - clock_SE[part])[..., None] * A_EN)
        written_TN = B_LN[path_T.clamp(min=0)] * C_N
        moved_TE = (decay_TEN * written_TN[:, None]).sum(-1) * step_SE[part]
        kept_L[path_T[real_T]] = decay_TEN.mean((1, 2))[real_T]
        weight_L[path_T[real_T]] = moved_TE.abs().mean(1)[real_T]
    return kept_L, weight_L


_CHUNK = 1024
"""Number of tokens whose decays are computed at once."""
