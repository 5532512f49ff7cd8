"""A tile that an engine must restore as PyTorch did, kept in the JSON file beside the engine.

An engine may be built on one machine and run on another, where its library, its driver or its
plugin computes something else. ``zoo restore --engine`` runs the tile before the first photo.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

MOST_VALUES = 500_000
"""Values of a sample that is kept: about 2.7 MB in the JSON file."""


@dataclass(frozen=True, eq=False)
class Sample:
    """Inputs of a network and PyTorch's output.

    Attributes:
        inputs: the tensors that the network takes, float32.
        output: what PyTorch computes of them in float32.
        tolerance: largest absolute difference, as a fraction of the output's range.
    """

    inputs: tuple[Tensor, ...]
    output: Tensor
    tolerance: float

    def error(self, found: Tensor) -> float:
        """Largest difference of an output, as a fraction of the range; infinite if not finite."""
        if found.shape != self.output.shape or not bool(found.isfinite().all()):
            return math.inf
        spread = float(self.output.max() - self.output.min())
        return float((found.float().cpu() - self.output).abs().max()) / max(spread, 1e-12)

    def facts(self) -> dict[str, Any] | None:
        """Return the sample as data of JSON; None if it is too large to keep."""
        tensors = [*self.inputs, self.output]
        if sum(map(torch.numel, tensors)) > MOST_VALUES:
            return None
        *inputs, output = map(_packed, tensors)
        return {"inputs": inputs, "output": output, "tolerance": self.tolerance}


def read_sample(facts: Any) -> Sample | None:
    """Read a sample from data of JSON; None if there is none, as in files of earlier versions.

    Raises:
        ValueError: if it is damaged.
    """
    if facts is None:
        return None
    try:
        inputs, output, tolerance = facts["inputs"], facts["output"], float(facts["tolerance"])
        found = Sample(tuple(map(_unpacked, inputs)), _unpacked(output), tolerance)
    except (ArithmeticError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"the stored sample is damaged ({type(error).__name__})") from error
    finite = all(bool(tensor.isfinite().all()) for tensor in (*found.inputs, found.output))
    if not found.inputs or not finite or not 0 < found.tolerance < 1:
        raise ValueError("the stored sample is damaged")
    return found


def _packed(tensor: Tensor) -> dict[str, Any]:
    content = tensor.numpy().astype("<f4").tobytes()
    return {"shape": list(tensor.shape), "float32": base64.b64encode(content).decode()}


def _unpacked(facts: Mapping[str, Any]) -> Tensor:
    content = base64.b64decode(facts["float32"], validate=True)
    shape: Sequence[int] = [int(size) for size in facts["shape"]]
    if min(shape) < 1 or math.prod(shape) * 4 != len(content):
        raise ValueError("its size does not fit its values")
    return torch.from_numpy(np.frombuffer(content, "<f4").astype(np.float32)).reshape(*shape)
