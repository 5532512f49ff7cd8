"""What the selective scan takes, and what a backend must offer.

:class:`ScanInputs` declares the operator's tensors, and :data:`SCHEMA` is read from it. All else is
read from :data:`SCHEMA`: the operator's signature and checks, the C structures of the native
backend, and the inputs of exported nodes. Tests compare the C++ sources with it.

Shape suffixes, used by every file of this package:
    B batch, L tokens (row-major), K directions, S steps of a direction, E inner channels,
    R rank of the low-rank step (R = E where delta comes without a projection), N states.
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
"""What the letters of a shape stand for."""


class Kind(Enum):
    """Which dtype a tensor has, and whether it has a gradient."""

    TOKENS = "tokens"
    """The dtype of u; may be a strided view."""
    PARAMETER = "parameter"
    """The dtype of the state: float64 for float64 tokens, float32 for all others."""
    ORDER = "order"
    """int32, without a gradient."""


class ScanInputs(NamedTuple):
    """The tensors of the operator, checked and with parameters already in state dtype."""

    u: Annotated[Tensor, "BLE", Kind.TOKENS]
    """Tokens."""
    delta: Annotated[Tensor, "BLKR", Kind.TOKENS]
    """Low-rank step, or the step itself, (B, L, K, E), where ``delta_weight`` is None."""
    delta_weight: Annotated[Tensor | None, "KER", Kind.PARAMETER]
    """Projection of the step, or None."""
    delta_bias: Annotated[Tensor, "KE", Kind.PARAMETER]
    A: Annotated[Tensor, "KEN", Kind.PARAMETER]
    """Negative."""
    B: Annotated[Tensor, "BLKN", Kind.TOKENS]
    C: Annotated[Tensor, "BLKN", Kind.TOKENS]
    D: Annotated[Tensor, "KE", Kind.PARAMETER]
    order: Annotated[Tensor, "KS", Kind.ORDER]
    """Entries in -1 .. L-1, no token twice in a direction."""


class ScanGradients(NamedTuple):
    """Gradients in the sequence, shape and dtype of the inputs they belong to."""

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
    """What one tensor of the operator must be.

    Attributes:
        axes: a letter for each dimension.
        kind: tells its dtype.
        optional: whether it may be None.
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
"""The tensors of the operator by name, in the sequence of its arguments."""

TOKENS, PARAMETERS, ORDER = (
    tuple(name for name, spec in SCHEMA.items() if spec.kind is kind) for kind in Kind
)
"""Names of the tensors of a kind."""


def differentiable(inputs: ScanInputs) -> dict[str, Tensor]:
    """The given tensors that have gradients, by name."""
    named = inputs._asdict()
    return {name: named[name] for name in ScanGradients._fields if named[name] is not None}


def gradients_of(found: Mapping[str, Tensor]) -> ScanGradients:
    """Gradients by name as a tuple; None for those that are missing."""
    return ScanGradients._make(found.get(name) for name in ScanGradients._fields)


def axis_sizes(inputs: ScanInputs) -> dict[str, int]:
    """Size of each axis by its letter, in the sequence of ``AXES``."""
    weight = inputs.delta_weight
    batch, tokens, channels = inputs.u.shape
    directions, steps = inputs.order.shape
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
    """One implementation of the operator. Modules of this package satisfy it by their names."""

    NAME: str

    def summary(self) -> str:
        """What the backend is, in a few words."""
        ...

    def unavailable(self) -> str | None:
        """Why the backend cannot run on this machine and what to do, or None if it can."""
        ...

    def declines(self, inputs: ScanInputs) -> str | None:
        """Why the backend cannot serve this call, or None if it can."""
        ...

    def forward(self, inputs: ScanInputs, reduce: bool) -> Tensor:
        """Return y in the dtype of u: (B, L, K, E), or (B, L, E) summed over directions."""
        ...

    def backward(self, inputs: ScanInputs, grad_y: Tensor, reduce: bool) -> ScanGradients:
        """Return the gradients of the inputs for the gradient of y."""
        ...
