"""Options that the commands of training share: settings of the recipe, and what it runs on."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from zoo.command import whole
from zoo.distributed import DEVICE, default_device
from zoo.errors import ZooError
from zoo.ops.precision import TF32
from zoo.recipe import parse_overrides
from zoo.training.loader import MOST_WORKERS
from zoo.training.rng import make_deterministic

RECIPE_KEYS = ("train", "network", "evaluate", "name", "summary")
"""Top-level keys of a recipe. Other keys on the command line belong to ``train``."""


def overrides_of(words: Sequence[str]) -> dict[str, Any]:
    """Parse ``key=value`` words to recipe overrides; keys may omit ``train.``.

    Raises:
        RecipeError: if a word has no "=", or a value is not valid YAML.
    """
    return {
        key if key.split(".")[0] in RECIPE_KEYS else f"train.{key}": value
        for key, value in parse_overrides(words, "iterations=1000").items()
    }


def add_machine_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say on what a training runs."""
    parser.add_argument("--device", default=default_device(), **DEVICE)
    parser.add_argument("--tf32", action="store_true", help=TF32)
    parser.add_argument(
        "--deterministic",
        action="store_true",
        help="equal results in each run on a GPU, too; slower, and not every network can",
    )
    parser.add_argument(
        "--num-workers",
        type=whole("--num-workers", 0, 256),
        help=f"number of processes that load data [cuda: one for each core but one, at most "
        f"{MOST_WORKERS}; cpu: 1]",
    )


@contextmanager
def machine_options(options: argparse.Namespace) -> Iterator[None]:
    """Within the block, what the options of :func:`add_machine_options` say about sums holds.

    Raises:
        ZooError: if the network cannot be trained with ``--deterministic``.
    """
    if not options.deterministic:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled()
    make_deterministic()
    try:
        yield
    except RuntimeError as error:
        text = " ".join(str(error).split())
        if "deterministic" not in text:
            raise
        raise ZooError(f"--deterministic: {text.partition('. ')[0]}; train without it") from error
    finally:
        torch.use_deterministic_algorithms(before)
