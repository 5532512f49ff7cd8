"""8-bit files: wide convolutions and linear layers in int8, everything else in float32.

ONNX Runtime's static quantisation needs photos to see the ranges of activations. Then the loss is
measured: photos are degraded as in the model's training, restored by the float32 file and by the
8-bit file, and compared with the clean photos.

Shape suffixes: I channels, H height, W width in pixels.
"""

from __future__ import annotations

import contextlib
import logging
import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from export.model import check_no_guides
from export.shape import InputShape
from zoo.data import Bicubic, Degradation, list_photos, read_photo
from zoo.data.pixels import to_tensor, with_channels
from zoo.data.samples import load_sample, sample_names
from zoo.errors import ZooError
from zoo.evaluation import mean_score, restore_clean, score
from zoo.integrations.onnxruntime import OnnxNetwork, open_session
from zoo.networks import Network

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

logger = logging.getLogger(__name__)

MAX_LOSS = 0.15
"""Largest loss of PSNR in dB that is accepted by default."""

LAYERS = ("Conv", "Gemm", "MatMul")
"""Operators that are quantised where their weights are constants."""

SUMMED = 144
"""Fewest products that one output of a quantised layer sums. With fewer, as in depthwise
convolutions, 8 bits save less than quantising and dequantising costs: in ONNX Runtime with AVX-512,
a linear layer takes 1.4 times as long with 48 inputs, as long with 180, and 0.6 times with 360."""

FIRST, LAST = 1, 3
"""Convolutions at both ends that stay float32, because they carry the image itself. In
mambair_tiny_x2, they would cause four fifths of the loss."""

CALIBRATED, MEASURED = 256, 512
"""Sides of the squares that are cut out of clean photos for calibration and for the loss."""


@dataclass(frozen=True)
class Loss:
    """PSNR in dB on the same photos: of the float32 file, and of the 8-bit file."""

    photos: int
    before: float
    after: float

    @property
    def decibels(self) -> float:
        """What the 8-bit file loses; infinity if its output is not finite."""
        loss = self.before - self.after
        return loss if math.isfinite(loss) else math.inf

    def __str__(self) -> str:
        return (
            f"int8 loses {self.decibels:.3f} dB on {self.photos} photos: "
            f"{self.before:.3f} dB in float32, {self.after:.3f} dB in int8"
        )


def check_int8(
    network: Network, shape: InputShape, *, half_border: bool, photos: Path | None, max_loss: float
) -> None:
    """Check the options and read the photos once, before the network is traced.

    Raises:
        ZooError: if the network, the options or the photos do not go with int8.
    """
    if network.takes_burst:
        raise ZooError("--precision int8: networks of bursts cannot be quantised; use fp16")
    check_no_guides(network.guides, "--precision int8")
    if half_border:
        raise ZooError("--half-io does not go with --precision int8, whose input is float32")
    if shape.batch not in ("N", 1) or not {2, 3} <= shape.dynamic.keys():
        raise ZooError(
            f"--precision int8 --shape {shape}: photos calibrate, so height and width must vary, "
            f"as in 1x{shape.channels}xHxW"
        )
    if not 0 < max_loss < math.inf:
        raise ZooError(f"--max-loss {max_loss}: give a number of decibels above 0, such as 0.15")
    _degradation(network)
    _photos(photos, network.channels)


def quantised(
    network: Network, model: ModelProto, *, photos: Path | None = None, max_loss: float = MAX_LOSS
) -> ModelProto:
    """Quantise a float32 graph, measure what that loses, and log it.

    Args:
        network: the exported network, for its degradation.
        model: its graph; the functions of the scans are added here.
        photos: folder of two or more clean photos: one in four measures, the others calibrate. None
            for the sample photos: those for training calibrate, the held-out ones measure.
        max_loss: largest loss of PSNR in dB.

    Returns:
        The quantised graph, with the loss in its metadata.

    Raises:
        ZooError: if too much is lost.
    """
    import onnx

    from export.scan_function import attach_functions

    degradation = _degradation(network)
    seen, measured = _photos(photos, network.channels)
    attach_functions(model)
    with tempfile.TemporaryDirectory() as name:
        paths = [Path(name) / file for file in ("float32.onnx", "int8.onnx")]
        paths[0].write_bytes(model.SerializeToString())
        clean = _squares(seen, CALIBRATED, network.scale)
        images = [degradation.for_test(x_IHW, 0) for x_IHW in clean]
        _quantise(paths[0], paths[1], images)
        found = onnx.load(paths[1])
        # The quantiser may drop metadata and functions.
        del found.metadata_props[:]
        found.metadata_props.extend(model.metadata_props)
        attach_functions(found)
        paths[1].write_bytes(found.SerializeToString())
        loss = _loss(paths, _squares(measured, MEASURED, network.scale), degradation)
    if not loss.decibels <= max_loss:
        raise ZooError(f"{loss}; --max-loss allows {max_loss:g} dB: use fp16, or allow more")
    logger.info("%s", loss)
    found.metadata_props.add(key="int8_loss", value=f"{loss.decibels:.4f} dB")
    return found


def _degradation(network: Network) -> Degradation:
    """The degradation of the model's training; bicubic if there is none and the model enlarges."""
    from zoo.training.settings import train_settings

    recipe = network.recipe
    if recipe is not None and recipe.train:
        made = train_settings(recipe).data.degradation
        if made is not None:
            return made(scale=network.scale)
    if network.scale == 1:
        raise ZooError(
            "--precision int8: the recipe has no train.data.degradation, so the loss cannot be "
            "measured; add one to the recipe"
        )
    return Bicubic(scale=network.scale)


def _photos(folder: Path | None, channels: int) -> tuple[list[Tensor], list[Tensor]]:
    """Clean photos (I, H, W) for calibration, and others to measure with."""

    def tensor(photo: Any) -> Tensor:
        return to_tensor(with_channels(photo.color_HWC, channels))

    if folder is None:
        calibrate, measure = (
            [tensor(load_sample(name)) for name in sample_names(held_out)]
            for held_out in (False, True)
        )
        return calibrate, measure
    paths = list_photos(folder)
    if len(paths) < 2:
        raise ZooError(f"--photos {folder}: int8 needs two photos or more: one to measure the loss")
    kept = [path for i, path in enumerate(paths) if i % 4 == 0]
    others = [path for path in paths if path not in kept]
    return [tensor(read_photo(path)) for path in others], [tensor(read_photo(p)) for p in kept]


def _squares(photos: Sequence[Tensor], side: int, scale: int) -> list[Tensor]:
    """The middle of each photo, with sides that are multiples of the scale."""
    found = []
    for x_IHW in photos:
        height, width = (min(side, size) // scale * scale for size in x_IHW.shape[1:])
        top, left = (x_IHW.shape[1] - height) // 2, (x_IHW.shape[2] - width) // 2
        found.append(x_IHW[:, top : top + height, left : left + width])
    return found


def _quantise(source: Path, target: Path, images: Sequence[Tensor]) -> None:
    import onnx
    from onnxruntime import quantization

    class Images(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.rest: Iterator[Tensor] = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image_IHW = next(self.rest, None)
            return None if image_IHW is None else {"input": image_IHW[None].numpy()}

    kept = _kept_float(onnx.load(source))
    with _quiet():
        quantization.quantize_static(
            str(source),
            str(target),
            Images(),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=list(LAYERS),
            nodes_to_exclude=kept,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            # A few extreme activations would widen the range of all others.
            calibrate_method=quantization.CalibrationMethod.Percentile,
            extra_options={"MatMulConstBOnly": True},
        )


def _kept_float(model: ModelProto) -> list[str]:
    """Names of the layers that are not quantised.

    Raises:
        ZooError: if these are all.
    """
    sizes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    layers = [node for node in model.graph.node if node.op_type in LAYERS]
    convolutions = [node.name for node in layers if node.op_type == "Conv"]
    kept = [*convolutions[:FIRST], *convolutions[-LAST:]]
    kept += [node.name for node in layers if _summed(node, sizes.get(node.input[1])) < SUMMED]
    if {node.name for node in layers} <= set(kept):
        raise ZooError(
            f"--precision int8: no layer of this network sums {SUMMED} products, so 8 bits save "
            "nothing; use fp16"
        )
    return kept


def _summed(layer: NodeProto, weight: tuple[int, ...] | None) -> int:
    """How many products an output of a layer sums; 0 if its weight is no constant."""
    if weight is None:
        return 0
    if layer.op_type == "Conv":
        return math.prod(weight[1:])
    transposed = any(entry.name == "transB" and entry.i for entry in layer.attribute)
    return weight[-1] if transposed else weight[-2]


def _loss(paths: Sequence[Path], photos: Sequence[Tensor], degradation: Degradation) -> Loss:
    psnr = []
    for path in paths:
        network = OnnxNetwork(open_session(path), path.name).eval()
        scores = [
            score(str(i), restore_clean(network, photo, degradation, i), network.scale)
            for i, photo in enumerate(photos)
        ]
        psnr.append(mean_score(scores).psnr)
    return Loss(len(photos), *psnr)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Within the context, ONNX Runtime's quantiser does not log or print."""
    level = logging.root.level
    logging.root.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(None):
            yield
    finally:
        logging.root.setLevel(level)
