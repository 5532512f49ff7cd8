"""Everything that is to be measured on an NVIDIA GPU, in one run.

    python benchmarks/gpu.py [--quick] [--write docs/benchmarks.md] [--save gpu.json]
    python benchmarks/gpu.py --tune         # which Configuration is fastest on this GPU

Checks the kernels against the definition first and stops if they differ. Then prints tables:
the operator, the SS2D core (projections to merge), whole networks, training steps. All paths of a
row run in turns, timed by CUDA events; memory is the peak that PyTorch allocated above what was
held before. ``--write`` puts the tables into the GPU section of a document.

Two floors bound the operator: the bytes that it must move at the copy bandwidth measured here, and
its exponentials (N + 1 for each step and channel) at the rate measured here. The larger is the
floor; a path's share of it is what "of the floor" says.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import zoo
from zoo.blocks import SS2D
from zoo.ops import selective_scan
from zoo.recipe import load_recipe
from zoo.scans import Raster

if __package__ is None:
    sys.path.insert(0, str(Path(__file__).parent))
from measure import table
from operator_cpu import make_inputs

DIRECTIONS, STATES = 4, 16
LENGTHS = (4096, 16384, 65536)
WIDTHS = {"light": 72, "classic": 360}
"""Inner channels E of MambaIR."""
DIMS = {"light": (60, 1.2), "classic": (180, 2.0)}
"""Channels and expansion of an SS2D."""
MODELS = {"light": "mambair_light_x2", "classic": "mambair_classic_x2"}
SIZES = (64, 256, 512)
DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16}
HEADING = "## On a GPU"
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 4e-3}
"""Relative, against float64: rounding of tokens and result, and of sums over thousands of steps."""

Path_ = Callable[[], object]


def paths() -> list[str]:
    """Backends to be compared, ours first."""
    known = {status.name: status for status in zoo.backends()}
    for name in ("triton", "mamba_ssm", "chunked"):
        if not known[name].available:
            print(f"{name} is left out: {known[name].note}")
    return [n for n in ("triton", "mamba_ssm", "chunked") if known[n].available]


def timed(functions: dict[str, Path_], rounds: int) -> dict[str, tuple[float, float]]:
    """Median milliseconds and peak MiB of each path, in turns; one that runs out of memory is
    left out."""
    took: dict[str, list[float]] = {}
    peak: dict[str, float] = {}
    for name, function in functions.items():
        try:
            function()  # compiles, and fills PyTorch's cache of memory
            torch.cuda.synchronize()
            held = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            function()
            peak[name] = (torch.cuda.max_memory_allocated() - held) / 2**20
            took[name] = []
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            print(f"{name} ran out of memory")
    for _ in range(rounds):
        for name in took:
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            functions[name]()
            end.record()
            end.synchronize()
            took[name].append(start.elapsed_time(end))
    return {name: (statistics.median(times), peak[name]) for name, times in took.items()}


def on_gpu(length: int, channels: int, dtype: torch.dtype) -> list[Any]:
    inputs = make_inputs(length, channels, dtype=dtype)
    return [None if t is None else t.cuda() for t in inputs]


def scan_path(inputs: list[Any], backend: str, backward: bool) -> Path_:
    if not backward:

        def forward() -> Tensor:
            with torch.no_grad():
                return selective_scan(*inputs, reduce=True, backend=backend)

        return forward
    leaves: list[Any] = [None if t is None else t.detach().requires_grad_() for t in inputs[:-1]]
    wanted = [t for t in leaves if t is not None]

    def both() -> object:
        given: list[Any] = [*leaves, inputs[-1]]
        y = selective_scan(*given, reduce=True, backend=backend)
        return torch.autograd.grad(y, wanted, torch.ones_like(y))

    return both


def check() -> None:
    """Stop unless our kernels agree with the definition in float64."""
    for (length, channels), dtype in itertools.product([(1024, 72), (256, 360)], TOLERANCE):
        inputs = on_gpu(length, channels, dtype)
        exact = [t if t is None or t.dtype == torch.int32 else t.double() for t in inputs]
        found = scan_path(inputs, "triton", True)()
        expected = scan_path(exact, "chunked", True)()
        for ours, theirs in zip(found, expected, strict=True):  # type: ignore[call-overload]
            deviation = float((ours.double() - theirs).norm() / theirs.norm())
            if not deviation <= TOLERANCE[dtype]:
                raise SystemExit(f"triton deviates by {deviation:.1e} at {length}, {dtype}")
    print("triton agrees with the definition, outputs and gradients, in every dtype\n")


def copy_bandwidth() -> float:
    """Bytes read and written in a second by a copy of 1 GiB."""
    source = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    milliseconds, _ = timed({"copy": lambda: target.copy_(source)}, 20)["copy"]
    return 2 * source.numel() / milliseconds * 1e3


def exponential_rate() -> float:
    """Exponentials in a second of a kernel that computes nothing else, on registers."""
    import triton
    import triton.language as tl

    @triton.jit
    def burn(out_ptr: Any, repeat: Any, BLOCK: tl.constexpr) -> None:
        lane = tl.arange(0, BLOCK)
        x = -1.0 / (1.0 + lane)
        y = x - 0.25
        for _ in range(repeat):
            x, y = tl.exp2(x) - 1.5, tl.exp2(y) - 1.5
        tl.store(out_ptr + tl.program_id(0) * BLOCK + lane, x + y)

    block, programs, repeat = 1024, 16384, 512
    out = torch.empty(block * programs, device="cuda")
    run = timed({"exp": lambda: burn[(programs,)](out, repeat, BLOCK=block)}, 20)
    return 2 * block * programs * repeat / run["exp"][0] * 1e3


def floor(inputs: list[Any], rate: float, bandwidth: float) -> float:
    """Milliseconds that no forward pass can beat."""
    moved = sum(t.numel() * t.element_size() for t in inputs if t is not None)
    moved += inputs[0].numel() * inputs[0].element_size()
    exponentials = inputs[-1].numel() * inputs[0].shape[2] * (STATES + 1)
    return 1e3 * max(moved / bandwidth, exponentials / rate)


def compare(head: list[str], rows: list[tuple[list[object], dict[str, Path_], float]],
            names: list[str], rounds: int) -> tuple[str, list[Any]]:  # fmt: skip
    """A table of milliseconds and MiB of each path, ours against the others."""
    lines, saved = [], []
    for label, functions, limit in rows:
        found = timed(functions, rounds)
        ours = found.get("triton")
        cells = [f"{found[n][0]:.2f}" if n in found else "" for n in names]
        memory = [f"{found[n][1]:.0f}" if n in found else "" for n in names]
        ratios = [f"{found[n][0] / ours[0]:.1f}x" if n in found and ours else "" for n in names[1:]]
        share = [f"{limit / ours[0]:.0%}" if limit and ours else ""]
        lines.append([*label, *cells, *ratios, *share, *memory])
        saved.append([label, found, limit])
    titles = [f"{n} ms" for n in names] + [f"{n} / triton" for n in names[1:]]
    return table([*head, *titles, "of the floor", *(f"{n} MiB" for n in names)], lines), saved


def operator_rows(names: list[str], lengths: tuple[int, ...], rate: float, bandwidth: float) -> Any:
    for backward, (width, channels), length, (kind, dtype) in itertools.product(
        (False, True), WIDTHS.items(), lengths, DTYPES.items()
    ):
        inputs = on_gpu(length, channels, dtype)
        what = "forward + backward" if backward else "forward"
        functions = {n: scan_path(inputs, n, backward) for n in names}
        limit = 0.0 if backward else floor(inputs, rate, bandwidth)
        yield [what, width, length, kind], functions, limit


def core_rows(names: list[str], sizes: tuple[int, ...]) -> Any:
    for (width, (dim, expand)), size, (kind, dtype) in itertools.product(
        DIMS.items(), sizes, DTYPES.items()
    ):
        mixer = SS2D(dim, expand=expand, scan=Raster()).cuda()
        u = torch.randn(1, size * size, mixer.D.shape[1], device="cuda")
        order = mixer.scan.order(size, size, u.device)

        def core(name: str, mixer: Any = mixer, u: Tensor = u, order: Tensor = order,
                 dtype: torch.dtype = dtype) -> object:  # fmt: skip
            with zoo.use_backend(name), torch.no_grad(), _autocast(dtype):
                return mixer.merge(mixer.scan_inputs(u.to(dtype), order))

        functions = {n: lambda n=n, core=core: core(n) for n in names}
        yield [width, f"{size} x {size}", kind], functions, 0.0


def network_rows(names: list[str], sizes: tuple[int, ...]) -> Any:
    for (width, model), size, (kind, dtype) in itertools.product(
        MODELS.items(), sizes, DTYPES.items()
    ):
        network = zoo.build(model).cuda().eval()
        image = torch.rand(1, network.channels, size, size, device="cuda")

        def whole(name: str, network: Any = network, image: Tensor = image,
                  dtype: torch.dtype = dtype) -> object:  # fmt: skip
            with zoo.use_backend(name), torch.no_grad(), _autocast(dtype):
                return network(image)

        functions = {n: lambda n=n, whole=whole: whole(n) for n in names}
        yield [width, f"{size} x {size}", kind], functions, 0.0


def training_rows(names: list[str]) -> Any:
    for (width, model), (kind, dtype) in itertools.product(MODELS.items(), DTYPES.items()):
        data = load_recipe(model).train["data"]
        network = zoo.build(model).cuda().train()
        optimizer = torch.optim.Adam(network.parameters(), 1e-4)
        shape = data["batch"], network.channels, data["patch"], data["patch"]
        image = torch.rand(shape, device="cuda")

        def step(name: str, network: Any = network, image: Tensor = image,
                 optimizer: Any = optimizer, dtype: torch.dtype = dtype) -> object:  # fmt: skip
            optimizer.zero_grad()
            with zoo.use_backend(name), _autocast(dtype):
                network(image).float().mean().backward()
            return optimizer.step()

        functions = {n: lambda n=n, step=step: step(n) for n in names}
        yield [width, f"{data['batch']} x {data['patch']}^2", kind], functions, 0.0


def _autocast(dtype: torch.dtype) -> Any:
    return torch.autocast("cuda", dtype, enabled=dtype != torch.float32)


def gpu() -> str:
    """The GPU, its driver and clocks, and the versions, for the head of the tables."""
    query = [
        "nvidia-smi",
        "--query-gpu=driver_version,clocks.sm,clocks.max.sm",
        "--format=csv,noheader",
    ]
    try:
        clocks = subprocess.run(query, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        clocks = "unknown"
    import triton

    first = clocks.strip().splitlines()[0]
    return (
        f"{torch.cuda.get_device_name()}; driver, clock now and at most: {first}; torch "
        f"{torch.__version__}, CUDA {torch.version.cuda}, triton {triton.__version__}, TF32 "
        f"{torch.backends.cuda.matmul.allow_tf32} in products, "
        f"{torch.backends.cudnn.allow_tf32} in convolutions"
    )


def tune(rounds: int) -> None:
    """Print how long each configuration takes, fastest first."""
    from zoo.ops.scan.triton import configurations

    inputs = on_gpu(16384, WIDTHS["classic"], torch.float32)
    capability = torch.cuda.get_device_capability()
    found = []
    for longest, warps, few, gradient_warps, widths in itertools.product(
        (64, 128, 256), (8, 16, 32), (4, 8), (4, 8, 16), ((128, 64, 32), (64, 32), (32,))
    ):
        tried = dataclasses.replace(
            configurations.DEFAULT, longest=longest, warps=warps, few=few,
            gradient_warps=gradient_warps, widths=widths,
        )  # fmt: skip
        configurations.CONFIGURATIONS[capability] = tried
        functions = {str(b): scan_path(inputs, "triton", b) for b in (False, True)}
        times = timed(functions, rounds)
        found.append((times["True"][0], times["False"][0], tried))
    found.sort(key=lambda line: line[:2])
    print(f"compute capability {capability}\n")
    rows = [[f"{f:.3f}", f"{b:.3f}", tried] for b, f, tried in found[:10]]
    print(table(["forward ms", "forward + backward ms", "configuration"], rows))


def put_into(document: Path, text: str) -> None:
    """Replace the GPU section of a document, up to the next heading of its level."""
    before, _, after = document.read_text().partition(f"{HEADING}\n")
    following = after.find("\n## ")
    rest = after[following:] if following >= 0 else ""
    document.write_text(f"{before}{HEADING}\n\n{text.strip()}\n{rest}")


def main() -> int:
    """Check, measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="the smallest sizes only")
    parser.add_argument("--rounds", type=int, default=20, help="measurements of each path [20]")
    parser.add_argument("--write", type=Path, help="document whose GPU section is replaced")
    parser.add_argument("--save", type=Path, help="JSON file for all figures")
    parser.add_argument("--tune", action="store_true", help="compare configurations instead")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("this PyTorch sees no NVIDIA GPU; nothing was measured", file=sys.stderr)
        return 1
    names = paths()
    if "triton" not in names:
        return 1
    check()
    if options.tune:
        tune(options.rounds)
        return 0
    rate, bandwidth = exponential_rate(), copy_bandwidth()
    head = (
        f"{gpu()}. Copy bandwidth {bandwidth / 1e12:.2f} TB/s, {rate / 1e12:.2f} T exponentials/s."
    )
    lengths, sizes = (LENGTHS[:1], SIZES[:1]) if options.quick else (LENGTHS, SIZES)
    parts: dict[str, tuple[list[str], Any]] = {
        "Operator": (
            ["pass", "width", "L", "tokens"],
            operator_rows(names, lengths, rate, bandwidth),
        ),
        "SS2D core, forward": (["width", "image", "precision"], core_rows(names, sizes)),
        "Whole networks, forward": (["width", "image", "precision"], network_rows(names, sizes)),
        "Training step": (["width", "batch", "precision"], training_rows(names)),
    }
    print(head)
    sections, saved = [head], {"head": head}
    for title, (columns, rows) in parts.items():
        text, found = compare(columns, rows, names, options.rounds)
        print(f"\n{title}\n\n{text}", flush=True)
        sections.append(f"### {title}\n\n{text}")
        saved[title] = found  # type: ignore[assignment]
    if options.save:
        options.save.write_text(json.dumps(saved, indent=1))
    if options.write:
        put_into(options.write, "\n\n".join(sections))
    return 0


if __name__ == "__main__":
    sys.exit(main())
