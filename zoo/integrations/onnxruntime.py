"""ONNX Runtime: files of ``export.onnx`` run with our operator, and serve as networks.

    session = open_session("model.onnx")            # the fast scan, where it was built
    network = load_onnx("model.onnx")               # for zoo.restore

Any ONNX Runtime opens these files by itself too, and then runs the scan in standard operators.

Shape suffixes: B batch, I image channels, H height, W width, s scale.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.errors import ZooError
from zoo.networks import Network
from zoo.ops.scan import native
from zoo.registry import Capabilities

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

logger = logging.getLogger(__name__)

ERRORS_ONLY = 3


class OnnxError(ZooError, ValueError):
    """An ONNX file cannot be opened or used."""


def open_session(
    source: str | Path | bytes, *, operator: bool | None = None, threads: int | None = None
) -> InferenceSession:
    """Open a file in ONNX Runtime on the CPU.

    Args:
        source: path of the file, or its content.
        operator: run scans by our operator (True) or by the functions in the file (False); where
            None, by our operator if the native library was built.
        threads: how many; ONNX Runtime decides where None.

    Raises:
        OnnxError: if ONNX Runtime or our operator is missing, or the file does not open.
    """
    name = "ONNX model" if isinstance(source, bytes) else str(source)
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise OnnxError(
            f"{name}: running it needs the package 'onnxruntime'; install the extra: "
            "pip install 'mamba-restoration-zoo[onnx]'"
        ) from error
    if not isinstance(source, bytes) and not Path(source).is_file():
        raise OnnxError(f"{name}: cannot open: the file does not exist")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    if threads is not None:
        options.intra_op_num_threads = threads
    why_not = native.unavailable()
    if operator and why_not:
        raise OnnxError(f"{name}: our operator cannot run here: {why_not}")
    if operator or (operator is None and not why_not):
        options.register_custom_ops_library(native.ort_library())
    content = source if isinstance(source, bytes) else str(source)
    try:
        return onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])
    except Exception as error:  # its errors share no base class
        text = " ".join(str(error).split())[:200]
        raise OnnxError(f"{name}: ONNX Runtime cannot open it: {text}") from error


class OnnxNetwork(Network):
    """A file as a network: ``(B, I, H, W) -> (B, I, s*H, s*W)``, on the CPU.

    Smaller images than a file of fixed size takes are padded by repeating their edge and cropped.

    Args:
        session: with one four-dimensional input and one output.
        name: of the file, for messages.
    """

    def __init__(self, session: InferenceSession, name: str) -> None:
        super().__init__()
        inputs, outputs = session.get_inputs(), session.get_outputs()
        ranks = [len(value.shape) for value in (*inputs, *outputs)]
        if len(inputs) != 1 or ranks != [4, 4]:
            raise OnnxError(
                f"{name}: takes {len(inputs)} inputs of {ranks[0]} dimensions; only files with one "
                "image (B, C, H, W) in and one out restore photographs"
            )
        facts = session.get_modelmeta().custom_metadata_map
        if facts.get("model") is None:
            raise OnnxError(f"{name}: not a file of export.onnx: it does not say what it is")
        self.session, self.name = session, name
        self.input, self.output = inputs[0], outputs[0].name
        self.scale, self.channels = int(facts["scale"]), int(facts["channels"])
        self.capabilities = Capabilities(size_multiple=int(facts["size_multiple"]))
        # Tools ask a network's parameters for its device and dtype.
        self.placement = nn.Parameter(torch.empty(0), requires_grad=False)

    def forward(self, image_BIHW: Tensor) -> Tensor:
        batch = self.input.shape[0]
        if isinstance(batch, int) and batch != len(image_BIHW):
            if batch != 1:
                raise OnnxError(f"{self.name}: takes {batch} images at once; export it with 1 or N")
            return torch.cat([self(image_1IHW) for image_1IHW in image_BIHW.split(1)])
        height, width = image_BIHW.shape[2:]
        below, right = (
            fixed - size if isinstance(fixed, int) else 0
            for fixed, size in zip(self.input.shape[2:], (height, width), strict=True)
        )
        if below < 0 or right < 0:
            side = min(s for s in self.input.shape[2:] if isinstance(s, int))
            raise OnnxError(
                f"{self.name}: takes no more than {side} pixels a side; use tiles: -t {side}"
            )
        padded_BIHW = F.pad(image_BIHW, (0, right, 0, below), mode="replicate")
        dtype = torch.float16 if self.input.type == "tensor(float16)" else torch.float32
        feed: dict[str, Any] = {self.input.name: padded_BIHW.to(dtype).contiguous().numpy()}
        try:
            (found,) = self.session.run([self.output], feed)
        except Exception as error:  # its errors share no base class
            raise _run_error(self.name, error) from error
        output_BIHW = torch.from_numpy(found).float()
        return output_BIHW[:, :, : height * self.scale, : width * self.scale]


def load_onnx(path: str | Path, *, operator: bool | None = None) -> OnnxNetwork:
    """Open a file of ``export.onnx`` as a network.

    Args:
        path: of the file.
        operator: see :func:`open_session`.

    Raises:
        OnnxError: if it cannot be opened, or is no network of one image in and one out.
    """
    network = OnnxNetwork(open_session(path, operator=operator), str(path))
    logger.info("%s: %s", path, "our operator" if operator is not False else "standard operators")
    return network.eval()


def _run_error(name: str, error: Exception) -> Exception:
    text = " ".join(str(error).split())
    lowered = text.lower()
    if any(sign in lowered for sign in ("out of memory", "failed to allocate", "bad_alloc")):
        return MemoryError(f"{name}: out of memory")  # which makes tiles smaller
    return OnnxError(f"{name}: ONNX Runtime failed: {text[:200]}")


__all__ = ["OnnxError", "OnnxNetwork", "load_onnx", "open_session"]
