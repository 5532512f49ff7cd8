"""The self-check of CUDA graphs: networks of each family, recorded and replayed.

It runs in processes of its own, because a wrong recording may end a process: see
:mod:`zoo.ops.scan.self_check`. What a network returns by replays is compared with what it returns
without, on images that change. Meanwhile memory that was given back is overwritten, and the cache
of scan orders is filled with others: a recording must not read what nobody keeps.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.inference.graph_recording import CudaRecording, Record
from zoo.inference.graphs import RUNS, Recorder, deviation_of
from zoo.inference.recordable import ENVIRONMENT as SWITCH
from zoo.networks import Network
from zoo.ops.precision import Precision, autocast, float32_products
from zoo.ops.scan import triton
from zoo.ops.scan.dispatch import ENVIRONMENT
from zoo.recipe import build
from zoo.scans import Raster
from zoo.scans.base import CACHED_ORDERS

_SIZES = ((32, 48), (40, 25))
_FRAMES = 8
_LITTER = range(7, 22)
_BLOCKS = 16
"""Sizes, as powers of two, and numbers of blocks that overwrite memory which was given back."""


@dataclass(frozen=True, kw_only=True)
class GraphCheck:
    """A network whose runs are recorded.

    Attributes:
        model: name of its recipe.
        precision: the precision of its runs.
        record: what makes a recording; tests put something else in its place.
    """

    model: str
    precision: Precision
    record: Record = CudaRecording

    def __str__(self) -> str:
        return f"{self.model} in {self.precision}"

    def fault(self, device: torch.device, runs: int) -> str | None:
        """Say what a replay computes wrongly; None if all is right.

        Args:
            device: where the network runs.
            runs: how many replays of each size are compared.
        """
        torch.manual_seed(0)
        network = build(self.model).to(device).eval()
        recorder = Recorder(self.record, lambda device: True)
        # On Triton without asking: a process must not check what it is part of.
        triton_alone = _environment(ENVIRONMENT, triton.NAME)
        forced = triton_alone if device.type == "cuda" else nullcontext()
        with forced, _environment(SWITCH, "1"), torch.inference_mode(), float32_products():
            for _ in range(RUNS + 1):
                for size in _SIZES:
                    _ = self._deviation(network, recorder, size)
            if recorder.refusal or recorder.recorded < len(_SIZES):
                return f"it could not be recorded: {recorder.refusal or 'it waits for the device'}"
            _fill_orders(device)
            for run in range(max(runs, 2)):  # the second one is compared by the recorder, too
                for size in _SIZES:
                    wrong = self._deviation(network, recorder, size) or recorder.refusal
                    if wrong:
                        return f"replay {run + 1} of {size[0]} x {size[1]} pixels: {wrong}"
            for parameter in network.parameters():
                parameter.mul_(0.9)
            stale = self._deviation(network, recorder, _SIZES[0])
            return f"after a change of weights: {stale}" if stale else None

    def _deviation(self, network: Network, recorder: Recorder, size: tuple[int, int]) -> str:
        """Run the network by the recorder and without it; say how they differ, "" if not."""
        device = next(network.parameters()).device
        frames = (_FRAMES,) if network.takes_burst else ()
        image = torch.rand(1, *frames, network.channels, *size, device=device)

        def run(image: Tensor) -> Tensor:
            with autocast(device, self.precision):
                found: Tensor = network(image)
            return found

        expected = run(image).clone()
        _litter(device)
        found = recorder(network, run, [image], self.precision)
        return deviation_of(found, expected, lambda: run(image), half=self.precision != "fp32")


def _fill_orders(device: torch.device) -> None:
    """Use as many scan orders as are kept, so that those of before are dropped."""
    for side in range(CACHED_ORDERS):
        Raster().order(1, 1 + side, device)


def _litter(device: torch.device) -> None:
    """Overwrite memory that was given back, in blocks of all sizes."""
    _ = [
        torch.full((1 << power,), float("nan"), device=device)
        for power in _LITTER
        for _ in range(_BLOCKS)
    ]


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """Set a variable of the environment in the block."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


_MODELS = ("mambair_tiny_x2", "mambairv2_tiny_x2", "mambacsr_tiny_x2", "qmambabsr_tiny")
_PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")

ON_A_GPU = tuple(
    tuple(GraphCheck(model=model, precision=precision) for precision in _PRECISIONS)
    for model in _MODELS
)
"""A group for each family of networks."""
