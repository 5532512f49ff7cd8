"""Weights for the official cases, regenerated from (key, shape, seed) with numpy alone.

Legacy ``RandomState`` streams are frozen across numpy versions. No parameter keeps its initial
value, so that a network that ignores one is found out.
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from pathlib import Path

import numpy as np
import torch

OFFICIAL = Path(__file__).parents[1] / "official"
CASES = {
    name: case
    for path in sorted(OFFICIAL.glob("cases*.json.gz"))
    for name, case in json.loads(gzip.decompress(path.read_bytes())).items()
}
PUBLISHED = json.loads(gzip.decompress((OFFICIAL / "published.json.gz").read_bytes()))


def state_dict(case: str) -> dict[str, torch.Tensor]:
    """The authors' state dict of a case."""
    seed = CASES[case]["seed"]
    return {
        key: window_index(shape)
        if key == "relative_position_index_SA"
        else torch.from_numpy(weight(key, shape, seed))
        for key, shape in CASES[case]["keys"]
    }


def window_index(shape: list[int]) -> torch.Tensor:
    """The index buffer of MambaIRv2: the row of the bias table of each pair of tokens, by loops."""
    side = math.isqrt(shape[0])
    places = [(row, column) for row in range(side) for column in range(side)]
    return torch.tensor(
        [
            [(r - s + side - 1) * (2 * side - 1) + (c - d + side - 1) for s, d in places]
            for r, c in places
        ]
    )


def weight(key: str, shape: list[int], seed: int) -> np.ndarray:
    """One tensor, float32, rounded once from float64."""
    random = np.random.RandomState((zlib.crc32(key.encode()) ^ (seed * 2654435761)) & 0xFFFFFFFF)
    normal = random.standard_normal(tuple(shape))
    last = key.split(".")[-1]
    if last in ("A_logs", "A_log", "Ac_logs"):
        value = np.log(np.arange(1, shape[1] + 1, dtype=np.float64))[None] + 0.3 * normal
    elif last in ("Ds", "D", "Dsc"):
        value = 1.0 + 0.4 * normal
    elif last in ("dt_projs_weight", "x_proj_weight", "dtc_projs_weight", "xc_proj_weight"):
        value = normal * shape[-1] ** -0.5
    elif last == "dt_projs_bias":
        low, high = math.log(0.001), math.log(0.1)
        step = np.exp(random.uniform(size=shape) * (high - low) + low)
        value = step + np.log(-np.expm1(-step)) + 0.3 * normal
    elif last == "dtc_projs_bias":  # VmambaIR: a channel remembers those before it
        value = -0.5 + 0.7 * normal
    elif last == "temperature":  # Wave-Mamba: far from its 1
        value = 3.0 + 0.5 * normal
    elif key.endswith("conv_du.1.weight"):  # the slope of a PReLU
        value = 0.3 + 0.1 * normal
    elif last in ("skip_scale", "skip_scale2"):
        value = 0.8 + 0.3 * normal
    elif key.endswith("attention.1.bias"):  # keeps the ReLU of the gate alive
        value = 1.2 + 0.2 * np.abs(normal)
    elif key.endswith("conv_block.cab.0.bias"):  # and its GELU out of the flat part
        value = 0.6 + 0.2 * np.abs(normal)
    elif last in ("scale1", "scale2"):
        value = 0.4 + 0.3 * normal
    elif last == "relative_position_bias_table":
        value = 0.5 * normal
    elif key.endswith("mixer.dt_proj.bias"):
        value = -2.0 + 0.7 * normal
    elif last == "bias":
        value = 0.2 * normal
    elif last == "weight" and len(shape) == 1:
        value = 1.0 + 0.3 * normal
    elif last == "weight":
        value = normal * int(np.prod(shape[1:])) ** -0.5
    else:
        raise KeyError(key)
    return value.astype(np.float32)
