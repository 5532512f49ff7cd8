"""Orders that would lead out of memory are refused, on every path and at every time.

``tests/sanitize.py`` runs this file with a kernel that checks every memory access.
"""

from __future__ import annotations

import pytest
import torch

from tests.helpers.hostile_calls import CASE, PATHS, TRACED, changed
from tests.helpers.scan_cases import BACKENDS, Case, make_inputs
from zoo.ops import selective_scan
from zoo.ops.scan import calls, native
from zoo.ops.scan import order as order_module
from zoo.ops.scan.contract import SCHEMA, ScanInputs
from zoo.ops.scan.order import check_order, without_wrong_entries

FAR = 50_000_000
"""A token so far away that reading it leaves the process."""


@pytest.fixture
def inputs():
    return make_inputs(CASE, torch.float32)


def entry(value, row=0, step=0):
    """A change of one entry of an order."""

    def change(order):
        order = order.clone()
        order[row, step] = value
        return order

    return change


ENTRIES = [
    (entry(FAR), rf"order\[0, 0\] is {FAR}, outside -1..8 for 9 tokens"),
    (entry(-2, 2, 13), r"order\[2, 13\] is -2"),
    (entry(-(2**31)), r"order\[0, 0\] is -2147483648"),
    (entry(2**31 - 1, 1, 5), r"order\[1, 5\] is 2147483647"),
    (entry(9, 1), r"order\[1, 0\] is 9"),
    (lambda order: torch.full_like(order, -1).index_fill_(1, torch.tensor([3, 7]), 8),
     r"order\[0\] visits token 8 twice"),
]  # fmt: skip
"""Changes of an order, and what is said."""


@pytest.mark.parametrize("call", PATHS, ids=lambda call: call.__name__)
@pytest.mark.parametrize(("change", "message"), ENTRIES)
def test_entries_of_the_order_are_checked_on_every_path(inputs, call, change, message):
    with pytest.raises(ValueError, match=message):
        call(*changed(inputs, "order", change))


def in_second_image(change):
    """The change of an order, in the second of two images that have one each."""
    return lambda order: torch.stack([order, change(order)])


@pytest.mark.parametrize("call", PATHS, ids=lambda call: call.__name__)
@pytest.mark.parametrize(("change", "message"), ENTRIES)
def test_entries_in_the_second_image_alone_are_checked(inputs, call, change, message):
    call(*changed(inputs, "order", in_second_image(torch.clone)))
    message = message.replace(r"order\[", r"order\[1, ")
    with pytest.raises(ValueError, match=message):
        call(*changed(inputs, "order", in_second_image(change)))


@pytest.mark.parametrize("call", TRACED, ids=lambda call: call.__name__)
def test_traced_programs_check_the_order_when_they_run(inputs, call):
    for change, message in (ENTRIES[0], ENTRIES[-1]):
        with pytest.raises(ValueError, match=message):
            call(*changed(inputs, "order", change))


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
def test_every_backend_checks_the_order_in_both_directions(inputs, backend):
    grad_y = torch.ones(CASE.B, CASE.L, CASE.E)
    for change, message in ENTRIES:
        for each, said in (
            (change, message),
            (in_second_image(change), message.replace(r"order\[", r"order\[1, ")),
        ):
            wrong = changed(inputs, "order", each)
            with pytest.raises(ValueError, match=said):
                selective_scan(*wrong, backend=backend)
            with pytest.raises(ValueError, match=said):
                torch.ops.zoo.selective_scan_backward(grad_y, *wrong, True, backend)


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
@pytest.mark.parametrize("inference", [False, True])
def test_an_order_changed_behind_every_counter_is_noticed(inputs, backend, inference):
    """PyTorch counts no changes through NumPy, ``.data``, or in inference mode."""
    with torch.inference_mode(inference):
        order = inputs[-1].clone()
        for change in (
            lambda: order.numpy().__setitem__((0, 0), FAR),
            lambda: order.data.__setitem__((0, 0), FAR),
            lambda: order.__setitem__((0, 0), FAR),
        ):
            order.copy_(inputs[-1])
            selective_scan(*inputs[:-1], order, backend=backend)
            change()
            with pytest.raises(ValueError, match=str(FAR)):
                selective_scan(*inputs[:-1], order, backend=backend)


def test_more_tokens_than_an_order_can_number_are_no_mistake(inputs):
    """Numbers of tokens are 64 bits; entries of the order are 32."""
    many = 2**62
    wide = [
        torch.zeros(()).expand([{"B": 1, "L": many, "E": 0}.get(axis, 1) for axis in spec.axes])
        for name, spec in SCHEMA.items()
        if name != "order"
    ]
    order = torch.tensor([[5, -1, 2**31 - 1]], dtype=torch.int32)[:, :2]
    assert selective_scan(*wide, order, backend="chunked").shape == (1, many, 1, 0)
    safe, bias = without_wrong_entries(torch.tensor([[3, 2]], dtype=torch.int32), 4, torch.ones(1))
    assert safe.tolist() == [[3, 2]] and bias.isfinite().all()
    for tokens in (2**31, 2**32):
        assert not order_module._outside(order, tokens).any()
    assert order_module._outside(torch.tensor([[2**31 - 1]]).int(), 2**31 - 1).all()


def test_an_order_changed_between_forward_and_backward_is_noticed(inputs):
    inputs[0].requires_grad_()
    y = selective_scan(*inputs)
    inputs[-1].numpy()[1, 2] = FAR
    with pytest.raises(ValueError, match=rf"order\[1, 2\] is {FAR}"):
        y.sum().backward()


def test_the_kernel_follows_a_copy_of_the_order():
    """Another thread that writes into the order during the call leads it nowhere."""
    if native.unavailable():
        pytest.skip("the C++ kernel was not built")
    import threading

    case = Case(B=1, L=2000, K=2, E=16, N=8)
    inputs = make_inputs(case, torch.float32)
    order, stop = inputs[-1].numpy(), threading.Event()
    good = int(order[1, 1000])

    def disturb():
        while not stop.is_set():
            order[1, 1000] = FAR
            order[1, 1000] = good

    disturber = threading.Thread(target=disturb)
    disturber.start()
    refused = 0
    try:
        for _ in range(60):
            try:
                selective_scan(*inputs, backend="native")
            except ValueError:
                refused += 1
    finally:
        stop.set()
        disturber.join()
    order[1, 1000] = good
    assert selective_scan(*inputs, backend="native").isfinite().all()


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
def test_an_order_is_checked_where_there_is_nothing_to_scan(inputs, backend):
    none = [
        t[:0] if "B" in spec.axes else t for t, spec in zip(inputs, SCHEMA.values(), strict=True)
    ]
    assert selective_scan(*none, backend=backend).shape == (0, 9, 3, 4)
    with pytest.raises(ValueError, match=str(FAR)):
        selective_scan(*changed(none, "order", entry(FAR)), backend=backend)


def test_what_is_checked_is_a_copy_of_the_order(monkeypatch):
    """Another thread may change the order between two of its checks."""
    order, seen = torch.tensor([[0, 1]], dtype=torch.int32), []
    visits = order_module._visits
    monkeypatch.setattr(
        order_module,
        "_visits",
        lambda given, tokens: seen.append(given.data_ptr()) or visits(given, tokens),
    )
    check_order(order, 2)
    assert len(seen) == 1 and seen[0] != order.data_ptr()


def test_on_a_device_a_wrong_direction_is_nan_without_waiting():
    """What chunked and reference are given there; on "meta" any look at a value would fail."""
    order = torch.tensor([[0, 1, 2], [0, 3, 1], [0, -2, 1], [1, 0, 1]], dtype=torch.int32)
    bias = torch.ones(4, 5)
    safe, spoilt = without_wrong_entries(order, 3, bias)
    assert safe.tolist() == [[0, 1, 2], [0, -1, 1], [0, -1, 1], [1, 0, 1]]
    assert spoilt.isnan().all(1).tolist() == [False, True, True, True]
    assert torch.equal(spoilt[0], bias[0])
    good = torch.arange(3, dtype=torch.int32).expand(4, 3)
    safe, spoilt = without_wrong_entries(torch.stack([good, order]), 3, bias)
    assert safe[1].tolist() == [[0, 1, 2], [0, -1, 1], [0, -1, 1], [1, 0, 1]]
    assert torch.equal(safe[0], good)
    assert spoilt.isnan().all(1).tolist() == [False, True, True, True]
    inputs = ScanInputs(*(tensor.to("meta") for tensor in make_inputs(CASE, torch.float32)))
    _, ready = calls._ready(inputs, "chunked")
    assert ready.order is not inputs.order and ready.delta_bias is not inputs.delta_bias
    for shape in ((4, 3), (2, 4, 3)):
        far = without_wrong_entries(order.expand(shape).to("meta"), 3, bias.to("meta"))
        assert [tuple(tensor.shape) for tensor in far] == [shape, (4, 5)]


def test_orders_are_checked_where_they_are_made():
    check_order(torch.tensor([[0, -1, 1], [1, 0, -1]], dtype=torch.int32), 2)
    check_order(torch.empty(3, 0, dtype=torch.int32), 2)
    check_order(torch.zeros(1, 2, dtype=torch.int32, device="meta"), 2)
    for path, message in (([[0, 2]], r"\[0, 1\] is 2, outside -1..1"), ([[0, 0]], "token 0 twice")):
        with pytest.raises(ValueError, match=message):
            check_order(torch.tensor(path, dtype=torch.int32), 2)
    with pytest.raises(ValueError, match=r"order must be int32, not torch.int64"):
        check_order(torch.zeros(1, 2, dtype=torch.int64), 2)
    each = torch.tensor([[[0, 1]], [[1, 1]]], dtype=torch.int32)
    with pytest.raises(ValueError, match=r"order\[1, 0\] visits token 1 twice"):
        check_order(each, 2)
    with pytest.raises(ValueError, match=r"order\[1, 0, 0\] is 1, outside -1..0"):
        check_order(each.clamp(max=1) - torch.tensor([[[0, 1]], [[0, 1]]]).int(), 1)
