"""CUDA graphs: a network on small images of one size, without the time of its launches.

A network is some thousand small kernels, and Python takes longer to launch them than a GPU to run
them on a small image: MambaIR light at 64 x 64 pixels takes 5 ms of a GPU and 45 ms of Python. A
CUDA graph records the kernels once and launches them all together.

A size is recorded when it has come a few times, if the network consists of parts of this package
and CUDA graphs have passed their self-check on this GPU (:mod:`zoo.inference.graph_check`). A new
recording is compared with an ordinary run, and so are the replays 2, 4, 8, 16 and so on.
ZOO_CUDA_GRAPHS=0 switches recording off.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from threading import Lock
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from zoo.blocks.joined import is_plain
from zoo.inference.graph_recording import CudaRecording, Record, Recording, Run
from zoo.ops.passes.conditions import is_watched
from zoo.ops.precision import Precision, tf32_settings
from zoo.ops.scan import triton
from zoo.ops.scan.dispatch import asked_for
from zoo.ops.scan.self_check import part_serves_on_gpu, serves_on_gpu
from zoo.ops.scan.self_check.cases import relative

logger = logging.getLogger(__name__)

ENVIRONMENT = "ZOO_CUDA_GRAPHS"

NAME, PLAN = "the recording of networks", "zoo.inference.graph_check:ON_A_GPU"
"""What is checked, and where its cases are."""

PIXELS = 512 * 512
"""Images of more pixels are not recorded: the GPU, not Python, bounds their time, and a recording
keeps the memory of a run."""

RUNS = 3
"""A size is recorded after so many runs. They choose algorithms, compile kernels and build scan
orders, which cannot be recorded, and a size that seldom comes is not worth a recording."""

KEPT = 8
"""Recordings kept for a network; the oldest makes room."""

ALLOWED: dict[Precision, float] = {"fp32": 1e-3, "bf16": 5e-2, "fp16": 5e-2}
"""Deviation of a replay from an ordinary run that is allowed in any case, relative to the norm."""

_TIMES_NOISE = 4
"""More is allowed if two ordinary runs differ by a quarter of it: sums of several programs are
added in no fixed order, and a network magnifies the last bits."""

_PACKAGES = {"zoo", "torch"}
"""Modules of other packages may do in Python what a replay would leave out."""


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
    """Runs a network, and records it where that is faster and known to be right.

    It keeps no reference to the network.

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
        """Why nothing is recorded any more; "" if nothing spoke against it."""
        self._record = record
        self._is_trusted = is_trusted or serves
        self._runs: dict[object, int] = {}
        self._recordings: dict[object, _Kept] = {}
        self._state: list[object] = []
        self._holds: list[object] = []
        self._lock = Lock()

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
        if self.refusal or not _may_be_recorded(network, inputs):
            return run(*inputs)
        with self._lock:
            state, holds = state_of(network)
            if state != self._state:
                self._drop()
                self._state, self._holds = state, holds
            key = (precision, *_surroundings(), *((t.shape, t.stride(), t.dtype) for t in inputs))
            kept = self._recordings.get(key)
            if kept is not None and not kept.is_due():
                return kept.recording.replay(inputs).clone()
            expected = run(*inputs)
            self._runs[key] = self._runs.get(key, 0) + 1
            if self._runs[key] <= RUNS or not bool(expected.isfinite().all()):
                return expected
            if kept is None:
                kept = self._made(key, network, run, inputs)
            if kept is not None:
                replayed = kept.recording.replay(inputs)
                wrong = deviation_of(replayed, expected, lambda: run(*inputs), precision)
                if wrong:
                    self._give_up(network, kept, wrong)
            return expected

    def forget(self) -> None:
        """Give back the memory of all recordings."""
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        self._runs, self._recordings, self._state, self._holds = {}, {}, [], []

    def _made(
        self, key: object, network: nn.Module, run: Run, inputs: Sequence[Tensor]
    ) -> _Kept | None:
        """Make a recording and keep it; None if that is not possible."""
        if not self._is_trusted(inputs[0].device):
            self._refuse("graphs are not trusted here")
            return None
        own = {t.untyped_storage().data_ptr() for t in _tensors(network)}
        before = [each.recording for each in self._recordings.values()]
        try:
            made = _Kept(self._record(run, inputs, own, before))
        except Exception as error:
            self._refuse(f"{type(error).__name__}: {error}")
            return None
        if len(self._recordings) >= KEPT:
            del self._recordings[next(iter(self._recordings))]
        self._recordings[key] = made
        return made

    def _give_up(self, network: nn.Module, kept: _Kept, wrong: str) -> None:
        """Give up recordings, because a replay was wrong."""
        before = kept.replays - 1
        logger.warning(
            "a CUDA graph of %s gives another result (%s), so its kernels are launched singly from "
            "now on%s; please report it with what 'zoo doctor --gpu' writes",
            *(type(network).__name__, wrong),
            f"; restore the last {before} images of this size again" if before > 0 else "",
        )
        self._refuse(f"a replay was wrong: {wrong}")

    def _refuse(self, reason: str) -> None:
        logger.debug("runs without CUDA graphs: %s", reason)
        self.refusal = reason
        self._drop()


def deviation_of(
    found: Tensor, expected: Tensor, again: Callable[[], Tensor], precision: Precision
) -> str:
    """Say how far a replay is from an ordinary run; "" if it is as near as it should be.

    Args:
        found: the result of the replay.
        expected: the result of the ordinary run.
        again: makes the ordinary run once more.
        precision: that of the runs.
    """
    deviation, allowed = relative(found, expected), ALLOWED[precision]
    if deviation <= allowed:
        return ""
    allowed = max(allowed, _TIMES_NOISE * relative(again(), expected))
    if deviation <= allowed:
        return ""
    return f"it deviates by {deviation:.1e}, and {allowed:.1e} is allowed"


def serves(device: torch.device) -> bool:
    """Whether scans run on Triton here, and CUDA graphs have passed their self-check."""
    if os.environ.get(ENVIRONMENT) == "0" or triton.unavailable() is not None:
        return False
    if asked_for(None) not in ("", triton.NAME) or not serves_on_gpu(triton, device):
        return False
    return part_serves_on_gpu(NAME, PLAN, device, "kernels are launched singly")


def is_made_of_known_parts(network: nn.Module) -> bool:
    """Whether running the network runs nothing but modules of this package, in PyTorch."""
    return getattr(network, "runs_in_torch", True) and all(
        type(module).__module__.partition(".")[0] in _PACKAGES and is_plain(module)
        for module in network.modules()
    )


def state_of(network: nn.Module) -> tuple[list[object], list[object]]:
    """What differs if the network may compute otherwise than before, and what that refers to.

    These are the address and the version of each tensor, and the identity of each attribute of a
    module. The attributes must be kept, or others could get their identities.
    """
    state: list[object] = []
    holds: list[object] = []
    for module in network.modules():
        attributes = list(module.__dict__.values())
        state.append(tuple(map(id, attributes)))
        holds.append(attributes)
    state += [(t.data_ptr(), 0 if t.is_inference() else t._version) for t in _tensors(network)]
    return state, holds


def _tensors(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]


def _may_be_recorded(network: nn.Module, inputs: Sequence[Tensor]) -> bool:
    image = inputs[0]
    pixels = image.numel() // image.shape[-3]
    # A recording is replayed in one stream: in another one it would overwrite its own memory.
    return (
        pixels <= PIXELS
        and not network.training
        and not is_watched()
        and _is_ordinary_stream(image.device)
        and is_made_of_known_parts(network)
    )


def _is_ordinary_stream(device: torch.device) -> bool:
    if device.type != "cuda":
        return True
    return torch.cuda.current_stream(device) == torch.cuda.default_stream(device)


def _surroundings() -> tuple[object, ...]:
    """Settings outside the network that change which kernels run."""
    return (
        asked_for(None),
        os.environ.get(ENVIRONMENT),
        tf32_settings(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cuda") and torch.get_autocast_dtype("cuda"),
    )


_recorders: WeakKeyDictionary[nn.Module, Recorder] = WeakKeyDictionary()
_lock = Lock()


def recorder(network: nn.Module) -> Recorder:
    """Return the recorder of a network, the same for all its images."""
    with _lock:
        if network not in _recorders:
            _recorders[network] = Recorder()
        return _recorders[network]


def forget(network: nn.Module) -> None:
    """Give back the memory of all recordings of a network."""
    if network in _recorders:
        _recorders[network].forget()
