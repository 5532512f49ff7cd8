"""The checks of the operator's tensors: their number of axes, sizes, dtypes and devices.

They run inside the operator, so no path leads past them: not ``torch.ops``, ``torch.compile`` or
``torch.export``, nor the gradient. They read no values and therefore also work on tensors without
any, as while tracing. Entries of the order: see :mod:`zoo.ops.scan.order`.

Shape suffixes: see :mod:`zoo.ops.scan.contract`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from zoo.ops.scan.contract import ORDER, SCHEMA, TOKENS, Kind, ScanInputs, axis_sizes
from zoo.ops.scan.order import check_order_shape

TOKEN_DTYPES = {torch.float32, torch.bfloat16, torch.float16, torch.float64}

# Read once: looking things up in the schema at each call would take longer than a small scan.
_IS_PARAMETER = tuple(spec.kind is Kind.PARAMETER for spec in SCHEMA.values())
_EXPECTED = tuple(
    (name, spec.axes, spec.kind) for name, spec in SCHEMA.items() if name not in ORDER
)
"""For each tensor: its name, its axes, its kind."""
_SIZED = tuple((name, len(SCHEMA[name].axes)) for name in ("u", "delta_weight", "A"))
"""The tensors that give the sizes of axes, besides the order, with their numbers of axes."""


def state_dtype(tokens: torch.dtype) -> torch.dtype:
    """Dtype of the state and of the parameters for tokens of a dtype."""
    return torch.float64 if tokens == torch.float64 else torch.float32


def in_state_dtype(inputs: ScanInputs) -> list[Tensor | None]:
    """The inputs, with parameters in the dtype of the state.

    Raises:
        TypeError: if an input is no tensor.
        ValueError: if a parameter is not of real floating-point numbers.
    """
    for name, tensor in zip(SCHEMA, inputs, strict=True):
        if isinstance(tensor, Tensor):
            _check_layout(name, tensor)
        elif tensor is not None or not SCHEMA[name].optional:
            raise TypeError(f"{name} must be a tensor, not {_named(tensor)}")
    state = state_dtype(inputs.u.dtype)
    cast = []
    for name, tensor, is_parameter in zip(SCHEMA, inputs, _IS_PARAMETER, strict=True):
        # A cast to the same dtype would still be a node of every traced graph.
        if is_parameter and tensor is not None and tensor.dtype != state:
            if not tensor.dtype.is_floating_point:
                raise ValueError(
                    f"{name} must be of real floating-point numbers, not {_of(tensor)}"
                )
            tensor = tensor.to(state)
        cast.append(tensor)
    return cast


def check_tensors(inputs: ScanInputs) -> None:
    """Check everything about the operator's tensors but their values.

    Raises:
        ValueError: if a number of axes, a size, a dtype, a device or a layout is wrong; the message
            names the first wrong tensor and what it must be.
    """
    for name, tensor in zip(SCHEMA, inputs, strict=True):
        if tensor is not None:
            _check_layout(name, tensor)
    u = inputs.u
    for name, count in _SIZED:
        tensor = getattr(inputs, name)
        if tensor is not None and tensor.dim() != count:
            letters = ", ".join(SCHEMA[name].axes)
            raise ValueError(f"{name} must be ({letters}), not {tuple(tensor.shape)}")
    check_order_shape(inputs.order, u.shape[0])
    dtype, device = u.dtype, u.device
    if dtype not in TOKEN_DTYPES:
        raise ValueError(f"u must be float32, bfloat16, float16 or float64, not {_of(u)}")
    _check_device("order", inputs.order, device)
    sizes, state = axis_sizes(inputs), state_dtype(dtype)
    # A tuple ends with the order, which is not in ``_EXPECTED``.
    for tensor, (name, axes, kind) in zip(inputs, _EXPECTED, strict=False):
        if tensor is None:
            continue
        if not _has_sizes(tensor.shape, axes, sizes):
            expected = tuple(sizes[axis] for axis in axes)
            raise ValueError(
                f"{name} has shape {tuple(tensor.shape)}, but u {tuple(u.shape)} and "
                f"order {tuple(inputs.order.shape)} need {expected}"
            )
        if kind is Kind.TOKENS and tensor.dtype != dtype:
            raise ValueError(
                f"{', '.join(TOKENS)} must share one dtype; u is {_of(u)}, {name} {_of(tensor)}"
            )
        if kind is Kind.PARAMETER and tensor.dtype != state:
            raise ValueError(f"{name} must be {state} for tokens of {dtype}, not {_of(tensor)}")
        _check_device(name, tensor, device)


def plain(tensor: Any) -> Any:
    """The tensor without the Python of its class, which may say anything about shape and memory.

    Classes with a dispatcher of their own are left alone: they answer for their operations.
    """
    kind = type(tensor)
    if kind is Tensor or kind is Parameter or not isinstance(tensor, Tensor):
        return tensor
    if kind.__torch_dispatch__ is not Tensor.__torch_dispatch__:
        return tensor
    with torch._C.DisableTorchFunctionSubclass():
        dense = tensor.layout is torch.strided  # others have no memory to read
        return Tensor.as_subclass(tensor, Tensor) if dense else tensor


def check_gradient(grad_y: Tensor, inputs: ScanInputs, reduce: bool) -> None:
    """Check the gradient of y beside inputs that have been checked.

    Raises:
        ValueError: if its shape, dtype, device or layout is not that of y.
    """
    _check_layout("grad_y", grad_y)
    expected = output_shape(inputs, reduce)
    if tuple(grad_y.shape) != expected or grad_y.dtype != inputs.u.dtype:
        raise ValueError(
            f"grad_y is {tuple(grad_y.shape)} {_of(grad_y)}, but y is {expected} {inputs.u.dtype}"
        )
    _check_device("grad_y", grad_y, inputs.u.device)


def output_shape(inputs: ScanInputs, reduce: bool) -> tuple[int, ...]:
    """Shape of y: (B, L, K, E), or (B, L, E) with ``reduce``."""
    batch, tokens, channels = inputs.u.shape
    return (batch, tokens, channels) if reduce else (batch, tokens, inputs.A.shape[0], channels)


def check_memory(tensors: Iterable[Tensor | None]) -> None:
    """Check that the memory of each tensor has room for all of its elements.

    It may have been given back, as ``tensor.untyped_storage().resize_(0)`` does.

    Raises:
        ValueError: if it has not.
    """
    for tensor in tensors:
        if tensor is None or tensor.numel() == 0:
            continue
        held, size = tensor.untyped_storage().nbytes(), tensor.element_size()
        if held == tensor.numel() * size and tensor.is_contiguous():
            continue  # the usual case, found out in half the time
        steps = ((n - 1) * stride for n, stride in zip(tensor.shape, tensor.stride(), strict=True))
        if held < (tensor.storage_offset() + sum(steps) + 1) * size:
            raise ValueError(
                f"a tensor {tuple(tensor.shape)} has only {held} bytes of memory; was its storage "
                "resized?"
            )


def _has_sizes(shape: Sequence[int], axes: str, sizes: Mapping[str, int]) -> bool:
    if len(shape) != len(axes):
        return False
    # One by one: a comparison of whole shapes would leave its nodes in compiled graphs.
    for size, axis in zip(shape, axes, strict=True):  # noqa: SIM110 - faster than all()
        if size != sizes[axis]:
            return False
    return True


def _check_layout(name: str, tensor: Tensor) -> None:
    if tensor.layout is not torch.strided or tensor.is_nested:
        kind = "nested" if tensor.is_nested else "sparse"
        raise ValueError(f"{name} must be an ordinary dense tensor, not a {kind} one")


def _check_device(name: str, tensor: Tensor, device: torch.device) -> None:
    if tensor.device != device:
        raise ValueError(f"{name} is on {tensor.device}, u on {device}; move {name} there")


def _of(tensor: Tensor) -> str:
    return str(tensor.dtype)


def _named(value: Any) -> str:
    return "None" if value is None else f"a {type(value).__name__}"
