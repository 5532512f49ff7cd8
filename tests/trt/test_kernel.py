"""The plugin's kernels, run on this CPU by the shim, against the definition.

The library is compiled once and kept in the cache folder (see trt_plugins/build.py). Kernels that
are broken on purpose must be found out: the last tests are of the tests.
"""

from __future__ import annotations

import subprocess

import pytest
import torch

from tests.helpers.plugin_checks import (
    DTYPES,
    SIZES,
    SPECIAL,
    STATES,
    broken,
    check_all,
    check_case,
)
from tests.helpers.scan_cases import CASES, Case
from trt_plugins.build import SOURCES


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).removeprefix("torch."))
@pytest.mark.parametrize("case", SIZES, ids=str)
def test_sizes(case, dtype, shim):
    check_case(shim, case, dtype)


@pytest.mark.parametrize("case", STATES, ids=lambda case: f"N{case.N}")
def test_every_number_of_states(case, shim):
    check_case(shim, case, torch.float32)


@pytest.mark.parametrize("check", SPECIAL, ids=lambda check: check.__name__)
def test_special(check, shim):
    check(shim)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).removeprefix("torch."))
@pytest.mark.parametrize(
    "case",
    [
        *(case for case in CASES if case.low_rank and case.L >= 100),
        Case(B=1, L=4100, K=2, E=3, N=16, order="padded"),
        Case(B=2, L=333, K=4, E=360, N=16, R=12),
    ],
    ids=str,
)
def test_long_sequences(case, dtype, shim):
    check_case(shim, case, dtype)


def test_the_workspace_serves_smaller_calls_too(tmp_path, shim):
    """Shorter sequences have shorter chunks, larger batches longer ones: none needs more memory."""
    program = tmp_path / "workspace.cpp"
    program.write_text(
        """
        #include <stdio.h>
        #include "selective_scan.cuh"
        using namespace zoo;
        int main() {
          uint64_t state = 1;
          auto draw = [&](int64_t least, int64_t most) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            return least + int64_t(state >> 33) % (most - least + 1);
          };
          int tight = 0;
          for (int i = 0; i < 300000; ++i) {
            const int64_t wide = draw(0, 1) ? 4000 : 70000;
            const int64_t tokens = draw(1, wide), steps = draw(1, wide);
            const Sizes most = {draw(1, 40), tokens, draw(1, 4), steps, draw(1, 800), 3, 16};
            Sizes less = most;
            if (draw(0, 2)) less.batch = draw(1, most.batch);
            if (draw(0, 2)) less.tokens = draw(1, most.tokens);
            if (draw(0, 2)) less.steps = draw(1, most.steps);
            const Cut cut = cut_up(less);
            const bool whole = cut.length % kTile == 0 && cut.length <= kLongest &&
                               cut.length * cut.chunks >= less.steps &&
                               cut.length * (cut.chunks - 1) < less.steps;
            const Workspace place(less, less.batch * (cut.chunks - 1), true);
            const size_t needed = size_t(place.floats) * sizeof(float);
            const size_t given = most_workspace(most, Token::kFloat16, true);
            if (!whole || needed > given) return 1;
            tight += needed * 2 > given;
          }
          return tight > 1000 ? 0 : 2;  // the bound is not merely large
        }
        """
    )
    words = ["c++", "-std=c++17", "-O1", "-Wno-unknown-pragmas", f"-I{SOURCES}"]
    subprocess.run([*words, str(program), "-o", str(tmp_path / "workspace")], check=True)
    assert subprocess.run([str(tmp_path / "workspace")], check=False).returncode == 0


# What is broken on purpose: a name, the source as it is, and as it then is.
BREAKS = {
    "a barrier is missing": (
        "    }\n    __syncthreads();\n    for (int i = lane; i < kTile * kStates",
        "    }\n    for (int i = lane; i < kTile * kStates",
    ),
}
SLOW_BREAKS = {
    "chunks do not carry": ("power_of_2(total[i] * rate), h, added[i]", "0.0f, h, added[i]"),
    "directions overwrite each other": (".channels + e] += y;", ".channels + e] = y;"),
    "the last tile is overwritten too early": ("__syncthreads();  // the last tile", "//"),
    "ranks are overwritten too early": ("if (first > 0) __syncthreads();", ""),
    "the state at a chunk's start is lost": ("kWrite && real && chunk > 0 ?", "false ?"),
    "the carry forgets to decay": ("power_of_2(total[i] * rate), h", "1.0f, h"),
    "the order is not followed": ("? order[start + lane] :", "? start + lane :"),
    "all images follow the first one's order": ("b * walk.given.order_stride", "0"),
    "padding reads a token": (
        "entry >= 0 && entry < walk.tokens ? entry : -1",
        "entry >= 0 && entry < walk.tokens ? entry : 0",
    ),
    "padding does not decay": (
        "const float step = softplus(raw[t]);",
        "const float step = token_tile[t] >= 0 ? softplus(raw[t]) : 0.0f;",
    ),
    "D is forgotten": ("float y = D * u_tile[t];", "float y = 0.0f;"),
    "the bias is forgotten": ("raw[t] = bias;", "raw[t] = 0.0f;"),
    "softplus overflows": ("fmaxf(x, 0.0f) + log1pf(expf(-fabsf(x)))", "log1pf(expf(x))"),
    "ranks beyond the first 16 are lost": ("first < walk.rank; first +=", "first < 1; first +="),
    "unvisited tokens are not zeroed": ("memset(memory, 0, bytes);", ""),
    "entries outside are followed": ("entry < walk.tokens ? entry", "true ? entry % 64"),
    "the workspace is too small": ("static_cast<size_t>(place.floats) *", "size_t(0) *"),
    "sums are rounded on the way": (
        "walk.sum[(row + token) * walk.channels + e] += y;",
        "{ T half; round_to(&half, walk.sum[(row + token) * walk.channels + e] + y); "
        "walk.sum[(row + token) * walk.channels + e] = to_float(half); }",
    ),
}


@pytest.mark.parametrize(
    "what",
    [*BREAKS, *(pytest.param(what, marks=pytest.mark.slow) for what in SLOW_BREAKS)],
    ids=lambda what: what.replace(" ", "-"),
)
def test_a_broken_kernel_is_found(what, shim, tmp_path, monkeypatch):
    library = broken(what, (BREAKS | SLOW_BREAKS)[what], tmp_path, monkeypatch)
    with pytest.raises(AssertionError):
        check_all(library)


def test_the_whole_kernel_passes_what_finds_broken_ones(shim):
    check_all(shim)
