"""Autograd and ``torch.func``: what they compute is right, and what they cannot is refused."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

from tests.helpers.scan_cases import BACKENDS, Case, make_inputs, relative
from zoo.ops import selective_scan
from zoo.ops.scan import reference
from zoo.ops.scan.contract import SCHEMA, ScanInputs

CASE = Case(B=2, L=5, K=2, E=3, R=2, N=2, order="padded")
INPUTS = make_inputs(CASE, torch.float32)
ALL = ["reference", *BACKENDS]

NO_SECOND = "selective_scan has no gradient of its gradient"
NO_FORWARD = "selective_scan has no forward-mode gradient"


def changed(name, value):
    index = list(SCHEMA).index(name)
    return [*INPUTS[:index], value, *INPUTS[index + 1 :]]


def of(name, backend):
    """The scan as a function of one tensor, and the same by its definition."""

    def scan(value):
        return selective_scan(*changed(name, value), reduce=True, backend=backend)

    def defined(value):
        return reference.scan(ScanInputs(*changed(name, value)), True)

    return scan, defined


def loss(function):
    return lambda value: function(value).square().sum()


def given(name):
    return INPUTS[list(SCHEMA).index(name)]


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("name", ["u", "delta_weight", "A"])
def test_gradients_of_first_order_under_every_transform(name, backend):
    scan, defined = of(name, backend)
    x = given(name)
    for transformed in (
        lambda f: grad(loss(f))(x),
        lambda f: jacrev(f)(x),
        lambda f: vjp(f, x)[1](torch.ones(2, 5, 3))[0],
    ):
        assert relative(transformed(scan), transformed(defined)) <= 1e-5


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize(("name", "axis"), [("u", 0), ("u", 2), ("A", 0), ("A", 1), ("C", 3)])
def test_vmap_maps_images_and_parameters(name, axis, backend):
    scan, defined = of(name, backend)
    values = torch.stack([given(name), given(name) * 0.5, given(name) * 0.1], dim=axis)
    found = vmap(scan, in_dims=axis)(values)
    assert relative(found, torch.stack([defined(v) for v in values.unbind(axis)])) <= 1e-5
    found = vmap(grad(loss(scan)), in_dims=axis)(values)
    each = [grad(loss(defined))(value) for value in values.unbind(axis)]
    assert relative(found, torch.stack(each)) <= 1e-5


def test_vmap_maps_several_tensors_and_orders():
    us, order = torch.randn(3, 2, 5, 3), INPUTS[-1]
    orders = torch.stack([order, order.flip(1), order.roll(1, 1)])
    each_image = torch.stack([orders, orders.flip(2)], dim=1)
    for mapped in (orders, each_image):

        def scan(u, order):
            return selective_scan(u, *INPUTS[1:-1], order)

        expected = torch.stack([scan(*pair) for pair in zip(us, mapped, strict=True)])
        torch.testing.assert_close(vmap(scan)(us, mapped), expected)
        alone = torch.stack([scan(us[0], order) for order in mapped])
        torch.testing.assert_close(vmap(scan, in_dims=(None, 0))(us[0], mapped), alone)
    shared = torch.stack([scan(u, each_image[0]) for u in us])
    torch.testing.assert_close(vmap(scan, in_dims=(0, None))(us, each_image[0]), shared)


def test_vmap_maps_slices_within_slices():
    us = torch.randn(3, 2, 5, 3)
    found = vmap(vmap(lambda u: selective_scan(u[None], *one_image(), reduce=True)))(us)
    each = [[selective_scan(u[None], *one_image(), reduce=True) for u in pair] for pair in us]
    torch.testing.assert_close(found, torch.stack([torch.stack(pair) for pair in each]))


def one_image():
    images = [
        t[:1] if "B" in spec.axes else t for t, spec in zip(INPUTS, SCHEMA.values(), strict=True)
    ]
    return images[1:]


@pytest.mark.parametrize("backend", ALL)
def test_second_order_is_refused_not_zero(backend):
    scan, defined = of("u", backend)
    x = given("u").clone().requires_grad_()
    (first,) = torch.autograd.grad(loss(scan)(x), x, create_graph=True)
    (expected,) = torch.autograd.grad(loss(defined)(x), x)
    assert relative(first, expected) <= 1e-5  # the graph of the gradient is made, but not used
    for twice in (
        lambda: torch.autograd.grad(first.square().sum(), x),
        lambda: grad(lambda u: grad(loss(scan))(u).square().sum())(given("u")),
        lambda: jacrev(jacrev(loss(scan)))(given("u")),
        lambda: vmap(grad(lambda u: grad(loss(scan))(u).sum()))(torch.stack([given("u")] * 2)),
    ):
        with pytest.raises(NotImplementedError, match=NO_SECOND) as raised:
            twice()
        assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("name", ["u", "A"])
def test_forward_mode_is_refused_not_zero(name, backend):
    scan, _ = of(name, backend)
    x = given(name)

    def dual(value):
        with forward_ad.dual_level():
            return scan(forward_ad.make_dual(value, torch.ones_like(value)))

    for forward in (
        lambda: jvp(scan, (x,), (torch.ones_like(x),)),
        lambda: jacfwd(scan)(x),
        lambda: hessian(loss(scan))(x),
        lambda: dual(x),
        lambda: dual(x.clone().requires_grad_()),
    ):
        with pytest.raises(NotImplementedError, match=NO_FORWARD) as raised:
            forward()
        assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("name", ["u", "A"])
def test_forward_over_reverse_is_refused_not_zero(name, backend):
    """Also where the tangent is on an outer level, which the innermost tensors do not show."""
    scan, _ = of(name, backend)
    x, ones = given(name), torch.ones(2, 5, 3)

    def along(function):
        return lambda: jvp(function, (x,), (torch.ones_like(x),))

    for forward in (
        along(grad(loss(scan))),
        along(jacrev(loss(scan))),
        along(lambda value: vjp(scan, value)[0]),
        along(lambda value: vjp(scan, value)[1](ones)[0]),
        along(lambda value: grad(lambda factor: (scan(value) * factor).sum())(torch.ones(()))),
        along(lambda value: vmap(grad(loss(scan)))(torch.stack([value, value]))),
        lambda: jacfwd(grad(loss(scan)))(x),
        lambda: jvp(lambda cotangent: vjp(scan, x)[1](cotangent)[0], (ones,), (ones,)),
    ):
        with pytest.raises(NotImplementedError, match=NO_FORWARD):
            forward()


def test_a_function_with_its_own_tangent_may_scan():
    """PyTorch switches tangents off in its forward pass: they are its own business."""
    scan, _ = of("u", "")

    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(ctx, u):
            return scan(u)

        @staticmethod
        def jvp(ctx, tangent):
            return 2 * tangent

    with forward_ad.dual_level():
        y = Doubled.apply(forward_ad.make_dual(given("u"), torch.ones_like(given("u"))))
        assert torch.equal(forward_ad.unpack_dual(y).tangent, torch.full((2, 5, 3), 2.0))


@pytest.mark.parametrize("name", ["u", "A", "order"])
def test_vmap_over_nothing_gives_nothing_of_the_right_shape(name):
    scan, _ = of(name, "")
    none = given(name)[None][:0]
    assert vmap(scan)(none).shape == (0, 2, 5, 3)
    assert vmap(scan, in_dims=1, out_dims=1)(none.transpose(0, 1)).shape == (2, 0, 5, 3)
    assert vmap(vmap(scan))(torch.stack([none] * 2)).shape == (2, 0, 2, 5, 3)
    if name != "order":
        assert vmap(grad(loss(scan)))(none).shape == none.shape
        leaf = none.clone().requires_grad_()
        vmap(scan)(leaf).sum().backward()
        assert leaf.grad.shape == none.shape
    with pytest.raises(ValueError, match=r"has shape|must be"):
        vmap(scan)(none[:, :1])


def test_jacobians_of_nothing_have_the_right_shape():
    scan, _ = of("u", "")
    assert jacrev(lambda u: scan(u)[:0])(given("u")).shape == (0, 5, 3, 2, 5, 3)
    images = [t[:0] if "B" in s.axes else t for t, s in zip(INPUTS, SCHEMA.values(), strict=True)]
    found = jacrev(lambda u: selective_scan(u, *images[1:], reduce=True))(images[0])
    assert found.shape == (0, 5, 3, 0, 5, 3)


def test_vmap_names_the_sizes_of_a_slice():
    scan, _ = of("u", "")
    for wrong, message in (
        (torch.zeros(3), r"not \(\)"),
        (torch.zeros(3, 2, 4, 3), r"\(2, 4, 3\)"),
    ):
        with pytest.raises(ValueError, match=message):
            vmap(scan)(wrong)


def test_what_the_refusals_advise_works():
    """The definition has all gradients; they are those of finite differences."""
    x = given("u").double()
    inputs = [t if t.dtype == torch.int32 else t.double() for t in INPUTS]

    def first(u):
        def total(v):
            return reference.scan(ScanInputs(v, *inputs[1:]), True).square().sum()

        return grad(total)(u).square().sum()

    second, step = grad(first)(x), 1e-6
    direction = torch.randn_like(x)
    difference = (first(x + step * direction) - first(x - step * direction)) / (2 * step)
    assert second.abs().max() > 1
    assert relative((second * direction).sum(), difference) <= 1e-6


def test_nested_transforms_do_not_lose_the_outer_gradient():
    scan, defined = of("u", "")
    weight = torch.rand(2, 5, 3)

    def nested(function):
        def inner(u):
            return grad(lambda w: (function(u) * w).square().sum())(weight).sum()

        return grad(inner)(given("u"))

    assert relative(nested(scan), nested(defined)) <= 1e-5


def test_a_module_is_differentiated_by_its_parameters():
    layer = torch.nn.Linear(3, 3)
    scan, defined = of("u", "")

    def by(function):
        def total(parameters):
            return function(functional_call(layer, parameters, (given("u"),))).square().sum()

        return grad(total)(dict(layer.named_parameters()))["weight"]

    assert relative(by(scan), by(defined)) <= 1e-5


def test_transforms_work_when_compiled():
    scan, defined = of("u", "")
    us = torch.randn(3, 2, 5, 3)
    for transform in (vmap, lambda f: vmap(grad(loss(f)))):
        found = torch.compile(transform(scan), backend="aot_eager", fullgraph=True)(us)
        assert relative(found, transform(defined)(us)) <= 1e-5


@pytest.mark.parametrize("with_gradient", [False, True])
def test_tensors_without_values_give_shapes(with_gradient):
    def shapes(tensors):
        tensors[0].requires_grad_(with_gradient)
        y = selective_scan(*tensors)
        if with_gradient:
            y.sum().backward()
            assert tensors[0].grad.shape == tensors[0].shape
        return y.shape, y.dtype, y.device.type

    expected = torch.Size([2, 5, 2, 3]), torch.float32
    assert shapes([t.to("meta") for t in INPUTS]) == (*expected, "meta")
    wrong = changed("order", INPUTS[-1].long())
    copies = [tensor.clone() for tensor in INPUTS]
    with FakeTensorMode() as mode:
        assert shapes([mode.from_tensor(t) for t in copies]) == (*expected, "cpu")
        with pytest.raises(ValueError, match="order must be int32"):
            selective_scan(*[mode.from_tensor(t) for t in wrong])
