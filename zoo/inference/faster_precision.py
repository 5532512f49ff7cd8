"""The faster of float32 and bfloat16 for a network on this machine, measured once."""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import statistics
import time
from pathlib import Path

import torch

from zoo.errors import WriteError
from zoo.files import cache_folder
from zoo.files.single import write_text
from zoo.inference.evaluation_mode import evaluating
from zoo.networks import Network
from zoo.ops.precision import Precision, autocast, bfloat16_is_slow, float32_products

logger = logging.getLogger(__name__)

_SIDE = 64
"""Side of the image that is measured, in pixels."""

_ROUNDS = 9
"""How often each precision takes its turn."""

_LEAST_ROUNDS = 2
"""How often each does so where that takes more than ``_SECONDS``."""

_SECONDS = 3.0

_WORTH = 0.9
"""bfloat16 must take less than this part of the time of float32, because it loses digits."""

_MOST_KEPT = 200
"""Answers that are kept; the oldest is forgotten first."""


def faster_precision(network: Network, tf32: bool = False) -> Precision:
    """Return "bf16" if the network is clearly faster with it here, otherwise "fp32".

    Both are measured on a random image, in several turns, the first time that a network of this
    kind is asked about on this machine. The median of the turns decides. The answer is kept in
    ``precisions.json`` in the cache folder. A processor without instructions for bfloat16 is
    not measured: there it is slower.

    Args:
        network: the network, on the device where it will run.
        tf32: whether float32 may be TF32 on a GPU, which is faster.
    """
    if bfloat16_is_slow(next(network.parameters()).device):
        return "fp32"
    key = _key(network, tf32)
    try:
        path = cache_folder() / "precisions.json"
    except WriteError as error:
        logger.info("precision auto: the answer is not kept: %s", error)
        return _chosen(network, tf32)
    kept = _kept(path)
    if key in kept:
        return kept[key]
    chosen = _chosen(network, tf32)
    newest = list(kept.items())[1 - _MOST_KEPT :]
    try:
        write_text(path, json.dumps(dict([*newest, (key, chosen)]), indent=1) + "\n")
    except WriteError as error:
        logger.info("precision auto: the answer is not kept: %s", error)
    return chosen


def _chosen(network: Network, tf32: bool) -> Precision:
    ratio = statistics.median(_ratios(network, tf32))
    chosen: Precision = "bf16" if ratio < _WORTH else "fp32"
    logger.info("precision auto: bf16 takes %.2f of the time of fp32; %s it is", ratio, chosen)
    return chosen


def _ratios(network: Network, tf32: bool) -> list[float]:
    """The time of bfloat16 over that of float32, in each of several turns."""
    device = next(network.parameters()).device
    inputs = [tensor.to(device) for tensor in network.example_inputs(_SIDE, _SIDE)]
    # The time of the CPU is the same, whatever else the machine does.
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    ratios: list[float] = []

    def seconds(precision: Precision) -> float:
        start = clock()
        with torch.inference_mode(), autocast(device, precision):
            network(*inputs).float().cpu()  # waits for the device
        return clock() - start

    with evaluating(network), float32_products(tf32=tf32):
        seconds("fp32"), seconds("bf16")  # these prepare kernels
        spent = 0.0
        while len(ratios) < _ROUNDS and (len(ratios) < _LEAST_ROUNDS or spent < _SECONDS):
            times = seconds("fp32"), seconds("bf16")
            ratios.append(times[1] / max(times[0], 1e-9))
            spent += sum(times)
    return ratios


def _key(network: Network, tf32: bool) -> str:
    """What the answer depends on: the machine, PyTorch, and the layers of the network."""
    device = next(network.parameters()).device
    if device.type == "cuda":
        place = f"{torch.cuda.get_device_name(device)}, {'TF32' if tf32 else 'no TF32'}"
    else:
        place = f"{device.type}, {_processor()}, {torch.get_num_threads()} threads"
    layers = hashlib.sha256(repr(network).encode()).hexdigest()[:16]
    return f"{place}, torch {torch.__version__}, network {layers}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(": ")[2] for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _kept(path: Path) -> dict[str, Precision]:
    """The answers of a file; none if it is missing or damaged, because they can be found again."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {key: value for key, value in found.items() if value in ("fp32", "bf16")}
