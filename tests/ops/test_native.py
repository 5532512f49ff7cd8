"""The C++ kernel: every instruction set, any number of threads, any memory layout."""

from __future__ import annotations

import ctypes
import shutil

import pytest
import torch

import zoo
from tests.helpers.native_kernel import BUILT, LEVELS
from tests.helpers.scan_cases import CASES, TOLERANCE, Case, make_inputs, relative, run
from zoo.ops import selective_scan
from zoo.ops.scan import native
from zoo.ops.scan.contract import ScanInputs

DTYPES = [torch.float32, torch.bfloat16, torch.float16]

needs_library = pytest.mark.skipif(not BUILT, reason="the C++ kernel was not built")

# Large enough to be shared among threads. One vector of channels is fewer tasks than threads, so
# that directions become tasks; the others have several groups of vectors, one not full.
SHARED = [
    Case(B=1, L=800, K=4, E=16, R=3, N=16, order="padded"),
    Case(B=1, L=400, K=4, E=200, R=2, N=8),
    Case(B=3, L=150, K=2, E=90, N=16, low_rank=False, reduce=False),
]


@pytest.fixture
def set_threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_the_kernel_is_built_where_there_is_a_compiler():
    if not any(map(shutil.which, ["c++", "g++", "clang++"])):
        pytest.skip("no C++ compiler")
    assert native.unavailable() is None
    assert "portable" in LEVELS
    assert zoo.backends()[0].name == "native"


@needs_library
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).removeprefix("torch."))
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_level_matches_the_reference(case, dtype, level):
    inputs = make_inputs(case, dtype)
    exact = [t if t is None or t.dtype == torch.int32 else t.double() for t in inputs]
    found, expected = run(inputs, case, "native"), run(exact, case, "reference")
    for index, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        if ours.numel():
            assert relative(ours, theirs) <= TOLERANCE[dtype], index


@needs_library
@pytest.mark.parametrize("states", range(1, 20))
def test_every_number_of_states_is_cut_into_blocks(states, level):
    """Each level keeps another number of states in registers, and an odd one is padded.

    With two images, groups have several vectors of channels, whose gradients are added.
    """
    case = Case(B=2, L=35, K=1, E=37, R=2, N=states)
    inputs = make_inputs(case, torch.float32)
    exact = [t if t is None or t.dtype == torch.int32 else t.double() for t in inputs]
    found, expected = run(inputs, case, "native"), run(exact, case, "chunked")
    for index, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        assert relative(ours, theirs) <= TOLERANCE[torch.float32], index


@needs_library
@pytest.mark.parametrize("case", SHARED, ids=str)
def test_results_do_not_depend_on_threads(case, level, set_threads):
    inputs = make_inputs(case, torch.float32)
    set_threads(1)
    alone = run(inputs, case, "native")
    exact = [t if t is None or t.dtype == torch.int32 else t.double() for t in inputs]
    expected = run(exact, case, "chunked")
    for ours, theirs in zip(alone, expected, strict=True):
        assert relative(ours, theirs) <= TOLERANCE[torch.float32]
    for count in (2, 7):
        set_threads(count)
        for ours, theirs in zip(run(inputs, case, "native"), alone, strict=True):
            assert torch.equal(ours, theirs)


@needs_library
def test_without_openmp_it_starts_its_own_threads(set_threads, monkeypatch):
    inputs = make_inputs(SHARED[0], torch.float32)
    set_threads(3)
    expected = run(inputs, SHARED[0], "native")
    monkeypatch.setattr(native, "_openmp", lambda: None)
    for ours, theirs in zip(run(inputs, SHARED[0], "native"), expected, strict=True):
        assert torch.equal(ours, theirs)


def moved(tensor, offset):
    """The same values at an address that is `offset` elements off, with a gap after each row."""
    if tensor is None:
        return None
    wide = tensor.new_zeros(offset + tensor.numel() // tensor.shape[-1] * (tensor.shape[-1] + 3))
    rows = wide[offset:].view(*tensor.shape[:-1], -1)[..., : tensor.shape[-1]]
    return rows.copy_(tensor)


@needs_library
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).removeprefix("torch."))
@pytest.mark.parametrize("offset", [0, 1, 3, 7])
def test_any_alignment_and_stride_gives_the_same(dtype, offset, level):
    case = Case(B=2, L=11, K=3, E=21, R=5, N=7, order="padded")
    inputs = make_inputs(case, dtype)
    expected = run(inputs, case, "native")
    for ours, theirs in zip(
        run([moved(t, offset) for t in inputs], case, "native"), expected, strict=True
    ):
        assert torch.equal(ours, theirs)


@needs_library
def test_transposed_tokens_are_copied_not_misread():
    case = Case(L=9, E=6)
    inputs = make_inputs(case, torch.float32)
    expected = selective_scan(*inputs, backend="native")
    inputs[0] = inputs[0].transpose(1, 2).contiguous().transpose(1, 2)
    assert inputs[0].stride(-1) != 1
    assert torch.equal(selective_scan(*inputs, backend="native"), expected)


@needs_library
def test_images_may_lie_token_by_token():
    """The strides of images and of tokens are told apart."""
    case = Case(B=3, L=7, K=2, E=6)
    inputs = make_inputs(case, torch.float32)
    expected = run(inputs, case, "native")
    for index in (0, 1, 5, 6):
        inputs[index] = inputs[index].transpose(0, 1).contiguous().transpose(0, 1)
        assert not inputs[index].is_contiguous() and inputs[index].stride(-1) == 1
    for ours, theirs in zip(run(inputs, case, "native"), expected, strict=True):
        assert torch.equal(ours, theirs)


@needs_library
def test_the_gradient_of_y_may_lie_in_any_way():
    case = Case(B=3, L=7, K=2, E=6, reduce=False)
    inputs = ScanInputs(*make_inputs(case, torch.float32))
    grad_y = torch.randn(3, 7, 2, 6)
    for reduce, grad in ((False, grad_y), (True, grad_y[:, :, 0])):
        expected = native.backward(inputs, grad.contiguous(), reduce)
        for axes in ((0, 1), (0, grad.dim() - 1)):
            moved_y = grad.transpose(*axes).contiguous().transpose(*axes)
            found = native.backward(inputs, moved_y, reduce)
            for ours, theirs in zip(found, expected, strict=True):
                assert torch.equal(ours, theirs)


@needs_library
def test_the_library_is_given_pytorchs_number_of_threads_and_its_team(set_threads, monkeypatch):
    seen = []

    class Library:
        def zoo_scan_forward(self, scan, y, level, threads, team):
            seen.append((level, threads, team))
            return self.status

        status = 0

    library = Library()
    monkeypatch.setattr(native, "library", lambda: library)
    monkeypatch.setattr(native, "_openmp", lambda: 7)
    inputs = ScanInputs(*make_inputs(Case(), torch.float32))
    for count in (1, 3):
        set_threads(count)
        native.forward(inputs, True)
    assert seen == [(None, 1, 7), (None, 3, 7)]
    library.status = 3
    with pytest.raises(MemoryError, match="out of memory in the selective scan"):
        native.forward(inputs, True)
    library.status = 2
    monkeypatch.setattr(native, "unavailable", lambda: "of this")
    with pytest.raises(RuntimeError, match="zoo_scan_forward failed with status 2: of this"):
        native.forward(inputs, True)


def test_what_the_kernel_declines_goes_to_another():
    inputs = ScanInputs(*make_inputs(Case(), torch.float64))
    assert "the tokens are torch.float64" in native.declines(inputs)
    meta = ScanInputs(*(t.to("meta") for t in make_inputs(Case(), torch.float32)))
    assert "the tokens are on meta" in native.declines(meta)
    for dtype in DTYPES:
        assert native.declines(ScanInputs(*make_inputs(Case(), dtype))) is None


@needs_library
def test_a_gradient_expanded_from_one_number_is_read_right():
    case = Case(L=9, E=6, reduce=False)
    inputs = ScanInputs(*make_inputs(case, torch.float32))
    ones = torch.ones(2, 9, 2, 6)
    expected = native.backward(inputs, ones, False)
    for ours, theirs in zip(
        native.backward(inputs, torch.ones(()).expand(2, 9, 2, 6), False), expected, strict=True
    ):
        assert torch.equal(ours, theirs)


def elementwise(function, x):
    out = torch.empty_like(x)
    assert function(x.data_ptr(), out.data_ptr(), x.numel(), 1, None) == 0
    return out


@needs_library
def test_the_exponential_is_accurate(level):
    # 4e-7 is a little over 3 roundings of float32: the product, the polynomial, the power.
    x = -torch.cat([torch.logspace(-8, 0, 10001), torch.linspace(1, 87, 50001)])
    found = elementwise(native.library().zoo_scan_exp, x).double()
    exact = x.double().exp()
    # Below e^-87 a level may stop at the smallest normal number. The argument's own rounding
    # grows with it, as that of any product x log2(e) in float32 does.
    assert ((found - exact).abs() / exact <= 4e-7 + 1e-7 * x.abs()).all()
    # Slow decays: 1 - e^x is what a state loses.
    slow = x > -0.01
    assert ((found - exact)[slow].abs() <= 1.2e-7).all()


@needs_library
def test_softplus_is_accurate(level):
    x = torch.linspace(-80, 100, 70001)
    found = elementwise(native.library().zoo_scan_softplus, x).double()
    exact = torch.nn.functional.softplus(x.double(), threshold=1000)
    assert ((found - exact).abs() / exact <= 4e-7 + 1e-7 * x.abs().clamp(max=80)).all()


@needs_library
def test_nan_is_passed_on(level):
    x = torch.full((17,), float("nan"))
    for function in (native.library().zoo_scan_exp, native.library().zoo_scan_softplus):
        assert elementwise(function, x).isnan().all()
    inputs = make_inputs(Case(), torch.float32)
    inputs[1][0, 0] = float("nan")
    assert selective_scan(*inputs, backend="native")[0].isnan().any()


def kinds(tensor):
    """What each number is: finite, NaN, or infinite with its sign."""
    return torch.where(tensor.isfinite(), 0.0, tensor.float())


EXTREMES = {
    "A": (-1e20, -1e30, -3e38, -float("inf"), 100.0, 1e30),
    "delta_bias": (-1e22, -3e38, -float("inf"), 88.0, 1e22, 3e38),
}


@needs_library
@pytest.mark.parametrize("whole", [False, True], ids=["one channel", "all channels"])
@pytest.mark.parametrize(("name", "value"), [(n, v) for n, vs in EXTREMES.items() for v in vs])
def test_huge_exponents_give_zero_or_infinity_as_defined(name, value, whole, level):
    case = Case(B=1, L=40, K=2, E=21, N=5, R=2)
    inputs = make_inputs(case, torch.float32)
    changed = inputs[3 if name == "delta_bias" else 4]
    (changed if whole else changed[1, 3]).fill_(value)
    found, expected = run(inputs, case, "native"), run(inputs, case, "reference")
    for index, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        assert index or torch.equal(kinds(ours).nan_to_num(1e9), kinds(theirs).nan_to_num(1e9))
        both = ours.isfinite() & theirs.isfinite()
        assert torch.allclose(ours[both], theirs[both], rtol=2e-4, atol=1e-4), index


@needs_library
def test_growth_is_accurate_until_it_overflows(level):
    """A positive A beside ordinary channels, until products of decays leave float32."""
    case = Case(B=1, L=2, K=1, E=20, N=9)
    for exponent in (1.0, 20.0, 40.0):
        inputs = make_inputs(case, torch.float32)
        inputs[3].fill_(1.0)
        inputs[2].fill_(0.0)
        inputs[4][0, 7, 4] = exponent / 1.3132617
        exact = [t.double() if t.is_floating_point() else t for t in inputs]
        found, expected = run(inputs, case, "native"), run(exact, case, "reference")
        for ours, theirs in zip(found, expected, strict=True):
            assert relative(ours, theirs) <= 2e-5


@needs_library
def test_a_team_has_a_limit_whatever_the_caller_asks_for(monkeypatch):
    """OpenMP crashes if it cannot start as many threads as it is asked for."""
    asked = []

    @ctypes.CFUNCTYPE(
        None, ctypes.CFUNCTYPE(None, ctypes.c_void_p), ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint
    )
    def openmp(body, context, threads, flags):
        asked.append(threads)
        body(context)

    monkeypatch.setattr(native, "_openmp", lambda: ctypes.cast(openmp, ctypes.c_void_p).value)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 100_000)
    case = Case(B=300, L=15, K=2, E=200, N=16)
    inputs = ScanInputs(*make_inputs(case, torch.float32))
    assert native.forward(inputs, True).isfinite().all()
    assert asked and max(asked) == 256


def test_a_missing_library_is_explained_and_done_without(monkeypatch, tmp_path):
    monkeypatch.setattr(native, "LIBRARY", tmp_path / "_native.so")
    status = zoo.backends()[0]
    assert not status.available and "install the wheel of this platform" in status.note
    inputs = make_inputs(Case(), torch.float32)
    expected = selective_scan(*inputs, backend="chunked")
    assert torch.equal(selective_scan(*inputs), expected)
    with pytest.raises(zoo.ops.scan.BackendError, match="not built"):
        selective_scan(*inputs, backend="native")


def test_a_broken_library_is_explained(monkeypatch, tmp_path):
    broken = tmp_path / "_native.so"
    broken.write_bytes(b"not a library")
    native.library.cache_clear()
    monkeypatch.setattr(native, "LIBRARY", broken)
    try:
        assert "does not load" in zoo.backends()[0].note
    finally:
        native.library.cache_clear()


@needs_library
def test_functions_of_the_library_are_declared():
    """Else a number would be taken for an address, and a long one would be cut off."""
    loaded, word, place = native.library(), ctypes.c_char_p, ctypes.c_void_p
    team, size = (word, ctypes.c_int, place), ctypes.c_int64
    scan, gradients = ctypes.POINTER(native._Scan), ctypes.POINTER(native._Gradients)
    assert loaded.zoo_scan_level.argtypes == (word,) and loaded.zoo_scan_level.restype == word
    assert loaded.zoo_scan_forward.argtypes == (scan, place, *team)
    assert loaded.zoo_scan_backward.argtypes == (scan, gradients, *team)
    assert loaded.zoo_ort_calls.restype == size
    for function in (loaded.zoo_scan_exp, loaded.zoo_scan_softplus):
        assert function.argtypes == (place, place, size, size, word)


@needs_library
def test_an_unknown_level_is_named(monkeypatch):
    monkeypatch.setenv(native.LEVEL_ENVIRONMENT, "avx1024")
    note = zoo.backends()[0].note
    assert "'avx1024'" in note and "portable" in note


@needs_library
@pytest.mark.parametrize("dtype", DTYPES[1:], ids=lambda d: str(d).removeprefix("torch."))
def test_half_precision_rounds_results_and_little_else(dtype, level):
    """Decays are right to 1.7e-6 there. An error of 1e-4 would turn a tenth of the roundings."""
    inputs = make_inputs(Case(B=1, L=300, K=4, E=40, R=3, N=12), dtype)
    tokens = [t.float() if t.dtype == dtype else t for t in inputs]
    with torch.no_grad():
        found = selective_scan(*inputs, reduce=True, backend="native")
        exact = selective_scan(*tokens, reduce=True, backend="native").to(dtype)
    share = float((found != exact).float().mean())
    assert share <= {torch.bfloat16: 0.002, torch.float16: 0.015}[dtype]
    assert (share == 0) == (level != "avx512")  # the one level with decays of its own for these
