"""CUDA graphs: a network on small images of one size, without the time of its launches.

A network is some thousand small kernels, and Python takes longer to launch them than a GPU to run
them on a small image: MambaIR light at 64 x 64 pixels takes 5 ms of a GPU and 45 ms of Python. A
CUDA graph records the kernels once and launches them all together.

Only ZOO_CUDA_GRAPHS=1 switches recording on: it has not run on a GPU yet. A size is recorded when
it has come a few times, if the network consists of parts of this package and recording has passed
its self-check on this GPU (:mod:`zoo.inference.graph_check`). A new recording is compared with an
ordinary run, and so are the replays 2, 4, 8, 16 and so on.

One network at a time has recordings: the first that qualifies, until it changes, is gone or
:func:`forget` is called. Destroying a graph may take memory away that others of its stream use.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from zoo.inference.graph_recording import (
    CudaRecording,
    NotRecordableError,
    Record,
    Recording,
    Run,
)
from zoo.inference.recordable import may_be_recorded, state_of, surroundings, tensors_of
from zoo.ops.precision import Precision
from zoo.ops.scan import triton
from zoo.ops.scan.dispatch import asked_for
from zoo.ops.scan.self_check import part_serves_on_gpu, serves_on_gpu
from zoo.ops.scan.self_check.cases import relative

logger = logging.getLogger(__name__)

NAME, PLAN = "the recording of networks", "zoo.inference.graph_check:ON_A_GPU"
"""What is checked, and where its cases are."""

RUNS = 3
"""A size is recorded after so many runs. They choose algorithms, compile kernels and build scan
orders, which cannot be recorded, and a size that seldom comes is not worth a recording."""

KEPT = 8
"""Sizes that are recorded. Others run as usual."""

ALLOWED: dict[bool, float] = {False: 1e-3, True: 5e-2}
"""Deviation of a replay from an ordinary run that is allowed in any case, relative to the norm:
without and with half precision."""

_TIMES_NOISE = 4
"""More is allowed if two ordinary runs differ by a quarter of it: sums of several programs are
added in no fixed order, and a network magnifies the last bits."""


class _Kept:
    """A recording, and how often it was replayed."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.replays = 0

    def is_due(self) -> bool:
        """Count a replay, and return whether it is to be compared with an ordinary run."""
        self.replays += 1
        return self.replays > 1 and self.replays.bit_count() == 1


class Recorder:
    """Runs networks, and records one of them where that is faster and known to be right.

    Args:
        record: makes a recording.
        is_trusted: whether recordings may be made on a device.
    """

    def __init__(
        self,
        record: Record = CudaRecording,
        is_trusted: Callable[[torch.device], bool] | None = None,
    ) -> None:
        self.refusal = ""
        """Why nothing is recorded any more in this process; "" if nothing spoke against it."""
        self._record = record
        self._is_trusted = is_trusted or serves
        self._refused: weakref.WeakSet[nn.Module] = weakref.WeakSet()
        self._lock = threading.RLock()
        self._network: Callable[[], nn.Module | None] = lambda: None
        self._runs: dict[object, float] = {}
        self._recordings: dict[object, _Kept] = {}
        self._state: list[object] = []
        self._holds: list[object] = []

    def __call__(
        self, network: nn.Module, run: Run, inputs: Sequence[Tensor], precision: Precision
    ) -> Tensor:
        """Return ``run(*inputs)``, maybe by a replay.

        Args:
            network: the network.
            run: runs it, and nothing else.
            inputs: tensors on its device.
            precision: that of the run.
        """
        if self.refusal or network in self._refused or not may_be_recorded(network, inputs):
            return run(*inputs)
        if not self._lock.acquire(blocking=False):
            return run(*inputs)  # another thread records or replays
        try:
            return self._run(network, run, inputs, precision)
        finally:
            self._lock.release()

    def _run(
        self, network: nn.Module, run: Run, inputs: Sequence[Tensor], precision: Precision
    ) -> Tensor:
        owner = self._network()
        if owner is not network:
            if owner is not None and self._recordings:
                return run(*inputs)
            self._take(network)
        state, holds = state_of(network)
        if state != self._state:
            self._take(network)
            self._state, self._holds = state, holds
        key = (precision, *surroundings(), *((t.shape, t.stride(), t.dtype) for t in inputs))
        kept = self._recordings.get(key)
        if kept is not None and not kept.is_due():
            return kept.recording.replay(inputs).clone()
        expected = run(*inputs)
        self._runs[key] = self._runs.get(key, 0) + 1
        if kept is None:
            worth = self._runs[key] > RUNS and len(self._recordings) < KEPT
            if not worth or not bool(expected.isfinite().all()):
                return expected
            kept = self._made(key, network, run, inputs)
        if kept is not None:
            replayed = kept.recording.replay(inputs)
            half = _is_half(inputs, precision)
            wrong = deviation_of(replayed, expected, lambda: run(*inputs), half=half)
            if wrong:
                self._give_up(network, kept, inputs, wrong)
        return expected

    @property
    def recorded(self) -> int:
        """Number of sizes that are recorded now."""
        return len(self._recordings)

    def forget(self) -> bool:
        """Give back the memory of all recordings; return whether there were any."""
        with self._lock:
            had = bool(self._recordings)
            self._drop()
        return had

    def stop(self, reason: str) -> None:
        """Record nothing more in this process."""
        self.refusal = reason
        self.forget()

    def _take(self, network: nn.Module) -> None:
        self._drop()
        self._network = weakref.ref(network)

    def _drop(self) -> None:
        self._network = lambda: None
        self._runs, self._recordings, self._state, self._holds = {}, {}, [], []

    def _made(
        self, key: object, network: nn.Module, run: Run, inputs: Sequence[Tensor]
    ) -> _Kept | None:
        """Make a recording and keep it; None if that is not possible."""
        if not self._is_trusted(inputs[0].device):
            self._runs[key] = -float("inf")  # not again with the same settings
            return None
        own = {t.untyped_storage().data_ptr() for t in tensors_of(network)}
        before = [each.recording for each in self._recordings.values()]
        try:
            made = _Kept(self._record(run, inputs, own, before))
        except NotRecordableError as error:
            logger.info("%s is not recorded: %s", type(network).__name__, error)
            self._refused.add(network)
            self._drop()
            return None
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            logger.warning(
                "%s could not be recorded as a CUDA graph, so nothing is recorded any more in this "
                "process: %s",
                *(type(network).__name__, reason),
            )
            self.stop(reason)
            return None
        self._recordings[key] = made
        return made

    def _give_up(
        self, network: nn.Module, kept: _Kept, inputs: Sequence[Tensor], wrong: str
    ) -> None:
        """Record nothing more, because a replay was wrong."""
        height, width = inputs[0].shape[-2:]
        spoilt = f"; restore images again whose tiles have {width} x {height} pixels"
        logger.warning(
            "a CUDA graph of %s gives another result (%s), so kernels are launched singly from now "
            "on%s; please report it with what 'zoo doctor --gpu' writes",
            *(type(network).__name__, wrong, spoilt if kept.replays > 1 else ""),
        )
        self.stop(f"a replay was wrong: {wrong}")


def deviation_of(
    found: Tensor, expected: Tensor, again: Callable[[], Tensor], *, half: bool
) -> str:
    """Say how far a replay is from an ordinary run; "" if it is as near as it should be.

    Args:
        found: the result of the replay.
        expected: the result of the ordinary run.
        again: makes the ordinary run once more.
        half: whether the runs have half precision.
    """
    deviation, allowed = relative(found, expected), ALLOWED[half]
    if deviation <= allowed:
        return ""
    allowed = max(allowed, _TIMES_NOISE * relative(again(), expected))
    if deviation <= allowed:
        return ""
    return f"it deviates by {deviation:.1e}, and {allowed:.1e} is allowed"


def serves(device: torch.device) -> bool:
    """Whether scans run on Triton here, and recording has passed its self-check."""
    asked = asked_for(None)
    if asked not in ("", triton.NAME) or triton.unavailable() is not None:
        return False
    if torch.cuda.get_allocator_backend() != "native":
        return False  # graphs need its private pools
    if not asked and not serves_on_gpu(triton, device):
        return False
    return part_serves_on_gpu(NAME, PLAN, device, "kernels are launched singly")


def _is_half(inputs: Sequence[Tensor], precision: Precision) -> bool:
    narrow = inputs[0].dtype in (torch.bfloat16, torch.float16)
    return precision != "fp32" or narrow or bool(torch.is_autocast_enabled("cuda"))


recorder = Recorder()
"""The recorder of this process."""


def forget() -> bool:
    """Give back the memory of all recordings; return whether there were any."""
    return recorder.forget()


def make_room() -> bool:
    """Give back recordings because memory ran out; return whether there were any. Make no more."""
    if not forget():
        return False
    recorder.stop("memory ran out")
    return True
