"""The command line ``zoo``: a table of commands, each of which has its own module.

Only the module of the command that is named is imported, so that ``zoo --help`` is fast.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from functools import partial

from zoo.command import leading_options, package_version, run_command
from zoo.errors import ZooError
from zoo.interrupts import quiet_imports
from zoo.shipped import check_not_hidden

GROUPS = {
    "analyse": "Look inside a network: what it depends on, and how far it sees.",
    "export": "Export a model to ONNX, TensorRT or a model server.",
    "scans": "Plot scan orders.",
    "data": "Prepare training data.",
    "runs": "Plot training runs.",
}
"""Commands with subcommands."""

COMMANDS = {
    "list": ("zoo.commands.listing", "List models, or with --parts the parts they are made of."),
    "show": ("zoo.commands.show", "Describe a model (size, operations) or a part (options)."),
    "restore": ("zoo.commands.restore", "Restore an image, a burst, or a folder of them."),
    "app": ("zoo.commands.app", "Restore photos on a page in the browser."),
    "train": ("recipes.train", "Train a model from its recipe."),
    "evaluate": ("recipes.evaluate", "Evaluate a model on test sets."),
    "compare": ("recipes.compare", "Train variants, such as scan orders, under equal budget."),
    "submit": (
        "zoo.commands.submit",
        "Denoise SIDD or DND for the benchmark's server.",
    ),
    "export onnx": ("export.onnx", "Write an ONNX file, which runs everywhere."),
    "export trt": ("export.trt", "Build a TensorRT engine for NVIDIA GPUs."),
    "export serve": ("export.serve", "Write a model repository for NVIDIA Triton Server."),
    "convert": (
        "zoo.checkpoints.convert_command",
        "Convert weights to the authors' format or back.",
    ),
    "download": (
        "zoo.commands.download",
        "Get the weights that the authors of a model have released.",
    ),
    "data prepare": ("zoo.data.prepare", "Cut large photos into sub-images, which load faster."),
    "data frames": ("zoo.data.frames", "Write the frames of an animation or pages as PNG files."),
    "analyse erf": ("zoo.commands.analyse_erf", "Draw the effective receptive field."),
    "analyse lam": ("zoo.commands.analyse_lam", "Draw a local attribution map."),
    "analyse activations": (
        "zoo.commands.analyse_activations",
        "Draw the activations of channels.",
    ),
    "analyse scans": ("zoo.commands.analyse_scans", "Draw how far each scan direction remembers."),
    "scans plot": ("zoo.plots.scans_plot", "Draw a scan order as a PNG file."),
    "runs plot": (
        "zoo.plots.training_curves",
        "Draw loss and PSNR of training runs as a PNG file.",
    ),
    "doctor": ("zoo.commands.doctor", "Check the installation, its backends and image formats."),
}
"""The module with the ``main`` of each command, and what it does."""


REQUIRED = {
    "cv2": "opencv-python-headless",
    "einops": "einops",
    "numpy": "numpy",
    "safetensors": "safetensors",
    "torch": "torch",
    "tqdm": "tqdm",
    "yaml": "pyyaml",
}
"""The modules of the packages that ``pyproject.toml`` requires, with the names that pip knows."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; 2 means bad input."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    first = leading_options(words)
    for name, (module, _) in COMMANDS.items():
        rest = first + len(name.split())
        if words[first:rest] == name.split():
            try:
                check_not_hidden(module.split(".")[0])
                with quiet_imports():
                    command = _load(module)
            except ZooError as error:
                parser = argparse.ArgumentParser(prog=f"zoo {name}")
                return run_command(parser, partial(_refuse, error), words[:first])
            return int(command(words[:first] + words[rest:], prog=f"zoo {name}"))
    # No command is named: this prints the help, the version, or what is wrong.
    return run_command(_parser(), lambda _: None, words)


def _load(module: str) -> Callable[..., int]:
    """Import the ``main`` of a command.

    Raises:
        ZooError: if a package that every installation needs is not there.
    """
    try:
        main: Callable[..., int] = importlib.import_module(module).main
    except ModuleNotFoundError as error:
        package = REQUIRED.get(error.name or "")
        if package is None:
            raise
        raise ZooError(
            f"{package} is not installed, and nothing works without: pip install {package}"
        ) from error
    return main


def _refuse(error: ZooError, options: argparse.Namespace) -> None:
    raise error


def _parser() -> argparse.ArgumentParser:
    """Return the parser that lists all commands in its help."""
    parser = argparse.ArgumentParser(
        prog="zoo",
        description="Mamba networks for image restoration.",
        epilog="'zoo COMMAND --help' shows the options of a command, with examples.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"zoo {package_version()}")
    groups = {"": parser.add_subparsers(metavar="COMMAND", required=True)}
    for name, (_, text) in COMMANDS.items():
        group, _, last = name.rpartition(" ")
        if group not in groups:
            inner = groups[""].add_parser(
                group,
                help=GROUPS[group],
                description=GROUPS[group],
                epilog=f"'zoo {group} COMMAND --help' shows the options of a command.",
            )
            groups[group] = inner.add_subparsers(metavar="COMMAND", required=True)
        groups[group].add_parser(last, help=text, add_help=False)
    return parser
