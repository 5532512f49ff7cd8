"""Hostile changes of the selective scan's tensors, and what is wrong with a call.

The second is found out without the package: fuzzing compares it with what the package says.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tests.helpers.scan_cases import TOLERANCE
from zoo.ops.scan.contract import SCHEMA, Kind

DTYPES = (
    *(torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex64),
    *(torch.int32, torch.int64, torch.uint8, torch.bool),
)
ENTRIES = (-(2**31), -2, -1, 0, 1, 12, 13, 1000, 50_000_000, 2**31 - 1)


class Change(NamedTuple):
    """A hostile change of one tensor.

    Attributes:
        what: kind of the change, a key of ``CHANGES``.
        name: the tensor, a key of ``SCHEMA``.
        number: which change of that kind; any number is valid.
    """

    what: str
    name: str
    number: int


def mistake(inputs: Sequence[Any], cast: bool) -> str:
    """What is wrong with a call, found out without the package; "" if nothing.

    Args:
        inputs: its tensors.
        cast: whether parameters of another dtype are cast.
    """
    named = dict(zip(SCHEMA, inputs, strict=True))
    if named["delta_weight"] is None:
        del named["delta_weight"]
    if not all(isinstance(value, Tensor) for value in named.values()):
        return "no tensor"
    named = {name: plain(tensor) for name, tensor in named.items()}
    if any(t.layout != torch.strided or t.is_nested for t in named.values()):
        return "no dense tensor"
    if len({t.device for t in named.values()}) > 1:
        return "devices"
    axes = {name: SCHEMA[name].axes for name in named}
    if named["order"].dim() == 3:
        axes["order"] = "BKS"
    if any(t.dim() != len(axes[name]) for name, t in named.items()):
        return "number of axes"
    sizes: dict[str, set[int]] = {}
    for name, tensor in named.items():
        whole = name == "delta" and "delta_weight" not in named
        for axis, size in zip(axes[name], tensor.shape, strict=True):
            sizes.setdefault("E" if whole and axis == "R" else axis, set()).add(size)
    if any(len(found) > 1 for found in sizes.values()):
        return "sizes"
    return _mistake_of_values(named, cast)


def _mistake_of_values(named: dict[str, Tensor], cast: bool) -> str:
    tokens = named["u"].dtype
    state = torch.float64 if tokens == torch.float64 else torch.float32
    for name, tensor in named.items():
        kind, dtype = SCHEMA[name].kind, tensor.dtype
        right = {
            Kind.TOKENS: dtype == tokens and tokens in TOLERANCE,
            Kind.PARAMETER: dtype.is_floating_point if cast else dtype == state,
            Kind.ORDER: dtype == torch.int32,
        }[kind]
        if not right:
            return f"dtype of {name}"
        if not tensor.is_meta and tensor.untyped_storage().nbytes() < _extent(tensor):
            return f"memory of {name}"
    if named["order"].is_meta:
        return ""
    for path in named["order"].flatten(0, -2).tolist():
        visited = [token for token in path if token != -1]
        if any(not 0 <= token < named["u"].shape[1] for token in visited):
            return "an entry of the order"
        if len(set(visited)) < len(visited):
            return "a token twice"
    return ""


def plain(value: Any) -> Any:
    """The tensor itself, whatever its class says of it."""
    if type(value) is Tensor or not isinstance(value, Tensor):
        return value
    with torch._C.DisableTorchFunctionSubclass():
        return Tensor.as_subclass(value, Tensor)


def claiming(tensor: Tensor, **claims: Any) -> Tensor:
    """The tensor in a class whose attributes say other things about it."""
    claimed: Any = tensor.as_subclass(_claiming_class(type(tensor)))
    claimed.claims = claims
    return claimed


@functools.cache
def _claiming_class(kind: type) -> Any:
    """One class for all tensors: PyTorch refuses calls with tensors of unrelated classes."""

    def member(name: str) -> property:
        said = getattr(kind, name)
        return property(lambda self: vars(self).get("claims", {}).get(name, said.__get__(self)))

    names = ("shape", "numel", "stride", "is_contiguous", "untyped_storage")
    return type("Claiming", (kind,), {name: member(name) for name in names})


def _extent(tensor: Tensor) -> int:
    """Bytes from the start of the memory of a tensor to the end of its last element."""
    if not tensor.numel():
        return 0
    last = sum(
        (size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)
    )
    return (tensor.storage_offset() + last + 1) * tensor.element_size()


def _tensor(change: Callable[[Tensor, int], Any]) -> Callable[[Any, int], Any]:
    """A change that leaves alone what earlier changes have made no dense tensor."""

    def changed(value: Any, number: int) -> Any:
        value = plain(value)
        if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_meta:
            return value
        # PyTorch itself crashes where memory has been given back.
        whole = value.untyped_storage().nbytes() >= _extent(value)
        return change(value, number) if whole else value

    return changed


def _resized(tensor: Tensor, number: int) -> Tensor:
    """One axis shorter, empty, longer, gone or new."""
    if not tensor.dim():
        return tensor
    axis, size = number % tensor.dim(), tensor.shape[number % tensor.dim()]
    if number % 5 == 0:
        return tensor.narrow(axis, 0, max(size - 1, 0))
    if number % 5 == 1:
        return tensor.narrow(axis, 0, 0)
    if number % 5 == 2:
        return torch.cat([tensor, tensor.narrow(axis, 0, min(size, 1))], axis)
    return tensor.unsqueeze(axis) if number % 5 == 3 or not size else tensor.select(axis, 0)


def _entry(tensor: Tensor, number: int) -> Tensor:
    """Another value in one place: an entry of an order, or not finite in other tensors."""
    if not tensor.numel() or tensor.is_floating_point() or tensor.is_complex():
        return tensor
    tensor = tensor.clone(memory_format=torch.contiguous_format)
    if tensor.dtype in (torch.int32, torch.int64):
        tensor.view(-1)[number % tensor.numel()] = ENTRIES[number % len(ENTRIES)]
    return tensor


def _repeated(tensor: Tensor, number: int) -> Tensor:
    """A step copied over another one."""
    if tensor.dtype != torch.int32 or tensor.numel() < 2:
        return tensor
    tensor = tensor.clone(memory_format=torch.contiguous_format)
    flat = tensor.view(-1)
    flat[number % len(flat)] = flat[(number // 10) % len(flat)].clone()
    return tensor


def _given_back(tensor: Tensor, number: int) -> Tensor:
    """Memory with too little room."""
    tensor = tensor.clone(memory_format=torch.contiguous_format)
    tensor.untyped_storage().resize_(max(0, tensor.nbytes - 1) if number % 2 else 0)
    return tensor


def _misaligned(tensor: Tensor, number: int) -> Tensor:
    """The values at an address between two elements."""
    if not tensor.numel() or tensor.element_size() < 2 or tensor.is_neg():
        return tensor
    memory = bytearray(tensor.nbytes + 8)
    flat = torch.frombuffer(memory, dtype=tensor.dtype, offset=1, count=tensor.numel())
    return flat.view(tensor.shape).copy_(tensor)


def _claimed(tensor: Tensor, number: int) -> Tensor:
    """A class that says a wrong shape of the tensor, or the right one of a smaller tensor."""
    if number % 2 or not tensor.numel() or tensor.is_neg():
        return claiming(tensor, shape=torch.Size([number]), numel=lambda: number)
    small = tensor[tuple(slice(0, 1) for _ in tensor.shape)].clone()
    return claiming(small, shape=tensor.shape, numel=lambda: 0)


def _huge(tensor: Tensor, number: int) -> Tensor:
    """Numbers so negative that a decay or a step is zero."""
    if tensor.dtype not in (torch.float32, torch.float64):
        return tensor
    return torch.full_like(tensor, -(10.0 ** (number % 30)))


CHANGES: dict[str, Callable[[Any, int], Any]] = {
    "size": _tensor(_resized),
    "dtype": _tensor(lambda tensor, number: tensor.to(DTYPES[number % len(DTYPES)])),
    "entry": _tensor(_entry),
    "entry of the order": _tensor(_entry),
    "repeated": _tensor(_repeated),
    "given back": _tensor(_given_back),
    "misaligned": _tensor(_misaligned),
    "on meta": _tensor(lambda tensor, number: tensor.to("meta")),
    "all on meta": lambda value, number: value,
    "sparse": _tensor(lambda tensor, number: tensor.to_sparse()),
    "claimed": _tensor(_claimed),
    "huge A or bias": _tensor(_huge),
    "no tensor": lambda value, number: (None, [[0]], 3.0, "u")[number % 4],
}
