"""``python -m export.trt``: builds a TensorRT engine, and a JSON file that describes it.

TensorRT-RTX needs no GPU for that. TensorRT must build on the GPU that runs the engine.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from export.model import check_no_guides, facts_in, network_of
from export.onnx import check_packages
from export.profile import Profile, read_profile
from trt_plugins.build import build as build_plugin
from zoo.command import run_command
from zoo.files import check_writable
from zoo.integrations.exported import guides_in
from zoo.integrations.tensorrt import load_engine, sidecar_path
from zoo.integrations.tensorrt_runtime import MODULES, EngineError, TensorRT, open_tensorrt
from zoo.networks import Network
from zoo.ops.precision import DTYPES, Precision

if TYPE_CHECKING:
    from onnx import ModelProto

    from export.engine import EngineSettings

logger = logging.getLogger(__name__)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m export.trt",
        description="Build a TensorRT engine of a network. TensorRT-RTX needs no GPU for that.",
        epilog="* for bursts, and for --plugin-free; both need much more memory. examples: "
        "%(prog)s --model mambair_light_x4 -w light_x4.pth --precision fp16; "
        "%(prog)s --onnx light_x4.onnx --max 1024x1024",
        allow_abbrev=False,
    )
    parser.add_argument("-n", "--model", help="name of a model; see 'zoo list'")
    parser.add_argument("-w", "--weights", type=Path, help="weights file, .safetensors or .pth")
    parser.add_argument(
        "--onnx", type=Path, metavar="FILE", help="file from export.onnx, in place of -n"
    )
    parser.add_argument("-o", "--output", type=Path, help="engine to write [NAME_PRECISION.engine]")
    parser.add_argument(
        "--precision", choices=list(DTYPES), help="precision of weights and activations [fp32]"
    )
    parser.add_argument("--min", metavar="HxW", help="smallest input in pixels [32x32; 16x16 *]")
    parser.add_argument(
        "--opt", metavar="HxW", help="input that the engine is optimised for [256x256; 64x64 *]"
    )
    parser.add_argument("--max", metavar="HxW", help="largest input [512x512; 128x128 *]")
    parser.add_argument(
        "--batch", default="1", help="batch size: one number, or min,opt,max as in 1,4,8 [1]"
    )
    parser.add_argument(
        "--runtime",
        choices=["auto", *MODULES],
        default="auto",
        help="runtime that builds and runs the engine [auto: the one that is installed]",
    )
    parser.add_argument(
        "--plugin-free",
        action="store_true",
        help="standard operators only, no plugin; far slower",
    )
    parser.add_argument("--plugin", type=Path, help="plugin library [built by trt_plugins.build]")
    parser.add_argument(
        "--embed-plugin", action="store_true", help="embed the plugin library in the engine"
    )
    parser.add_argument(
        "--timing-cache",
        type=Path,
        metavar="FILE",
        help="file in which TensorRT stores its timings, to build faster next time",
    )
    parser.add_argument(
        "--tf32", action="store_true", help="allow TF32 products: faster, but 10 bits of mantissa"
    )
    parser.add_argument(
        "--keep-onnx", action="store_true", help="also write the ONNX graph, NAME.onnx"
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="compare the graph, and on a GPU also the engine, with PyTorch; exit code 1 if they "
        "differ",
    )
    parser.add_argument(
        "--no-verify",
        action="store_true",
        help="do not compare the engine with PyTorch, which is done on a GPU in any case",
    )
    return parser


def _check(options: argparse.Namespace) -> None:
    """Raise if options contradict each other."""
    if (options.model is None) == (options.onnx is None):
        raise EngineError("name a model with -n (see 'zoo list'), or a file with --onnx")
    if options.plugin_free and (options.embed_plugin or options.plugin):
        option = "--embed-plugin" if options.embed_plugin else "--plugin"
        raise EngineError(f"--plugin-free uses no plugin, so {option} cannot be used with it")
    if options.verify and options.no_verify:
        raise EngineError("--verify and --no-verify contradict each other: leave one out")
    if options.onnx is not None:
        given = {"-w": options.weights, "--precision": options.precision}
        given["--verify"] = options.verify
        for option, there in given.items():
            if there:
                raise EngineError(f"{option} cannot be used with --onnx: the file determines it")


@dataclass(frozen=True)
class _Source:
    """Source of an engine: a network, or the graph of a file."""

    name: str
    precision: Precision
    burst: bool
    network: Network | None = None
    weights: str = ""
    graph: ModelProto | None = None


def _source(options: argparse.Namespace) -> _Source:
    if options.onnx is not None:
        graph = _graph_of_file(options.onnx)
        facts = facts_in(graph)
        check_no_guides(guides_in(facts), str(options.onnx))
        precision: Any = facts["precision"]
        return _Source(facts["model"], precision, facts["input"] == "burst", graph=graph)
    found = network_of(options.model, options.weights)
    check_no_guides(found.network.guides, options.model)
    return _Source(
        options.model,
        options.precision or "fp32",
        found.network.takes_burst,
        network=found.network,
        weights=found.weights,
    )


def _graph_of_file(path: Path) -> ModelProto:
    import onnx
    from google.protobuf.message import DecodeError

    if not path.is_file():
        raise EngineError(f"{path}: the file does not exist")
    try:
        model = onnx.load(path)
    except DecodeError as error:
        raise EngineError(f"{path}: not an ONNX file") from error
    if not {"model", "precision", "input"} <= facts_in(model).keys():
        raise EngineError(f"{path}: not a file of export.onnx: its metadata is missing")
    return model


def _output(options: argparse.Namespace, source: _Source) -> Path:
    path = options.output or Path(f"{Path(source.name).stem}_{source.precision}.engine")
    if path.suffix in (".onnx", ".json"):
        raise EngineError(f"{path}: the file name must not end in {path.suffix}; use .engine")
    check_writable(path)
    return Path(path)


def _settings(options: argparse.Namespace, tensorrt: TensorRT, profile: Profile) -> EngineSettings:
    from export.engine import EngineSettings

    timing_cache = options.timing_cache
    if timing_cache is not None and tensorrt.name == "tensorrt-rtx":
        logger.warning("--timing-cache is ignored: TensorRT-RTX measures no timings in a build")
        timing_cache = None
    return EngineSettings(
        tensorrt,
        profile,
        None if options.plugin_free else options.plugin or build_plugin(),
        options.embed_plugin,
        timing_cache,
        options.tf32,
    )


def _graph(options: argparse.Namespace, source: _Source, profile: Profile) -> ModelProto:
    """Get the graph that the engine is built from."""
    from export import engine_file

    if source.graph is not None:
        free = options.plugin_free
        return engine_file.without_plugin(source.graph) if free else source.graph
    assert source.network is not None
    logger.info("tracing %s; this can take several minutes", source.name)
    return engine_file.graph_for_engine(
        source.network,
        profile,
        precision=source.precision,
        plugin_free=options.plugin_free,
        weights=source.weights,
    )


def _run(options: argparse.Namespace) -> int:
    _check(options)
    check_packages()

    from export.engine import graph_for_parser
    from export.engine_file import command_line, export_engine
    from export.onnx import save_model

    tensorrt = open_tensorrt(options.runtime)
    source = _source(options)
    heavy = source.burst or options.plugin_free
    profile = read_profile(options.min, options.opt, options.max, options.batch, heavy=heavy)
    path = _output(options, source)
    settings = _settings(options, tensorrt, profile)
    model = _graph(options, source, profile)
    parsed = graph_for_parser(tensorrt, model)
    unchanged = parsed is source.graph
    onnx_path = options.onnx if unchanged else path.with_suffix(".onnx")
    if options.keep_onnx and not unchanged:
        _check_not_the_source(onnx_path, options.onnx)
        save_model(parsed, onnx_path)
    checked = source.network if options.verify else None
    if checked is not None and not _graph_agrees(checked, model):
        print("VERIFICATION FAILED: no engine was built")  # noqa: T201
        return 1
    logger.info("building the engine with %s %s", tensorrt.name, tensorrt.version)
    facts = export_engine(parsed, path, settings, _sample(source, settings))
    _tell(path, facts)
    graph = "" if unchanged or options.keep_onnx else " (the graph is written with --keep-onnx)"
    line = command_line(onnx_path, path, facts["profile"], settings)
    logger.info("command to build the same engine without Python%s:\n  %s", graph, line)
    if options.no_verify or (not options.verify and not torch.cuda.is_available()):
        return 0
    if source.network is None:
        logger.info("the engine is not verified: with --onnx there is no network to compare with")
        return 0
    return 0 if _engine_agrees(source.network, path, settings) else 1


def _sample(source: _Source, settings: EngineSettings) -> dict[str, Any] | None:
    """A tile that PyTorch has restored, for the JSON file; None if there is none."""
    from export.verify import sample_of

    if source.network is None:
        return None
    rounding = _rounding(source.precision, settings)
    sample = sample_of(source.network, settings.profile.min, rounding)
    return None if sample is None else sample.facts()


def _rounding(precision: str, settings: EngineSettings) -> str:
    """The key of ``ENGINE_TOLERANCES`` for an engine."""
    return "tf32" if settings.tf32 and precision == "fp32" else precision


def _check_not_the_source(kept: Path, source: Path | None) -> None:
    """Raise if the graph to keep is another one than the source's and would replace it."""
    if source is not None and kept.resolve() == source.resolve():
        raise EngineError(
            f"{kept}: --keep-onnx would replace this file by the graph that TensorRT gets, which "
            "differs; choose another -o"
        )


def _tell(path: Path, facts: dict[str, Any]) -> None:
    build, plugin = facts["build"], facts["plugin"]
    layers = "no plugin" if plugin is None else f"{plugin['layers']} plugin layers"
    memory = build["peak_memory_mib"]
    peak = "" if memory is None else f", peak memory {memory / 1024:.1f} GiB"
    sizes = facts["profile"]["input"]
    spans = " to ".join("x".join(map(str, sizes[kind])) for kind in ("min", "max"))
    size = path.stat().st_size / 2**20
    print(f"wrote {path}: {size:.1f} MiB, input {spans}, {layers}")  # noqa: T201
    logger.info("built in %.0f s%s", build["seconds"], peak)
    if facts["gpu_memory_bytes"]:
        needed = sum(facts["gpu_memory_bytes"].values()) / 2**30
        logger.info("it will need %.1f GiB of GPU memory for the largest input", needed)


def _graph_agrees(network: Network, model: ModelProto) -> bool:
    from export.onnx import save_model
    from export.verify import verify

    with tempfile.TemporaryDirectory() as folder:
        report = verify(network, save_model(model, Path(folder) / "network.onnx"))
    print(report)  # noqa: T201
    return report.passed


def _engine_agrees(network: Network, path: Path, settings: EngineSettings) -> bool:
    """Whether the engine agrees with the network. Without a GPU this is not checked: True."""
    if not torch.cuda.is_available():
        print(  # noqa: T201
            "the graph and the number of plugin layers are verified; the engine's results are "
            "not, because that needs a GPU"
        )
        return True
    from export.verify import verify_engine

    facts = json.loads(sidecar_path(path).read_text())
    report = verify_engine(
        network,
        load_engine(path, plugin=settings.plugin, trusted=True),
        path,
        sorted({settings.profile.min, settings.profile.opt}),
        runtime=settings.tensorrt.name,
        rounding=_rounding(facts["precision"], settings),
    )
    print(report)  # noqa: T201
    return report.passed


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Run the command as ``prog``; the exit code is 1 if verification fails, 2 for bad input."""
    return run_command(_parser(), _run, arguments, prog=prog)


if __name__ == "__main__":
    sys.exit(main())
