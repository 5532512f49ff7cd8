"""Levels of the C++ kernel; for the self-check, an unknown machine and a CPU in place of a GPU."""

from __future__ import annotations

import dataclasses
import sys

import pytest
import torch

from tests.helpers.broken_backends import BACKENDS, run_in_this_process
from tests.helpers.native_kernel import LEVELS
from zoo.ops.scan import chunked, dispatch, native
from zoo.ops.scan.self_check import decision, machine, plans
from zoo.ops.scan.self_check.norms import NormCheck


def shrunk(check):
    if isinstance(check, NormCheck):
        return check
    case = check.case
    small = dataclasses.replace(case, L=min(case.L, 9), E=min(case.E, 7), N=min(case.N, 5))
    return dataclasses.replace(check, case=small)


SMALL_PLAN = tuple(tuple(map(shrunk, group)) for group in plans.ON_A_GPU)
"""The cases of a GPU with small sizes: of the same kinds, and as many."""


@pytest.fixture(params=LEVELS)
def level(request, monkeypatch):
    """Each instruction set that this CPU has."""
    monkeypatch.setenv(native.LEVEL_ENVIRONMENT, request.param)
    assert native.level() == request.param
    return request.param


@pytest.fixture
def no_gradient():
    with torch.no_grad():
        yield


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """Nothing is known of this machine."""
    monkeypatch.setenv("ZOO_SELF_CHECK", "1")
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setattr(decision, "_known", {})
    return tmp_path


@pytest.fixture
def gpu(fresh, monkeypatch):
    """A CPU that stands for a GPU; a function that puts a backend in Triton's place there."""
    monkeypatch.setattr(decision, "GPU", "cpu")
    monkeypatch.setattr(machine, "of_gpu", lambda device: {"device": "a stand-in", "driver": "1"})
    monkeypatch.setattr(dispatch, "TRUSTED", {"triton": decision.serves_on_gpu})

    def put(name):
        backend = type(BACKENDS[name])()
        monkeypatch.setitem(BACKENDS, name, backend)
        monkeypatch.setattr(sys.modules[type(backend).__module__], name, backend)
        monkeypatch.setattr(dispatch, "BACKENDS", {"triton": backend, "chunked": chunked})
        return backend

    return put


@pytest.fixture
def in_this_process(monkeypatch):
    monkeypatch.setattr(plans, "SMALL_PLAN", SMALL_PLAN, raising=False)
    monkeypatch.setattr(decision, "PLAN", f"{plans.__name__}:SMALL_PLAN")
    return run_in_this_process(monkeypatch)
