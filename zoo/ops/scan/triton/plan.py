"""What calls of the same kind share: their sizes, and their kernels, ready to be launched.

Two calls are of the same kind if their tensors have the same shapes, strides, dtypes and device.
Triton's own launcher looks at each of some fifty arguments at every launch, which takes longer than
a small scan; a :class:`Launch` knows all but the tensors.

Shape suffixes: see :mod:`zoo.ops.scan.triton.kernels`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import triton
from torch import Tensor

from zoo.ops.scan.contract import ScanInputs
from zoo.ops.scan.triton.configurations import Configuration, chunk_length, configuration

STEPS_PACKED = 32
"""Steps whose rows a program packs."""

STEPS_PAST_END = 3
"""Steps after the last one that kernels may load: at least two, and gradient_steps - 1."""

SECTOR = 8
"""Numbers that memory moves at once; rows are padded to a multiple of it."""

KEPT = 256
"""Kinds of calls that are remembered: more than a network has, at some image sizes."""


@functools.cache
def processors(device: torch.device) -> int:
    """Number of multiprocessors of a GPU."""
    if device.type != "cuda":
        return 1
    return torch.cuda.get_device_properties(device).multi_processor_count


def on(device: torch.device) -> AbstractContextManager[Any]:
    """Make ``device`` current: Triton launches on the current device, not on the tensors'."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


class Launch:
    """A kernel with the number of its programs and all arguments but its tensors."""

    def __init__(
        self, kernel: Any, programs: int, constants: Mapping[str, Any], options: Mapping[str, Any]
    ) -> None:
        self.kernel, self.grid, self.options = kernel, (programs, 1, 1), dict(options)
        self.names: list[str] = kernel.arg_names
        self.arguments = [None if n.endswith("_ptr") else constants[n] for n in self.names]
        self.slots = [(index, n) for index, n in enumerate(self.names) if n.endswith("_ptr")]
        self.binaries: dict[int, Any] = {}

    def __call__(self, tensors: Mapping[str, Tensor]) -> None:
        arguments, aligned = self.arguments.copy(), 1
        for index, name in self.slots:
            tensor = arguments[index] = tensors[name]
            # Triton compiles another binary for memory that does not start at 16 bytes.
            aligned = 2 * aligned + (tensor.data_ptr() % 16 == 0)
        binary = self.binaries.get(aligned)
        if binary is None:
            binary = self.binaries[aligned] = self.compiled(arguments)
        binary[self.grid](*arguments)

    def compiled(self, arguments: list[Any]) -> Any:
        """The binary for tensors like these; in Triton's interpreter, the kernel itself."""
        if not isinstance(self.kernel, triton.runtime.JITFunction):
            return self.kernel
        # The recurrence consists of fused multiply-adds, and Triton's default is about to change.
        return self.kernel.warmup(
            *arguments, grid=self.grid, num_warps=1, enable_fp_fusion=True, **self.options
        )


class Plan:
    """The sizes of a kind of calls, and the arguments that its kernels share."""

    def __init__(self, inputs: ScanInputs, grad_y: Tensor | None) -> None:
        u, delta, weight, _, A, B, C, _, order = inputs
        self.batch, self.tokens, self.channels = u.shape
        self.directions, self.steps = order.shape[-2:]
        self.states, self.rank = A.shape[2], 0 if weight is None else delta.shape[3]
        self.low_rank = weight is not None
        self.table: Configuration = configuration(u.device)
        self.processors = processors(u.device)

        gradients = grad_y is not None
        states = triton.next_power_of_2(self.states)
        self.block = self.table.channels(states, gradients=gradients)
        self.blocks = -(-self.channels // self.block)
        lanes = self.batch * self.directions * self.blocks
        self.length = chunk_length(
            self.steps, lanes, self.processors, self.table, gradients=gradients
        )
        self.chunks = -(-self.steps // self.length)
        rank = triton.next_power_of_2(max(1, self.rank))
        width = 2 * states + (rank if self.low_rank else 0)
        self.width = -(-width // SECTOR) * SECTOR
        self.held = self.steps + STEPS_PAST_END

        shared = order.dim() == 2
        self.constants: dict[str, Any] = {
            **{"tokens": self.tokens, "steps": self.steps, "directions": self.directions},
            **{"channels": self.channels, "rank": self.rank, "states": self.states},
            **{"chunks": self.chunks, "length": self.length, "blocks": self.blocks},
            **{"batch": self.batch, "held": self.held, "LOW_RANK": self.low_rank},
            **{"BLOCK_N": states, "BLOCK_E": self.block, "BLOCK_R": rank, "WIDTH": self.width},
            **{"order_b": 0 if shared else order.stride(0), "order_k": order.stride(-2)},
        }
        for name, tensor in (("u", u), ("delta", delta), ("B", B), ("C", C)):
            self.constants |= strides(name, tensor)
        if grad_y is not None:
            self.constants |= {"gy_k": 0, **strides("gy", grad_y)}
        else:
            self.constants |= {"gy_b": 0, "gy_l": 0, "gy_k": 0}  # never read
        self._launches: dict[Any, Launch] = {}

    def launch(
        self,
        kernel: Any,
        programs: int,
        tensors: Mapping[str, Tensor],
        registers: int = 0,
        **constants: Any,
    ) -> None:
        """Launch a kernel.

        Args:
            kernel: the kernel.
            programs: their number.
            tensors: its tensors by argument name, and maybe others.
            registers: the largest number of registers of a lane; 0 leaves it to the compiler.
            constants: arguments beside or instead of those of :attr:`constants`.
        """
        key = (kernel.__name__, programs, registers, *constants.values())
        found = self._launches.get(key)
        if found is None:
            known = self.constants | constants
            found = self._launches[key] = Launch(kernel, programs, known, _at_most(registers))
        found(tensors)

    def slots(self, pairs: int) -> int:
        """Number of programs that share the chunks of one of ``pairs`` (direction, channel block)
        pairs."""
        at_once = self.table.gradient_warps * self.processors // pairs
        return max(1, min(at_once, self.batch * self.chunks))


def _at_most(registers: int) -> dict[str, int]:
    """Option of a launch that limits registers, which AMD's compiler does not have."""
    return {"maxnreg": registers} if registers and torch.version.hip is None else {}


_plans: dict[Any, Plan] = {}


def plan_of(inputs: ScanInputs, grad_y: Tensor | None) -> Plan:
    """The plan of a kind of calls; if there are too many, the oldest is forgotten."""
    key = tuple(
        None if t is None else (t.shape, t.stride(), t.dtype, t.device) for t in (*inputs, grad_y)
    )
    plan = _plans.get(key)
    if plan is None:
        plan = _plans[key] = Plan(inputs, grad_y)
        for oldest in list(_plans)[:-KEPT]:
            _plans.pop(oldest, None)
    return plan


def forget_plans() -> None:
    """Forget all plans, which a change of the configuration makes wrong."""
    _plans.clear()


def strides(name: str, tensor: Tensor) -> dict[str, int]:
    """Strides of all axes but the last, by argument name; K is missing in sums over directions."""
    axes = (f"{name}_b", f"{name}_l", f"{name}_k")
    return dict(zip(axes, tensor.stride()[:-1], strict=False))
