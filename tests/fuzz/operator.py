"""Calls of the selective scan: right ones, compared with the definition, and hostile ones."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from torch import Tensor

from tests.fuzz.frame import ACCEPTED, FaultError, refusal
from tests.helpers.hostile_scans import CHANGES, Change, mistake, plain
from tests.helpers.scan_cases import BACKENDS, TOLERANCE, Case, make_inputs
from zoo.ops import selective_scan
from zoo.ops.scan import calls, reference
from zoo.ops.scan.contract import SCHEMA, ScanInputs

COUNT, SLICE = 10_000, 60

SECONDS = 15.0
"""Time for one case: compiling takes a second, and several on a busy machine."""

ALLOWED = (ValueError, TypeError, NotImplementedError)
"""Errors that are a refusal; BackendError is a ValueError."""

PATHS = {
    "function": 10,
    "operator": 8,
    "gradient": 8,
    "gradient operator": 6,
    "compiled": 1,
    "exported": 1,
    "mapped": 4,
}
"""Ways to call the operator, and how often each is tried."""

TRACED = ("compiled", "exported")

LAYOUTS = ("dense", "strided", "transposed", "repeated", "negated")


class Call(NamedTuple):
    """A call of the operator.

    Attributes:
        scan: sizes, order and kind.
        dtype: of the tokens.
        backend: name of the backend, or "" for the automatic choice.
        path: how the operator is called, a key of ``PATHS``.
        layout: how u and B lie in memory.
        changes: what is wrong with it; half of the calls have none.
        seed: of the values.
    """

    scan: Case
    dtype: torch.dtype
    backend: str
    path: str
    layout: str
    changes: tuple[Change, ...]
    seed: int


def cases() -> SearchStrategy[Call]:
    _import_compiler()
    size = functools.partial(st.integers, 0)
    scan = st.builds(
        Case,
        **{"B": size(3), "L": size(12), "K": size(3), "E": size(20), "R": size(4), "N": size(18)},
        order=st.sampled_from(["full", "padded", "skipping", "short"]),
        low_rank=st.booleans(),
        reduce=st.booleans(),
        per_image=st.booleans(),
    )
    change = st.builds(
        Change, st.sampled_from(sorted(CHANGES)), st.sampled_from(list(SCHEMA)), st.integers(0, 99)
    )
    return st.builds(
        Call,
        scan,
        st.sampled_from([torch.float32, *TOLERANCE]),
        st.sampled_from(["", "native", "native", "chunked", "reference"]),
        st.sampled_from([path for path, times in PATHS.items() for _ in range(times)]),
        st.sampled_from(LAYOUTS),
        st.just(()) | st.lists(change, min_size=1, max_size=2).map(tuple),
        st.integers(0, 2**32 - 1),
    )


def attempt(call: Call, folder: Path) -> str:
    inputs = inputs_of(call)
    served = call.backend in ("", "reference", *BACKENDS) and not (
        call.backend == "native" and call.dtype == torch.float64
    )
    # Without values there is nothing to compute, and no backend is chosen.
    served = served or any(change.what == "all on meta" for change in call.changes)
    wrong = "" if served else "the backend cannot run it"
    wrong = wrong or mistake(inputs, cast=call.path not in ("operator", "gradient operator"))
    found: list[Tensor | None] = []
    said = _refusal(call, inputs, lambda: found.extend(_run(call, inputs)))
    if said is not None:
        if not wrong and not any(change.what == "misaligned" for change in call.changes):
            raise FaultError(f"a right call was refused: {said}")
        return f"refused: {call.path}"
    if wrong:
        raise FaultError(f"a wrong call was accepted: {wrong}")
    _compare(call, inputs, found)
    return f"{ACCEPTED}: {call.path}"


def _refusal(call: Call, inputs: Sequence[Any], function: Callable[[], object]) -> str | None:
    """The message of a refusal, ours or, of two kinds, PyTorch's, which are long."""
    theirs: tuple[type[Exception], ...] = ()
    if call.path in TRACED:
        theirs = (torch._dynamo.exc.TorchDynamoException,)
    elif call.path == "mapped":
        given_back = any(change.what == "given back" for change in call.changes)
        theirs = (RuntimeError,) if given_back or not all(map(_may_be_mapped, inputs)) else ()
    elif not all(value is None or isinstance(value, Tensor) for value in inputs):
        theirs = (RuntimeError,) if "operator" in call.path else ()
    try:
        return refusal(function, ALLOWED)
    except theirs as error:
        return str(error)
    finally:
        if call.path == "compiled":
            torch.compiler.reset()


class _Scan(torch.nn.Module):
    def __init__(self, call: Call) -> None:
        super().__init__()
        self.options = {"reduce": call.scan.reduce, "backend": call.backend or None}

    def forward(self, *inputs: Any) -> Tensor:
        return selective_scan(*inputs, **self.options)


def _run(call: Call, inputs: Sequence[Any]) -> list[Tensor | None]:
    """The output, or the gradients, in the order of the inputs."""
    scan, options = _Scan(call), (call.scan.reduce, call.backend)
    if call.path == "function":
        return [scan(*inputs)]
    if call.path == "operator":
        return [torch.ops.zoo.selective_scan(*inputs, *options)]
    if call.path == "compiled":
        return [torch.compile(scan, backend="aot_eager")(*inputs)]
    if call.path == "mapped":
        return [_mapped(call, inputs)]
    if call.path == "exported":
        return [torch.export.export(scan, tuple(inputs)).module()(*inputs)]
    if call.path == "gradient operator":
        u = inputs[0] if isinstance(inputs[0], Tensor) else torch.zeros(0)
        grad_y = cotangent(call, u.dtype, u.device)
        return list(torch.ops.zoo.selective_scan_backward(grad_y, *inputs, *options))
    leaves = _leaves(inputs)
    y = plain(scan(*leaves))
    given = [leaf for leaf in leaves[:-1] if leaf is not None]
    return [y, *torch.autograd.grad(y, given, cotangent(call, y.dtype, y.device))]


def _may_be_mapped(value: Any) -> bool:
    dense = isinstance(value, Tensor) and value.layout == torch.strided and not value.is_nested
    return value is None or dense


def _mapped(call: Call, inputs: Sequence[Any]) -> Tensor:
    """One of a few equal results of ``vmap``; if there are none, their shape must be right."""
    scan, size = _Scan(call), call.seed % 3
    some = [isinstance(v, Tensor) and call.seed >> i & 8 != 0 for i, v in enumerate(inputs)]
    if not any(some):
        return scan(*inputs)
    in_dims = tuple(0 if mapped else None for mapped in some)
    given = [
        # Not repeated in memory: PyTorch would read what has been given back.
        value.expand(size, *plain(value).shape) if mapped else value
        for value, mapped in zip(inputs, some, strict=True)
    ]
    found = plain(torch.vmap(scan, in_dims=in_dims)(*given))
    if size:
        return found[0]
    alone = plain(scan(*inputs))
    if found.shape != (0, *alone.shape):
        raise FaultError(f"vmap over nothing has shape {tuple(found.shape)}")
    return alone


def _leaves(inputs: Sequence[Any]) -> list[Any]:
    def leaf(value: Any) -> Any:
        real = isinstance(value, Tensor) and value.is_floating_point()
        return value.detach().requires_grad_() if real else value

    return [leaf(value) for value in inputs]


def cotangent(
    call: Call, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu"
) -> Tensor:
    """A gradient of y that is different everywhere."""
    case = call.scan
    shape = (case.B, case.L, *(() if case.reduce else (case.K,)), case.E)
    count = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return torch.cos(count).reshape(shape).to(dtype).to(device)


def _compare(call: Call, inputs: Sequence[Any], found: Sequence[Tensor | None]) -> None:
    """Compare with the definition, in proportion to the sizes of what is added up."""
    inputs, found = [plain(value) for value in inputs], [plain(value) for value in found]
    if inputs[0].is_meta or not all(value is None or value.isfinite().all() for value in inputs):
        return
    with_gradient = call.path.startswith("gradient")
    expected = _by_definition(call, inputs, with_gradient, lambda t: t)
    sizes = _by_definition(call, inputs, with_gradient, torch.abs)
    if call.path == "gradient operator":
        expected, sizes = expected[1:], sizes[1:]
        found = [
            gradient for gradient, given in zip(found, inputs, strict=False) if given is not None
        ]
    for index, (ours, theirs, size) in enumerate(zip(found, expected, sizes, strict=True)):
        if ours is None or ours.shape != theirs.shape:
            raise FaultError(f"result {index} is {ours}, not {tuple(theirs.shape)}")
        error = (ours.double() - theirs).norm()
        if not error <= TOLERANCE[call.dtype] * (theirs.norm() + size.norm()) + 1e-30:
            raise FaultError(f"result {index} is {error:.2g} off, of {theirs.norm():.2g}")


def _by_definition(
    call: Call, inputs: Sequence[Any], with_gradient: bool, change: Callable[[Tensor], Tensor]
) -> list[Tensor]:
    """Output and gradients in float64, after a change of all values but those of A and the bias."""
    exact = [
        value
        if not isinstance(value, Tensor) or name == "order"
        else value.double()
        if name in ("A", "delta_bias", "delta", "delta_weight")
        else change(value.double())
        for name, value in zip(SCHEMA, inputs, strict=True)
    ]
    leaves = _leaves(exact)
    y = reference.scan(ScanInputs(*leaves), call.scan.reduce)
    if not with_gradient:
        return [y.detach()]
    given = [leaf for leaf in leaves[:-1] if leaf is not None]
    if not y.requires_grad:  # no step: nothing depends on the inputs
        return [y, *map(torch.zeros_like, given)]
    found = torch.autograd.grad(y, given, change(cotangent(call)), allow_unused=True)
    return [
        y.detach(),
        *(torch.zeros_like(t) if g is None else g for t, g in zip(given, found, strict=True)),
    ]


def inputs_of(call: Call) -> list[Any]:
    inputs: list[Any] = make_inputs(call.scan, call.dtype, call.seed)
    for name in ("u", "B"):
        index = list(SCHEMA).index(name)
        inputs[index] = _laid_out(inputs[index], call.layout)
    for change in call.changes:
        if change.what == "claimed" and call.path in TRACED:
            continue  # PyTorch believes the class, and stops with an assertion
        name = change.name
        if change.what == "huge A or bias":
            name = "A" if change.number % 2 else "delta_bias"
        index = list(SCHEMA).index(name)
        inputs[index] = CHANGES[change.what](inputs[index], change.number)
    if any(change.what == "all on meta" for change in call.changes):
        inputs = [value.to("meta") if isinstance(value, Tensor) else value for value in inputs]
    return inputs


def _laid_out(tensor: Tensor, layout: str) -> Tensor:
    if layout == "transposed":
        return tensor.transpose(1, -1).contiguous().transpose(1, -1)
    if layout == "strided":
        wide = tensor.new_zeros(*tensor.shape[:-1], 2 * tensor.shape[-1] + 3)
        wide[..., 1 : 1 + tensor.shape[-1]] = tensor
        return wide[..., 1 : 1 + tensor.shape[-1]]
    if layout == "repeated":
        return tensor[:, :1].expand_as(tensor) if tensor.shape[1] else tensor
    return torch._neg_view(tensor) if layout == "negated" else tensor.contiguous()


@functools.cache
def _import_compiler() -> None:
    """The first use takes seconds, which would count as a hang."""
    torch.compile(lambda x: x + 1, backend="aot_eager")(torch.ones(2))


def planted() -> AbstractContextManager[object]:
    return mock.patch.object(calls, "check_order", lambda order_KS, tokens: None)
