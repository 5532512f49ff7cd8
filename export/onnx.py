"""``python -m export.onnx``: a network as one ONNX file that runs everywhere.

The file runs in plain ONNX Runtime, runs fast in ONNX Runtime with our operator
(:mod:`zoo.integrations.onnxruntime`), and is what our TensorRT plugin is built for.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from export.model import facts_of, network_of
from export.precision import DTYPES, Precision, prepared
from export.shape import input_shape
from zoo.command import run_command
from zoo.errors import ZooError
from zoo.files import check_writable, write_bytes
from zoo.networks import Network

if TYPE_CHECKING:
    from onnx import ModelProto

logger = logging.getLogger(__name__)

OPSETS = range(18, 24)
OPSETS_FROM = {"fp32": 20, "fp16": 20, "bf16": 22}
"""Versions of the standard operators used unless asked otherwise: 20 is the first with Gelu as one
operator and one that most runtimes take, 22 the first whose convolution knows bfloat16."""


class ExportError(ZooError):
    """A network cannot be exported."""


def export(
    network: Network,
    path: str | Path,
    *,
    shape: str | None = None,
    precision: Precision = "fp32",
    opset: int | None = None,
    plugin_free: bool = False,
    strip_functions: bool = False,
    half_border: bool = False,
    weights: str = "given in memory",
) -> Path:
    """Write a network as an ONNX file; it appears whole or not at all.

    Input ``input`` and output ``output`` are images ``(N, I, H, W)`` in [0, 1], a burst
    ``(N, T, I, H, W)``. Each selective scan is one node of domain ``zoo`` with a function of
    standard operators beside it. A burst network that starts from a known displacement has a second
    input, ``flow``.

    Args:
        network: what is exported, by its weights in evaluation mode.
        path: file to write, ``.onnx``.
        shape: such as ``1x3xHxW``, see :func:`export.shape.input_shape`; any sizes by default.
        precision: "fp32"; "fp16" or "bf16" for weights and activations, while the scan's state and
            norms stay float32.
        opset: version of the standard operators, 18 to 23; 20, or 22 for bf16, where None.
        plugin_free: standard operators only, the functions written out in place.
        strip_functions: without the functions, for TensorRT up to 10.6, which prefers them to our
            plugin. Such a file runs nowhere without our plugin or operator.
        half_border: give input and output the precision too; they are float32 otherwise.
        weights: where the weights come from, for the file's metadata.

    Returns:
        The path.

    Raises:
        ExportError: for options that make no sense.
        WriteError: if the file cannot be written.
        ShapeError: for a shape that the network cannot have.
        ZooError: where a package is missing or the network cannot be traced.
    """
    path = Path(path)
    if path.suffix != ".onnx":
        raise ExportError(f"{path}: the file's name must end in .onnx")
    if plugin_free and strip_functions:
        raise ExportError(
            "--plugin-free writes the functions out and --strip-functions leaves them off; "
            "choose one of them"
        )
    opset = _opset_for(precision, opset)
    check_packages()
    sizes = input_shape(network, shape)
    exported = prepared(network, sizes, precision, half_border=half_border)
    check_writable(path)

    import onnx

    from export.graph import traced_graph, written_out
    from export.scan_function import attach_functions

    model = traced_graph(exported, opset)
    facts = facts_of(network, weights) | {
        "shape": str(sizes),
        "precision": precision,
        "opset": str(opset),
    }
    onnx.helper.set_model_props(model, facts)
    model.producer_name = "mamba-restoration-zoo"
    model.producer_version = facts["zoo_version"]
    model.graph.name = facts["model"]
    if not strip_functions:
        attach_functions(model)
    if plugin_free:
        model = written_out(model)
    return save_model(model, path)


def _opset_for(precision: Precision, opset: int | None) -> int:
    """The version of the standard operators, after a check of both options."""
    if precision not in DTYPES:
        raise ExportError(f"--precision {precision}: choose one of {', '.join(DTYPES)}")
    opset = opset or OPSETS_FROM[precision]
    lowest = OPSETS_FROM["bf16"] if precision == "bf16" else OPSETS[0]
    if opset not in OPSETS or opset < lowest:
        raise ExportError(
            f"--opset {opset}: choose one from {lowest} to {OPSETS[-1]} for {precision}"
        )
    return opset


def save_model(model: ModelProto, path: Path) -> Path:
    """Check a model and write it; the file appears whole or not at all.

    Raises:
        ExportError: if the model is not valid.
        WriteError: if the file cannot be written.
    """
    import onnx

    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"{path}: the exported graph is not valid: {error}") from error
    content = model.SerializeToString()
    write_bytes(path, content)
    return path


def check_packages() -> None:
    """Raise unless the packages of the extra are there."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        raise ExportError(
            f"export needs the package {error.name!r}; install the extra: "
            "pip install 'mamba-restoration-zoo[onnx]'"
        ) from error


def default_path(model: str, shape: str, precision: Precision, opset: int | None) -> Path:
    """``NAME_1x3xHxW_fp32_op20.onnx``, in the current folder."""
    return Path(f"{Path(model).stem}_{shape}_{precision}_op{opset or OPSETS_FROM[precision]}.onnx")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m export.onnx",
        description="Write a network as an ONNX file that runs everywhere.",
        allow_abbrev=False,
    )
    parser.add_argument("-n", "--model", required=True, help="model; see 'zoo list'")
    parser.add_argument("-w", "--weights", type=Path, help="weights file, .safetensors or .pth")
    parser.add_argument("-o", "--output", type=Path, help="file to write [NAME_SHAPE_...onnx]")
    parser.add_argument(
        "--precision", choices=list(DTYPES), default="fp32", help="of its numbers [fp32]"
    )
    parser.add_argument(
        "--half-io", action="store_true", help="input and output in the precision too, not float32"
    )
    parser.add_argument(
        "--shape",
        metavar="1x3xHxW",
        help="numbers are fixed, letters may be of any size [NxIxHxW]; bursts: NxTxIxHxW, or four "
        "dimensions with the frames as channels",
    )
    parser.add_argument("--opset", type=int, help="18 to 23 [20, for bf16 22]")
    parser.add_argument(
        "--plugin-free", action="store_true", help="standard operators only, no functions"
    )
    parser.add_argument(
        "--strip-functions", action="store_true", help="no functions, for TensorRT up to 10.6"
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="compare with PyTorch at three sizes; exit with 1 if they differ",
    )
    return parser


def _run(options: argparse.Namespace) -> int:
    check_packages()
    source = network_of(options.model, options.weights)
    shape = input_shape(source.network, options.shape)
    path = options.output or default_path(
        options.model, str(shape), options.precision, options.opset
    )
    logger.info("tracing %s, which takes up to some minutes", options.model)
    export(
        source.network,
        path,
        shape=options.shape,
        precision=options.precision,
        opset=options.opset,
        plugin_free=options.plugin_free,
        strip_functions=options.strip_functions,
        half_border=options.half_io,
        weights=source.weights,
    )
    print(f"wrote {path}: {path.stat().st_size / 2**20:.1f} MiB, input {shape}")  # noqa: T201
    if not options.verify:
        return 0
    from export.verify import verify

    report = verify(source.network, path)
    print(report)  # noqa: T201
    return 0 if report.passed else 1


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Run the command as ``prog``; the exit code is 1 where verification fails, 2 for bad input."""
    return run_command(_parser(), _run, arguments, prog=prog)


if __name__ == "__main__":
    sys.exit(main())
