"""Everything that speed on a CPU is judged by, as ratios, in one run.

    python benchmarks/cpu.py [--rounds 5] [--before FOLDER] [--only WORD ...] [--photos 200]

The paths of a row take turns; a ratio is the median over the rounds. So a busy machine changes the
seconds, and hardly the ratios. Times are those of the CPU on one thread, unless a row says
otherwise. ``--before`` is a checkout of an earlier version of the project with its kernel built
(``python setup.py build_ext --inplace``); rows that compare with it are left out without it.

Limit: the time of the products at the rate of one large product in float32, and of the exponentials
in the scan's own loop. It leaves out all that only moves memory.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import zoo
from zoo.inference import RestoreSettings, restore_tensor
from zoo.ops.passes import ENVIRONMENT
from zoo.ops.precision import autocast, bfloat16_is_slow

if __package__ is None:
    sys.path.insert(0, str(Path(__file__).parent))
import old
from authors_scan import authors_path
from measure import machine, table
from network_limits import CHANNELS, LENGTH, SIDE, work_of
from networks import floor_path
from operator_cpu import DIRECTIONS, STATES, limit, make_inputs, ours, threads, with_backward
from turns import OtherVersion, Timed, in_turns, of_cpu, ratio

Row = tuple[str, str, float, str]
"""What is measured, relative to what, the ratio, and the goal; an empty goal for none."""

NETWORKS = {
    "mambair_light_x4": "1.7",
    "mambair_classic_x4": "1.4",
    "mambacsr_final": "",
    "mambair_realdn": "",
    "qmambabsr": "",
}
"""Networks, and the goal of their ratio to the limit."""

SIZE, AUTHORS_SIZE = 64, 32
"""Sides of networks' images in pixels; the authors' path takes half a minute at 64."""

SCANS = ((360, STATES, 12), (72, 10, 4))
"""Channels, states and rank of the scans of classic and light networks."""

TRAINED = (("mambair_tiny_x2", 4, 32), ("mambair_light_x2", 1, 64))
"""Models, batches and patches of training steps."""

COMPILED = ("mambair_tiny_x2", "mambair_light_x4")
"""Models that PyTorch compiles, in one and in four minutes."""

SMALL, LARGE, TILE = 128, (1000, 1024), 512
"""Sides in pixels of the images whose cost a pixel is compared, and of tiles of the largest one."""


def example(network: Any, size: int) -> tuple[Tensor, ...]:
    """The inputs of a network for an image or burst of size x size pixels."""
    return tuple(network.example_inputs(size, size))


def forward(network: nn.Module, inputs: tuple[Tensor, ...]) -> Callable[[], object]:
    def run() -> object:
        with torch.inference_mode():
            return network(*inputs)

    return run


def within(context: Callable[[], Any], function: Callable[[], object]) -> Callable[[], object]:
    """The function, run in a context."""

    def run() -> object:
        with context():
            return function()

    return run


def scan(inputs: list[Tensor | None]) -> Callable[[], object]:
    def run() -> object:
        with torch.inference_mode():
            return ours(inputs, "native")

    return run


def operators(rounds: int) -> Iterator[Row]:
    """The scan alone: share of its limit, gradients, 16 bits, two threads."""
    for channels, states, rank in SCANS:
        inputs = make_inputs(LENGTH, channels, states=states, rank=rank)
        given = make_inputs(LENGTH, channels, states=states, low_rank=False)
        half = make_inputs(LENGTH, channels, states=states, rank=rank, dtype=torch.bfloat16)
        step = with_backward(lambda tensors: ours(tensors, "native"), inputs)
        paths: dict[str, Timed] = {
            "limit": of_cpu(limit(LENGTH, channels, states)),
            "scan": of_cpu(scan(inputs)),
            "given": of_cpu(scan(given)),
            "half": of_cpu(scan(half)),
            "both": of_cpu(step),
        }
        times = in_turns(paths, 4 * rounds)
        name = f"scan, E = {channels}, N = {states}"
        yield name, "limit", ratio(times, "scan", "limit"), "1.8"
        yield f"{name}, delta given", "limit", ratio(times, "given", "limit"), "1.67"
        yield f"{name}, bfloat16", "float32", ratio(times, "half", "scan"), ""
        yield f"{name}, forward and backward", "forward", ratio(times, "both", "scan"), "3.5"


def networks(rounds: int, before: Path | None) -> Iterator[Row]:
    """Whole networks: the limit, their floor, no passes, bfloat16, the version before."""
    a, b = torch.rand(SIDE, SIDE), torch.rand(SIDE, SIDE)
    for name, goal in NETWORKS.items():
        network = zoo.build(name).eval().requires_grad_(False)
        inputs = example(network, SIZE)
        run = forward(network, inputs)
        paths: dict[str, Timed] = {
            "product": of_cpu(lambda: a @ b),
            "exponentials": of_cpu(limit(LENGTH, CHANNELS, STATES)),
            "ours": of_cpu(run),
            "no passes": of_cpu(within(no_passes, run)),
            "floor": of_cpu(within(floor_path, run)),
        }
        if not bfloat16_is_slow("cpu"):
            paths["bf16"] = of_cpu(within(lambda: autocast("cpu", "bf16"), run))
        with contextlib.ExitStack() as stack:
            if before is not None:
                other = stack.enter_context(OtherVersion(before, Path(old.__file__)))
                paths["before"] = other.path("forward", name, SIZE)
            times = in_turns(paths, rounds)
        work = work_of(network, *inputs)
        many = LENGTH * DIRECTIONS * CHANNELS * (STATES + 1)
        times["limit"] = [
            work.products * product / (2 * SIDE**3) + work.exponentials * exponentials / many
            for product, exponentials in zip(times["product"], times["exponentials"], strict=True)
        ]
        yield name, "limit", ratio(times, "ours", "limit"), goal
        yield name, "the same without scans", ratio(times, "ours", "floor"), ""
        yield name, "no passes", ratio(times, "ours", "no passes"), ""
        if "before" in times:
            aim = "0.5" if name == "mambair_light_x4" else ""
            yield name, "version before", ratio(times, "ours", "before"), aim
        if "bf16" in times:
            aim = "0.67" if name == "mambair_classic_x4" else ""
            yield f"{name}, bf16", "fp32", ratio(times, "bf16", "ours"), aim


@contextlib.contextmanager
def no_passes() -> Iterator[None]:
    """Without passes over features, within the context."""
    kept = os.environ.get(ENVIRONMENT)
    os.environ[ENVIRONMENT] = "0"
    try:
        yield
    finally:
        del os.environ[ENVIRONMENT]
        if kept is not None:
            os.environ[ENVIRONMENT] = kept


def authors(rounds: int) -> Iterator[Row]:
    """A light network by the authors' Python loops."""
    network = zoo.build("mambair_light_x4").eval()
    run = forward(network, example(network, AUTHORS_SIZE))
    paths = {"ours": of_cpu(run), "authors": of_cpu(within(authors_path, run))}
    times = in_turns(paths, 1)
    name = f"authors' path, mambair_light_x4, {AUTHORS_SIZE} x {AUTHORS_SIZE}"
    yield name, "ours", ratio(times, "authors", "ours"), ""


def training(rounds: int, before: Path | None) -> Iterator[Row]:
    """A training step, and the same step of the version before."""
    for model, batch, patch in TRAINED:
        name = f"training step, {model}, {batch} x {patch} x {patch}"
        script = Path(old.__file__)
        with contextlib.ExitStack() as stack:
            # A process of its own, as a training is: it keeps the memory that it frees.
            ours = stack.enter_context(OtherVersion(script.parents[1], script))
            paths = {"step": ours.path("step", model, batch, patch)}
            paths["forward"] = ours.path("forward", model, patch, batch)
            if before is not None:
                other = stack.enter_context(OtherVersion(before, script))
                paths["before"] = other.path("step", model, batch, patch)
            times = in_turns(paths, 3 * rounds)
        yield name, "forward", ratio(times, "step", "forward"), ""
        if "before" in times:
            yield name, "version before", ratio(times, "step", "before"), "0.55"


def large_images(rounds: int) -> Iterator[Row]:
    """Growing images, and tiles against the whole."""
    network = zoo.build("mambair_tiny_x2").eval()
    images = {side: torch.rand(1, 3, side, side) for side in (SMALL, *LARGE)}

    def run(side: int, tile: int) -> Timed:
        settings = RestoreSettings(tile=tile)
        return of_cpu(lambda: restore_tensor(network, images[side], settings))

    paths = {f"{side}": run(side, 0) for side in images} | {"tiles": run(LARGE[-1], TILE)}
    times = in_turns(paths, rounds)
    name = "mambair_tiny_x2, {0} x {0}"
    for side in LARGE:
        a_pixel = ratio(times, f"{side}", f"{SMALL}") * (SMALL / side) ** 2
        yield f"{name.format(side)}, a pixel", f"a pixel of {SMALL} x {SMALL}", a_pixel, "1.1"
    whole = ratio(times, "tiles", f"{LARGE[-1]}")
    yield f"{name.format(LARGE[-1])}, tiles of {TILE}", "the whole", whole, "1.15"


def compiled(rounds: int) -> Iterator[Row]:
    """Networks against what PyTorch's compiler makes of them, without our passes."""
    for name in COMPILED:
        network = zoo.build(name).eval().requires_grad_(False)
        run = forward(network, example(network, SIZE))
        by_compiler = forward(cast(nn.Module, torch.compile(network)), example(network, SIZE))
        paths = {"ours": of_cpu(run), "compiled": of_cpu(within(no_passes, by_compiler))}
        yield name, "torch.compile", ratio(in_turns(paths, 3 * rounds), "ours", "compiled"), ""


def many_photos(rounds: int, count: int) -> Iterator[Row]:
    """A folder of small photos from JPEG to PNG against computing alone; wall time."""
    network = zoo.build("mambair_tiny_x2").eval()
    values = np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        photos = Path(folder, "photos")
        photos.mkdir()
        tensors = []
        for number, small in enumerate(values):
            photo = Image.fromarray(small).resize((128, 128), Image.Resampling.BICUBIC)
            photo.save(photos / f"{number}.jpg")
            tensors.append(torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None] / 255)

        def compute() -> None:
            for tensor in tensors:
                restore_tensor(network, tensor)

        def restore() -> None:
            zoo.restore(network, photos, Path(folder, "out"), overwrite=True)

        for cores in (1, torch.get_num_threads()):
            with threads(cores):
                paths = {
                    "compute": of_cpu(compute, time.perf_counter),
                    "restore": of_cpu(restore, time.perf_counter),
                }
                times = in_turns(paths, max(1, rounds // 2))
            share = statistics.median(
                one / both for one, both in zip(times["compute"], times["restore"], strict=True)
            )
            yield f"{count} photos of 128 x 128, threads: {cores}", "computing alone", share, "0.95"


def main(words: list[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each row [5]")
    parser.add_argument("--before", type=Path, help="checkout of an earlier version, built")
    parser.add_argument("--photos", type=int, default=200, help="number of small photos [200]")
    usual = ("operators", "networks", "authors", "training", "large_images", "many_photos")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=(*usual, "compiled"),
        default=usual,
        help="parts [all but compiled, which takes minutes to compile]",
    )
    options = parser.parse_args(words)
    before = None if options.before is None else options.before.resolve()
    all_threads = torch.get_num_threads()
    found: dict[str, Callable[[], Iterator[Row]]] = {
        "operators": lambda: operators(options.rounds),
        "networks": lambda: networks(options.rounds, before),
        "authors": lambda: authors(options.rounds),
        "training": lambda: training(options.rounds, before),
        "large_images": lambda: large_images(options.rounds),
        "many_photos": lambda: many_photos(options.rounds, options.photos),
        "compiled": lambda: compiled(options.rounds),
    }
    print(f"{machine()}; ratios of times, less is better, but for photos\n", flush=True)
    rows = []
    for part in options.only:
        torch.set_num_threads(all_threads if part == "many_photos" else 1)
        for what, relative_to, value, goal in found[part]():
            rows.append([what, relative_to, f"{value:.2f}", goal])
            print(f"{part}: {what} / {relative_to}: {value:.2f}", file=sys.stderr, flush=True)
    print(table(["what", "relative to", "ratio", "goal"], rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
