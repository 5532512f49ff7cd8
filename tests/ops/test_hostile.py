"""Calls that must neither crash nor compute: one sentence each, on every path to the operator.

``tests/sanitize.py`` runs this file with a kernel that checks every memory access.
"""

from __future__ import annotations

from functools import partial

import pytest
import torch

from tests.helpers.hostile_calls import CASE, PATHS, TRACED, changed, directly
from tests.helpers.hostile_scans import claiming
from tests.helpers.scan_cases import BACKENDS, Case, make_inputs, relative, run
from zoo.ops import selective_scan
from zoo.ops.scan import native, reference
from zoo.ops.scan.checks import check_memory
from zoo.ops.scan.contract import SCHEMA, ScanInputs


@pytest.fixture
def inputs():
    return make_inputs(CASE, torch.float32)


SHAPES = [
    ("u", torch.zeros(2, 9), r"u must be \(B, L, E\), not \(2, 9\)"),
    ("A", torch.zeros(()), r"A must be \(K, E, N\), not \(\)"),
    ("delta_weight", torch.zeros(2), r"delta_weight must be \(K, E, R\)"),
    ("delta_weight", None, r"delta has shape \(2, 9, 3, 2\), .* need \(2, 9, 3, 4\)"),
    ("B", lambda B: B[..., :1], r"B has shape \(2, 9, 3, 1\), .* need \(2, 9, 3, 3\)"),
    ("C", lambda C: C[:, :8], r"C has shape \(2, 8, 3, 3\)"),
    ("D", lambda D: D[:, :1], r"D has shape \(3, 1\)"),
    ("delta_bias", lambda bias: bias[None], r"delta_bias has shape \(1, 3, 4\)"),
    ("order", lambda order: order[0], r"order must be \(K, S\) or \(B, K, S\), not \(14,\)"),
    ("order", lambda order: order.expand(3, -1, -1), "is for 3 images, and there are 2"),
    ("order", lambda order: order.expand(1, -1, -1), "is for 1 images, and there are 2"),
    ("order", lambda order: order[:2], "has shape"),
]
DTYPES = [
    ("B", lambda B: B.double(), "must share one dtype; u is torch.float32, B torch.float64"),
    ("delta", lambda delta: delta.half(), "must share one dtype"),
    ("order", lambda order: order.long(), r"order must be int32, not torch.int64; use .to"),
    ("order", lambda order: order.float(), "order must be int32"),
    ("u", lambda u: u.int(), "u must be float32, bfloat16, float16 or float64"),
]


@pytest.mark.parametrize("call", PATHS, ids=lambda call: call.__name__)
@pytest.mark.parametrize(("name", "value", "message"), SHAPES + DTYPES)
def test_sizes_and_dtypes_are_checked_on_every_path(inputs, call, name, value, message):
    with pytest.raises(ValueError, match=message):
        call(*changed(inputs, name, value))


@pytest.mark.parametrize("call", TRACED, ids=lambda call: call.__name__)
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [("B", lambda B: B[..., :1], "B has shape"), ("B", lambda B: B.double(), "one dtype"),
     ("order", lambda order: order.long(), "order must be int32"),
     ("A", torch.zeros(()), "A must be"), ("delta_weight", None, "delta has shape")],
)  # fmt: skip
def test_tracing_checks_sizes_and_dtypes(inputs, call, name, value, message):
    torch.compiler.reset()
    with pytest.raises(ValueError, match=message) as raised:
        call(*changed(inputs, name, value))
    assert len(str(raised.value)) < 500 and "\n" not in str(raised.value)


@pytest.mark.parametrize(("backend", "error"), [(3, TypeError), ("nativ", ValueError)])
def test_tracing_checks_the_name_of_the_backend(inputs, backend, error):
    torch.compiler.reset()
    with pytest.raises(error, match="backend") as raised:
        torch.compile(partial(selective_scan, backend=backend), backend="aot_eager")(*inputs)
    assert len(str(raised.value)) < 500


def test_checks_leave_nothing_in_a_graph_of_any_size(inputs):
    graphs = []

    def keep(module, _):
        graphs.append(
            [str(node.target) for node in module.graph.nodes if node.op == "call_function"]
        )
        return module

    torch.compiler.reset()
    function = torch.compile(selective_scan, backend=keep, dynamic=True, fullgraph=True)
    function(*inputs)
    assert graphs == [["zoo.selective_scan.default"]]


@pytest.mark.parametrize("call", PATHS, ids=lambda call: call.__name__)
@pytest.mark.parametrize("kind", [torch.Tensor, torch.nn.Parameter])
def test_what_a_class_says_of_its_tensor_is_not_believed(inputs, call, kind):
    for name, spec in SCHEMA.items():
        tensor = inputs[list(SCHEMA).index(name)]
        small = tensor.as_subclass(kind).flatten()[:1].reshape([1] * tensor.dim())
        claims = {"shape": tensor.shape, "numel": lambda: 0, "is_contiguous": lambda: True}
        with pytest.raises(ValueError, match=r"has shape|need|is for|for 1 tokens"):
            call(*changed(inputs, name, claiming(small, **claims)))
        right = changed(inputs, name, claiming(tensor, shape=(1,), stride=lambda *_: (10**9,) * 3))
        for ours, theirs in zip(call(*right), call(*inputs), strict=True):
            assert torch.equal(ours, theirs), (name, spec)


def test_what_a_class_says_of_its_memory_is_not_believed(inputs):
    for kind in (torch.nn.Parameter, type("Weight", (torch.nn.Parameter,), {})):
        with pytest.raises(ValueError, match="must be an ordinary dense tensor"):
            directly(*changed(inputs, "u", kind(inputs[0].to_sparse())))
    B = inputs[5].clone()
    claims = {"untyped_storage": lambda: inputs[5].untyped_storage(), "numel": lambda: 0}
    B.untyped_storage().resize_(8)
    with pytest.raises(ValueError, match="has only 8 bytes of memory"):
        selective_scan(*changed(inputs, "B", claiming(B, **claims)))
    with pytest.raises(ValueError, match=r"grad_y is \(1, 1, 1\)"):
        liar = claiming(torch.ones(1, 1, 1), shape=(CASE.B, CASE.L, CASE.E))
        torch.ops.zoo.selective_scan_backward(liar, *inputs, True, "")


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
@pytest.mark.parametrize("reduce", [False, True])
@pytest.mark.parametrize("axis", ["R", "N", "both"])
def test_an_empty_axis_counts_as_zero(backend, reduce, axis):
    """Rank 0: the step is softplus(bias). No states: y is D u."""
    case = Case(B=2, L=5, K=2, E=3, order="skipping", reduce=reduce)
    inputs = make_inputs(case, torch.float32)
    for name in [*("delta", "delta_weight") * (axis != "N"), *"ABC" * (axis != "R")]:
        inputs = changed(inputs, name, lambda tensor: tensor[..., :0])
    found = run(inputs, case, backend)
    exact = [t if t.dtype == torch.int32 else t.double() for t in inputs]
    leaves = [t.clone().requires_grad_() for t in exact[:-1]]
    y = reference.scan(ScanInputs(*leaves, inputs[-1]), reduce)
    cotangent = torch.sin(torch.arange(y.numel(), dtype=torch.float64)).reshape(y.shape)
    expected = [y, *torch.autograd.grad(y, leaves, cotangent, allow_unused=True)]
    for ours, theirs, given in zip(found, expected, [y, *inputs], strict=False):
        assert ours.shape == given.shape
        if ours.numel() and theirs is not None:
            assert relative(ours, theirs) <= 1e-5
    assert found[0].any()


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
@pytest.mark.parametrize("axis", ["B", "L", "K", "E"])
def test_other_axes_may_be_empty(backend, axis):
    sizes = {"B": 2, "L": 3, "K": 2, "E": 3}
    case = Case(**sizes, order="padded")
    inputs = make_inputs(case, torch.float32)
    for index, spec in enumerate(SCHEMA.values()):
        if axis in spec.axes:
            inputs[index] = inputs[index].narrow(spec.axes.index(axis), 0, 0)
    if axis == "L":
        inputs[-1] = torch.full_like(inputs[-1], -1)
    for ours, theirs in zip(
        run(inputs, case, backend), run(inputs, case, "reference"), strict=True
    ):
        assert ours.shape == theirs.shape and torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        (
            "A",
            lambda A: A + 0j,
            ValueError,
            "A must be of real floating-point numbers, not torch.c",
        ),
        ("D", lambda D: D.long(), ValueError, "D must be of real floating-point numbers"),
        ("order", None, TypeError, "order must be a tensor, not None$"),
        ("order", [[0, 1]], TypeError, "order must be a tensor, not a list"),
        ("u", 3.0, TypeError, "u must be a tensor, not a float"),
        ("delta_weight", 3.0, TypeError, "delta_weight must be a tensor, not a float"),
        ("u", lambda u: u.to_sparse(), ValueError, "u must be .* dense tensor, not a sparse one"),
        ("A", lambda A: A.to_sparse(), ValueError, "A must be an ordinary dense tensor"),
        ("u", lambda u: torch.nested.nested_tensor([u[0], u[1, :4]]), ValueError, "not a nested"),
        ("B", lambda B: B.to("meta"), ValueError, "B is on meta, u on cpu; move B there"),
        ("u", lambda u: u.to("meta"), ValueError, "^order is on cpu, u on meta; move order there"),
    ],
)
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_what_is_no_proper_tensor_is_named(inputs, name, value, error, message):
    with pytest.raises(error, match=message) as raised:
        selective_scan(*changed(inputs, name, value))
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": 3}, "name of a backend must be a string, not 3"),
        ({"backend": 0}, "name of a backend must be a string, not 0"),
        ({"backend": ["native"]}, "must be a string"),
        ({"reduce": "yes"}, "reduce must be True or False, not 'yes'"),
        ({"reduce": None}, "reduce must be True or False"),
    ],
)
def test_options_of_a_wrong_type_are_named(inputs, options, message):
    with pytest.raises(TypeError, match=message):
        selective_scan(*inputs, **options)


def test_the_operator_itself_names_an_unknown_backend(inputs):
    with pytest.raises(ValueError, match="unknown selective-scan backend 'nativ'; did you mean"):
        torch.ops.zoo.selective_scan(*inputs, True, "nativ")
    on_meta = [tensor.to("meta") for tensor in inputs]
    with pytest.raises(ValueError, match="unknown selective-scan backend"):
        torch.ops.zoo.selective_scan(*on_meta, True, "nativ")


@pytest.mark.parametrize("name", ["delta_bias", "A", "u", "order"])
def test_memory_that_was_given_back_is_not_read(inputs, name):
    inputs = changed(inputs, name, lambda tensor: tensor.clone())
    tensor = inputs[list(SCHEMA).index(name)]
    tensor.untyped_storage().resize_(tensor.nbytes - 1)
    for backend in ("", "reference"):
        with pytest.raises(ValueError, match=rf"has only {tensor.nbytes - 1} bytes of memory"):
            torch.ops.zoo.selective_scan(*inputs, True, backend)


def test_memory_of_a_gradient_that_was_given_back_is_not_read(inputs):
    grad_y = torch.ones(CASE.B, CASE.L, CASE.E)
    grad_y.untyped_storage().resize_(8)
    with pytest.raises(ValueError, match="has only 8 bytes of memory"):
        torch.ops.zoo.selective_scan_backward(grad_y, *inputs, True, "")


@pytest.mark.parametrize("spare", [0, 1])
def test_memory_of_a_view_ends_with_its_last_element(spare):
    """Behind an offset, with steps of several elements and an axis that repeats."""
    wide = torch.ones(40)[3:].as_strided((2, 3, 4), (15, 0, 2), 3)
    last = 3 + 15 + 3 * 2 + 1
    wide.untyped_storage().resize_((last - 1 + spare) * 4)
    if spare:
        check_memory([None, wide, torch.ones(0)])
        return
    with pytest.raises(ValueError, match=r"tensor \(2, 3, 4\) has only 96 bytes"):
        check_memory([None, torch.ones(2), wide])


def test_a_tensor_between_two_elements_is_refused(inputs):
    if native.unavailable():
        pytest.skip("the C++ kernel was not built")
    odd = torch.frombuffer(bytearray(50), dtype=torch.float32, offset=2, count=12).view(3, 4)
    with pytest.raises(ValueError, match="starts between two elements; pass a copy"):
        selective_scan(*changed(inputs, "D", odd), backend="native")
    assert torch.isfinite(selective_scan(*changed(inputs, "D", odd.clone()))).all()


@pytest.mark.parametrize(
    ("grad_y", "message"),
    [
        (torch.ones(2, 9), r"grad_y is \(2, 9\) torch.float32, but y is \(2, 9, 4\)"),
        (torch.ones(2, 9, 3, 4), "but y is"),
        (torch.ones(2, 9, 4, dtype=torch.float64), "grad_y is .* torch.float64, but y is"),
        (torch.ones(2, 9, 4, device="meta"), "grad_y is on meta"),
        (torch.ones(2, 9, 4).to_sparse(), "grad_y must be an ordinary dense tensor"),
    ],
)
def test_the_gradient_of_y_is_checked(inputs, grad_y, message):
    with pytest.raises(ValueError, match=message):
        torch.ops.zoo.selective_scan_backward(grad_y, *inputs, True, "")


def test_numbers_that_are_negated_or_conjugated_when_read_are_right(inputs):
    expected = selective_scan(*changed(inputs, "u", lambda u: -u))
    assert torch.equal(selective_scan(*changed(inputs, "u", torch._neg_view)), expected)
    turned = torch.complex(torch.zeros_like(inputs[0]), inputs[0]).conj().imag
    assert turned.is_neg()
    assert torch.equal(selective_scan(*changed(inputs, "u", turned)), expected)
