"""ONNX Runtime: run files of ``export.onnx`` with our scan operator, as networks.

    session = open_session("model.onnx")            # with the fast scan, if it was built
    network = load_onnx("model.onnx")               # for zoo.restore

These files also run in ONNX Runtime without this package, with the scan in standard operators.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zoo.errors import ZooError, pip_install, reason_of
from zoo.integrations.exported import ExportedNetwork, Range, guides_in
from zoo.ops.scan import native
from zoo.ops.scan.self_check import serves_on_cpu

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

logger = logging.getLogger(__name__)

ERRORS_ONLY = 3


class OnnxError(ZooError, ValueError):
    """An ONNX file cannot be opened or used."""


def open_session(
    source: str | Path | bytes, *, operator: bool | None = None, threads: int | None = None
) -> InferenceSession:
    """Open an ONNX file in ONNX Runtime on the CPU.

    Args:
        source: path of the file, or its content.
        operator: whether to run scans with our operator (True) or with the functions in the file
            (False). None uses our operator if the native library was built.
        threads: number of threads; None lets ONNX Runtime choose.

    Raises:
        OnnxError: if ONNX Runtime or our operator is missing, or the file cannot be opened.
    """
    name = "ONNX model" if isinstance(source, bytes) else str(source)
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise OnnxError(
            f"{name}: the package 'onnxruntime' is needed to run it; {pip_install('onnx')}"
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
    if operator is None and not why_not:
        # If its instruction set is wrong here, a lower one is set that this library uses, too.
        why_not = None if serves_on_cpu(native, torch.device("cpu")) else "its self-check failed"
    if operator or (operator is None and not why_not):
        options.register_custom_ops_library(native.ort_library())
    content = source if isinstance(source, bytes) else str(source)
    try:
        return onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])
    except Exception as error:  # the errors of ONNX Runtime have no common base class
        raise OnnxError(f"{name}: ONNX Runtime cannot open it: {reason_of(error)}") from error


class OnnxNetwork(ExportedNetwork):
    """An ONNX file as a network, on the CPU; see :class:`ExportedNetwork`.

    Args:
        session: a session with one four-dimensional output, and four-dimensional inputs: the image,
            and its guides.
        name: name of the file, for error messages.
    """

    error = OnnxError

    def __init__(self, session: InferenceSession, name: str) -> None:
        inputs, outputs = session.get_inputs(), session.get_outputs()
        ranks = [len(value.shape) for value in (*inputs, *outputs)]
        facts = session.get_modelmeta().custom_metadata_map
        if set(ranks) != {4} or len(inputs) != 1 + len(guides_in(facts)):
            raise OnnxError(
                f"{name}: has {len(inputs)} inputs of {ranks[0]} dimensions; to restore photos, a "
                "file needs one image (B, C, H, W) as input and one as output"
            )
        batch, _, height, width = (
            Range(size, size) if isinstance(size, int) else Range() for size in inputs[0].shape
        )
        super().__init__(name, facts, batch, height, width)
        self.session, self.inputs, self.output = session, inputs, outputs[0].name

    def run(self, inputs: tuple[Tensor, ...]) -> Tensor:
        dtype = torch.float16 if self.inputs[0].type == "tensor(float16)" else torch.float32
        feed: dict[str, Any] = {
            entry.name: value.to(dtype).numpy()
            for entry, value in zip(self.inputs, inputs, strict=True)
        }
        try:
            (found,) = self.session.run([self.output], feed)
        except Exception as error:  # the errors of ONNX Runtime have no common base class
            raise _run_error(self.name, error) from error
        return torch.from_numpy(found).float()


def load_onnx(path: str | Path, *, operator: bool | None = None) -> OnnxNetwork:
    """Open a file of ``export.onnx`` as a network, in evaluation mode, on the CPU.

    Args:
        path: path of the file.
        operator: whether to run scans with our operator; see :func:`open_session`.

    Raises:
        OnnxError: if the file cannot be opened, or does not have one image as input and one as
            output.
    """
    network = OnnxNetwork(open_session(path, operator=operator), str(path))
    logger.info("%s: %s", path, "our operator" if operator is not False else "standard operators")
    return network.eval()


def _run_error(name: str, error: Exception) -> Exception:
    text = " ".join(str(error).split())
    lowered = text.lower()
    if any(sign in lowered for sign in ("out of memory", "failed to allocate", "bad_alloc")):
        return MemoryError(f"{name}: out of memory")  # callers then use smaller tiles
    return OnnxError(f"{name}: ONNX Runtime failed: {text[:200]}")


__all__ = ["OnnxError", "OnnxNetwork", "load_onnx", "open_session"]
