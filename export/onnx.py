"""``python -m export.onnx``: writes a network as a single ONNX file.

The file runs in plain ONNX Runtime, runs faster in ONNX Runtime with our operator
(:mod:`zoo.integrations.onnxruntime`), and can be built to a TensorRT engine with our plugin.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from export.int8 import MAX_LOSS, check_int8, quantised
from export.model import check_no_guides, facts_of, network_of
from export.precision import DTYPES, Precision, prepared
from export.shape import input_shape
from zoo.command import run_command, whole
from zoo.errors import ZooError, pip_install
from zoo.files import check_writable, write_bytes
from zoo.networks import Network

if TYPE_CHECKING:
    from onnx import ModelProto

logger = logging.getLogger(__name__)

OPSETS = range(18, 24)
PRECISIONS = (*DTYPES, "int8")
OPSETS_FROM = {"fp32": 20, "fp16": 20, "bf16": 22, "int8": 20}
"""Default versions of the standard operators. Version 20 is the first that has Gelu as one operator
and is supported by most runtimes; 22 is the first whose convolution supports bfloat16."""

TARGETS: dict[str, dict[str, bool]] = {
    "ort": {},
    "ort-web": {},
    "openvino": {"inline": True},
    "tensorrt": {"strip_functions": True},
    "directml": {},
    "coreml": {},
}
"""Options of :func:`export` that suit a runtime. ONNX Runtime inlines functions by itself, before
it hands operators to a provider such as DirectML. OpenVINO knows no functions, and TensorRT up to
10.6 prefers them to our plugin."""


class ExportError(ZooError):
    """A network cannot be exported."""


def export(
    network: Network,
    path: str | Path,
    *,
    shape: str | None = None,
    precision: Precision | Literal["int8"] = "fp32",
    opset: int | None = None,
    inline: bool = False,
    strip_functions: bool = False,
    half_border: bool = False,
    weights: str = "given in memory",
    photos: Path | None = None,
    max_loss: float = MAX_LOSS,
) -> Path:
    """Write a network as an ONNX file. The file is written completely or not at all.

    The input ``input`` is an image ``(N, I, H, W)`` or a burst ``(N, T, I, H, W)``, the output
    ``output`` an image; values are in [0, 1]. Each selective scan is one node of the domain
    ``zoo``; the file also has a function of standard operators for runtimes without that node. A
    burst network that starts from a known displacement has a second input, ``flow``. A network with
    guides has an input for each, of its name.

    Args:
        network: the network to export; it is exported in evaluation mode.
        path: file to write, ``.onnx``.
        shape: shape of the input, such as ``1x3xHxW``, see :func:`export.shape.input_shape`; None
            for a batch, height and width of any size.
        precision: "fp32"; "fp16" or "bf16" for weights and activations. Norms and the state of the
            scan stay float32. "int8" for convolutions and linear layers, see :mod:`export.int8`.
        opset: version of the standard operators, 18 to 23; None for 20, or 22 for bf16.
        inline: whether to inline the functions, so that the file has standard operators only.
        strip_functions: whether to omit the functions. TensorRT up to 10.6 needs this, because it
            prefers them to our plugin. Such a file runs only with our plugin or operator.
        half_border: whether input and output have the precision, too; otherwise they are float32.
        weights: description of the weights' origin, for the metadata.
        photos: for int8, a folder of clean photos; None for the sample photos.
        max_loss: for int8, the largest loss of PSNR in dB.

    Returns:
        The path of the file.

    Raises:
        ExportError: if options are wrong or contradict each other.
        WriteError: if the file cannot be written.
        ShapeError: if the shape does not fit the network.
        ZooError: if a package is missing or the network cannot be traced.
    """
    path = Path(path)
    _check_name(path)
    if inline and strip_functions:
        raise ExportError(
            "the functions cannot be both inlined (--inline, --for openvino) and omitted "
            "(--strip-functions, --for tensorrt); choose one of the two"
        )
    opset = _opset_for(precision, opset)
    check_packages()
    sizes = input_shape(network, shape)
    if precision == "int8":
        check_int8(network, sizes, half_border=half_border, photos=photos, max_loss=max_loss)
    check_writable(path)
    dtype: Precision = "fp32" if precision == "int8" else precision
    exported = prepared(network, sizes, dtype, half_border=half_border)

    import onnx

    from export.graph import traced_graph, written_out
    from export.scan_function import attach_functions

    model = traced_graph(exported, opset)
    model.ir_version = onnx.helper.find_min_ir_version_for(model.opset_import, ignore_unknown=True)
    facts = facts_of(network, weights) | {
        "shape": str(sizes),
        "precision": precision,
        "opset": str(opset),
    }
    onnx.helper.set_model_props(model, facts)
    model.producer_name = "mamba-restoration-zoo"
    model.producer_version = facts["zoo_version"]
    model.graph.name = facts["model"]
    if precision == "int8":
        model = quantised(network, model, photos=photos, max_loss=max_loss)
    if not strip_functions:
        attach_functions(model)
    if inline:
        model = written_out(model)
    return save_model(model, path)


def _check_name(path: Path) -> None:
    if path.suffix != ".onnx":
        raise ExportError(f"{path}: the file name must end in .onnx")


def _opset_for(precision: str, opset: int | None) -> int:
    """Check both options and return the version of the standard operators."""
    if precision not in PRECISIONS:
        raise ExportError(f"--precision {precision}: choose one of {', '.join(PRECISIONS)}")
    opset = opset or OPSETS_FROM[precision]
    lowest = OPSETS_FROM["bf16"] if precision == "bf16" else OPSETS[0]
    if opset not in OPSETS or opset < lowest:
        raise ExportError(
            f"--opset {opset}: choose one from {lowest} to {OPSETS[-1]} for {precision}"
        )
    return opset


def save_model(model: ModelProto, path: Path) -> Path:
    """Check a model and write it. The file is written completely or not at all.

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
    """Raise unless the packages of the extra ``onnx`` are installed."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        raise ExportError(
            f"export needs the package {error.name!r}; {pip_install('onnx')}"
        ) from error


def default_path(model: str, shape: str, precision: str, opset: int | None) -> Path:
    """Default file name in the current folder, such as ``NAME_1x3xHxW_fp32_op20.onnx``."""
    return Path(f"{Path(model).stem}_{shape}_{precision}_op{opset or OPSETS_FROM[precision]}.onnx")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m export.onnx",
        description="Write a network as an ONNX file. It runs in any runtime with the standard "
        "operators, and faster with our operator or TensorRT plugin.",
        epilog="examples: %(prog)s -n mambair_tiny_x2 --verify; "
        "%(prog)s -n mambair_light_x4 -w light_x4.pth --shape 1x3x180x320 -o light_x4.onnx",
        allow_abbrev=False,
    )
    parser.add_argument("-n", "--model", required=True, help="name of a model; see 'zoo list'")
    parser.add_argument("-w", "--weights", type=Path, help="weights file, .safetensors or .pth")
    parser.add_argument("-o", "--output", type=Path, help="file to write [NAME_SHAPE_...onnx]")
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="fp32",
        help="precision of weights and activations; int8: of convolutions and linear layers [fp32]",
    )
    parser.add_argument(
        "--photos",
        type=Path,
        metavar="FOLDER",
        help="for int8: clean photos, which calibrate and measure the loss [the sample photos]",
    )
    parser.add_argument(
        "--max-loss",
        type=float,
        default=MAX_LOSS,
        metavar="DB",
        help=f"for int8: write no file if more is lost, in dB of PSNR [{MAX_LOSS}]",
    )
    parser.add_argument(
        "--half-io",
        action="store_true",
        help="input and output have the precision, too, and not float32",
    )
    parser.add_argument(
        "--shape",
        metavar="1x3xHxW",
        help="shape of the input: a number is a fixed size, a letter any size [NxIxHxW]; bursts: "
        "NxTxIxHxW, or four dimensions with the frames as channels",
    )
    parser.add_argument(
        "--opset",
        type=whole("--opset", OPSETS[0], OPSETS[-1]),
        help="version of the standard operators, 18 to 23 [20; 22 for bf16]",
    )
    parser.add_argument(
        "--for",
        dest="target",
        choices=list(TARGETS),
        help="the options below that suit a runtime: openvino means --inline, tensorrt "
        "--strip-functions; the others run the default file",
    )
    parser.add_argument(
        "--inline",
        "--plugin-free",
        action="store_true",
        help="inline the functions of the scans: standard operators only, for OpenVINO, converters "
        "and optimisers (--plugin-free is the former name)",
    )
    parser.add_argument(
        "--strip-functions",
        action="store_true",
        help="omit the functions of the scans, for TensorRT up to 10.6",
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="compare with PyTorch at three sizes; exit code 1 if they differ",
    )
    return parser


def _run(options: argparse.Namespace) -> int:
    check_packages()
    if options.verify and options.precision == "int8":
        raise ExportError("--verify does not go with --precision int8, whose loss is measured")
    if options.output is not None:
        _check_name(options.output)
    source = network_of(options.model, options.weights)
    if options.target == "tensorrt":
        check_no_guides(source.network.guides, "--for tensorrt")
    shape = input_shape(source.network, options.shape)
    path = options.output or default_path(
        options.model, str(shape), options.precision, options.opset
    )
    check_writable(path)
    suited = TARGETS.get(options.target, {})
    logger.info("tracing %s; this can take several minutes", options.model)
    export(
        source.network,
        path,
        shape=options.shape,
        precision=options.precision,
        opset=options.opset,
        inline=options.inline or suited.get("inline", False),
        strip_functions=options.strip_functions or suited.get("strip_functions", False),
        half_border=options.half_io,
        weights=source.weights,
        photos=options.photos,
        max_loss=options.max_loss,
    )
    inputs = "".join(f", {name} of {guide}" for name, guide in source.network.guides.items())
    size = path.stat().st_size / 2**20
    print(f"wrote {path}: {size:.1f} MiB, input {shape}{inputs}")  # noqa: T201
    if not options.verify:
        return 0
    from export.verify import verify

    report = verify(source.network, path)
    print(report)  # noqa: T201
    return 0 if report.passed else 1


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Run the command as ``prog``; the exit code is 1 if verification fails, 2 for bad input."""
    return run_command(_parser(), _run, arguments, prog=prog)


if __name__ == "__main__":
    sys.exit(main())
