"""All measurements on an NVIDIA GPU, in one run.

    python benchmarks/gpu.py [--quick | --brief | --all] [--write docs/benchmarks.md] [--save FILE]
    python benchmarks/gpu.py --tune         # find the fastest Configuration for this GPU
    python benchmarks/gpu.py --dry-run      # run all code on a CPU; measures nothing

It first compares the kernels with the definition and stops if they differ. Then it prints tables:
the operator, the SS2D core (projections to merge), whole networks, training steps. All paths of a
row take turns and are timed by CUDA events. Networks have images with channels last, as in ``zoo
restore``; their kernels are launched one by one, except in the table of CUDA graphs. Memory is the
peak that PyTorch allocates, minus the memory allocated before; that of a graph is in its recording,
and not counted. ``--write`` puts the tables into the GPU section of a document.

The operator has two lower bounds: the time to move its bytes at the measured copy bandwidth, and
the time for its exponentials (N + 1 for each step and channel) at the measured rate. The larger one
is the floor. The column "of the floor" is the floor divided by the time of our path.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

import zoo
from zoo.blocks import SS2D
from zoo.files import write_text
from zoo.inference import graphs, recordable
from zoo.inference.runner import channels_last
from zoo.ops import selective_scan
from zoo.ops.precision import DTYPES, Precision, autocast
from zoo.ops.scan.contract import ScanInputs
from zoo.ops.scan.mamba_ssm import Walk
from zoo.recipe import load_recipe
from zoo.scans import Raster

if __package__ is None:
    sys.path.insert(0, str(Path(__file__).parent))
from authors_scan import authors_core, authors_path
from gpu_rig import DryRun, Gpu, Path_, Rig
from measure import table
from operator_cpu import make_inputs

PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
HEADING = "## On a GPU"
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 4e-3}
"""Largest relative deviation from float64; it covers rounding of tokens, results and long sums."""

ENOUGH = 1000.0
"""Milliseconds after which a path is not measured again; each is measured at least once."""

Rows: TypeAlias = Iterator[tuple[list[object], dict[str, Path_], float]]
"""For each row: labels, the paths to compare, and the floor in milliseconds (0 if unknown)."""


def timed(rig: Rig, functions: dict[str, Path_], rounds: int) -> dict[str, tuple[float, float]]:
    """Median milliseconds and peak MiB of each path. The paths take turns; a path that runs out of
    memory is omitted."""
    took: dict[str, list[float]] = {}
    peak: dict[str, float] = {}
    for name, function in functions.items():
        try:
            function()  # compiles and fills PyTorch's memory cache
            peak[name] = rig.peak(function)
            took[name] = []
        except torch.OutOfMemoryError:
            print(f"{name} ran out of memory")
        if name not in took:  # after the handler, because the exception keeps memory alive
            torch.cuda.empty_cache()
    for _ in range(rounds):
        for name in took:
            if sum(took[name]) < ENOUGH:
                took[name].append(rig.milliseconds(functions[name]))
    return {name: (statistics.median(times), peak[name]) for name, times in took.items()}


def inputs_on(rig: Rig, length: int, channels: int, dtype: torch.dtype) -> list[Any]:
    inputs = make_inputs(length, channels, dtype=dtype)
    return [None if t is None else t.to(rig.device) for t in inputs]


def scan_of(rig: Rig, name: str) -> Callable[..., Tensor]:
    """The operator, summed over directions: by a backend of ours, or as the authors compute it."""
    if name != "mamba_ssm":
        return partial(selective_scan, reduce=True, backend=name)
    scan = rig.scan_of_authors()

    def theirs(*tensors: Any) -> Tensor:
        inputs = ScanInputs._make(tensors)
        walk, weight = Walk(inputs), inputs.delta_weight
        delta = torch.einsum("bkrs,ker->bkes", walk.gather(inputs.delta), weight.to(inputs.u.dtype))  # type: ignore[union-attr]
        y_BGS = scan(
            walk.gather(inputs.u).flatten(1, 2), delta.flatten(1, 2), inputs.A.flatten(0, 1),
            walk.gather(inputs.B), walk.gather(inputs.C), inputs.D.flatten(),
            inputs.delta_bias.flatten(),
        )  # fmt: skip
        return walk.scatter(y_BGS.unflatten(1, inputs.D.shape)).sum(2)

    return theirs


@contextmanager
def running(rig: Rig, name: str) -> Iterator[None]:
    """Networks within the context scan by a backend of ours, or as the authors' do."""
    if name == "mamba_ssm":
        with authors_path(rig.scan_of_authors()):
            yield
    else:
        with zoo.use_backend(name):
            yield


def scan_path(rig: Rig, inputs: list[Any], name: str, backward: bool) -> Path_:
    scan = scan_of(rig, name)
    if not backward:

        def forward() -> Tensor:
            with torch.no_grad():
                return scan(*inputs)

        return forward
    leaves: list[Any] = [None if t is None else t.detach().requires_grad_() for t in inputs[:-1]]
    wanted = [t for t in leaves if t is not None]

    def both() -> object:
        y = scan(*leaves, inputs[-1])
        return torch.autograd.grad(y, wanted, torch.ones_like(y))

    return both


def check(rig: Rig) -> None:
    """Stop unless our kernels agree with the definition in float64."""
    shapes = itertools.product(rig.sizes.lengths[:1], rig.sizes.widths.values())
    for (length, channels), dtype in itertools.product(shapes, TOLERANCE):
        inputs = inputs_on(rig, length, channels, dtype)
        exact = [t if t is None or t.dtype == torch.int32 else t.double() for t in inputs]
        found = scan_path(rig, inputs, rig.names[0], True)()
        expected = scan_path(rig, exact, "chunked", True)()
        for ours, theirs in zip(found, expected, strict=True):  # type: ignore[call-overload]
            deviation = float((ours.double() - theirs).norm() / theirs.norm())
            if not deviation <= TOLERANCE[dtype]:
                raise SystemExit(f"{rig.names[0]} deviates by {deviation:.1e} at {length}, {dtype}")
    print(f"{rig.names[0]} agrees with the definition, outputs and gradients, in every dtype\n")


def floor(inputs: list[Any], rate: float, bandwidth: float) -> float:
    """The floor: shortest possible time of a forward pass, in milliseconds."""
    moved = sum(t.numel() * t.element_size() for t in inputs if t is not None)
    moved += inputs[0].numel() * inputs[0].element_size()
    exponentials = inputs[-1].numel() * inputs[0].shape[2] * (inputs[4].shape[-1] + 1)
    return 1e3 * max(moved / bandwidth, exponentials / rate)


def compare(
    rig: Rig,
    head: list[str],
    rows: Rows,
    rounds: int,
    without: tuple[str, ...] = (),
    names: Sequence[str] = (),
) -> tuple[str, list[Any]]:
    """Make a table with milliseconds and MiB of each path, and ratios to the first one.

    Paths are backends, unless they have other ``names``. Paths ``without`` are measured for the
    smallest number of tokens alone.
    """
    lines, saved, names = [], [], names or rig.names
    for label, functions, limit in rows:
        if rig.sizes.lengths[0] not in label:
            functions = {name: run for name, run in functions.items() if name not in without}
        found = timed(rig, functions, rounds)
        ours = found.get(names[0])
        cells = [f"{found[n][0]:.2f}" if n in found else "" for n in names]
        memory = [f"{found[n][1]:.0f}" if n in found else "" for n in names]
        ratios = [f"{found[n][0] / ours[0]:.1f}x" if n in found and ours else "" for n in names[1:]]
        share = [f"{limit / ours[0]:.0%}" if limit and ours else ""]
        lines.append([*label, *cells, *ratios, *share, *memory])
        saved.append([label, found, limit])
    titles = [f"{n} ms" for n in names] + [f"{n} / {names[0]}" for n in names[1:]]
    return table([*head, *titles, "of the floor", *(f"{n} MiB" for n in names)], lines), saved


def operator_rows(rig: Rig, rate: float, bandwidth: float) -> Rows:
    for backward, (width, channels), length, precision in itertools.product(
        (False, True), rig.sizes.widths.items(), rig.sizes.lengths, PRECISIONS
    ):
        inputs = inputs_on(rig, length, channels, DTYPES[precision])
        what = "forward + backward" if backward else "forward"
        functions = {n: scan_path(rig, inputs, n, backward) for n in rig.names}
        limit = 0.0 if backward else floor(inputs, rate, bandwidth)
        yield [what, width, length, precision], functions, limit


def core_rows(rig: Rig) -> Rows:
    for (width, (dim, expand)), size, precision in itertools.product(
        rig.sizes.mixers.items(), rig.sizes.images, PRECISIONS
    ):
        mixer = SS2D(dim, expand=expand, scan=Raster()).to(rig.device)
        u = torch.randn(1, size * size, mixer.D.shape[1], device=rig.device)
        u = u.to(DTYPES[precision])
        u_BEHW = u.unflatten(1, (size, size)).permute(0, 3, 1, 2).contiguous()
        order = mixer.scan.order(size, size, u.device)

        def core(name: str, mixer: Any = mixer, u: Tensor = u, u_BEHW: Tensor = u_BEHW,
                 order: Tensor = order, precision: Precision = precision) -> object:  # fmt: skip
            with running(rig, name), torch.no_grad(), autocast(rig.device, precision):
                if name == "mamba_ssm":
                    return authors_core(mixer, u_BEHW, rig.scan_of_authors())
                return mixer.merge(mixer.scan_inputs(u, order))

        functions: dict[str, Path_] = {n: partial(core, n) for n in rig.names}
        yield [width, f"{size} x {size}", precision], functions, 0.0


def network_rows(rig: Rig) -> Rows:
    for (width, model), size, precision in itertools.product(
        rig.sizes.models.items(), rig.sizes.images, PRECISIONS
    ):
        network = zoo.build(model).to(rig.device).eval()
        image = channels_last(torch.rand(1, network.channels, size, size, device=rig.device))

        def whole(name: str, network: Any = network, image: Tensor = image,
                  precision: Precision = precision) -> object:  # fmt: skip
            with running(rig, name), torch.inference_mode(), autocast(rig.device, precision):
                return network(image)

        functions: dict[str, Path_] = {n: partial(whole, n) for n in rig.names}
        yield [width, f"{size} x {size}", precision], functions, 0.0


def graph_rows(rig: Rig) -> Rows:
    """Networks as ``zoo restore`` runs them when images have one size, and launched one by one."""
    before = os.environ.get(recordable.ENVIRONMENT, "")
    os.environ[recordable.ENVIRONMENT] = "1"
    try:
        yield from _graph_rows(rig)
    finally:
        os.environ[recordable.ENVIRONMENT] = before


def _graph_rows(rig: Rig) -> Rows:
    for (width, model), size, precision in itertools.product(
        rig.sizes.models.items(), rig.sizes.images, PRECISIONS
    ):
        network = zoo.build(model).to(rig.device).eval()
        image = channels_last(torch.rand(1, network.channels, size, size, device=rig.device))
        if image[0, 0].numel() > recordable.PIXELS:
            continue

        def launched(
            image: Tensor, network: Any = network, precision: Precision = precision
        ) -> Any:
            with autocast(rig.device, precision):
                return network(image)

        def each(image: Tensor = image, launched: Any = launched) -> object:
            with running(rig, rig.names[0]), torch.inference_mode():
                return launched(image)

        def recorded(
            image: Tensor = image,
            network: Any = network,
            launched: Any = launched,
            precision: Precision = precision,
        ) -> object:
            with running(rig, rig.names[0]), torch.inference_mode():
                return graphs.recorder(network, launched, [image], precision)

        graphs.forget()
        for _ in range(graphs.RUNS + 1):
            recorded()
        if rig.device == "cuda" and not graphs.recorder.recorded:
            print(f"{model} at {size} x {size} in {precision} is not recorded")
        yield [width, f"{size} x {size}", precision], {"graph": recorded, "launches": each}, 0.0


def training_rows(rig: Rig) -> Rows:
    for (width, model), precision in itertools.product(rig.sizes.models.items(), PRECISIONS):
        data = load_recipe(model).train["data"]
        batch, side = rig.sizes.crop or (data["batch"], data["patch"])
        network = zoo.build(model).to(rig.device).train()
        optimizer = torch.optim.Adam(network.parameters(), 1e-4)
        image = torch.rand(batch, network.channels, side, side, device=rig.device)

        def step(
            name: str,
            network: Any = network,
            image: Tensor = image,
            optimizer: Any = optimizer,
            precision: Precision = precision,
        ) -> object:
            optimizer.zero_grad()
            with running(rig, name), autocast(rig.device, precision):
                network(image).float().mean().backward()
            return optimizer.step()

        functions: dict[str, Path_] = {n: partial(step, n) for n in rig.names}
        yield [width, f"{batch} x {side}^2", precision], functions, 0.0


def tune(rig: Rig, rounds: int) -> None:
    """Print the times of configurations, fastest first: for the forward pass, and then, with the
    best configuration for that, for the gradients."""
    from zoo.ops.scan.triton import configurations
    from zoo.ops.scan.triton.plan import forget_plans

    channels = list(rig.sizes.widths.values())[-1]
    inputs = inputs_on(rig, rig.sizes.lengths[:2][-1], channels, torch.float32)
    capability = torch.cuda.get_device_capability() if rig.device == "cuda" else (0, 0)
    known = configurations.CONFIGURATIONS.get(capability, configurations.DEFAULT)

    def fastest(pass_: str, tried: list[configurations.Configuration]) -> Any:
        found = []
        for table_ in tried:
            configurations.CONFIGURATIONS[capability] = table_
            forget_plans()
            path = scan_path(rig, inputs, rig.names[0], pass_ != "forward")
            found.append((timed(rig, {"": path}, rounds)[""][0], table_))
        found.sort(key=lambda line: line[0])
        rows = [[f"{milliseconds:.3f}", table_] for milliseconds, table_ in found[:10]]
        print(f"{table([f'{pass_} ms', 'configuration'], rows)}\n")
        return found[0][1]

    print(f"compute capability {capability}\n")
    best = fastest(
        "forward",
        [
            dataclasses.replace(known, longest=longest, warps=warps, tile=tile)
            for longest, warps, tile in itertools.product(
                (64, 128, 256, 512), (8, 16, 32), (256, 512, 1024)
            )
        ],
    )
    best = fastest(
        "forward + backward",
        [
            dataclasses.replace(
                best, gradient_steps=few, gradient_registers=registers, gradient_warps=warps
            )
            for few, registers, warps in itertools.product((1, 2), (0, 128, 168), (8, 12, 16))
        ],
    )
    print(f"zoo/ops/scan/triton/configurations.py: {capability}: {best}")


def put_into(document: Path, text: str) -> None:
    """Replace the GPU section of a document, up to the next heading of the same level."""
    before, _, after = document.read_text().partition(f"{HEADING}\n")
    following = after.find("\n## ")
    rest = after[following:] if following >= 0 else ""
    write_text(document, f"{before}{HEADING}\n\n{text.strip()}\n{rest}")


def main(arguments: list[str] | None = None) -> int:
    """Check, measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="the smallest sizes only")
    parser.add_argument(
        "--brief",
        action="store_true",
        help="smaller images and batches, about a minute in all",
    )
    parser.add_argument(
        "--all", action="store_true", help="measure `chunked` everywhere, not at one size alone"
    )
    parser.add_argument("--rounds", type=int, default=20, help="measurements of each path [20]")
    parser.add_argument("--write", type=Path, help="document whose GPU section is replaced")
    parser.add_argument("--save", type=Path, help="JSON file for all results")
    parser.add_argument(
        "--tune", action="store_true", help="compare configurations of our kernels only"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="run all code on a CPU, to find errors; no results"
    )
    options = parser.parse_args(arguments)
    if options.dry_run and options.write:
        parser.error("--dry-run measures nothing; omit --write")
    rig: Rig
    if options.dry_run:
        rig = DryRun()
    elif not torch.cuda.is_available():
        print("this PyTorch sees no NVIDIA GPU; nothing was measured", file=sys.stderr)
        return 1
    else:
        rig = Gpu()
        if rig.names[0] != "triton":
            return 1
    if options.quick:
        smallest = {"lengths": rig.sizes.lengths[:1], "images": rig.sizes.images[:1]}
        rig.sizes = dataclasses.replace(rig.sizes, **smallest)  # type: ignore[arg-type]
    if options.brief:
        rig.sizes = dataclasses.replace(rig.sizes, images=rig.sizes.images[:2], crop=(8, 64))
    print(f"{rig.title()}\n")
    check(rig)
    if options.tune:
        tune(rig, options.rounds)
        return 0
    sections, saved = measured(
        rig, options.rounds, () if options.all or options.dry_run else ("chunked",)
    )
    if options.save:
        write_text(options.save, json.dumps(saved, indent=1))
    if options.write:
        put_into(options.write, "\n\n".join(sections))
    return 0


def measured(
    rig: Rig, rounds: int, without: tuple[str, ...] = ()
) -> tuple[list[str], dict[str, Any]]:
    """Measure and print all tables; return them as sections of a document, and as plain data."""
    rate, bandwidth = rig.exponentials(), rig.bandwidth()
    head = (
        f"{rig.title()}. Copy bandwidth {bandwidth / 1e12:.2f} TB/s, "
        f"{rate / 1e12:.2f} T exponentials/s."
    )
    images = ["width", "image", "precision"]
    parts: dict[str, tuple[list[str], Rows, tuple[str, ...]]] = {
        "Operator": (["pass", "width", "L", "tokens"], operator_rows(rig, rate, bandwidth), ()),
        "SS2D core, forward": (images, core_rows(rig), ()),
        "Whole networks, forward": (images, network_rows(rig), ()),
        "Networks recorded as CUDA graphs": (images, graph_rows(rig), ("graph", "launches")),
        "Training step": (["width", "batch", "precision"], training_rows(rig), ()),
    }
    print(head)
    sections: list[str] = [head]
    saved: dict[str, Any] = {"head": head}
    for title, (columns, rows, names) in parts.items():
        text, saved[title] = compare(rig, columns, rows, rounds, without, names)
        print(f"\n{title}\n\n{text}", flush=True)
        sections.append(f"### {title}\n\n{text}")
    return sections, saved


if __name__ == "__main__":
    sys.exit(main())
