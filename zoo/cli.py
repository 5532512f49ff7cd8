"""The command line ``zoo``: its own commands, and the commands that it forwards to other modules.

Each command imports what it needs, so that ``zoo --help`` is fast.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from zoo.command import (
    COMPAT,
    add_common_options,
    leading_options,
    package_version,
    parse_size,
    run_command,
    whole,
)
from zoo.errors import ZooError, nearest
from zoo.interrupts import quiet_imports

GROUPS = {
    "export": "Export a model to ONNX, TensorRT or a model server.",
    "scans": "Plot scan orders.",
    "data": "Prepare training data.",
    "runs": "Plot training runs.",
}
"""Commands with subcommands."""

FORWARDED = {
    "train": ("recipes.train", "Train a model from its recipe."),
    "evaluate": ("recipes.evaluate", "Evaluate a model on test sets."),
    "export onnx": ("export.onnx", "Write an ONNX file, which runs everywhere."),
    "export trt": ("export.trt", "Build a TensorRT engine for NVIDIA GPUs."),
    "export serve": ("export.serve", "Write a model repository for NVIDIA Triton Server."),
    "convert": (
        "zoo.checkpoints.convert_command",
        "Convert weights to the authors' format or back.",
    ),
    "data prepare": ("zoo.data.prepare", "Cut large photos into sub-images, which load faster."),
    "scans plot": ("zoo.plots.scans_plot", "Draw a scan order as a PNG file."),
    "runs plot": (
        "zoo.plots.training_curves",
        "Draw loss and PSNR of training runs as a PNG file.",
    ),
}
"""Forwarded commands: the module with the ``main`` of each, and what it does."""

RESTORE_HELP = """examples:
  zoo restore photo.png -o restored.png -n mambair_tiny_x2
  zoo restore photos -o restored -n mambair_light_x4 -w light_x4.pth -t 256

bursts (models qmambabsr*): INPUT is one burst, or a folder of bursts
  A burst is a folder of frames in natural order, with the reference first, or an npz file:
    im_raw_00.png ...   RAW frames: 16-bit PNGs with four channels (the planes R, Gr, Gb, B) and
                        14-bit values, as in the public sets (also BurstSR's samsung_00/im_raw.png)
    *.dng               RAW photos, as phones and HDR+ store them; needs the extra [raw]
    NAME.npz            frames (T, 4 or 3, h, w): floating point in [0, 1], linear for RAW, or
                        integers with white_level
    other images        RGB frames, for qmambabsr_rgb
  Gains and colour matrix are read from meta.json or meta_info.pkl beside the frames (rgb_gain,
  red_gain, blue_gain, rgb2cam). Pickles are read as plain data only; no code in them runs.
  --look selects how a RAW burst becomes a picture:
    camera   gains, matrix to linear sRGB, gamma 2.2, tone curve 3x^2-2x^3; 8 bits
    plain    channels scaled to the same mean, 99th percentile scaled to 0.9, gamma 2.2; 8 bits
    linear   the network's linear camera colours, unchanged; 16 bits
    auto     camera if gains and matrix are known, otherwise plain
  RGB bursts keep their colours and bit depth. To make a burst from any photo, run
  python -m zoo.data.burst PHOTO -o DIR"""


def list_command(options: argparse.Namespace) -> None:
    """Print the models, or the parts of a kind."""
    from zoo.checkpoints import shipped_weights
    from zoo.description import list_parts
    from zoo.recipe import list_models, load_recipe

    if options.parts is not None:
        names = list_parts(options.parts or None, options.pattern)
        print("\n".join(names))
        return
    shipped = shipped_weights()
    names = list_models(options.pattern)
    if not names:
        raise ZooError(f"no model matches {options.pattern!r}{nearest('', list_models())}")
    width = max(map(len, names))
    for name in names:
        mark = "*" if name in shipped else " "
        print(f"{name:<{width}} {mark} {load_recipe(name).summary}")
    print("\n* weights ship with the package")


def show_command(options: argparse.Namespace) -> None:
    """Print the description of a part or a model."""
    import yaml

    from zoo.description import ModelDescription, describe
    from zoo.recipe import load_recipe

    height, width = parse_size(options.size, "pixels")
    found = describe(options.name, height=height, width=width)
    print(found)
    if isinstance(found, ModelDescription) and options.recipe:
        print()
        print(yaml.safe_dump(load_recipe(options.name).data(), sort_keys=False), end="")


def _network(options: argparse.Namespace) -> Any:
    from zoo.checkpoints.choose import choose_network

    if options.onnx is not None or options.engine is not None:
        return _exported_network(options)
    if options.runtime is not None:
        raise ZooError("--runtime chooses what runs an ONNX file: give the file with --onnx")
    return choose_network(
        options.model,
        options.weights,
        scale=options.scale,
        random_weights=options.random_weights,
        overrides={} if options.compat is None else {"compat": options.compat},
    )


def _exported_network(options: argparse.Namespace) -> Any:
    from zoo.checkpoints.choose import check_scale

    option, path = ("--engine", options.engine) if options.engine else ("--onnx", options.onnx)
    given = {
        "--onnx": option == "--engine" and options.onnx is not None,
        "-n": options.model is not None,
        "-w": options.weights is not None,
        "--random-weights": options.random_weights,
        "--precision": options.precision != "fp32",
        "--device": options.device != "cpu",
        "--runtime": option == "--engine" and options.runtime is not None,
    }
    for other, there in given.items():
        if there:
            raise ZooError(f"{other} does not go with {option}: the file sets it; leave it out")
    if options.engine:
        from trt_plugins.build import build
        from zoo.integrations.tensorrt import load_engine

        plugin = options.plugin or build
        network: Any = load_engine(path, plugin=plugin, trusted=options.trust_engine)
        if options.tile is None:
            options.tile = network.largest_side
    elif options.runtime == "openvino":
        from zoo.integrations.openvino import load_openvino

        network = load_openvino(path)
    else:
        from zoo.integrations.onnxruntime import load_onnx

        network = load_onnx(path)
    check_scale(network, options.scale, str(path))
    return network


def restore_command(options: argparse.Namespace) -> None:
    """Restore an image, a burst or a folder; processes started by torchrun share the work."""
    from zoo.distributed import process_group
    from zoo.inference import restore

    target = options.output
    with process_group() as group:
        network = _network(options).to(group.device(options.device))
        written = restore(
            network,
            options.input,
            target,
            tile=options.tile,
            overlap=options.overlap,
            ensemble=options.ensemble,
            precision=options.precision,
            overwrite=options.overwrite,
            look=options.look,
            quality=options.quality,
            lossless=options.lossless,
            strip_metadata=options.strip_metadata,
            group=group,
        )
        if not group.is_first:
            return
    if len(written) == 1:
        print(f"wrote {written[0]}")
    else:
        print(f"wrote {len(written)} images to {target}" if written else "nothing to do")


def doctor_command(options: argparse.Namespace) -> None:
    """Print the versions, devices and scan backends of this installation."""
    import torch

    from zoo.checkpoints import shipped_weights
    from zoo.ops import backends
    from zoo.ops.scan.dispatch import ENVIRONMENT, check_environment
    from zoo.recipe import list_models

    print(f"zoo {package_version()}, Python {platform.python_version()}, torch {torch.__version__}")
    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    threads = torch.get_num_threads()
    print(f"{platform.system()} {platform.machine()}, {threads} threads, CUDA {cuda}")
    print(f"{len(list_models())} models; weights ship for {', '.join(shipped_weights()) or 'none'}")
    print("selective-scan backends, best first:")
    for status in backends():
        print(f"  {'yes' if status.available else 'no ':<4} {status.name:<10} {status.note}")
    if requested := os.environ.get(ENVIRONMENT, ""):
        print(f"{ENVIRONMENT}={requested} requests a backend")
    check_environment()


Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def _command(
    commands: Subparsers, name: str, run: Callable[[argparse.Namespace], None], text: str, more: str
) -> argparse.ArgumentParser:
    """Add a command.

    Args:
        commands: where to add it.
        name: name of the command.
        run: runs the command.
        text: one sentence on what it does.
        more: end of the help text.
    """
    common = argparse.ArgumentParser(add_help=False)
    add_common_options(common, default=argparse.SUPPRESS)
    parser = commands.add_parser(
        name,
        help=text,
        description=text,
        parents=[common],
        epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    return parser


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="zoo",
        description="Mamba networks for image restoration.",
        epilog="'zoo COMMAND --help' shows the options of a command, with examples.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"zoo {package_version()}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_list(commands)
    _add_restore(commands)
    _add_forwarded(commands)
    _command(commands, "doctor", doctor_command, "Check the installation and its backends.", "")
    return parser


def _add_list(commands: Subparsers) -> None:
    sub = _command(
        commands,
        "list",
        list_command,
        "List models, or with --parts the parts they are made of.",
        "examples: zoo list '*light*'; zoo list --parts; zoo list --parts scan",
    )
    sub.add_argument("pattern", nargs="?", default="*", help="shell-style pattern of names [*]")
    sub.add_argument(
        "--parts", nargs="?", const="", metavar="KIND", help="list parts, of KIND or of all kinds"
    )
    sub = _command(
        commands,
        "show",
        show_command,
        "Describe a model (size, operations) or a part (options).",
        "examples: zoo show mambair_light_x4 --size 180x320; zoo show block/rssb",
    )
    sub.add_argument(
        "name", help="a model, a recipe file (.yaml) or a part (KIND/NAME); see 'zoo list'"
    )
    sub.add_argument(
        "--size",
        default="64x64",
        metavar="HxW",
        help="height x width in pixels of the input for counting operations [64x64]",
    )
    sub.add_argument("--recipe", action="store_true", help="print the model's whole recipe too")


def _add_restore(commands: Subparsers) -> None:
    sub = _command(
        commands,
        "restore",
        restore_command,
        "Restore an image, a burst, or a folder of them.",
        RESTORE_HELP,
    )
    # Path would drop a "/" at the end, and turn an empty path into the current folder.
    sub.add_argument("input", help="image file, burst, or a folder of them")
    sub.add_argument(
        "-o",
        "--output",
        required=True,
        help="file or folder to write; a folder if it exists as one, has no suffix, or ends in /",
    )
    sub.add_argument("-n", "--model", help="model; see 'zoo list'")
    sub.add_argument("-w", "--weights", type=Path, help="weights file, .safetensors or .pth")
    sub.add_argument("--compat", choices=["official"], help=COMPAT)
    sub.add_argument("--onnx", type=Path, metavar="FILE", help="run this file of zoo export onnx")
    sub.add_argument(
        "--runtime",
        choices=["onnxruntime", "openvino"],
        help="with --onnx: what runs the file [onnxruntime]; for openvino, export it with "
        "--for openvino",
    )
    sub.add_argument(
        "--engine", type=Path, metavar="FILE", help="run this engine of zoo export trt, on a GPU"
    )
    sub.add_argument(
        "--plugin", type=Path, help="library of the plugin, for --engine [built if needed]"
    )
    sub.add_argument(
        "--trust-engine",
        action="store_true",
        help="with --engine: run the code embedded in the engine",
    )
    sub.add_argument(
        "-s",
        "--scale",
        type=whole("--scale", 1, 64),
        help="scale, if -n omits it: -n mambair_light -s 2",
    )
    sub.add_argument(
        "-t",
        "--tile",
        type=whole("--tile", 0),
        help="side of a tile in pixels, 0 for no tiles [cuda: as large as free memory allows; cpu: "
        "512, or 128 for bursts]",
    )
    sub.add_argument(
        "--overlap",
        type=whole("--overlap", 0),
        default=32,
        help="overlap of tiles in pixels [32]",
    )
    sub.add_argument(
        "--ensemble",
        action="store_true",
        help="average over 8 flips and quarter turns; takes 8 times as long",
    )
    sub.add_argument(
        "--precision",
        choices=["fp32", "bf16", "fp16"],
        default="fp32",
        help="precision of the layers; the scan's state is always fp32 [fp32]",
    )
    sub.add_argument("--device", default="cpu", help="cpu or cuda [cpu]")
    sub.add_argument(
        "--overwrite", action="store_true", help="overwrite existing outputs [they are skipped]"
    )
    sub.add_argument(
        "--quality",
        type=whole("--quality", 1, 100),
        help="quality of JPEG and WebP outputs, 1 to 100 [JPEG: 95; WebP: lossless]",
    )
    sub.add_argument(
        "--lossless",
        action="store_true",
        help="refuse outputs that would lose colours; WebP is lossless unless --quality is given",
    )
    sub.add_argument(
        "--strip-metadata",
        action="store_true",
        help="write pixels only, without colour profile, EXIF, XMP and resolution",
    )
    sub.add_argument(
        "--random-weights", action="store_true", help="use an untrained network, for tests"
    )
    sub.add_argument(
        "--look",
        choices=["auto", "camera", "plain", "linear"],
        default="auto",
        help="how a RAW burst becomes a picture; see below [auto]",
    )


def _add_forwarded(commands: Subparsers) -> None:
    """Add the commands that :func:`main` forwards, so that the help lists them."""
    groups = {"": commands}
    for name, (_, text) in FORWARDED.items():
        group, _, last = name.rpartition(" ")
        if group not in groups:
            parser = commands.add_parser(
                group,
                help=GROUPS[group],
                description=GROUPS[group],
                epilog=f"'zoo {group} COMMAND --help' shows the options of a command.",
            )
            groups[group] = parser.add_subparsers(metavar="COMMAND", required=True)
        groups[group].add_parser(last, help=text, add_help=False)


def _forwarded(words: list[str]) -> int | None:
    """Run the forwarded command that ``words`` names and return its exit code; None if none."""
    first = leading_options(words)
    for name, (module, _) in FORWARDED.items():
        rest = first + len(name.split())
        if words[first:rest] == name.split():
            with quiet_imports():
                main = importlib.import_module(module).main
            return int(main(words[:first] + words[rest:], prog=f"zoo {name}"))
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; 2 means bad input."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    code = _forwarded(words)
    if code is None:
        code = run_command(_parser(), _run, words)
    return code


def _run(options: argparse.Namespace) -> int | None:
    with quiet_imports():
        import torch  # noqa: F401 - all commands need it
    code: int | None = options.run(options)
    return code
