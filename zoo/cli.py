"""The command ``zoo``. Every command is a function of its options; errors are one line, exit 2."""

from __future__ import annotations

import argparse
import logging
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zoo.command import add_common_options, run_command
from zoo.errors import ZooError, nearest

logger = logging.getLogger("zoo.cli")

COMPAT: Any = {
    "choices": ["official"],
    "help": "reproduce the authors' outputs where their code errs (MambaCSR with cross-scale)",
}
"""The option of the commands that load weights."""

BURSTS = """bursts (models qmambabsr*): INPUT is one burst, or a folder of bursts
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

    height, width = _size(options.size, "pixels")
    found = describe(options.name, height=height, width=width)
    print(found)
    if isinstance(found, ModelDescription) and options.recipe:
        print()
        print(yaml.safe_dump(load_recipe(options.name).data(), sort_keys=False), end="")


def _network(options: argparse.Namespace) -> Any:
    from zoo.checkpoints import load, shipped_weights
    from zoo.recipe import build, list_models

    if options.onnx is not None or options.engine is not None:
        return _exported_network(options)
    name = options.model
    overrides = _overrides(options)
    if name is None:
        if options.weights is None:
            raise ZooError("name a model with -n (see 'zoo list'), or a weights file with -w")
        return load(options.weights, **overrides)
    if options.scale is not None and name not in list_models():
        name = f"{name}_x{options.scale}"
    if options.weights is not None:
        network = load(options.weights, recipe=name, **overrides)
    elif name in shipped_weights():
        network = load(name, **overrides)
    elif options.random_weights:
        logger.warning("%s has random weights; the output is of no use but to try things", name)
        network = build(name, **overrides)
    else:
        build(name)  # an unknown name is told first
        raise ZooError(
            f"no weights ship for {name!r}: give a file with -w, or try the machinery with "
            f"--random-weights; shipped: {', '.join(shipped_weights())}"
        )
    if options.scale is not None and network.scale != options.scale:
        raise ZooError(f"-s {options.scale}: {name} enlarges by {network.scale}")
    return network


def _overrides(options: argparse.Namespace) -> dict[str, Any]:
    return {} if options.compat is None else {"compat": options.compat}


def _exported_network(options: argparse.Namespace) -> Any:
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
        from zoo.integrations.tensorrt import load_engine

        network: Any = load_engine(path, plugin=options.plugin, trusted=options.trust_engine)
        if options.tile is None:
            options.tile = network.largest_side
    else:
        from zoo.integrations.onnxruntime import load_onnx

        network = load_onnx(path)
    if options.scale is not None and network.scale != options.scale:
        raise ZooError(f"-s {options.scale}: {path} enlarges by {network.scale}")
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


def train_command(arguments: Sequence[str]) -> int:
    """Train; the same as ``python recipes/train.py``."""
    from recipes.train import main as train

    return train(arguments)


def evaluate_command(arguments: Sequence[str]) -> int:
    """Evaluate; the same as ``python recipes/evaluate.py``."""
    from recipes.evaluate import main as evaluate

    return evaluate(arguments)


def data_command(options: argparse.Namespace) -> None:
    """Cut large photos into sub-images."""
    from zoo.data.prepare import prepare

    count = prepare(options.input, options.output, size=options.size, step=options.step)
    print(f"{count} sub-images in {options.output}")


def runs_command(options: argparse.Namespace) -> None:
    """Draw the curves of training runs."""
    from zoo.plots.training_curves import plot_runs

    plot_runs(options.folders, options.output)
    print(f"wrote {options.output}")


def convert_command(options: argparse.Namespace) -> None:
    """Convert weights between our format and the authors'."""
    from zoo.checkpoints import convert

    network = convert(options.input, options.output, recipe=options.model, **_overrides(options))
    print(f"wrote {options.output}: {network.recipe.name}, x{network.scale}")


def _size(text: str, unit: str) -> tuple[int, int]:
    height, times, width = text.partition("x")
    if not (times and height.isdigit() and width.isdigit() and int(height) and int(width)):
        raise ZooError(f"--size {text!r}: write height x width in {unit}, such as 16x24")
    return int(height), int(width)


def scans_command(options: argparse.Namespace) -> None:
    """Draw a scan order."""
    from zoo.plots.scan_order import plot_order
    from zoo.recipe import parse_overrides
    from zoo.scans import SCANS
    from zoo.schema import resolve_part

    height, width = _size(options.size, "tokens")
    settings = {"type": options.name, **parse_overrides(options.options, "size=8")}
    if options.name == "window":
        settings.setdefault("size", 8)
    order = resolve_part(SCANS, settings, options.name)()
    plot_order(order, height, width, options.output)
    print(f"wrote {options.output}")


def doctor_command(options: argparse.Namespace) -> None:
    """Print what this installation can do."""
    import torch

    from zoo.checkpoints import package_version, shipped_weights
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="zoo", description="Mamba networks for image restoration.", allow_abbrev=False
    )
    common = argparse.ArgumentParser(add_help=False)
    add_common_options(common, default=argparse.SUPPRESS)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text, parents=[common])
        sub.set_defaults(run=run)
        return sub

    sub = command("list", list_command, "List models, or with --parts the parts of a kind.")
    sub.add_argument("pattern", nargs="?", default="*", help="such as '*light*' [*]")
    sub.add_argument("--parts", nargs="?", const="", metavar="KIND", help="scan, block, head, ...")

    sub = command("show", show_command, "Show a model (NAME) or a part (KIND/NAME).")
    sub.add_argument("name")
    sub.add_argument(
        "--size", default="64x64", help="input that a model's operations are counted for [64x64]"
    )
    sub.add_argument("--recipe", action="store_true", help="print the model's whole recipe too")

    sub = command("restore", restore_command, "Restore an image, or all images of a folder.")
    sub.add_argument("input", type=Path, help="image file or folder")
    sub.add_argument("-o", "--output", type=Path, required=True, help="file or folder to write")
    sub.add_argument("-n", "--model", help="model; see 'zoo list'")
    sub.add_argument("-w", "--weights", type=Path, help="weights file, .safetensors or .pth")
    sub.add_argument("--compat", **COMPAT)
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
    sub.add_argument("-s", "--scale", type=int, help="scale, for names without it")
    sub.add_argument(
        "-t",
        "--tile",
        type=int,
        help="side of a tile in pixels, 0 for none [cuda: what free memory holds; cpu: 512, for "
        "bursts 128 of a frame]",
    )
    sub.add_argument("--overlap", type=int, default=32, help="overlap of tiles in pixels [32]")
    sub.add_argument("--ensemble", action="store_true", help="average 8 flips and turns: slower")
    sub.add_argument("--precision", choices=["fp32", "bf16", "fp16"], default="fp32")
    sub.add_argument("--device", default="cpu", help="cpu or cuda [cpu]")
    sub.add_argument("--overwrite", action="store_true", help="redo outputs that exist")
    sub.add_argument("--random-weights", action="store_true", help="run without trained weights")
    sub.add_argument(
        "--look",
        choices=["auto", "camera", "plain", "linear"],
        default="auto",
        help="how a RAW burst becomes a picture, see below [auto]",
    )
    sub.formatter_class, sub.epilog = argparse.RawDescriptionHelpFormatter, BURSTS

    sub = command("convert", convert_command, "Convert weights: the output's suffix says to what.")
    sub.add_argument("input", type=Path, help="weights file")
    sub.add_argument("-n", "--model", help="its model, where the tensors do not tell: MambaCSR")
    sub.add_argument("--compat", **COMPAT)
    sub.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        help=".safetensors for our format, .pth for the authors'",
    )

    sub = command("scans", scans_command, "Draw a scan order as PNG.")
    sub.add_argument("action", choices=["plot"])
    sub.add_argument("name", help="scan order; see 'zoo list --parts scan'")
    sub.add_argument("options", nargs="*", metavar="key=value", help="its options, such as size=8")
    sub.add_argument("--size", default="16x16", help="grid, height x width in tokens [16x16]")
    sub.add_argument("-o", "--output", type=Path, required=True, help="PNG file to write")

    sub = command("data", data_command, "Cut large training photos into overlapping sub-images.")
    sub.add_argument("action", choices=["prepare"])
    sub.add_argument("input", type=Path, help="folder of photos")
    sub.add_argument("-o", "--output", type=Path, required=True, help="folder to write")
    sub.add_argument("--size", type=int, default=480, help="side of a sub-image in pixels [480]")
    sub.add_argument("--step", type=int, default=240, help="from one to the next [240]")

    sub = command("runs", runs_command, "Draw loss and PSNR of training runs as PNG.")
    sub.add_argument("action", choices=["plot"])
    sub.add_argument("folders", nargs="+", type=Path, metavar="RUN", help="such as runs/NAME")
    sub.add_argument("-o", "--output", type=Path, required=True, help="PNG file to write")

    command("doctor", doctor_command, "Show what this installation can do.")

    for name in _FORWARDED:
        text = f"{name.capitalize()} a model; 'zoo {name} --help' has more."
        commands.add_parser(name, help=text, add_help=False)
    return parser


_FORWARDED = {"train": train_command, "evaluate": evaluate_command}
"""Commands that read their options themselves."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and words[0] in _FORWARDED:
        return _FORWARDED[words[0]](words[1:])
    return run_command(_parser(), lambda options: options.run(options), words)
