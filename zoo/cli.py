"""The command ``zoo``: its commands, and the modules that it forwards the others to.

Modules are imported by the command that needs them, so that ``zoo --help`` costs little.
"""

from __future__ import annotations

import argparse
import importlib
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from zoo.command import COMPAT, add_common_options, package_version, parse_size, run_command
from zoo.errors import ZooError, nearest

GROUPS = {
    "export": "Export a model to ONNX, TensorRT or a model server.",
    "scans": "Look at scan orders.",
    "data": "Prepare training data.",
    "runs": "Look at training runs.",
}
"""Commands that have commands of their own."""

FORWARDED = {
    "train": ("recipes.train", "Train a model from its recipe."),
    "evaluate": ("recipes.evaluate", "Evaluate a model on test sets."),
    "export onnx": ("export.onnx", "Write an ONNX file, which runs everywhere."),
    "export trt": ("export.trt", "Build a TensorRT engine, for NVIDIA GPUs."),
    "export serve": ("export.serve", "Write a model repository for NVIDIA Triton Server."),
    "convert": ("zoo.checkpoints.convert_command", "Convert our weights to the authors' or back."),
    "data prepare": ("zoo.data.prepare", "Cut large photos into sub-images, which load faster."),
    "scans plot": ("zoo.plots.scan_order", "Draw a scan order as PNG."),
    "runs plot": ("zoo.plots.training_curves", "Draw loss and PSNR of training runs as PNG."),
}
"""Commands that live elsewhere: the module whose ``main`` runs each, and what it does."""

RESTORE_HELP = """examples:
  zoo restore photo.png -o restored.png -n mambair_tiny_x2
  zoo restore photos -o restored -n mambair_light_x4 -w light_x4.pth -t 256

bursts (models qmambabsr*): INPUT is one burst, or a folder of bursts
  a burst is a folder of frames in natural order, the first the reference, or an npz file:
    im_raw_00.png ...   RAW: 16-bit PNGs of four channels, the planes R, Gr, Gb, B of a mosaic, 14
                        bits used, as in the public sets (BurstSR's samsung_00/im_raw.png too)
    NAME.npz            frames (T, 4 or 3, h, w): floating point in [0, 1], linear for RAW, or
                        integers with white_level
    other images        RGB frames, for qmambabsr_rgb
  gains and colour matrix are read from meta.json or meta_info.pkl beside the frames (rgb_gain,
  red_gain, blue_gain, rgb2cam); pickles are read as plain data only, nothing in them is run
  --look of a RAW burst:
    camera   gains, matrix to linear sRGB, gamma 2.2, tone curve 3x^2-2x^3; 8 bits
    plain    channels to one mean, brightness to 0.9 at the 99th percentile, gamma 2.2; 8 bits
    linear   the network's linear camera colours as they are; 16 bits
    auto     camera where gains and matrix are known, otherwise plain
  RGB bursts come out in the colours and bits they came in. Make a burst from any photo with
  python -m zoo.data.burst PHOTO -o DIR"""


def list_command(options: argparse.Namespace) -> None:
    """Print models, or the parts of a kind."""
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
    """Print what a part or a model is."""
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
    }
    for other, there in given.items():
        if there:
            raise ZooError(f"{other} does not go with {option}: the file fixes it; leave it away")
    if options.engine:
        from trt_plugins.build import build
        from zoo.integrations.tensorrt import load_engine

        plugin = options.plugin or build
        network: Any = load_engine(path, plugin=plugin, trusted=options.trust_engine)
        if options.tile is None:
            options.tile = network.largest_side
    else:
        from zoo.integrations.onnxruntime import load_onnx

        network = load_onnx(path)
    check_scale(network, options.scale, str(path))
    return network


def restore_command(options: argparse.Namespace) -> None:
    """Restore an image or a folder; processes started by torchrun share it."""
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
            group=group,
        )
        if not group.is_first:
            return
    if len(written) == 1:
        print(f"wrote {written[0]}")
    else:
        print(f"wrote {len(written)} images to {target}" if written else "nothing to do")


def doctor_command(options: argparse.Namespace) -> None:
    """Print what this installation can do."""
    import torch

    from zoo.checkpoints import shipped_weights
    from zoo.ops import backends
    from zoo.recipe import list_models

    print(f"zoo {package_version()}, Python {platform.python_version()}, torch {torch.__version__}")
    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    threads = torch.get_num_threads()
    print(f"{platform.system()} {platform.machine()}, {threads} threads, CUDA {cuda}")
    print(f"{len(list_models())} models; weights ship for {', '.join(shipped_weights()) or 'none'}")
    print("selective-scan backends, best first:")
    for status in backends():
        print(f"  {'yes' if status.available else 'no ':<4} {status.name:<10} {status.note}")


Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def _command(
    commands: Subparsers, name: str, run: Callable[[argparse.Namespace], None], text: str, more: str
) -> argparse.ArgumentParser:
    """Add a command: what runs it, what it does, and what its help shows at the end."""
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
    _command(commands, "doctor", doctor_command, "Show what this installation can do.", "")
    return parser


def _add_list(commands: Subparsers) -> None:
    sub = _command(
        commands,
        "list",
        list_command,
        "List models, or with --parts what they are made of.",
        "examples: zoo list '*light*'; zoo list --parts; zoo list --parts scan",
    )
    sub.add_argument("pattern", nargs="?", default="*", help="shell-style pattern of names [*]")
    sub.add_argument(
        "--parts", nargs="?", const="", metavar="KIND", help="parts, of this kind or of all kinds"
    )
    sub = _command(
        commands,
        "show",
        show_command,
        "Show a model or a part: what it is, its size, its options.",
        "examples: zoo show mambair_light_x4 --size 180x320; zoo show block/rssb",
    )
    sub.add_argument(
        "name", help="a model, a recipe file (.yaml) or a part (KIND/NAME); see 'zoo list'"
    )
    sub.add_argument(
        "--size",
        default="64x64",
        metavar="HxW",
        help="input, in pixels, that a model's operations are counted for [64x64]",
    )
    sub.add_argument("--recipe", action="store_true", help="print the model's whole recipe too")


def _add_restore(commands: Subparsers) -> None:
    sub = _command(
        commands,
        "restore",
        restore_command,
        "Restore an image or a burst, or all of a folder.",
        RESTORE_HELP,
    )
    sub.add_argument("input", type=Path, help="image file, burst, or a folder of them")
    sub.add_argument("-o", "--output", type=Path, required=True, help="file or folder to write")
    sub.add_argument("-n", "--model", help="model; see 'zoo list'")
    sub.add_argument("-w", "--weights", type=Path, help="weights file, .safetensors or .pth")
    sub.add_argument("--compat", choices=["official"], help=COMPAT)
    sub.add_argument("--onnx", type=Path, metavar="FILE", help="run this file of export.onnx")
    sub.add_argument(
        "--engine", type=Path, metavar="FILE", help="run this engine of export.trt, on a GPU"
    )
    sub.add_argument(
        "--plugin", type=Path, help="of --engine: the plugin's library [built where needed]"
    )
    sub.add_argument(
        "--trust-engine", action="store_true", help="of --engine: run the code embedded in it"
    )
    sub.add_argument(
        "-s", "--scale", type=int, help="scale of a model named without it: -n mambair_light -s 2"
    )
    sub.add_argument(
        "-t",
        "--tile",
        type=int,
        help="side of a tile in pixels, 0 for none [cuda: what free memory holds; cpu: 512, for "
        "bursts 128 of a frame]",
    )
    sub.add_argument("--overlap", type=int, default=32, help="overlap of tiles in pixels [32]")
    sub.add_argument(
        "--ensemble", action="store_true", help="average over 8 flips and turns: 8 times the work"
    )
    sub.add_argument(
        "--precision",
        choices=["fp32", "bf16", "fp16"],
        default="fp32",
        help="number format of the layers; the scan's state stays fp32 [fp32]",
    )
    sub.add_argument("--device", default="cpu", help="cpu or cuda [cpu]")
    sub.add_argument(
        "--overwrite", action="store_true", help="redo outputs that exist [they are skipped]"
    )
    sub.add_argument(
        "--random-weights", action="store_true", help="run an untrained network, to try things out"
    )
    sub.add_argument(
        "--look",
        choices=["auto", "camera", "plain", "linear"],
        default="auto",
        help="how a RAW burst becomes a picture, see below [auto]",
    )


def _add_forwarded(commands: Subparsers) -> None:
    """List the commands that :func:`main` forwards."""
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
    """Run the command that lives elsewhere and that the words name; None if they name none."""
    first = 0
    while first < len(words) and words[first].partition("=")[0] in ("--debug", "--import"):
        first += 2 if words[first] == "--import" else 1
    for name, (module, _) in FORWARDED.items():
        rest = first + len(name.split())
        if words[first:rest] == name.split():
            main = importlib.import_module(module).main
            return int(main(words[:first] + words[rest:], prog=f"zoo {name}"))
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    code = _forwarded(words)
    if code is None:
        code = run_command(_parser(), lambda options: options.run(options), words)
    return code
