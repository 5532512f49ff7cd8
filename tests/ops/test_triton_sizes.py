"""Which sizes of chunks, blocks and sums a launch of the Triton kernels has, without a GPU."""

from __future__ import annotations

from dataclasses import asdict

import pytest
import torch

pytest.importorskip("triton", reason="Triton is installed on Linux alone")

from tests.helpers.scan_cases import Case, make_inputs
from zoo.ops.scan.contract import ScanInputs
from zoo.ops.scan.triton import configurations, device, gradients, kernels, launch, plan
from zoo.ops.scan.triton import norm as triton_norm
from zoo.ops.scan.triton.configurations import DEFAULT, INTERPRETED, Configuration, chunk_length

CPU = torch.device("cpu")
TABLE = Configuration(
    tile=64, gradient_tile=32, shortest=4, longest=32, warps=2, gradient_longest=16,
    gradient_warps=6,
)  # fmt: skip


@pytest.mark.parametrize(
    ("lanes", "processors", "gradients", "length"),
    [
        # 2 x 2 warps x 5 multiprocessors are wanted; 100 steps are 4 chunks of 32, 7 of 16, ...
        (5, 5, False, 32),
        (4, 5, False, 16),
        (2, 5, False, 8),
        (1, 5, False, 4),
        (1, 5000, False, 4),
        (99, 5, True, 16),
        (2, 5, True, 8),
    ],
)
def test_a_chunk_is_as_long_as_it_may_be_with_work_for_every_multiprocessor(
    lanes, processors, gradients, length
):
    assert chunk_length(100, lanes, processors, TABLE, gradients) == length


def test_channels_of_a_program_share_its_states():
    assert [TABLE.channels(states, False) for states in (1, 2, 8, 16, 64)] == [64, 32, 8, 4, 4]
    assert [TABLE.channels(states, True) for states in (1, 2, 4, 8, 16)] == [32, 16, 8, 4, 4]
    assert DEFAULT.channels(1, False) == 64  # at most
    assert DEFAULT.channels(16, True) == 32


def test_a_gpu_has_its_own_sizes_if_they_were_measured(monkeypatch):
    assert configurations.configuration(CPU) is INTERPRETED
    assert set(configurations.CONFIGURATIONS) == {(9, 0)}
    gpu, own = torch.device("cuda", 1), Configuration(tile=1)
    monkeypatch.setattr(configurations, "CONFIGURATIONS", {(9, 1): own})
    for capability, found in (((9, 1), own), ((9, 0), DEFAULT)):
        monkeypatch.setattr(
            torch.cuda, "get_device_capability", lambda device, known=capability: known
        )
        assert configurations.configuration(gpu) is found


def test_sizes_of_the_interpreter_make_tiny_cases_cross_every_boundary():
    assert asdict(INTERPRETED) == {
        **{"tile": 4, "gradient_tile": 4, "carry_block": (4, 2)},
        **{"shortest": 4, "longest": 4, "warps": 1, "registers": 0},
        **{"gradient_longest": 4, "gradient_steps": 2, "summary_registers": 0},
        **{"gradient_registers": 0, "gradient_warps": 2},
    }


@pytest.fixture(autouse=True)
def _no_plans():
    plan.forget_plans()
    yield
    plan.forget_plans()


def made(monkeypatch, case, *, with_gradient=False):
    """The plan of a case on a GPU of five multiprocessors."""
    monkeypatch.setattr(plan, "configuration", lambda device: TABLE)
    monkeypatch.setattr(plan, "processors", lambda device: 5)
    inputs = ScanInputs(*make_inputs(case, torch.float32))
    return launch._Call(inputs, torch.zeros(case.B, case.L, case.E) if with_gradient else None).plan


def test_a_call_is_cut_into_blocks_of_channels_and_chunks(monkeypatch):
    case = Case(B=2, L=100, K=3, E=33, R=3, N=3)
    call = made(monkeypatch, case)
    # Three states take the room of four: 64 / 4 channels of a program.
    assert (call.block, call.blocks) == (16, 3)
    assert (call.length, call.chunks) == (32, 4)
    given = call.constants
    assert (given["BLOCK_N"], given["BLOCK_E"], given["BLOCK_R"]) == (4, 16, 4)
    assert (call.rank, given["LOW_RANK"]) == (3, True)
    # B, C and the row of low rank in blocks of four, up to a multiple of eight; three steps more.
    assert (call.width, call.held) == (16, 103)
    assert (given["WIDTH"], given["held"]) == (16, 103)
    call = made(monkeypatch, case, with_gradient=True)
    assert (call.block, call.blocks, call.length, call.chunks) == (8, 5, 16, 7)
    alone = made(monkeypatch, Case(B=1, L=100, K=1, E=16, R=1, N=4))
    assert (alone.blocks, alone.length, alone.chunks) == (1, 4, 25)
    assert made(monkeypatch, Case(B=1, L=100, K=1, E=65, N=4)).length == 32  # five blocks
    assert made(monkeypatch, Case(B=1, L=100, K=5, E=16, N=4)).length == 32
    assert made(monkeypatch, Case(B=5, L=100, K=1, E=16, N=4)).length == 32
    full = made(monkeypatch, Case(L=9, low_rank=False))
    assert (full.rank, full.constants["LOW_RANK"], full.constants["BLOCK_R"]) == (0, False, 1)
    assert full.width == 8


def test_steps_that_kernels_load_in_advance_are_held():
    """Two steps beyond the last, and the rest of a group of the gradient kernel."""
    most = max(DEFAULT.gradient_steps, INTERPRETED.gradient_steps)
    assert max(2, most - 1) <= plan.STEPS_PAST_END


def test_calls_of_a_kind_share_a_plan_and_others_do_not(monkeypatch):
    case = Case(B=2, L=9, K=2)
    monkeypatch.setattr(plan, "configuration", lambda device: TABLE)
    inputs = ScanInputs(*make_inputs(case, torch.float32))
    first = plan.plan_of(inputs, None)
    again = ScanInputs(*make_inputs(case, torch.float32, seed=1))
    assert plan.plan_of(again, None) is first
    others = [
        plan.plan_of(inputs, torch.zeros(2, 9, 5)),
        plan.plan_of(ScanInputs(*make_inputs(case, torch.bfloat16)), None),
        plan.plan_of(ScanInputs(*make_inputs(Case(B=2, L=10, K=2), torch.float32)), None),
        plan.plan_of(inputs._replace(u=inputs.u.contiguous()), None),
        plan.plan_of(inputs._replace(delta_weight=None, delta=inputs.delta), None),
    ]
    assert len({first, *others}) == 6
    plan.forget_plans()
    assert plan.plan_of(inputs, None) is not first


def test_the_oldest_plan_is_forgotten(monkeypatch):
    monkeypatch.setattr(plan, "KEPT", 2)
    kinds = [ScanInputs(*make_inputs(Case(L=n), torch.float32)) for n in (3, 4, 5)]
    first, second, third = (plan.plan_of(kind, None) for kind in kinds)
    assert plan.plan_of(kinds[1], None) is second and plan.plan_of(kinds[2], None) is third
    assert plan.plan_of(kinds[0], None) is not first


def test_an_order_of_each_image_has_a_stride_and_a_shared_one_has_none(monkeypatch):
    case = Case(B=2, L=7, K=3)
    assert made(monkeypatch, case).constants["order_b"] == 0
    each = made(monkeypatch, Case(B=2, L=7, K=3, per_image=True)).constants
    assert (each["order_b"], each["order_k"]) == (21, 7)


def test_chunks_are_shared_among_as_many_programs_as_run_at_once(monkeypatch):
    call = made(monkeypatch, Case(B=2, L=100, K=3, E=33, N=3))
    assert [call.slots(pairs) for pairs in (1, 7, 10, 30, 31)] == [8, 4, 3, 1, 1]


def test_sums_over_directions_and_blocks_have_a_sequence_only_if_asked_for(monkeypatch):
    sums = launch._sums_over_directions
    together, apart = [(0, 3)], [(0, 1), (1, 1), (2, 1)]
    assert sums(3, False) == (launch.STORE, together)
    assert sums(3, True) == (launch.ATOMIC, together)
    assert sums(1, True) == (launch.STORE, [(0, 1)])
    assert launch._shared_sums(1) == (1, launch.STORE)
    assert launch._shared_sums(4) == (1, launch.ATOMIC)
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    assert sums(3, False) == (launch.STORE, together)
    assert sums(3, True) == (launch.ADD, apart)
    assert sums(1, True) == (launch.STORE, [(0, 1)])
    assert launch._shared_sums(1) == (1, launch.STORE)
    assert launch._shared_sums(4) == (4, launch.STORE)


def test_the_three_ways_to_write_are_told_apart():
    assert (launch.STORE, launch.ADD, launch.ATOMIC) == (0, 1, 2)
    assert device.STORE.value == launch.STORE


def test_registers_are_limited_where_the_compiler_can(monkeypatch):
    monkeypatch.setattr(torch.version, "hip", None)
    assert plan._at_most(168) == {"maxnreg": 168} and plan._at_most(0) == {}
    monkeypatch.setattr(torch.version, "hip", "6.3")
    assert plan._at_most(168) == {}


class Kernel:
    """Stands for a kernel that is compiled; tells what it is asked for and launched with."""

    arg_names = ("a_ptr", "size", "b_ptr")
    __name__ = "kernel"

    def __init__(self):
        self.compiled, self.launched = [], []

    def warmup(self, *arguments, **options):
        self.compiled.append((arguments, options))
        return self

    def __getitem__(self, grid):
        return lambda *arguments: self.launched.append((grid, arguments))


def test_a_launch_compiles_once_for_each_alignment(monkeypatch):
    monkeypatch.setattr(plan.triton.runtime, "JITFunction", Kernel)
    kernel, memory = Kernel(), torch.zeros(64)
    launched = plan.Launch(kernel, 7, {"size": 5, "other": 6}, {"maxnreg": 9})
    even, odd = memory[:8], memory[1:9]
    assert even.data_ptr() % 16 == 0
    for tensors in ((even, odd), (odd, odd), (even, odd)):
        launched(dict(zip(("a_ptr", "b_ptr"), tensors, strict=True), c_ptr=memory))
    options = {"grid": (7, 1, 1), "num_warps": 1, "enable_fp_fusion": True, "maxnreg": 9}
    assert [given for _, given in kernel.compiled] == [options] * 2
    assert [grid for grid, _ in kernel.launched] == [(7, 1, 1)] * 3
    (first, size, second), *_ = (arguments for _, arguments in kernel.launched)
    assert first is even and size == 5 and second is odd
    with pytest.raises(KeyError):
        plan.Launch(kernel, 7, {}, {})


def test_a_kernel_of_the_interpreter_is_launched_itself():
    kernel = Kernel()
    plan.Launch(kernel, 2, {"size": 1}, {})({"a_ptr": torch.zeros(1), "b_ptr": torch.zeros(1)})
    assert not kernel.compiled and len(kernel.launched) == 1


def test_a_plan_remembers_its_launches(monkeypatch):
    one, kernel = made(monkeypatch, Case()), Kernel()
    tensors = {"a_ptr": torch.zeros(1), "b_ptr": torch.zeros(1)}
    for size, registers in ((3, 0), (3, 0), (4, 0), (3, 99)):
        one.launch(kernel, 2, tensors, registers, size=size)
    assert [arguments[1] for _, arguments in kernel.launched] == [3, 3, 4, 3]
    assert len(one._launches) == 3


@pytest.mark.parametrize(
    "kernel",
    [
        kernels.pack_rows,
        kernels.chunk_states,
        kernels.carry_states,
        kernels.outputs,
        gradients.gradients,
        triton_norm.norm_forward,
        triton_norm.norm_backward,
    ],
    ids=lambda kernel: kernel.__name__,
)
def test_sizes_of_images_are_not_compiled_in(kernel):
    """One binary serves for all."""
    sizes = {p.name for p in kernel.params if not p.name.endswith("_ptr") and not p.is_constexpr}
    assert {p.name for p in kernel.params if p.do_not_specialize} == sizes
    assert len(sizes) >= 3


def test_copies_of_a_sum_are_added():
    copies = torch.arange(12.0).reshape(3, 2, 2)
    assert launch._sum_copies(copies, torch.bfloat16).tolist() == [[12, 15], [18, 21]]
    found = launch._sum_copies(copies[:1], torch.bfloat16)
    assert found.dtype == torch.bfloat16 and found.tolist() == [[0, 1], [2, 3]]
