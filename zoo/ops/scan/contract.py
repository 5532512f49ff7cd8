"""The tensors of the selective scan, and the interface of a backend.

:class:`ScanInputs` declares the operator's tensors, and :data:`SCHEMA` is derived from it.
Everything else is derived from :data:`SCHEMA`: the operator's signature and checks, the C
structures of the native backend, and the inputs of exported nodes. Tests compare the C++ sources
with it.

Shape suffixes, used by every file of this package:
    B batch, L tokens (row-major), K directions, S steps of a direction, E inner channels,
    R rank of the low-rank step (R = E if delta has no projection), N states.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, NamedTuple, Protocol, get_args, get_type_hints

from torch import Tensor

AXES = {
    **{"B": "batch", "L": "tokens", "K": "directions", "S": "steps"},
    **{"E": "channels", "R": "rank", "N": "states"},
}
"""Meaning of the letters of a shape."""


class Kind(Enum):
    """Which dtype a tensor has, and whether it has a gradient."""

    TOKENS = "tokens"
    """The dtype of u; may be a strided view."""
    PARAMETER = "parameter"
    """The dtype of the state: float64 for float64 tokens, float32 for all others."""
    ORDER = "order"
    """int32, without a gradient."""


class ScanInputs(NamedTuple):
    """The tensors of the operator. Backends get them checked, with parameters in state dtype.

    No axis has size 0. Entries of the order have been checked too, unless the backend does it.
    """

    u: Annotated[Tensor, "BLE", Kind.TOKENS]
    """Tokens."""
    delta: Annotated[Tensor, "BLKR", Kind.TOKENS]
    """Low-rank step; if ``delta_weight`` is None, the step itself, (B, L, K, E)."""
    delta_weight: Annotated[Tensor | None, "KER", Kind.PARAMETER]
    """Projection of the step, or None."""
    delta_bias: Annotated[Tensor, "KE", Kind.PARAMETER]
    A: Annotated[Tensor, "KEN", Kind.PARAMETER]
    """Negative."""
    B: Annotated[Tensor, "BLKN", Kind.TOKENS]
    C: Annotated[Tensor, "BLKN", Kind.TOKENS]
    D: Annotated[Tensor, "KE", Kind.PARAMETER]
    order: Annotated[Tensor, "KS", Kind.ORDER]
    """Entries in -1 .. L-1, no token twice in a direction. Or (B, K, S): an order of each image."""


class ScanGradients(NamedTuple):
    """Gradients, in the same order as the inputs and with their shapes and dtypes."""

    u: Tensor
    delta: Tensor
    delta_weight: Tensor | None
    delta_bias: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor


@dataclass(frozen=True)
class TensorSpec:
    """Requirements for one tensor of the operator.

    Attributes:
        axes: one letter for each dimension.
        kind: the kind of the tensor, which determines its dtype.
        optional: whether the tensor may be None.
    """

    axes: str
    kind: Kind
    optional: bool


def _read_schema() -> dict[str, TensorSpec]:
    found = {}
    for name, hint in get_type_hints(ScanInputs, include_extras=True).items():
        tensor, axes, kind = get_args(hint)
        found[name] = TensorSpec(axes, kind, optional=type(None) in get_args(tensor))
    return found


SCHEMA = _read_schema()
"""The tensors of the operator by name, in the order of its arguments."""

TOKENS, PARAMETERS, ORDER = (
    tuple(name for name, spec in SCHEMA.items() if spec.kind is kind) for kind in Kind
)
"""Names of the tensors of each kind."""


def differentiable(inputs: ScanInputs) -> dict[str, Tensor]:
    """The tensors that have gradients, by name, without those that are None."""
    named = inputs._asdict()
    return {name: named[name] for name in ScanGradients._fields if named[name] is not None}


def gradients_of(found: Mapping[str, Tensor]) -> ScanGradients:
    """Convert gradients by name to a tuple, with None for those that are missing."""
    return ScanGradients._make(found.get(name) for name in ScanGradients._fields)


def axis_sizes(inputs: ScanInputs) -> dict[str, int]:
    """Size of each axis by its letter, in the order of ``AXES``."""
    weight = inputs.delta_weight
    batch, tokens, channels = inputs.u.shape
    directions, steps = inputs.order.shape[-2:]
    return {
        "B": batch,
        "L": tokens,
        "K": directions,
        "S": steps,
        "E": channels,
        "R": channels if weight is None else weight.shape[-1],
        "N": inputs.A.shape[-1],
    }


class Backend(Protocol):
    """One implementation of the operator. Each backend is a module with these names."""

    NAME: str

    def summary(self) -> str:
        """Describe the backend in a few words."""
        ...

    def unavailable(self) -> str | None:
        """Say why the backend cannot run on this machine and what to do. None if it can."""
        ...

    def declines(self, inputs: ScanInputs) -> str | None:
        """Say why the backend cannot run this call. None if it can."""
        ...

    def forward(self, inputs: ScanInputs, reduce: bool) -> Tensor:
        """Return y in the dtype of u: (B, L, K, E), or (B, L, E) summed over directions."""
        ...

    def backward(self, inputs: ScanInputs, grad_y: Tensor, reduce: bool) -> ScanGradients:
        """Return the gradients of the inputs, given the gradient of y."""
        ...


class KeepingBackend(Backend, Protocol):
    """A backend whose backward pass is faster with what its forward pass has kept."""

    def forward_keeping(self, inputs: ScanInputs, reduce: bool) -> tuple[Tensor, Tensor | None]:
        """Return y, as ``forward`` does, and what ``backward_kept`` takes; None if nothing."""
        ...

    def backward_kept(
        self, inputs: ScanInputs, kept: Tensor, grad_y: Tensor, reduce: bool
    ) -> ScanGradients:
        """Return the gradients, as ``backward`` does."""
        ...
