"""TensorRT: run engines of ``export.trt`` as networks, on an NVIDIA GPU.

    from trt_plugins.build import build

    network = load_engine("mambair_light_x4.engine", plugin=build)    # for zoo.restore

Without a GPU, engines can only be built, and only with TensorRT-RTX.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.integrations.engine_code import holds_library
from zoo.integrations.engine_sample import read_sample
from zoo.integrations.exported import ExportedNetwork, Range
from zoo.integrations.tensorrt_runtime import EngineError, TensorRT, open_tensorrt
from zoo.ops.scan.self_check import setting

Plugin = Path | Callable[[], Path]
"""Path of the plugin's library, or a function that returns it and may compile it first."""


def sidecar_path(engine: Path) -> Path:
    """Return the path of the JSON file that ``export.trt`` writes beside an engine."""
    return engine.with_name(engine.name + ".json")


def read_sidecar(engine: Path) -> dict[str, Any]:
    """Read the JSON file beside an engine.

    Raises:
        EngineError: if the engine or the JSON file is missing, or they do not belong together.
    """
    path = sidecar_path(engine)
    if not engine.is_file():
        raise EngineError(f"{engine}: cannot open: the file does not exist")
    try:
        found = json.loads(path.read_text())
        digest = found["sha256"]["engine"]
        found["facts"]["model"], found["profile"]["input"], found["runtime"]["name"]
    except FileNotFoundError as error:
        raise EngineError(
            f"{engine}: {path.name} is missing beside it; export.trt writes both files"
        ) from error
    except (ValueError, KeyError, TypeError, OSError, RecursionError) as error:
        raise EngineError(f"{path}: not a file of export.trt ({type(error).__name__})") from error
    if hashlib.sha256(engine.read_bytes()).hexdigest() != digest:
        raise EngineError(f"{engine}: {path.name} belongs to another engine; export it again")
    return dict(found)


class EngineSession:
    """An engine on PyTorch's current GPU, with PyTorch tensors as its buffers.

    Args:
        path: path of the engine.
        sidecar: content of the JSON file beside the engine.
        plugin: path of the plugin's library, or a function that returns it, such as
            ``trt_plugins.build.build``. The function is called only if the engine needs a library.
        trusted: whether to run code that is embedded in the engine.

    Raises:
        EngineError: if the GPU, TensorRT or the plugin is missing, or the engine does not run with
            them.
    """

    def __init__(
        self,
        path: Path,
        sidecar: Mapping[str, Any],
        *,
        plugin: Plugin | None = None,
        trusted: bool = False,
    ) -> None:
        if not torch.cuda.is_available():
            raise EngineError(
                f"{path}: engines need an NVIDIA GPU, and PyTorch finds none on this machine; "
                "restore with -n or with --onnx instead"
            )
        needs = sidecar["plugin"]
        content = path.read_bytes()
        if not trusted and ((needs and needs["embedded"]) or holds_library(content)):
            raise EngineError(
                f"{path}: contains its own code (such as the plugin), which runs with all your "
                "rights; add --trust-engine if you know where it comes from"
            )
        self.path, self.device = path, torch.device("cuda", torch.cuda.current_device())
        self.tensorrt = open_tensorrt(sidecar["runtime"]["name"])
        self.logger = self.tensorrt.logger()
        api = self.tensorrt.api
        runtime = api.Runtime(self.logger)
        if needs and needs["embedded"]:
            runtime.engine_host_code_allowed = True
        elif needs:
            if plugin is None:
                raise EngineError(
                    f"{path}: needs the plugin's library; pass its path, or the function "
                    "trt_plugins.build.build, as plugin="
                )
            library = plugin() if callable(plugin) else plugin
            self.tensorrt.load_plugin(runtime.get_plugin_registry(), library)
        self.engine = runtime.deserialize_cuda_engine(content)
        if self.engine is None:
            raise EngineError(
                f"{path}: {self.tensorrt.name} {self.tensorrt.version} cannot load it; engines are "
                f"bound to the version and GPU they were built for{self.logger.last}"
            )
        self.runtime, self.context = runtime, self.engine.create_execution_context()
        if self.context is None:
            raise EngineError(
                f"{path}: too little GPU memory for the engine's largest sizes; build it with a "
                f"smaller --max{self.logger.last}"
            )
        self.stream = torch.cuda.Stream(self.device)
        names = [self.engine.get_tensor_name(i) for i in range(self.engine.num_io_tensors)]
        self.inputs = [n for n in names if self.engine.get_tensor_mode(n) == api.TensorIOMode.INPUT]
        (self.output,) = [n for n in names if n not in self.inputs]

    def run(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Run the engine once.

        Args:
            inputs: tensors by name, on any device, with sizes in the engine's profile.

        Returns:
            The output, on the GPU.
        """
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            held = {name: self._placed(name, inputs[name]) for name in self.inputs}
            for name, value in held.items():
                if not self.context.set_input_shape(name, tuple(value.shape)):
                    raise EngineError(
                        f"{self.path}: input {name} is {tuple(value.shape)}, which is outside the "
                        "engine's profile"
                    )
                self.context.set_tensor_address(name, value.data_ptr())
            shape = tuple(self.context.get_tensor_shape(self.output))
            output = torch.empty(shape, dtype=self._dtype(self.output), device=self.device)
            self.context.set_tensor_address(self.output, output.data_ptr())
            if not self.context.execute_async_v3(self.stream.cuda_stream):
                raise EngineError(f"{self.path}: the engine failed{self.logger.last}")
        self.stream.synchronize()
        return output

    def _placed(self, name: str, value: Tensor) -> Tensor:
        return value.to(self.device, self._dtype(name)).contiguous()

    def _dtype(self, name: str) -> torch.dtype:
        kinds = self.tensorrt.api.DataType
        dtypes = {kinds.HALF: torch.float16, kinds.BF16: torch.bfloat16}
        return dtypes.get(self.engine.get_tensor_dtype(name), torch.float32)


class EngineNetwork(ExportedNetwork):
    """An engine as a network; see :class:`ExportedNetwork`.

    Args:
        session: session that runs the engine.
        sidecar: content of the JSON file beside the engine.
        name: name of the engine, for error messages.
    """

    error = EngineError

    def __init__(self, session: EngineSession, sidecar: Mapping[str, Any], name: str) -> None:
        sizes = sidecar["profile"]["input"]
        batch, height, width = (
            Range(sizes["min"][axis], sizes["max"][axis]) for axis in (0, -2, -1)
        )
        super().__init__(name, sidecar["facts"], batch, height, width)
        self.session, self.flat = session, len(sizes["min"]) == 4 and self.takes_burst
        self.flow_prior = "registration" if "flow" in sidecar["profile"] else "none"
        try:
            self.sample = read_sample(sidecar.get("sample"))
        except ValueError as error:
            raise EngineError(f"{name}: {error} in its JSON file; export it again") from error

    def check(self) -> None:
        """Restore the stored tile and compare it with PyTorch's result, if there is one.

        ``ZOO_SELF_CHECK=0`` in the environment leaves that out.

        Raises:
            EngineError: if they differ.
        """
        if self.sample is None or setting() == "0":
            return
        with torch.inference_mode():
            error = self.sample.error(self(*self.sample.inputs))
        if not error <= self.sample.tolerance:
            raise EngineError(
                f"{self.name}: on this GPU it restores the tile in its JSON file otherwise than "
                f"PyTorch: by {error:.1e} of the range, where {self.sample.tolerance:.0e} is "
                "allowed; build it again on this machine with zoo export trt, or restore with -n"
            )

    def run(self, inputs: tuple[Tensor, ...]) -> Tensor:
        if self.takes_burst and inputs[0].shape[1] != self.burst:
            raise EngineError(
                f"{self.name}: needs bursts of {self.burst} frames, not {inputs[0].shape[1]}"
            )
        image = inputs[0].flatten(1, 2) if self.flat else inputs[0]
        feeds = {"input": image, "flow": inputs[-1]}
        return self.session.run(feeds).float().cpu()


def load_engine(
    path: str | Path, *, plugin: Plugin | None = None, trusted: bool = False
) -> EngineNetwork:
    """Open an engine of ``export.trt`` as a network, in evaluation mode.

    Args:
        path: path of the engine; its JSON file must be beside it.
        plugin: path of the plugin's library, or a function that returns it; see
            :class:`EngineSession`.
        trusted: whether to run code that is embedded in the engine.

    Raises:
        EngineError: if the engine cannot be opened or run on this machine.
    """
    path = Path(path)
    sidecar = read_sidecar(path)
    session = EngineSession(path, sidecar, plugin=plugin, trusted=trusted)
    return EngineNetwork(session, sidecar, str(path)).eval()


__all__ = [
    "EngineError",
    "EngineNetwork",
    "EngineSession",
    "TensorRT",
    "load_engine",
    "open_tensorrt",
    "read_sidecar",
    "sidecar_path",
]
