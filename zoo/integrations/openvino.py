"""OpenVINO: run files of ``export.onnx --for openvino`` on a CPU, as networks.

network = load_openvino("model.onnx")           # for zoo.restore
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.errors import ZooError, pip_install
from zoo.integrations.exported import ExportedNetwork, Range, guides_in

SETTINGS = {"INFERENCE_PRECISION_HINT": "f32"}
"""Without it, OpenVINO computes in bfloat16 where the CPU is fast at it."""

FACTS = "framework"
"""Where OpenVINO keeps the metadata of an ONNX file."""


class OpenVinoError(ZooError, ValueError):
    """An ONNX file cannot be opened or used in OpenVINO."""


class OpenVinoNetwork(ExportedNetwork):
    """An ONNX file as a network in OpenVINO; see :class:`ExportedNetwork`.

    Args:
        compiled: the compiled model, with four-dimensional inputs and one such output.
        facts: metadata of the file.
        name: name of the file, for error messages.
    """

    error = OpenVinoError

    def __init__(self, compiled: Any, facts: dict[str, str], name: str) -> None:
        shapes = [value.partial_shape for value in (*compiled.inputs, *compiled.outputs)]
        ranks = [len(shape) for shape in shapes]
        if set(ranks) != {4} or len(ranks) != 2 + len(guides_in(facts)):
            raise OpenVinoError(
                f"{name}: has {len(compiled.inputs)} inputs of {ranks[0]} dimensions; to restore "
                "photos, a file needs one image (B, C, H, W) as input and one as output"
            )
        batch, _, height, width = (
            Range() if size.is_dynamic else Range(size.get_length(), size.get_length())
            for size in shapes[0]
        )
        super().__init__(name, facts, batch, height, width)
        self.compiled = compiled
        self.takes_half = compiled.inputs[0].element_type.get_type_name() == "f16"

    def run(self, inputs: tuple[Tensor, ...]) -> Tensor:
        dtype = torch.float16 if self.takes_half else torch.float32
        with _plain_errors(self.name, "failed"):
            found = self.compiled([value.to(dtype).numpy() for value in inputs])[0]
        return torch.from_numpy(found).float()


def load_openvino(path: str | Path) -> OpenVinoNetwork:
    """Open a file of ``export.onnx --for openvino`` as a network, in evaluation mode, on the CPU.

    Args:
        path: path of the file.

    Raises:
        OpenVinoError: if OpenVINO is missing, or the file cannot be opened or does not have one
            image as input and one as output.
    """
    try:
        import openvino
    except ModuleNotFoundError as error:
        raise OpenVinoError(
            f"{path}: the package 'openvino' is needed to run it; {pip_install('openvino')}"
        ) from error
    if not Path(path).is_file():
        raise OpenVinoError(f"{path}: cannot open: the file does not exist")
    with _plain_errors(str(path), "cannot open it"):
        core = openvino.Core()
        model = core.read_model(str(path))
        kept = model.get_rt_info()
        told = kept[FACTS] if FACTS in kept else {}  # noqa: SIM401, as this mapping has no get
        facts = {key: str(told[key].value) for key in told}
        compiled = core.compile_model(model, "CPU", SETTINGS)
    return OpenVinoNetwork(compiled, facts, str(path)).eval()


@contextlib.contextmanager
def _plain_errors(name: str, what: str) -> Iterator[None]:
    """Within the context, make errors of OpenVINO one sentence, or MemoryError."""
    try:
        yield
    except RuntimeError as error:
        text = " ".join(str(error).split())
        if "zoo.SelectiveScan" in text:
            raise OpenVinoError(
                f"{name}: OpenVINO does not know the functions of the file; export it with "
                "--for openvino"
            ) from error
        if any(
            sign in text.lower() for sign in ("bad_alloc", "out of memory", "not enough memory")
        ):
            raise MemoryError(f"{name}: out of memory") from error  # callers use smaller tiles
        raise OpenVinoError(f"{name}: OpenVINO {what}: {text[-200:]}") from error


__all__ = ["OpenVinoError", "OpenVinoNetwork", "load_openvino"]
