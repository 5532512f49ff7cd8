"""Whether a backend is trusted on this machine: measured once, and kept.

A backend with kernels of its own serves by itself only where it has passed its cases: see
:mod:`plans`. Triton is examined in processes of its own (:mod:`processes`), because a wrong kernel
may hang or break the device for the rest of a process. The C++ kernel is examined in a thread of
this process, which takes a tenth of a second; if its instruction set fails, the next lower one is
tried.

ZOO_SELF_CHECK in the environment: 1 checks what has not been checked yet (the default), 0 checks
nothing, and ``force`` checks again. With 0, Triton serves only if an earlier check has passed, and
the C++ kernel serves unchecked.

Nothing is checked while a CUDA graph is captured or a function traced; what is not known then is
not trusted, for this call. Other threads wait while a check is made. The processes that it starts
need no lock of this one, so nothing can wait for itself. Processes that make the same check take
turns by a lock of a file, which ends with its holder.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias

import torch

from zoo.errors import ZooError, is_out_of_memory
from zoo.ops.scan import native
from zoo.ops.scan.contract import Backend
from zoo.ops.scan.self_check import machine, plans, processes, toolchain, verdicts
from zoo.ops.scan.self_check.comparison import first_fault, in_one_line
from zoo.ops.scan.self_check.verdicts import Verdict

logger = logging.getLogger(__name__)

ENVIRONMENT = "ZOO_SELF_CHECK"
Setting: TypeAlias = Literal["0", "1", "force"]

GPU = "cuda"
"""The type of device on which Triton is examined and serves by itself; ROCm has the same name."""

PLAN = f"{plans.__name__}:ON_A_GPU"
"""The cases of a GPU."""

PATIENCE = 900.0
"""Seconds to wait for another process that makes the same check."""

_CPU_LIMIT = 30.0
"""Seconds after which the C++ kernel hangs; its cases take a tenth of one."""

_LOOKS = 30
"""How often it is looked at within that time."""

Examination: TypeAlias = Callable[[], tuple[str, str] | None]
"""Runs cases; returns the first that is wrong and what is wrong, or None."""

_known: dict[tuple[str, str], bool] = {}
"""Decisions of this process by backend and place."""
_lock = threading.Lock()


def _renew_lock() -> None:
    """Make a lock for a process that was forked while a thread, which it has not got, held ours."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


class SelfCheckError(ZooError, ValueError):
    """The environment variable ZOO_SELF_CHECK has an unknown value."""


def setting() -> Setting:
    """Read the environment variable.

    Raises:
        SelfCheckError: if its value is unknown.
    """
    value = os.environ.get(ENVIRONMENT, "") or "1"
    if value not in ("0", "1", "force"):
        raise SelfCheckError(
            f"environment variable {ENVIRONMENT} is {value!r:.50}; it must be 0 (check nothing), "
            "1 (check what is unknown) or force (check again)"
        )
    return value  # type: ignore[return-value]


def serves_on_gpu(backend: Backend, device: torch.device) -> bool:
    """Whether a backend may serve on a GPU without being asked for; checks it if that is unknown.

    Args:
        backend: the backend, which is available.
        device: the GPU, with its number.
    """
    place = (backend.NAME, str(device))
    if place not in _known:
        if device.type != GPU:
            return False
        if _is_recorded() and _kept(_gpu_key(backend, device)) is None:
            return False
        with _lock:
            if place not in _known:
                _known[place] = verdict_on_gpu(backend, device).passed
    return _known[place]


def verdict_on_gpu(backend: Backend, device: torch.device) -> Verdict:
    """Read or make the verdict on a backend, and tell the user what it is."""
    key = _gpu_key(backend, device)
    verdict = _kept(key) or _checked_on_gpu(backend, device, key)
    if verdict.passed:
        took = f" in {verdict.seconds:.0f} s" if verdict.seconds else ""
        logger.debug("%s has passed its self-check%s on %s", backend.NAME, took, key["device"])
    elif setting() != "0" or verdict.case:
        _warn(
            f"the backend {backend.NAME!r} on {key['device']}",
            verdict,
            "'chunked' serves",
            "'zoo doctor --gpu' writes",
        )
    return verdict


def part_serves_on_gpu(part: str, plan: str, device: torch.device, instead: str) -> bool:
    """Whether something beside a backend may serve on a GPU; checks it if that is unknown.

    Args:
        part: what it is called.
        plan: MODULE:NAME of its cases, in groups; each has a method ``fault``.
        device: the GPU, with its number.
        instead: what happens without it, for the warning.
    """
    place = (part, str(device))
    if place not in _known:
        with _lock:
            if place not in _known:
                verdict = _verdict_on_part(part, plan, device)
                if not verdict.passed and (setting() != "0" or verdict.case):
                    what = f"{part} on {machine.of_gpu(device)['device']}"
                    _warn(what, verdict, instead, "'zoo doctor --gpu' writes")
                _known[place] = verdict.passed
    return _known[place]


def _verdict_on_part(part: str, plan: str, device: torch.device) -> Verdict:
    key = machine.of_gpu(device) | {
        **{"part": part, "package": machine.package_code()},
        **{"allocator": machine.allocator()},
    }

    def check() -> Verdict:
        logger.info("checking %s on %s, once", part, key["device"])
        return processes.examine(plan.partition(":")[0], device, plan)

    found = _kept(key)
    if found is not None:
        return found
    if setting() == "0":
        return Verdict(passed=False, error=f"{ENVIRONMENT} is 0", kept=False)
    return _in_turn(key, check)


def kept_verdict(backend: Backend, device: torch.device) -> Verdict | None:
    """Return what an earlier self-check of a backend on a GPU has found; None if there was none."""
    return verdicts.read(_gpu_key(backend, device))


def kept_verdict_on_cpu(part: str) -> Verdict | None:
    """Return what an earlier self-check of a part of the C++ library has found, with its level.

    It is None if there was none.
    """
    return verdicts.read(_cpu_key(part, _level()))


def take_over(backend: Backend, device: torch.device, told: tuple[Mapping[str, str], bool]) -> None:
    """Decide as another process has, if all that a verdict depends on is the same here."""
    key, passed = told
    if _gpu_key(backend, device) == dict(key):
        _known[backend.NAME, str(device)] = passed


def tell_others(backend: Backend, device: torch.device) -> tuple[Mapping[str, str], bool]:
    """Decide, and return what :func:`take_over` needs in the processes that share the work."""
    return _gpu_key(backend, device), serves_on_gpu(backend, device)


def serves_on_cpu(backend: Backend, device: torch.device) -> bool:
    """Whether the C++ kernel may serve; checks its instruction set if that is unknown.

    If it fails, the next lower one that passes is set in ZOO_NATIVE_LEVEL for this process, so that
    all that runs in the library uses it. One that the user has set is not replaced.
    """
    level = _level()
    if (backend.NAME, level) not in _known:
        with _lock:
            level = _first_that_passes(backend, level)
    return _known[backend.NAME, level]


def _first_that_passes(backend: Backend, level: str) -> str:
    """Check an instruction set and then lower ones; the last one if none passes."""
    asked = os.environ.get(native.LEVEL_ENVIRONMENT)

    def examine() -> tuple[str, str] | None:
        wrong = first_fault(backend, plans.ON_A_CPU, torch.device("cpu"))
        return wrong and (str(wrong[0]), wrong[1])

    while True:
        verdict = _verdict_on_cpu(backend.NAME, level, examine)
        _known[backend.NAME, level] = verdict.passed
        if verdict.passed:
            return level
        lower = None if asked else _lower(level)
        instead = "the backend 'chunked'" if lower is None else f"the instruction set {lower}"
        what = f"the C++ kernel with the instruction set {level}"
        _warn(what, verdict, f"{instead} serves", "'zoo doctor' prints")
        if lower is None:
            return level
        os.environ[native.LEVEL_ENVIRONMENT] = level = lower


def part_serves_on_cpu(part: str, examine: Examination) -> bool:
    """Whether another part of the C++ library may serve with its instruction set.

    Args:
        part: what it is called.
        examine: runs its cases; returns the first that is wrong and what is wrong, or None.
    """
    level = _level()
    if (part, level) not in _known:
        with _lock:
            if (part, level) not in _known:
                verdict = _verdict_on_cpu(part, level, examine)
                if not verdict.passed:
                    what = f"the C++ library ({part}) with the instruction set {level}"
                    _warn(what, verdict, "PyTorch's own operators serve", "'zoo doctor' prints")
                _known[part, level] = verdict.passed
    return _known[part, level]


def _level() -> str:
    return native.level() or ""


def _lower(level: str) -> str | None:
    """The next lower instruction set that this processor runs."""
    rest = native.LEVELS[native.LEVELS.index(level) + 1 :]
    return next((name for name in rest if native.library().zoo_scan_level(name.encode())), None)


def _verdict_on_cpu(part: str, level: str, examine: Examination) -> Verdict:
    if setting() == "0":
        return Verdict(passed=True)
    key = _cpu_key(part, level)
    return _kept(key) or _in_turn(key, lambda: _checked_on_cpu(examine))


def _checked_on_cpu(examine: Examination) -> Verdict:
    """Run the cases of a part of the C++ library, in a thread of their own.

    Nothing that a thread may be in (autocast, a mode, a transform, a trace) reaches another one.
    """
    found: list[Verdict] = []

    def check() -> None:
        begin = time.perf_counter()
        kept = True
        try:
            case, error = examine() or ("", "")
        except Exception as exception:
            case, error = "one of its cases", in_one_line(exception)
            kept = not is_out_of_memory(exception)
        seconds = round(time.perf_counter() - begin, 2)
        found.append(Verdict(not error, case, error, seconds, kept))

    thread = threading.Thread(target=check, daemon=True)
    try:
        thread.start()
    except RuntimeError as error:  # there are too many, or Python is about to end
        return Verdict(passed=False, error=in_one_line(error), kept=False)
    for _ in range(_LOOKS):  # many short waits: the process may have been stopped (Ctrl-Z)
        thread.join(_CPU_LIMIT / _LOOKS)  # of one that has ended, at once
    if found:
        return found[0]
    return Verdict(passed=False, case="one of its cases", error=f"no result in {_CPU_LIMIT:.0f} s")


def _checked_on_gpu(backend: Backend, device: torch.device, key: Mapping[str, str]) -> Verdict:
    if setting() == "0":
        return Verdict(passed=False, error=f"{ENVIRONMENT} is 0", kept=False)
    if lacks := toolchain.missing():
        return Verdict(passed=False, error=lacks, kept=False)

    def check() -> Verdict:
        logger.info("checking the backend %r on %s, once", backend.NAME, key["device"])
        return processes.examine(processes.place_of(backend), device, PLAN)

    return _in_turn(key, check)


def _in_turn(key: Mapping[str, str], check: Callable[[], Verdict]) -> Verdict:
    """Make a check unless another process makes it first, and keep its verdict."""
    with verdicts.turn(key, PATIENCE) as ours:
        if (found := _kept(key)) is not None:
            return found
        if not ours:
            error = f"another process has been at it for {PATIENCE / 60:.0f} minutes"
            return Verdict(passed=False, error=error, kept=False)
        verdict = check()
        if verdict.kept and (why_not := verdicts.write(key, verdict)):
            logger.info("the verdict of the self-check is not kept: %s", why_not)
    return verdict


def _kept(key: Mapping[str, str]) -> Verdict | None:
    """The verdict that an earlier process has kept, unless it is to be found again."""
    return None if setting() == "force" else verdicts.read(key)


def _cpu_key(part: str, level: str) -> dict[str, str]:
    return machine.of_cpu(level) | {"part": part}


def _gpu_key(backend: Backend, device: torch.device) -> dict[str, str]:
    return machine.of_gpu(device) | {"backend": backend.NAME}


def _is_recorded() -> bool:
    """Whether a graph is being made of what runs now."""
    capturing = torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()
    return capturing or torch.compiler.is_compiling() or torch.jit.is_tracing()


def _warn(what: str, verdict: Verdict, instead: str, report: str) -> None:
    """Say once what has failed and what serves instead; of several ranks, the first says it."""
    if os.environ.get("RANK", "0") != "0":
        return
    if verdict.case:
        logger.warning(
            "%s has failed its self-check, so %s instead, which is right: case %s: %s; to report "
            "it, attach what %s to an issue; %s=force checks again",
            *(what, instead, verdict.case, verdict.error, report, ENVIRONMENT),
        )
    else:
        logger.warning("%s could not be checked, so %s instead: %s", what, instead, verdict.error)
