"""What the plugin is held to, wherever it runs: on this CPU by the shim, or on a GPU.

A check takes a library and raises AssertionError where it finds fault, so that the tests can hand
it libraries that are broken on purpose.
"""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess

import torch

from tests.helpers.scan_cases import CASES, Case, make_inputs, relative
from trt_plugins.build import SOURCES, build
from trt_plugins.harness import Harness
from zoo.ops import selective_scan
from zoo.ops.scan.names import EACH, SUM

DTYPES = [torch.float32, torch.float16, torch.bfloat16]

# y is rounded once, by at most half a unit in its last place; the rest is float32 arithmetic, whose
# error stays below 2e-7 here: sums of at most some hundred terms, and 2^-22 of an exponential.
ARITHMETIC = 1e-6
TOLERANCE = {
    torch.float32: ARITHMETIC,
    torch.float16: 2**-11 + ARITHMETIC,
    torch.bfloat16: 2**-8 + ARITHMETIC,
}

GUARD = 512
"""Bytes behind the workspace that must stay as they are."""

# Beside the cases of every backend: each number of states; chunks of 32 steps, whole and not; more
# ranks than shared memory holds; more channels than a block has.
STATES = [Case(B=1, L=9, K=2, E=3, N=n, order="padded") for n in range(1, 33)]
CUTS = [
    Case(B=1, L=31, K=1, E=3, N=5),
    Case(B=1, L=32, K=1, E=3, N=5),
    Case(B=1, L=65, K=2, E=3, N=4, R=16),
    Case(B=2, L=97, K=3, E=3, N=4, R=17, order="padded"),
    Case(B=1, L=40, K=4, E=34, N=10, R=33, order="skipping"),
    Case(B=1, L=35, K=5, E=130, N=2, R=1),
    Case(B=3, L=70, K=2, E=3, N=4, order="padded", per_image=True),
]
SIZES = [case for case in CASES if case.low_rank and case.N <= 32 and case.L < 100] + CUTS


def make(case: Case, dtype: torch.dtype, device: str = "cpu", seed: int = 0):
    return [t.to(device).contiguous() for t in make_inputs(case, dtype, seed)]


def expected(inputs, summed: bool):
    """The definition, in float64."""
    exact = [t.cpu() if t.dtype == torch.int32 else t.cpu().double() for t in inputs]
    return selective_scan(*exact, reduce=summed, backend="reference")


def run(harness: Harness, inputs):
    """y, where every byte that the call must write and may write was 0xff before."""
    device = inputs[0].device
    y = harness.empty_output(inputs)
    y.view(torch.uint8).fill_(0xFF)
    memory = torch.full((harness.workspace + GUARD,), 0xFF, dtype=torch.uint8, device=device)
    harness.run(inputs, y, memory)
    assert (memory[harness.workspace :] == 0xFF).all(), "it writes behind its workspace"
    return y


def scan(library, inputs, summed: bool):
    with Harness(library, SUM if summed else EACH, inputs) as harness:
        return run(harness, inputs)


def check_case(library, case: Case, dtype: torch.dtype, device: str = "cpu", seed: int = 0):
    """Both outputs of one case."""
    inputs = make(case, dtype, device, seed)
    for summed in (False, True):
        found, right = scan(library, inputs, summed), expected(inputs, summed)
        assert (found.dtype, found.shape) == (dtype, right.shape)
        if not found.numel():
            continue
        error = relative(found.cpu(), right)
        assert error <= TOLERANCE[dtype], f"{case}, summed {summed}: {error:.1e}"


def check_unvisited(library, device: str = "cpu"):
    """A token that no direction visits gets 0; others do not."""
    inputs = make(Case(order="skipping", K=1), torch.float32, device)
    y = scan(library, inputs, False).cpu()
    visited = torch.zeros(y.shape[1], dtype=torch.bool)
    order = inputs[-1].cpu()
    visited[order[order >= 0].long()] = True
    assert 0 < visited.sum() < len(visited)
    assert (y[:, ~visited] == 0).all() and (y[:, visited] != 0).all()


def check_outside(library, device: str = "cpu"):
    """An entry outside -1 .. L-1 is a zero token: the kernel does not read there."""
    inputs = make(Case(L=40, order="padded"), torch.float32, device)
    outside = [t.clone() for t in inputs]
    gaps = (inputs[-1] == -1).nonzero()
    for i, (k, s) in enumerate(gaps.tolist()):
        outside[-1][k, s] = (40, -2, 2**31 - 1, -(2**31))[i % 4]
    assert len(gaps) >= 4
    assert torch.equal(scan(library, outside, True), scan(library, inputs, True))
    inputs[-1], outside[-1] = (
        torch.stack([inputs[-1], path.flip(1)]).contiguous() for path in (inputs[-1], outside[-1])
    )
    assert torch.equal(scan(library, outside, True), scan(library, inputs, True))


def check_extremes(library, device: str = "cpu"):
    """Steps from nothing to thousands: finite, and as defined."""
    inputs = make(Case(B=1, L=70, K=2, E=4, N=5), torch.float32, device)
    inputs[3] = torch.tensor([[-200.0, -20, 20, 200]] * 2, device=device)  # bias
    inputs[4] = inputs[4] * 50
    found = scan(library, inputs, False)
    assert found.isfinite().all()
    assert relative(found.cpu(), expected(inputs, False)) <= ARITHMETIC


def check_range(library, device: str = "cpu"):
    """A plugin configured for a range of shapes serves those within it, in the memory it asked."""
    small, large = (
        make(Case(B=b, L=n, K=2, E=5, N=4), torch.float16, device) for b, n in ((1, 1), (3, 200))
    )
    for name, summed in ((EACH, False), (SUM, True)):
        with Harness(library, name, large, small) as harness:
            for batch, tokens in ((1, 1), (3, 40), (2, 130), (1, 200)):
                inputs = make(Case(B=batch, L=tokens, K=2, E=5, N=4), torch.float16, device)
                error = relative(run(harness, inputs).cpu(), expected(inputs, summed))
                assert error <= TOLERANCE[torch.float16], (batch, tokens, error)


def check_empty(library, device: str = "cpu"):
    """No step at all: every token is unvisited."""
    inputs = make(Case(), torch.bfloat16, device)
    inputs[-1] = inputs[-1][:, :0].contiguous()
    assert (scan(library, inputs, False) == 0).all() and (scan(library, inputs, True) == 0).all()


def check_sum(library, device: str = "cpu"):
    """In half precision the sum over directions is rounded once."""
    inputs = make(Case(K=8, L=30, E=40), torch.bfloat16, device)
    in_float32 = [t.float() if t.is_floating_point() else t for t in inputs]
    rounded_once = scan(library, in_float32, True).bfloat16()
    rounded_often = scan(library, inputs, False).float().sum(2).bfloat16()
    # Other than by a tie that falls the other way, now and then.
    assert relative(scan(library, inputs, True), rounded_once) < 2**-12
    assert relative(rounded_often, rounded_once) > 2**-10


SPECIAL = (check_sum, check_unvisited, check_outside, check_extremes, check_range, check_empty)


def check_all(library, device: str = "cpu"):
    """Everything in little, for libraries that are broken on purpose."""
    for case in (*CUTS[2:5], CUTS[-1], dataclasses.replace(Case(), N=32)):
        check_case(library, case, torch.float32, device)
    check_case(library, Case(K=4, L=20), torch.float16, device)
    for check in SPECIAL:
        check(library, device)


def check_exports(library):
    """The library shows the two functions TensorRT asks for, and needs no TensorRT."""
    listed = _lines("nm", "-D", "--defined-only", str(library))
    assert sorted(line.split()[-1] for line in listed) == ["getCreators", "setLoggerFinder"]
    assert not [line for line in _lines("nm", "-D", str(library)) if "nvinfer" in line.lower()]
    needed = [line for line in _lines("readelf", "-d", str(library)) if "NEEDED" in line]
    known = r"\[(libstdc\+\+|libgcc_s|libc|libm|libdl|librt|libpthread|ld-linux)[-.\w]*\]"
    assert needed and all(re.search(known, line) for line in needed), needed


def _lines(*words):
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def broken(what, change, folder, monkeypatch):
    """The plugin on the shim, one place of its sources changed."""
    before, after = change
    sources = folder / "csrc"
    shutil.copytree(SOURCES, sources)
    holding = [p for p in sorted(sources.iterdir()) if before in p.read_text()]
    assert len(holding) == 1, f"{what}: nothing like this in the sources any more"
    text = holding[0].read_text()
    assert text.count(before) == 1
    holding[0].write_text(text.replace(before, after))
    monkeypatch.setenv("ZOO_CACHE", str(folder))
    return build(shim=True, sources=sources)
