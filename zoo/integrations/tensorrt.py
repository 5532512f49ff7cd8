"""TensorRT and TensorRT-RTX: the package that is there, and engines of ``export.trt`` as networks.

    network = load_engine("mambair_light_x4.engine")    # for zoo.restore, on an NVIDIA GPU

Only building an engine works without a GPU, and that only with TensorRT-RTX.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import importlib.util
import json
import logging
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo.integrations.exported import ExportedNetwork, Range

logger = logging.getLogger(__name__)

MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
"""Python modules by the names of the runtimes."""

EXTRAS = {"tensorrt": "trt", "tensorrt-rtx": "trt-rtx"}


class EngineError(ZooError, ValueError):
    """TensorRT is missing, or an engine cannot be built, opened or run."""


@dataclass(frozen=True)
class TensorRT:
    """One of the runtimes.

    Attributes:
        name: of ``MODULES``.
        api: its Python module.
    """

    name: str
    api: Any

    @property
    def version(self) -> str:
        """Such as ``10.16.1.11``."""
        return str(self.api.__version__)

    @property
    def release(self) -> tuple[int, int]:
        """The first two numbers of the version."""
        major, minor, *_ = self.version.split(".")
        return int(major), int(minor)

    def logger(self) -> Any:
        """TensorRT's messages as ours: what it calls an error is kept for the error we raise."""
        return _logger(self.api)

    def load_plugin(self, registry: Any, library: Path) -> None:
        """Register the plugins of a library, for good, unless they are there already.

        Raises:
            EngineError: if there are none in it.
        """
        if not library.is_file():
            raise EngineError(f"{library}: the plugin's library does not exist")
        if _OURS & (before := _creators(registry)):
            return
        registry.load_library(str(library.resolve()))
        if _creators(registry) == before:
            raise EngineError(f"{library}: {self.name} finds no plugin in it; build it again")


_OURS = {(name, "1", "zoo") for name in ("SelectiveScan", "SelectiveScanSum")}


def _creators(registry: Any) -> set[tuple[str, str, str]]:
    """Name, version and namespace of the plugins that a registry knows."""
    found = registry.all_creators_recursive
    return {(c.name, c.plugin_version, c.plugin_namespace) for c in found}


def open_tensorrt(name: str = "auto") -> TensorRT:
    """Import TensorRT or TensorRT-RTX.

    Args:
        name: "tensorrt", "tensorrt-rtx", or "auto" for the first of them that is installed; for
            the other way round on a machine without a GPU, where TensorRT builds nothing.

    Raises:
        EngineError: if it is not installed or does not load.
    """
    wanted = [name]
    if name == "auto":
        wanted = sorted(MODULES, reverse=not torch.cuda.is_available())
    reasons = []
    for each in wanted:
        if importlib.util.find_spec(MODULES[each]) is None:
            reasons.append(f"the package {MODULES[each]!r} is not installed")
            continue
        try:
            if each == "tensorrt-rtx":
                _mend_library_name()
            return TensorRT(each, importlib.import_module(MODULES[each]))
        except (ImportError, OSError) as error:
            reasons.append(f"{each} does not load: {' '.join(str(error).split())[:200]}")
    extra = EXTRAS[wanted[0]]
    raise EngineError(
        f"{'; '.join(reasons)}; install it: pip install 'mamba-restoration-zoo[{extra}]'"
    )


def _mend_library_name() -> None:
    """Make ``libtensorrt_rtx.so`` findable, which the parser asks for and the package lacks.

    The package has ``libtensorrt_rtx.so.1`` only, and without the other name the parser ends the
    process at its first plugin. It looks in its own folder: that is one of ours here, with links
    to the package's files, opened before the package opens them itself.
    """
    found = importlib.util.find_spec("tensorrt_rtx_libs")
    if sys.platform != "linux" or found is None or found.origin is None:
        return
    from trt_plugins.build import cache_folder

    libraries = Path(found.origin).parent
    names = {path.name: path for path in libraries.glob("lib*.so.*")}
    unnumbered = {name.partition(".so")[0] + ".so": path for name, path in names.items()}
    if all((libraries / name).exists() for name in unnumbered):
        return
    if MODULES["tensorrt-rtx"] in sys.modules:
        return
    key = hashlib.sha256(str(libraries).encode()).hexdigest()[:16]
    links = cache_folder() / "tensorrt-rtx" / key
    try:
        links.mkdir(parents=True, exist_ok=True)
        for name, path in (names | unnumbered).items():
            with tempfile.TemporaryDirectory(dir=links) as folder:
                link = Path(folder) / name
                link.symlink_to(path)
                link.replace(links / name)
    except OSError as error:
        raise EngineError(
            f"{links}: cannot write there ({error.strerror}); set ZOO_CACHE to a folder that can "
            "be written"
        ) from error
    # The parser needs the other library, which therefore comes first.
    for name in sorted(names, key=lambda name: "parser" in name):
        ctypes.CDLL(str(links / name), mode=os.RTLD_GLOBAL | os.RTLD_NOW)


def _logger(api: Any) -> Any:
    class Logger(api.ILogger):
        def __init__(self) -> None:
            api.ILogger.__init__(self)
            self.errors: list[str] = []
            self.memory: dict[str, int] = {}

        def log(self, severity: Any, text: str) -> None:
            if severity in (api.ILogger.Severity.INTERNAL_ERROR, api.ILogger.Severity.ERROR):
                self.errors.append(" ".join(text.split()))
            elif found := re.search(r"Total (\w+) Memory: (\d+) bytes", text):
                self.memory[found[1].lower()] = int(found[2])
            else:
                logger.debug("TensorRT: %s", text)

        @property
        def last(self) -> str:
            """The last error as the end of a sentence."""
            return f": {self.errors[-1][:300]}" if self.errors else ""

    return Logger()


def sidecar_path(engine: Path) -> Path:
    """The JSON file that ``export.trt`` writes beside an engine."""
    return engine.with_name(engine.name + ".json")


def read_sidecar(engine: Path) -> dict[str, Any]:
    """What the file beside an engine says of it.

    Raises:
        EngineError: if there is none, or it is of another engine.
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
            f"{engine}: {path.name} is not beside it; export.trt writes the two together"
        ) from error
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise EngineError(f"{path}: not a file of export.trt ({type(error).__name__})") from error
    if hashlib.sha256(engine.read_bytes()).hexdigest() != digest:
        raise EngineError(f"{engine}: {path.name} is of another engine; export it again")
    return dict(found)


class EngineSession:
    """An engine on this machine's GPU; PyTorch's tensors are its buffers.

    Args:
        path: of the engine.
        sidecar: what stands beside it.
        plugin: library of the plugin; where None, that of :mod:`trt_plugins.build`, if the engine
            needs one.
        trusted: run code that is embedded in the engine.

    Raises:
        EngineError: without a GPU, without TensorRT, or for an engine that does not fit them.
    """

    def __init__(
        self,
        path: Path,
        sidecar: Mapping[str, Any],
        *,
        plugin: Path | None = None,
        trusted: bool = False,
    ) -> None:
        if not torch.cuda.is_available():
            raise EngineError(
                f"{path}: engines run on NVIDIA GPUs, and PyTorch finds none on this machine; "
                "restore with -n or with --onnx here"
            )
        needs = sidecar["plugin"]
        if needs and needs["embedded"] and not trusted:
            raise EngineError(
                f"{path}: holds code of its own (its plugin), which runs with all your rights; add "
                "--trust-engine if you know where it comes from"
            )
        self.path = path
        self.tensorrt = open_tensorrt(sidecar["runtime"]["name"])
        self.logger = self.tensorrt.logger()
        api = self.tensorrt.api
        runtime = api.Runtime(self.logger)
        if needs and needs["embedded"]:
            runtime.engine_host_code_allowed = True
        elif needs:
            from trt_plugins.build import build

            self.tensorrt.load_plugin(runtime.get_plugin_registry(), plugin or build())
        self.engine = runtime.deserialize_cuda_engine(path.read_bytes())
        if self.engine is None:
            raise EngineError(
                f"{path}: {self.tensorrt.name} {self.tensorrt.version} cannot load it; engines are "
                f"bound to the version and GPU they were built for{self.logger.last}"
            )
        self.runtime, self.context = runtime, self.engine.create_execution_context()
        if self.context is None:
            raise EngineError(
                f"{path}: too little memory on the GPU for its largest sizes; build it with a "
                f"smaller --max{self.logger.last}"
            )
        self.stream = torch.cuda.Stream()
        names = [self.engine.get_tensor_name(i) for i in range(self.engine.num_io_tensors)]
        self.inputs = [n for n in names if self.engine.get_tensor_mode(n) == api.TensorIOMode.INPUT]
        (self.output,) = [n for n in names if n not in self.inputs]

    def run(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Run the engine.

        Args:
            inputs: by name, on any device, of sizes in the engine's profile.

        Returns:
            The output, on the GPU.
        """
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            held = {name: self._placed(name, inputs[name]) for name in self.inputs}
            for name, value in held.items():
                if not self.context.set_input_shape(name, tuple(value.shape)):
                    raise EngineError(
                        f"{self.path}: input {name} is {tuple(value.shape)}, outside of its profile"
                    )
                self.context.set_tensor_address(name, value.data_ptr())
            shape = tuple(self.context.get_tensor_shape(self.output))
            output = torch.empty(shape, dtype=self._dtype(self.output), device="cuda")
            self.context.set_tensor_address(self.output, output.data_ptr())
            if not self.context.execute_async_v3(self.stream.cuda_stream):
                raise EngineError(f"{self.path}: the engine failed{self.logger.last}")
        self.stream.synchronize()
        return output

    def _placed(self, name: str, value: Tensor) -> Tensor:
        return value.to("cuda", self._dtype(name)).contiguous()

    def _dtype(self, name: str) -> torch.dtype:
        kinds = self.tensorrt.api.DataType
        dtypes = {kinds.HALF: torch.float16, kinds.BF16: torch.bfloat16}
        return dtypes.get(self.engine.get_tensor_dtype(name), torch.float32)


class EngineNetwork(ExportedNetwork):
    """An engine as a network; see :class:`ExportedNetwork`.

    Args:
        session: what runs it.
        sidecar: what stands beside the engine.
        name: of the engine, for messages.
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

    def run(self, inputs: tuple[Tensor, ...]) -> Tensor:
        if self.takes_burst and inputs[0].shape[1] != self.burst:
            raise EngineError(
                f"{self.name}: takes bursts of {self.burst} frames, not {inputs[0].shape[1]}"
            )
        image = inputs[0].flatten(1, 2) if self.flat else inputs[0]
        feeds = {"input": image, "flow": inputs[-1]}
        return self.session.run(feeds).float().cpu()


def load_engine(
    path: str | Path, *, plugin: Path | None = None, trusted: bool = False
) -> EngineNetwork:
    """Open an engine of ``export.trt`` as a network.

    Args:
        path: of the engine; its JSON file must be beside it.
        plugin: see :class:`EngineSession`.
        trusted: likewise.

    Raises:
        EngineError: if it cannot be opened or run here.
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
