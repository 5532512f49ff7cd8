"""``python -m export.serve``: writes a model repository for NVIDIA Triton Inference Server.

A network becomes two models: ``NAME_onnx`` for the ONNX Runtime back end, on CPU or GPU, and
``NAME_trt`` for the TensorRT back end. Requests of the same size are batched (dynamic batching).
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from export.model import check_no_guides, network_of
from export.model_repository import (
    PLUGIN,
    Plan,
    ServeError,
    Serving,
    check_models,
    model_folders,
    write_repository,
)
from export.onnx import check_packages, export
from export.profile import read_profile
from trt_plugins.build import BuildError
from trt_plugins.build import build as build_plugin
from zoo.command import run_command, whole
from zoo.ops.precision import DTYPES

logger = logging.getLogger(__name__)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m export.serve",
        description="Write a model repository for NVIDIA Triton Inference Server.",
        epilog="examples: %(prog)s -n mambair_light_x4 -w light_x4.pth -o models; "
        "%(prog)s -n mambair_tiny_x2 -o models --backend onnx  (needs neither a GPU nor TensorRT)",
        allow_abbrev=False,
    )
    parser.add_argument("-n", "--model", required=True, help="name of a model; see 'zoo list'")
    parser.add_argument("-w", "--weights", type=Path, help="weights file, .safetensors or .pth")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the repository")
    parser.add_argument(
        "--backend",
        choices=["onnx", "tensorrt", "both"],
        default="both",
        help="models to write [both]",
    )
    parser.add_argument(
        "--precision",
        choices=list(DTYPES),
        default="fp32",
        help="precision of weights and activations [fp32]",
    )
    parser.add_argument(
        "--engine",
        type=Path,
        help="engine from export.trt --runtime tensorrt [write a script that builds one]",
    )
    parser.add_argument("--plugin", type=Path, help="plugin library [built if there is nvcc]")
    parser.add_argument(
        "--max-batch",
        type=whole("--max-batch", 1, 9999),
        default=8,
        help="largest batch of requests [8]",
    )
    parser.add_argument(
        "--delay",
        type=whole("--delay", 0),
        default=2000,
        help="longest time a request waits for others, in microseconds [2000]",
    )
    parser.add_argument(
        "--instances",
        type=whole("--instances", 1, 1000),
        default=1,
        help="copies of the model on each device [1]",
    )
    parser.add_argument(
        "--kind",
        choices=["auto", "gpu", "cpu"],
        default="auto",
        help="type of device for NAME_onnx [auto]",
    )
    parser.add_argument(
        "--min", metavar="HxW", help="smallest input of the engine; defaults as in export.trt"
    )
    parser.add_argument("--opt", metavar="HxW", help="input that the engine is optimised for")
    parser.add_argument("--max", metavar="HxW", help="largest input of the engine")
    parser.add_argument("--overwrite", action="store_true", help="replace existing models")
    return parser


def _run(options: argparse.Namespace) -> int:
    check_packages()
    with_plan = options.backend in ("tensorrt", "both")
    if options.engine is not None and not with_plan:
        raise ServeError("--engine cannot be used with --backend onnx")
    source = network_of(options.model, options.weights)
    check_no_guides(source.network.guides, options.model)
    name = Path(options.model).stem
    batch = f"1,{(options.max_batch + 1) // 2},{options.max_batch}"
    burst = source.network.takes_burst
    profile = read_profile(options.min, options.opt, options.max, batch, heavy=burst)
    serving = Serving(options.max_batch, options.delay, options.instances, options.kind)
    onnx_folder, plan_folder = model_folders(options.output, name)
    targets = [] if options.backend == "tensorrt" else [onnx_folder]
    check_models([*targets, plan_folder] if with_plan else targets, overwrite=options.overwrite)
    plan = Plan(profile, options.engine, _plugin(options)) if with_plan else None

    import onnx

    logger.info("tracing %s; this can take several minutes", options.model)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export(source.network, path, precision=options.precision, weights=source.weights)
        model = onnx.load(path)
    written = write_repository(
        model,
        options.output,
        name,
        serving=serving,
        onnx=options.backend in ("onnx", "both"),
        plan=plan,
        overwrite=options.overwrite,
    )
    for target in written:
        print(f"wrote {target}")  # noqa: T201
    if with_plan and options.engine is None:
        logger.info("%s has no engine yet: run its build_plan.sh on the server", written[-1])
    return 0


def _plugin(options: argparse.Namespace) -> Path | None:
    if options.plugin is not None:
        if not options.plugin.is_file():
            raise ServeError(f"{options.plugin}: the plugin's library does not exist")
        return Path(options.plugin)
    try:
        return build_plugin()
    except BuildError as error:
        logger.warning("WARNING: the repository lacks %s: %s", PLUGIN, error)
        return None


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Run the command as ``prog`` and return its exit code, 2 for bad input."""
    return run_command(_parser(), _run, arguments, prog=prog)


if __name__ == "__main__":
    sys.exit(main())
