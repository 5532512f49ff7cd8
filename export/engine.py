"""Builds a TensorRT engine from an ONNX graph, and checks that every scan runs on the plugin."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnx import ModelProto
from tqdm import tqdm

from export.profile import Profile
from export.scan_function import scan_functions, scan_nodes, without_functions
from zoo.files import write_bytes
from zoo.integrations.tensorrt_runtime import EngineError, TensorRT, creators
from zoo.ops.scan.names import EACH, NAMESPACE, NODES, VERSION

logger = logging.getLogger(__name__)

Dimensions = Mapping[str, Mapping[str, tuple[int, ...]]]
"""Dimensions of each input for "min", "opt" and "max"."""

PREFERS_FUNCTIONS = (10, 7)
"""Before this release, TensorRT prefers a node's function to a plugin."""


@dataclass(frozen=True)
class Engine:
    """A built engine.

    Attributes:
        content: content of the engine file.
        layers: number of layers of the network that TensorRT parsed.
        plugin_layers: number of these layers that are our plugin.
        serialized: how many times the engine contains the name of our plugins.
        outputs: name and dimensions of each output; -1 for dimensions that vary.
        seconds: build time in seconds.
        peak_mib: peak memory of the process in MiB; None if unknown.
        gpu_bytes: GPU memory in bytes that TensorRT reports, for "activation" and "weights".
    """

    content: bytes
    layers: int
    plugin_layers: int
    serialized: int
    outputs: dict[str, list[int]]
    seconds: float
    peak_mib: int | None
    gpu_bytes: dict[str, int]


@dataclass(frozen=True)
class EngineSettings:
    """Settings for building an engine.

    Attributes:
        tensorrt: the TensorRT that builds the engine.
        profile: input sizes that the engine accepts.
        plugin: the plugin library; None for standard operators only.
        embed: whether to embed the plugin library in the engine.
        timing_cache: file with TensorRT's timing measurements; it is used and updated.
        tf32: whether float32 products may use TF32 (10 bits of mantissa), on GPUs that have it.
    """

    tensorrt: TensorRT
    profile: Profile
    plugin: Path | None = None
    embed: bool = False
    timing_cache: Path | None = None
    tf32: bool = False


def build_engine(model: ModelProto, settings: EngineSettings, *, progress: bool = True) -> Engine:
    """Build an engine in memory.

    Args:
        model: the graph. The dtypes of its tensors determine the precision.
        settings: settings of the build. A graph without scans is built without the plugin.
        progress: whether to show the phase and the elapsed time.

    Raises:
        EngineError: if TensorRT cannot parse the graph or build the engine, does not use the
            plugin for every scan, or does not embed it although it should.
    """
    tensorrt, scans = settings.tensorrt, len(scan_nodes(model))
    plugin = settings.plugin if scans else None
    if scans and plugin is None:
        raise EngineError(f"the graph has {scans} scans, which need the plugin")
    log = tensorrt.logger()
    builder = _builder(tensorrt, log)
    if plugin is not None:
        tensorrt.load_plugin(builder.get_plugin_registry(), plugin)
    network = read_graph(tensorrt, builder, log, model)
    found = plugin_layers(network)
    check_every_scan_is_a_plugin(builder, scans, found, plugin)
    config = builder.create_builder_config()
    if not settings.tf32:
        config.clear_flag(tensorrt.api.BuilderFlag.TF32)
    dimensions = settings.profile.of(model)
    config.add_optimization_profile(_profile(builder, network, dimensions))
    embedded = plugin if settings.embed else None
    if embedded is not None:
        config.plugins_to_serialize = [str(embedded.resolve())]
    if settings.timing_cache is not None:
        _use_timing_cache(config, settings.timing_cache)
    begun = time.monotonic()
    content = _serialized(tensorrt, builder, network, config, log, progress)
    seconds = time.monotonic() - begun
    if embedded is not None:
        _check_embedded(tensorrt, content, embedded)
    if settings.timing_cache is not None:
        _keep_timing_cache(config, settings.timing_cache)
    outputs = (network.get_output(i) for i in range(network.num_outputs))
    return Engine(
        content=content,
        layers=network.num_layers,
        plugin_layers=found,
        serialized=times_serialized(content, embedded),
        outputs={output.name: list(output.shape) for output in outputs},
        seconds=seconds,
        peak_mib=peak_mib(),
        gpu_bytes={kind: n for kind, n in log.memory.items() if kind in ("activation", "weights")},
    )


def _builder(tensorrt: TensorRT, log: Any) -> Any:
    try:
        return tensorrt.api.Builder(log)
    except (TypeError, RuntimeError) as error:  # how the bindings report a null pointer
        raise EngineError(
            f"{tensorrt.name} {tensorrt.version} does not start{log.last}; TensorRT must build on "
            "the GPU that runs the engine; --runtime tensorrt-rtx builds without a GPU"
        ) from error


def read_graph(tensorrt: TensorRT, builder: Any, log: Any, model: ModelProto) -> Any:
    """Parse a graph to a strongly typed TensorRT network.

    Raises:
        EngineError: if TensorRT cannot parse the graph.
    """
    api = tensorrt.api
    # Since TensorRT 11 every network is strongly typed; older versions need the flag.
    typed = getattr(api.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if typed is None else 1 << int(typed))
    parser = api.OnnxParser(network, log)
    if not parser.parse(graph_for_parser(tensorrt, model).SerializeToString()):
        errors = [parser.get_error(i) for i in range(parser.num_errors)]
        text = " ".join(errors[0].desc().split())[:300] if errors else "no reason given"
        node = errors[0].node_name() if errors and hasattr(errors[0], "node_name") else ""
        where = f" at {node}" if node else ""
        who = f"{tensorrt.name} {tensorrt.version}"
        raise EngineError(f"{who} cannot read the graph{where}: {text}")
    return network


def graph_for_parser(tensorrt: TensorRT, model: ModelProto) -> ModelProto:
    """Return the graph from which TensorRT's parser makes plugins: the same one, or a copy.

    Releases before ``PREFERS_FUNCTIONS`` would silently take the functions of the scans.
    """
    if tensorrt.name != "tensorrt" or tensorrt.release >= PREFERS_FUNCTIONS:
        return model
    return without_functions(model) if scan_functions(model) else model


def plugin_layers(network: Any) -> int:
    """Number of layers of a TensorRT network that are plugins."""
    kinds = (str(network.get_layer(i).type) for i in range(network.num_layers))
    return sum(kind.endswith("PLUGIN_V3") for kind in kinds)


def check_every_scan_is_a_plugin(builder: Any, scans: int, found: int, plugin: Path | None) -> None:
    """Raise unless the plugin runs every scan; TensorRT would silently use the function instead."""
    if found == scans:
        return
    wanted = f"version {VERSION}, namespace {NAMESPACE!r}"
    there = [
        f"{c.name} version {c.plugin_version}, namespace {c.plugin_namespace!r}"
        for c in creators(builder.get_plugin_registry())
        if c.name in NODES
    ]
    raise EngineError(
        f"{found} of {scans} scans became plugin layers and the others standard operators: the "
        f"graph needs {', '.join(NODES)} {wanted}, and {plugin} has "
        f"{'; '.join(there) or 'no such plugins'}"
    )


def _profile(builder: Any, network: Any, dimensions: Dimensions) -> Any:
    profile = builder.create_optimization_profile()
    for i in range(network.num_inputs):
        name = network.get_input(i).name
        sizes = dimensions[name]
        profile.set_shape(name, *(tuple(sizes[kind]) for kind in ("min", "opt", "max")))
    return profile


def _use_timing_cache(config: Any, path: Path) -> None:
    content = path.read_bytes() if path.is_file() else b""
    cache = config.create_timing_cache(content)
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        raise EngineError(f"{path}: not a timing cache of this TensorRT and GPU; remove it")


def _keep_timing_cache(config: Any, path: Path) -> None:
    write_bytes(path, bytes(config.get_timing_cache().serialize()))


def _serialized(
    tensorrt: TensorRT, builder: Any, network: Any, config: Any, log: Any, progress: bool
) -> bytes:
    """Build in another thread, so that the elapsed time updates and Ctrl-C works."""
    made: list[bytes | None] = []
    monitor = _monitor(tensorrt.api)
    config.progress_monitor = monitor

    def work() -> None:
        content = builder.build_serialized_network(network, config)
        made.append(None if content is None else bytes(content))

    thread = threading.Thread(target=work, daemon=True)
    with _seconds(progress) as show:
        thread.start()
        try:
            while thread.is_alive():
                thread.join(0.5)
                show(monitor.phase)
        except KeyboardInterrupt:
            monitor.stopped = True
            logger.warning("waiting for %s to stop", tensorrt.name)
            thread.join(30)
            raise
    if not made or made[0] is None:
        raise EngineError(
            f"{tensorrt.name} {tensorrt.version} could not build the engine{log.last}"
        )
    return made[0]


def _monitor(api: Any) -> Any:
    class Monitor(api.IProgressMonitor):
        def __init__(self) -> None:
            api.IProgressMonitor.__init__(self)
            self.phase, self.stopped = "", False

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            self.phase = phase

        def step_complete(self, phase: str, step: int) -> bool:
            return not self.stopped

        def phase_finish(self, phase: str) -> None:
            pass

    return Monitor()


@contextmanager
def _seconds(progress: bool) -> Iterator[Any]:
    form = "building the engine: {desc} {elapsed}"
    with tqdm(total=None, bar_format=form, disable=not progress or None) as bar:

        def show(phase: str) -> None:
            bar.set_description_str(phase.lower())

        yield show


def _check_embedded(tensorrt: TensorRT, content: bytes, library: Path) -> None:
    """Raise unless an engine contains the library; its header promises less than trtexec's help."""
    if library.read_bytes() not in content:
        raise EngineError(
            f"{tensorrt.name} {tensorrt.version} left the plugin's library out of the engine: its "
            "documentation promises to embed one in version-compatible engines only; build without "
            f"--embed-plugin, and deliver {library.name} beside the engine"
        )


def times_serialized(content: bytes, embedded: Path | None) -> int:
    """Count the names of our plugins in an engine, without those in the embedded library."""
    if embedded is not None:
        content = content.replace(embedded.read_bytes(), b"")
    return content.count(EACH.encode())  # the other name starts with this one


def peak_mib() -> int | None:
    """Peak memory of this process in MiB; None on systems other than Linux."""
    if sys.platform != "linux":
        return None
    import resource  # missing on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


__all__ = [
    "Engine",
    "EngineSettings",
    "build_engine",
    "graph_for_parser",
    "plugin_layers",
    "read_graph",
    "times_serialized",
]
