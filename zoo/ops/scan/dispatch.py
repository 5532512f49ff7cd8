"""Choice of a backend for a call: the requested one, otherwise the first that can run it.

A backend is requested by an argument, by ``with use_backend(name)`` or by the environment variable
ZOO_SCAN_BACKEND, in this order of precedence. If the requested backend cannot run the call, that is
an error. Without a request, the first backend that can run the call, and that is trusted on this
machine (:mod:`zoo.ops.scan.self_check`), is used and logged once.
"""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch

from zoo.ops.scan import chunked, mamba_ssm, native, reference, triton
from zoo.ops.scan.contract import Backend, KeepingBackend, ScanInputs
from zoo.ops.scan.request import request, requested
from zoo.ops.scan.self_check import serves_on_cpu, serves_on_gpu

logger = logging.getLogger(__name__)

ENVIRONMENT = "ZOO_SCAN_BACKEND"

BACKENDS: dict[str, Backend] = {b.NAME: b for b in (native, triton, chunked, mamba_ssm, reference)}
"""All backends, in the order in which they are tried."""

TRUSTED: dict[str, Callable[[Backend, torch.device], bool]] = {
    native.NAME: serves_on_cpu,
    triton.NAME: serves_on_gpu,
}
"""Backends with kernels of their own: without a request, they serve where they pass this."""

KEEPING: dict[str, KeepingBackend] = {native.NAME: native}
"""Backends whose forward pass can keep something for the backward pass."""

CHECK_ORDERS = {native.NAME, triton.NAME}
"""Backends whose kernels check the entries of an order themselves."""

_ARGUMENT = "selective_scan(backend=...)"
_logged: set[tuple[str, str]] = set()


class BackendError(ValueError):
    """The requested backend does not exist or cannot run the call."""


class BackendStatus(NamedTuple):
    """Whether a backend can run on this machine; the note says what it is, or why it cannot."""

    name: str
    available: bool
    note: str


def backends() -> list[BackendStatus]:
    """All backends of the selective scan, best first."""
    found = []
    for name, backend in BACKENDS.items():
        why_not = backend.unavailable()
        found.append(BackendStatus(name, why_not is None, why_not or backend.summary()))
    return found


def check_name(name: str, source: str) -> str:
    """Return ``name`` if a backend has this name.

    Raises:
        BackendError: if none has; the message names ``source`` and the nearest known name.
        TypeError: if ``name`` is no string.
    """
    if not isinstance(name, str):
        raise TypeError(f"{source}: the name of a backend must be a string, not {name!r:.50}")
    if name not in BACKENDS:
        close = difflib.get_close_matches(name, BACKENDS)
        known = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(BACKENDS)}"
        raise BackendError(f"{source}: unknown selective-scan backend {name!r:.50}; {known}")
    return name


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Run all selective scans within the block on this backend; a scan that cannot raises.

    That holds for backward passes that are called in the block, too, whichever thread PyTorch runs
    them in. Called after the block, the backward pass of a network that was compiled, or that
    computes parts again (checkpointing), chooses anew.

    Raises:
        BackendError: if there is no such backend, or it cannot run on this machine.
    """
    why_not = BACKENDS[check_name(name, "use_backend")].unavailable()
    if why_not:
        raise BackendError(f"use_backend: backend {name!r} cannot run here: {why_not}")
    with request(name):
        yield


def named(argument: str | None) -> str:
    """Name of the backend requested by argument; "" if none is."""
    return "" if argument is None or argument == "" else check_name(argument, _ARGUMENT)


def asked_for(argument: str | None) -> str:
    """Name of the backend requested by argument, context or environment; "" if none is."""
    if name := named(argument):
        return name
    if name := requested():
        return name
    name = os.environ.get(ENVIRONMENT, "")
    return check_name(name, f"environment variable {ENVIRONMENT}") if name else ""


def check_environment() -> str:
    """Return the backend that the environment variable requests; "" if it requests none.

    Raises:
        BackendError: if there is no such backend, or it cannot run on this machine.
    """
    name = os.environ.get(ENVIRONMENT, "")
    if name:
        why_not = BACKENDS[check_name(name, f"environment variable {ENVIRONMENT}")].unavailable()
        if why_not:
            raise BackendError(_refusal(name, why_not))
    return name


def _refusal(name: str, why_not: str) -> str:
    return f"backend {name!r} was requested but cannot run: {why_not}"


def choose(inputs: ScanInputs, asked: str) -> Backend:
    """Choose the backend that runs the call.

    Raises:
        BackendError: if the requested backend cannot run it, with the reason, or if none can.
    """
    if asked:
        backend = BACKENDS[check_name(asked, _ARGUMENT)]
        why_not = backend.unavailable() or backend.declines(inputs)
        if why_not:
            raise BackendError(_refusal(asked, why_not))
        return backend
    for name, backend in BACKENDS.items():
        # What a call has is asked first: it takes less time than what the machine has.
        if backend.declines(inputs) or backend.unavailable():
            continue
        if name in TRUSTED and not TRUSTED[name](backend, inputs.u.device):
            continue
        device = inputs.u.device.type
        if (name, device) not in _logged:
            _logged.add((name, device))
            logger.info("selective scan on %s runs on backend %r", device, name)
        return backend
    raise BackendError(f"no backend runs {inputs.u.dtype} tokens on {inputs.u.device}")
