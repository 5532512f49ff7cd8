"""Verifies an exported file: it and its network run on the same images and must agree.

The comparison depends on the precision of the file:

* fp32: compared with the network. Both compute the same sums in a different order, which gives
  errors of about 1e-6 of the output's range. The tolerance of 1e-4 leaves room for deep networks
  and other CPUs.
* fp16: compared with the float32 network. Every activation is rounded to 11 bits, a relative error
  of 5e-4. Over hundreds of layers, such errors grow with the square root of the number of layers:
  the tolerance is 1e-2.
* bf16: ONNX Runtime does not run bfloat16 on a CPU. So a copy of the file, with all bfloat16
  tensors converted to float32, is compared with the network with weights rounded to bfloat16 and
  float32 activations. Both have the same weights, so the tolerance is that of fp32. This verifies
  graph and weights, not the effect of rounding.

A network with routers (MambaIRv2) is compared with the routes that the file chose, because rounding
may send a token another way; few routes may differ (:mod:`export.routes`).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import ModelProto, TensorProto
from torch import Tensor

from export.model import facts_in
from export.precision import DTYPES, prepared
from export.routes import (
    FLIPPED,
    flipped,
    forced_routes,
    recorded_routes,
    route_outputs,
    routers,
)
from export.scan_function import scan_nodes
from export.shape import InputShape, extra_inputs, input_shape
from zoo.errors import ZooError
from zoo.integrations.engine_sample import Sample
from zoo.integrations.onnxruntime import open_session
from zoo.networks import Network
from zoo.ops.scan import native

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

logger = logging.getLogger(__name__)

SIZES = ((1, 11, 18), (2, 24, 17), (1, 37, 9))
"""Batch, height and width of the test images, for sizes that may vary. None is a size of the trace,
the sides are not multiples of a window, and one batch has more than one image."""

TOLERANCES = {"fp32": 1e-4, "fp16": 1e-2, "bf16": 1e-4}
"""Largest absolute error as a fraction of the output's range; for the reasons see the module."""

ENGINE_TOLERANCES = {"fp32": 1e-4, "tf32": 1e-2, "fp16": 1e-2, "bf16": 8e-2}
"""Tolerances for engines, which are always compared with the float32 network. TF32 factors have as
many bits as float16; bfloat16 has three bits fewer, so its tolerance is eight times larger."""


@dataclass(frozen=True)
class Comparison:
    """Result of one input in one runtime.

    Attributes:
        runtime: name of the runtime.
        size: dimensions of the input.
        error: largest absolute difference from PyTorch, divided by the range of its output.
        psnr: PSNR in dB against PyTorch's output, for a peak of 1.
        flipped: share of the routes that differ from PyTorch's.
    """

    runtime: str
    size: tuple[int, ...]
    error: float
    psnr: float
    flipped: float = 0.0


@dataclass(frozen=True)
class Report:
    """All comparisons of a file.

    Attributes:
        path: path of the file.
        tolerance: largest ``error`` allowed.
        flippable: largest ``flipped`` allowed.
        comparisons: the comparisons that were made.
        notes: notes about comparisons that were not made, and why.
    """

    path: Path
    tolerance: float
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...]
    flippable: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether there are comparisons and all are within the tolerances; NaN fails."""
        return bool(self.comparisons) and all(
            found.error <= self.tolerance and found.flipped <= self.flippable
            for found in self.comparisons
        )

    @property
    def worst(self) -> float:
        """The largest error; infinity if there is no comparison."""
        errors = [math.inf if math.isnan(c.error) else c.error for c in self.comparisons]
        return max(errors, default=math.inf)

    def __str__(self) -> str:
        lines = [f"{'runtime':<28} {'input':<16} {'max error / range':>17} {'PSNR':>9}"]
        for found in self.comparisons:
            size = "x".join(map(str, found.size))
            lines.append(f"{found.runtime:<28} {size:<16} {found.error:17.2e} {found.psnr:6.1f} dB")
            if found.flipped:
                lines.append(
                    f"  of its routes, {found.flipped:.2e} differ (allowed {self.flippable:.0e})"
                )
        lines += self.notes
        verdict = "verified" if self.passed else "VERIFICATION FAILED"
        lines.append(f"{verdict}: worst {self.worst:.2e}, tolerance {self.tolerance:.0e}")
        return "\n".join(lines)


def verify(
    network: Network,
    path: str | Path,
    *,
    seed: int = 0,
    sizes: Sequence[tuple[int, int, int]] = SIZES,
) -> Report:
    """Compare a file from :func:`export.onnx.export` with its network.

    Args:
        network: the exported network, in float32.
        path: the file.
        seed: random seed of the images.
        sizes: batch, height and width of each input, for sizes that may vary.

    Raises:
        ZooError: if the file is not from ``export.onnx``, or no runtime can run it.
    """
    path = Path(path)
    model = onnx.load(path)
    facts = facts_in(model)
    if "precision" not in facts or facts["precision"] not in DTYPES:
        raise ZooError(f"{path}: not a file of export.onnx; only those can be verified")
    precision = facts["precision"]
    shape = input_shape(network, facts["shape"])
    notes: list[str] = []
    if precision == "bf16":
        model, reference = _bf16_in_float32(model, network, shape)
        notes.append(
            "bf16 does not run in ONNX Runtime on a CPU: the file passed ONNX's checker, and a "
            "copy in float32 was run"
        )
    else:
        reference = prepared(network, shape, "fp32").network
    model, routes = route_outputs(model, reference)
    runtimes = _runtimes(model, notes)
    found = []
    for number, size in enumerate(sizes):
        concrete = shape.concrete(*size)
        inputs = _inputs(reference, shape, concrete, seed + number)
        given = _as_network_takes(inputs, shape)
        with torch.inference_mode(), recorded_routes(reference) as ours:
            expected = reference(*given)
        for name, session in runtimes.items():
            feeds = {
                entry.name: value.numpy().astype(_DTYPES[entry.type])
                for entry, value in zip(session.get_inputs(), inputs, strict=True)
            }
            output, *theirs = map(torch.from_numpy, session.run(["output", *routes], feeds))
            share = flipped(ours, theirs) if routes else 0.0
            aligned = expected
            if share:
                with torch.inference_mode(), forced_routes(reference, theirs):
                    aligned = reference(*given)
            compared = _compare(name, concrete, aligned, output)
            found.append(replace(compared, flipped=share))
    return Report(path, TOLERANCES[precision], tuple(found), tuple(notes), FLIPPED[precision])


def _bf16_in_float32(
    model: ModelProto, network: Network, shape: InputShape
) -> tuple[ModelProto, Network]:
    """Convert file and network to rounded weights and float32 arithmetic; see the module."""
    onnx.checker.check_model(model, full_check=True)
    rounded = prepared(network, shape, "bf16").network
    for module in rounded.modules():
        module._forward_hooks.clear()
    return upcast(model), rounded.float()


def _runtimes(model: ModelProto, notes: list[str]) -> dict[str, InferenceSession]:
    """Runtimes that can run the file on this machine, by name; adds a note for each other one."""
    content = model.SerializeToString()
    runtimes = {}
    if model.functions or not scan_nodes(model):
        runtimes["ONNX Runtime, standard"] = open_session(content, operator=False)
    if not scan_nodes(model):
        notes.append("the file has standard operators only: our operator has no scan to run")
    elif (why_not := native.unavailable()) is None:
        runtimes["ONNX Runtime, our operator"] = open_session(content, operator=True)
    else:
        notes.append(f"our operator was not run: {why_not}")
    return runtimes


def verify_engine(
    network: Network,
    engine: Network,
    path: Path,
    sizes: Sequence[tuple[int, int, int]],
    *,
    runtime: str,
    rounding: str,
    seed: int = 0,
) -> Report:
    """Compare an engine on a GPU with the network it was built from, in float32.

    Args:
        network: the exported network, in float32.
        engine: the engine, loaded by :func:`zoo.integrations.tensorrt.load_engine`.
        path: path of the engine file.
        sizes: batch, height and width of each comparison.
        runtime: name of the runtime, for the table.
        rounding: key of ``ENGINE_TOLERANCES``.
        seed: random seed of the images.

    Raises:
        ZooError: if the engine is a PyTorch network: PyTorch would be compared with itself.
    """
    if any(weight.numel() for weight in engine.parameters()):
        raise ZooError(f"{path}: what runs it is a network of PyTorch, so nothing is verified")
    shape = input_shape(network)
    reference = prepared(network, shape, "fp32").network
    found = []
    for number, wanted in enumerate(sizes):
        inputs = _inputs(reference, shape, shape.concrete(*wanted), seed + number)
        with torch.inference_mode():
            expected, output = reference(*inputs), engine(*inputs)
        found.append(_compare(runtime, shape.concrete(*wanted), expected, output))
    return Report(path, ENGINE_TOLERANCES[rounding], tuple(found), ())


def sample_of(network: Network, size: tuple[int, int, int], rounding: str) -> Sample | None:
    """Restore a random tile with PyTorch, for the machines that will run an engine.

    None for a network with routers: rounding alone may send a token another way.

    Args:
        network: the exported network, in float32.
        size: batch, height and width of the tile.
        rounding: key of ``ENGINE_TOLERANCES``.
    """
    if routers(network):
        return None
    shape = input_shape(network)
    reference = prepared(network, shape, "fp32").network
    inputs = _inputs(reference, shape, shape.concrete(*size), seed=0)
    with torch.inference_mode():
        output = reference(*inputs)
    return Sample(inputs, output.float(), ENGINE_TOLERANCES[rounding])


_DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


def _inputs(
    network: Network, shape: InputShape, sizes: tuple[int, ...], seed: int
) -> tuple[Tensor, ...]:
    """Make a smooth random image with some detail, and what else the network takes."""
    generator = torch.Generator().manual_seed(seed)
    found = [_picture(sizes, generator)]
    for extra in extra_inputs(network, shape):
        wanted = extra.concrete(sizes[0], sizes[-2], sizes[-1])
        if network.takes_flow:
            found.append(torch.rand(wanted, generator=generator) - 0.5)
        else:
            found.append(_picture(wanted, generator))
    return tuple(found)


def _picture(sizes: tuple[int, ...], generator: torch.Generator) -> Tensor:
    images = math.prod(sizes[:-3])
    coarse = torch.rand(images, sizes[-3], 3, 3, generator=generator)
    soft = F.interpolate(coarse, sizes[-2:], mode="bicubic", align_corners=False)
    detail = 0.1 * torch.randn(soft.shape, generator=generator)
    return (soft + detail).clamp(0, 1).reshape(sizes)


def _as_network_takes(inputs: tuple[Tensor, ...], shape: InputShape) -> list[Tensor]:
    picture, *extra = inputs
    if shape.flat:
        picture = picture.unflatten(1, (shape.frames, shape.channels))
    return [picture, *extra]


def _compare(runtime: str, sizes: tuple[int, ...], expected: Tensor, output: Tensor) -> Comparison:
    # One tensor compared with itself agrees whatever the file computes.
    if output.untyped_storage().data_ptr() == expected.untyped_storage().data_ptr():
        raise ZooError(f"{runtime}: it returned PyTorch's own output, so nothing is verified")
    if output.shape != expected.shape:
        return Comparison(f"{runtime}: {tuple(output.shape)}", sizes, math.inf, -math.inf)
    difference = (output - expected).double()
    spread = float(expected.max() - expected.min())
    error = float(difference.abs().max()) / max(spread, 1e-12)
    mean_square = float(difference.square().mean())
    psnr = math.inf if mean_square == 0 else -10 * math.log10(mean_square)
    return Comparison(runtime, sizes, error, psnr)


def upcast(model: ModelProto) -> ModelProto:
    """Copy a model with every bfloat16 tensor converted to float32, without loss."""
    copy = ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    for entry in (*graph.input, *graph.output, *graph.value_info):
        if entry.type.tensor_type.elem_type == TensorProto.BFLOAT16:
            entry.type.tensor_type.elem_type = TensorProto.FLOAT
    for tensor in graph.initializer:
        _upcast_tensor(tensor)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                _upcast_tensor(attribute.t)
            elif attribute.name in ("to", "dtype") and attribute.i == TensorProto.BFLOAT16:
                attribute.i = TensorProto.FLOAT
    return copy


def _upcast_tensor(tensor: TensorProto) -> None:
    if tensor.data_type == TensorProto.BFLOAT16:
        values = onnx.numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
