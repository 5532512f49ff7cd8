"""A mixer and what follows it, prepared once: later calls only pass addresses to the C++ library.

Looking at each layer, checking each tensor and describing each call takes Python longer than the
library takes for a small image. For a block that has not changed since, and features of a shape
that it has had, all of this is known: see :class:`zoo.blocks.unchanged.Unchanged`. Values of
parameters are read anew in each call.

Shape suffixes: B batch, H height, W width, C channels, E inner channels, L tokens (H * W),
K directions, X outputs of a projection, Z channels that a stage keeps.
"""

from __future__ import annotations

import ctypes
import math
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from zoo.blocks.direction_merge import SumMerge
from zoo.blocks.joined import is_plain
from zoo.blocks.ss2d import SS2D
from zoo.blocks.unchanged import Unchanged
from zoo.ops.passes import (
    LEAST_WIDTH,
    Layer,
    NormStage,
    ProductStage,
    Stage,
    gain_fits,
    library,
    stages_fit,
)
from zoo.ops.passes.conditions import may_run
from zoo.ops.passes.library import ZooGain, ZooTokens, address
from zoo.ops.passes.rows import ZooRows, described
from zoo.ops.passes.workspace import workspace
from zoo.ops.scan import native
from zoo.ops.scan.checks import check_tensors
from zoo.ops.scan.contract import ScanInputs
from zoo.ops.scan.dispatch import asked_for, choose


class Gained(NamedTuple):
    """The sum that ends a block: the first kept features times a scale, and the last times a gain.

    See :func:`zoo.ops.passes.channel_gain` and :func:`zoo.ops.passes.scaled_sum`.
    """

    reduce: Layer
    expand: Layer
    scale: Tensor | None


class Ending(NamedTuple):
    """What follows a scan.

    Attributes:
        stages: the mixer's last two stages and those after them.
        gained: a sum of the two results that they keep, or None to return what they keep.
    """

    stages: list[Stage]
    gained: Gained | None = None


Last = Callable[[NormStage, ProductStage, Tensor], Ending | None]
"""How a block ends, given a mixer's last stages and the features that the block got; or None."""

MOST_SHAPES = 4
"""For how many shapes of features a block is prepared at a time."""
FLOAT = 4
"""Bytes."""
LINE = 16
"""Floats of a cache line."""


class Prepared:
    """What one block, the owner, has prepared; it is neither copied nor saved with it."""

    def __init__(self) -> None:
        self._threads = threading.local()  # a call writes addresses into what is prepared

    def __deepcopy__(self, memo: object) -> Prepared:
        return Prepared()

    def __reduce__(self) -> tuple[type[Prepared], tuple[()]]:
        return Prepared, ()

    def __eq__(self, other: object) -> bool:
        """What is prepared is no setting of a block: blocks that differ in it alone are alike."""
        return isinstance(other, Prepared)

    __hash__ = object.__hash__

    def through(
        self, owner: nn.Module, x_BHWC: Tensor, mixer: SS2D, norm: nn.Module | None, last: Last
    ) -> list[Tensor] | None:
        """Compute norm, mixer and what follows; return the sum, or what the stages keep.

        None where that does not run: under the conditions of :mod:`zoo.ops.passes`, and if the
        scan is to run elsewhere or its directions are not just summed.

        Args:
            owner: the block; everything that is computed depends on it alone.
            x_BHWC: features.
            mixer: the mixer, an ordinary one.
            norm: a norm that comes first, or None.
            last: tells how the block ends.
        """
        if not may_run(x_BHWC) or not x_BHWC.is_contiguous() or torch.autograd._profiler_enabled():
            return None
        if torch.is_autocast_enabled("cpu") or (torch.is_grad_enabled() and x_BHWC.requires_grad):
            return None
        found: _Owned | None = getattr(self._threads, "found", None)
        if found is None or found.owner is not owner or not found.unchanged.holds():
            found = self._threads.found = _Owned(owner, Unchanged(owner), {})
        if found.unchanged.needs_gradient():
            return None
        shape = x_BHWC.shape
        if shape not in found.calls:
            if len(found.calls) == MOST_SHAPES:
                found.calls.clear()
            runs = may_run(*owner.parameters())
            own = {_storage(parameter) for parameter in owner.parameters()} if runs else set()
            found.calls[shape] = _Call.prepared(x_BHWC, mixer, norm, last, own) if runs else None
        call = found.calls[shape]
        if call is None or choose(_TOKENS, asked_for(None)) is not native:
            return None
        return call.run(x_BHWC)


class _Owned(NamedTuple):
    """What a thread knows about the block that a ``Prepared`` belongs to."""

    owner: nn.Module
    unchanged: Unchanged
    calls: dict[torch.Size, _Call | None]


_TOKENS = ScanInputs(*[torch.empty(0)] * len(ScanInputs._fields))
"""Tokens as the choice of a backend looks at them: their dtype and device."""


class _Places(NamedTuple):
    """Where intermediate results lie in the workspace, in floats.

    The first stages keep the gate and the tokens, and give their projection. ``scanned`` are the
    tokens after the scan. What the last stages keep, before a sum, lies where the tokens and their
    projection have been.
    """

    gate: int
    scanned: int
    tokens: int
    projected: int
    features: int
    changed: int
    gain: int
    end: int

    @classmethod
    def of(cls, shape: Sequence[int], inner: int, projected: int) -> _Places:
        """Places for features of a shape, (B, H, W, C)."""
        pixels = math.prod(shape[:3])
        of_tokens, of_features = _whole_lines(pixels * inner), _whole_lines(math.prod(shape))
        tokens = features = 2 * of_tokens
        of_projected = _whole_lines(pixels * projected)
        gain = max(tokens + of_tokens + of_projected, features + 2 * of_features)
        return cls(
            gate=0,
            scanned=of_tokens,
            tokens=tokens,
            projected=tokens + of_tokens,
            features=features,
            changed=features + of_features,
            gain=gain,
            end=gain + _whole_lines(shape[0] * shape[3]),
        )


class _Call:
    """The calls of the library for features of one shape: rows, scan, rows."""

    def __init__(
        self,
        places: _Places,
        mixer: SS2D,
        inputs: ScanInputs,
        first: tuple[Any, ...],
        last: tuple[Any, ...],
        end: _End | None,
    ) -> None:
        self.places = places
        self.mixer = mixer
        self.order = inputs.order
        self.scan = native.describe(inputs, reduce=True)
        (self.first, self.first_stages, self.first_kept) = first
        (self.last, self.last_stages, self.last_kept) = last
        self.end = end
        self.base = 0

    @classmethod
    def prepared(
        cls, x_BHWC: Tensor, mixer: SS2D, norm: nn.Module | None, last: Last, own: set[int]
    ) -> _Call | None:
        """Prepare the calls; None if one of them cannot run.

        Args:
            x_BHWC, mixer, norm, last: see :meth:`Prepared.through`.
            own: where the storages of the block's parameters lie. Nothing else is watched, so
                buffers and tensors that are computed at each call must not be read.
        """
        first_stages = mixer.first_stages(norm)
        merge = getattr(mixer, "merge", None)
        if first_stages is None or type(merge) is not SumMerge or not is_plain(merge):
            return None
        batch, height, width, _ = x_BHWC.shape
        weight_KXE = mixer.x_proj_weight
        if not weight_KXE.is_contiguous():  # its stage has a copy
            return None
        inner, outputs = weight_KXE.shape[-1], weight_KXE.shape[0] * weight_KXE.shape[1]
        places = _Places.of(x_BHWC.shape, inner, outputs)
        memory = workspace(places.end)

        def features(start: int, channels: int) -> Tensor:
            shape = (batch, height, width, channels)
            return memory[start : start + math.prod(shape)].view(shape)

        last_stages = mixer.leave_stages(features(places.gate, inner))
        ending = None if last_stages is None else last(*last_stages, x_BHWC)
        if ending is None or not all(map(_as_read, (*first_stages, *ending.stages))):
            return None
        y_BHWE = features(places.scanned, inner)
        fit = stages_fit(x_BHWC, first_stages) and stages_fit(y_BHWE, ending.stages)
        if width < LEAST_WIDTH or not fit:
            return None
        read: list[Tensor] = [mixer.A_log, mixer.D, mixer.dt_proj_weight, mixer.dt_proj_bias]
        read += [t for stage in (*first_stages, *ending.stages) for t in _weights(stage)]
        if ending.gained is not None:
            reduce, expand, scale_C = ending.gained
            read += [t for t in (*reduce, *expand, scale_C) if t is not None]
        if not all(isinstance(t, Tensor) and _storage(t) in own for t in read):
            return None
        order_KS = mixer.scan.order(height, width, x_BHWC.device)
        projected_BLKX = features(places.projected, outputs).flatten(1, 2)
        inputs = mixer.scan_inputs(
            features(places.tokens, inner).flatten(1, 2),
            order_KS,
            projected_BLKX.unflatten(-1, weight_KXE.shape[:2]),
        )
        check_tensors(inputs)
        if any(t is not None and not t.is_contiguous() for t in _parameters(inputs)):
            return None
        end = None
        if ending.gained is not None:
            end = _End.prepared(x_BHWC, ending.gained)
            if end is None:
                return None
        first_rows, last_rows = _rows(x_BHWC, first_stages), _rows(y_BHWE, ending.stages)
        return cls(places, mixer, inputs, first_rows, last_rows, end)

    def run(self, x_BHWC: Tensor) -> list[Tensor]:
        """Compute everything for features of the right shape."""
        memory = workspace(self.places.end)
        self._place(memory.data_ptr())
        x = x_BHWC.data_ptr()
        self.first.x = x
        library.run("zoo_rows", ctypes.byref(self.first))
        decay_KEN = self.mixer.decays()
        self.scan.A = decay_KEN.data_ptr()
        native.run("zoo_scan_forward", self.order, self.scan, self.last.x)
        if self.last_stages[1].skip:
            self.last_stages[1].skip = x
        outs = []
        if self.end is None:
            for index, channels in self.last_kept:
                out_BHWZ = x_BHWC.new_empty(*x_BHWC.shape[:3], channels)
                self.last_stages[index].out = out_BHWZ.data_ptr()
                outs.append(out_BHWZ)
        library.run("zoo_rows", ctypes.byref(self.last))
        if self.end is not None:
            outs.append(torch.empty_like(x_BHWC))
            self.end.run(outs[0].data_ptr())
        return outs

    def _place(self, base: int) -> None:
        """Let all calls use the workspace at this address."""
        if base == self.base:
            return
        self.base, places = 0, self.places  # until all is placed: Ctrl-C may come in between
        at = {name: base + FLOAT * start for name, start in places._asdict().items()}
        kept = (at["gate"], at["tokens"], at["projected"])
        for (index, _), out in zip(self.first_kept, kept, strict=True):
            self.first_stages[index].out = out
        rank, states, _ = self.mixer.sizes
        scan = self.scan
        scan.u, scan.delta = at["tokens"], at["projected"]
        scan.B = scan.delta + FLOAT * rank
        scan.C = scan.B + FLOAT * states
        self.last_stages[0].gate = at["gate"]
        self.last.x = at["scanned"]
        if self.end is not None:
            features, changed, gain = (at[n] for n in ("features", "changed", "gain"))
            for (index, _), out in zip(self.last_kept, (features, changed), strict=True):
                self.last_stages[index].out = out
            self.end.place(features, changed, gain)
        self.base = base


class _End(NamedTuple):
    """The calls of a ``Gained``."""

    gain: ZooGain
    total: ZooTokens

    @classmethod
    def prepared(cls, x_BHWC: Tensor, gained: Gained) -> _End | None:
        """Prepare the calls; None if one of them cannot run."""
        reduce, expand, scale_C = gained
        if not gain_fits(x_BHWC, reduce, expand) or not (
            scale_C is None or scale_C.is_contiguous()
        ):
            return None
        if not all(t is None or t.is_contiguous() for t in (*reduce, *expand)):
            return None
        images, height, width, channels = x_BHWC.shape
        sizes = {"images": images, "tokens": height * width, "channels": channels}
        gain = ZooGain(
            **sizes,
            hidden=reduce.weight.shape[0],
            x_stride=channels,
            reduce_weight=address(reduce.weight),
            reduce_bias=address(reduce.bias),
            expand_weight=address(expand.weight),
            expand_bias=address(expand.bias),
        )
        total = ZooTokens(**sizes, scale=address(scale_C), x_stride=channels, skip_stride=channels)
        return cls(gain, total)

    def place(self, features: int, changed: int, gain: int) -> None:
        """Let both calls read at these addresses, and the gain be written to the last one."""
        self.gain.x = self.total.x = changed
        self.total.skip = features
        self.gain.out = self.total.gain = gain

    def run(self, out: int) -> None:
        """Compute the sum and write it to an address."""
        library.run("zoo_gain", ctypes.byref(self.gain))
        self.total.sum = out
        library.run("zoo_tokens", ctypes.byref(self.total))


def _whole_lines(floats: int) -> int:
    return math.ceil(floats / LINE) * LINE


def _as_read(stage: Stage) -> bool:
    """Whether the library reads the stage's tensors where they lie, without copies."""
    return all(t.is_contiguous() for t in stage if isinstance(t, Tensor))


def _weights(stage: Stage) -> list[Tensor]:
    """What a stage reads that is neither features nor a gate."""
    names = ("weight", "bias", "scale")
    found = [getattr(stage, name, None) for name in names]
    return [each for each in found if each is not None]


def _storage(tensor: Tensor) -> int:
    """Where the memory lies that a tensor is a part of."""
    return tensor.untyped_storage().data_ptr()


def _parameters(inputs: ScanInputs) -> tuple[Tensor | None, ...]:
    return inputs.delta_weight, inputs.delta_bias, inputs.A, inputs.D, inputs.order


def _rows(x_BHWC: Tensor, stages: list[Stage]) -> tuple[Any, ...]:
    """A call of the pass over rows, its stages, and which of them return channels."""
    places, kept, _ = described(x_BHWC.shape[3], stages)
    *pixels, channels = x_BHWC.shape
    call = ZooRows(
        **dict(zip(("batch", "height", "width"), pixels, strict=True)),
        x_stride=channels,
        count=len(stages),
        stages=ctypes.addressof(places),
    )
    return call, places, kept
