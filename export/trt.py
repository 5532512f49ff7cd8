"""``python -m export.trt``: a network as a TensorRT engine, and a JSON file that says what it is.

With TensorRT-RTX it needs no GPU; TensorRT itself builds on the GPU that the engine is for.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import logging
import platform
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from export.model import network_of
from export.onnx import check_packages, check_writable, export
from export.precision import DTYPES, Precision
from export.profile import Profile, read_profile
from export.shape import input_shape
from zoo.command import package_version, run_command
from zoo.files import write_bytes, write_text
from zoo.integrations.tensorrt import (
    MODULES,
    EngineError,
    TensorRT,
    load_engine,
    open_tensorrt,
    sidecar_path,
)
from zoo.networks import Network

if TYPE_CHECKING:
    from onnx import ModelProto

    from export.engine import Engine

logger = logging.getLogger(__name__)

TOOLS = {"tensorrt": "trtexec", "tensorrt-rtx": "tensorrt_rtx"}
"""The command-line builders that come with the runtimes outside of Python."""


@dataclass(frozen=True)
class EngineSettings:
    """What an engine is built with.

    Attributes:
        tensorrt: what builds it.
        profile: sizes that it takes.
        plugin: library of the plugin; None for standard operators only.
        embed: put the library into the engine.
        timing_cache: file of TensorRT's measurements, used and extended.
        tf32: let float32 products round their factors to 10 bits, on GPUs that do.
    """

    tensorrt: TensorRT
    profile: Profile
    plugin: Path | None = None
    embed: bool = False
    timing_cache: Path | None = None
    tf32: bool = False


def traced(
    network: Network,
    profile: Profile,
    *,
    precision: Precision = "fp32",
    plugin_free: bool = False,
    weights: str = "given in memory",
) -> ModelProto:
    """The ONNX graph that an engine is built from.

    Args:
        network: what is exported.
        profile: sizes; those that do not vary are fixed in the graph.
        precision: see :func:`export.onnx.export`.
        plugin_free: scans in standard operators, in the form that suits TensorRT.
        weights: where the weights come from, for the file's metadata.
    """
    import onnx

    from export.graph import written_out
    from export.scan_function import attach_functions

    batch, height, width = profile.shape
    shape = dataclasses.replace(input_shape(network), batch=batch, height=height, width=width)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        export(network, path, shape=str(shape), precision=precision, weights=weights)
        model = onnx.load(path)
    if plugin_free:
        attach_functions(model, chunked=True)
        model = written_out(model)
        onnx.checker.check_model(model, full_check=True)
    return model


def export_engine(model: ModelProto, path: Path, settings: EngineSettings) -> dict[str, Any]:
    """Build an engine of a graph and write it with its JSON file; each appears whole or not at all.

    Args:
        model: of :func:`traced`, or of a file of ``export.onnx``.
        path: of the engine.
        settings: what it is built with.

    Returns:
        What stands in the JSON file.

    Raises:
        EngineError: where it cannot be built, or a scan did not become the plugin.
    """
    from export.engine import build_engine
    from export.scan_function import scan_nodes

    dimensions = settings.profile.of(model)
    engine = build_engine(
        settings.tensorrt,
        model,
        dimensions,
        plugin=settings.plugin if scan_nodes(model) else None,
        embed=settings.embed,
        timing_cache=settings.timing_cache,
        tf32=settings.tf32,
    )
    facts = _sidecar(model, dimensions, engine, settings)
    text = json.dumps(facts, indent=2) + "\n"
    write_bytes(path, engine.content)
    write_text(sidecar_path(path), text)
    return facts


def _sidecar(
    model: ModelProto, dimensions: dict[str, Any], engine: Engine, settings: EngineSettings
) -> dict[str, Any]:
    from export.scan_function import PLUGIN, scan_nodes

    facts = {entry.key: entry.value for entry in model.metadata_props}
    recipe = json.loads(facts.pop("recipe", "null"))
    plugin = settings.plugin if scan_nodes(model) else None
    digests = {"engine": _digest(engine.content), "onnx": _digest(model.SerializeToString())}
    described = None
    if plugin is not None:
        digests["plugin"] = _digest(plugin.read_bytes())
        described = {
            "namespace": PLUGIN["plugin_namespace"],
            "version": PLUGIN["plugin_version"],
            "layers": engine.plugin_layers,
            "named_in_engine": engine.serialized,
            "embedded": settings.embed,
        }
    return {
        "format": 1,
        "model": facts["model"],
        "precision": facts["precision"],
        "runtime": {"name": settings.tensorrt.name, "version": settings.tensorrt.version},
        "profile": dimensions,
        "outputs": engine.outputs,
        "plugin": described,
        "scans": len(scan_nodes(model)),
        "layers": engine.layers,
        "tf32": settings.tf32,
        "build": {"seconds": round(engine.seconds, 1), "peak_memory_mib": engine.peak_mib},
        "gpu_memory_bytes": engine.gpu_bytes,
        "versions": {
            "zoo": package_version(),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "machine": f"{platform.system()} {platform.machine()}",
        },
        "sha256": digests,
        "facts": facts,
        "recipe": recipe,
    }


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def command_line(
    onnx_path: Path, engine: Path, dimensions: dict[str, Any], settings: EngineSettings
) -> str:
    """What builds the same engine without Python."""
    words = [TOOLS[settings.tensorrt.name], f"--onnx={onnx_path}", f"--saveEngine={engine}"]
    for kind in ("min", "opt", "max"):
        sizes = (f"{name}:{'x'.join(map(str, d[kind]))}" for name, d in dimensions.items())
        words.append(f"--{kind}Shapes={','.join(sizes)}")
    if settings.tensorrt.name == "tensorrt" and settings.tensorrt.release[0] == 10:
        words.append("--stronglyTyped")
    if settings.plugin is not None:
        option = "--setPluginsToSerialize" if settings.embed else "--dynamicPlugins"
        words.append(f"{option}={settings.plugin}")
    if settings.timing_cache is not None:
        words.append(f"--timingCacheFile={settings.timing_cache}")
    if not settings.tf32:
        words.append("--noTF32")
    return " ".join(words)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m export.trt",
        description="Build a TensorRT engine of a network. TensorRT-RTX does that without a GPU.",
        epilog="* for bursts and without the plugin, which take much more memory",
        allow_abbrev=False,
    )
    parser.add_argument("-n", "--model", help="model; see 'zoo list'")
    parser.add_argument("-w", "--weights", type=Path, help="weights file, .safetensors or .pth")
    parser.add_argument(
        "--onnx", type=Path, metavar="FILE", help="instead of -n: a file of export.onnx"
    )
    parser.add_argument("-o", "--output", type=Path, help="engine to write [NAME_PRECISION.engine]")
    parser.add_argument("--precision", choices=list(DTYPES), help="of its numbers [fp32]")
    parser.add_argument("--min", metavar="HxW", help="smallest input, pixels [32x32; 16x16 *]")
    parser.add_argument("--opt", metavar="HxW", help="the usual one [256x256; 64x64 *]")
    parser.add_argument("--max", metavar="HxW", help="the largest [512x512; 128x128 *]")
    parser.add_argument(
        "--batch", default="1", help="images at once: one number, or min,opt,max as 1,4,8 [1]"
    )
    parser.add_argument(
        "--runtime",
        choices=["auto", *MODULES],
        default="auto",
        help="what builds and runs it [auto: what is installed]",
    )
    parser.add_argument(
        "--plugin-free", action="store_true", help="standard operators only; far slower"
    )
    parser.add_argument("--plugin", type=Path, help="plugin library [built by trt_plugins.build]")
    parser.add_argument(
        "--embed-plugin", action="store_true", help="put the plugin's library into the engine"
    )
    parser.add_argument(
        "--timing-cache", type=Path, metavar="FILE", help="keep TensorRT's measurements there"
    )
    parser.add_argument("--tf32", action="store_true", help="allow TF32 products; faster, 10 bits")
    parser.add_argument("--keep-onnx", action="store_true", help="keep the graph, NAME.onnx")
    parser.add_argument(
        "--verify",
        action="store_true",
        help="compare the graph with PyTorch, on a GPU the engine too; exit 1 if off",
    )
    return parser


def _check(options: argparse.Namespace) -> None:
    """Options that exclude each other."""
    if (options.model is None) == (options.onnx is None):
        raise EngineError("name a model with -n (see 'zoo list'), or a file with --onnx")
    if options.plugin_free and (options.embed_plugin or options.plugin):
        option = "--embed-plugin" if options.embed_plugin else "--plugin"
        raise EngineError(f"--plugin-free leaves the plugin out, so {option} does not go with it")
    if options.onnx is not None:
        given = {"-w": options.weights, "--precision": options.precision}
        given["--verify"] = options.verify
        for option, there in given.items():
            if there:
                raise EngineError(f"{option} does not go with --onnx: the file fixes it")


def _graph_of_file(options: argparse.Namespace) -> ModelProto:
    import onnx
    from google.protobuf.message import DecodeError

    from export.graph import written_out
    from export.scan_function import attach_functions

    if not options.onnx.is_file():
        raise EngineError(f"{options.onnx}: the file does not exist")
    try:
        model = onnx.load(options.onnx)
    except DecodeError as error:
        raise EngineError(f"{options.onnx}: not an ONNX file") from error
    if not {"model", "precision", "input"} <= {entry.key for entry in model.metadata_props}:
        raise EngineError(f"{options.onnx}: not a file of export.onnx: it does not say what it is")
    if options.plugin_free:
        attach_functions(model, chunked=True)
        model = written_out(model)
    return model


def _run(options: argparse.Namespace) -> int:
    _check(options)
    check_packages()
    tensorrt = open_tensorrt(options.runtime)
    network = None
    if options.onnx is not None:
        model = _graph_of_file(options)
        facts = {entry.key: entry.value for entry in model.metadata_props}
        name, precision, burst = facts["model"], facts["precision"], facts["input"] == "burst"
    else:
        source = network_of(options.model, options.weights)
        network, name, precision = source.network, options.model, options.precision or "fp32"
        burst = network.takes_burst
    heavy = burst or options.plugin_free
    profile = read_profile(options.min, options.opt, options.max, options.batch, heavy=heavy)
    path = options.output or Path(f"{Path(name).stem}_{precision}.engine")
    if path.suffix in (".onnx", ".json"):
        raise EngineError(f"{path}: the file's name must not end in {path.suffix}; use .engine")
    check_writable(path)
    timing_cache = options.timing_cache
    if timing_cache is not None and tensorrt.name == "tensorrt-rtx":
        logger.warning("--timing-cache: TensorRT-RTX measures nothing when it builds; left out")
        timing_cache = None
    settings = EngineSettings(
        tensorrt,
        profile,
        None if options.plugin_free else _plugin(options),
        options.embed_plugin,
        timing_cache,
        options.tf32,
    )
    if network is not None:
        logger.info("tracing %s, which takes up to some minutes", name)
        model = traced(
            network,
            profile,
            precision=precision,
            plugin_free=options.plugin_free,
            weights=source.weights,
        )
    unchanged = options.onnx is not None and not options.plugin_free
    onnx_path = options.onnx if unchanged else path.with_suffix(".onnx")
    if options.keep_onnx and not unchanged:
        from export.onnx import save_model

        save_model(model, onnx_path)
    if options.verify and network is not None and not _graph_agrees(network, model):
        print("VERIFICATION FAILED: no engine is built")  # noqa: T201
        return 1
    logger.info("%s %s builds the engine", tensorrt.name, tensorrt.version)
    facts = export_engine(model, path, settings)
    _tell(path, facts)
    graph = "" if unchanged or options.keep_onnx else ", from the graph that --keep-onnx leaves"
    line = command_line(onnx_path, path, facts["profile"], settings)
    logger.info("the same without Python%s:\n  %s", graph, line)
    if options.verify and network is not None:
        return 0 if _engine_agrees(network, path, settings) else 1
    return 0


def _plugin(options: argparse.Namespace) -> Path:
    if options.plugin is not None:
        return Path(options.plugin)
    from trt_plugins.build import build

    return build()


def _tell(path: Path, facts: dict[str, Any]) -> None:
    build, plugin = facts["build"], facts["plugin"]
    layers = "no plugin" if plugin is None else f"{plugin['layers']} plugin layers"
    memory = build["peak_memory_mib"]
    peak = "" if memory is None else f", {memory / 1024:.1f} GiB of memory at most"
    sizes = facts["profile"]["input"]
    spans = " to ".join("x".join(map(str, sizes[kind])) for kind in ("min", "max"))
    size = path.stat().st_size / 2**20
    print(f"wrote {path}: {size:.1f} MiB, input {spans}, {layers}")  # noqa: T201
    logger.info("built in %.0f s%s", build["seconds"], peak)
    if facts["gpu_memory_bytes"]:
        needed = sum(facts["gpu_memory_bytes"].values()) / 2**30
        logger.info("on the GPU it will take %.1f GiB, for the largest input", needed)


def _graph_agrees(network: Network, model: ModelProto) -> bool:
    from export.onnx import save_model
    from export.verify import verify

    with tempfile.TemporaryDirectory() as folder:
        report = verify(network, save_model(model, Path(folder) / "network.onnx"))
    print(report)  # noqa: T201
    return report.passed


def _engine_agrees(network: Network, path: Path, settings: EngineSettings) -> bool:
    """Whether the engine computes what the network does; taken on trust without a GPU."""
    if not torch.cuda.is_available():
        print(  # noqa: T201
            "the graph is verified and the engine's layers are counted; its numbers are not "
            "verified: that needs a GPU"
        )
        return True
    from export.verify import verify_engine

    facts = json.loads(sidecar_path(path).read_text())
    fp32 = "tf32" if settings.tf32 else "fp32"
    report = verify_engine(
        network,
        load_engine(path, plugin=settings.plugin, trusted=True),
        path,
        sorted({settings.profile.min, settings.profile.opt}),
        runtime=settings.tensorrt.name,
        rounding=fp32 if facts["precision"] == "fp32" else facts["precision"],
    )
    print(report)  # noqa: T201
    return report.passed


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Run the command as ``prog``; the exit code is 1 where verification fails, 2 for bad input."""
    return run_command(_parser(), _run, arguments, prog=prog)


if __name__ == "__main__":
    sys.exit(main())
