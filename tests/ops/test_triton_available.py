"""On which machines and for which calls the Triton backend says that it can serve."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from tests.helpers.scan_cases import Case, make_inputs
from zoo.ops.scan import triton
from zoo.ops.scan.contract import ScanInputs


@pytest.fixture
def machine(monkeypatch):
    """Says which machine it is: with Triton or not, interpreted or not, and with which GPU."""

    def become(*, installed=True, interpreted=False, capability=None):
        found = object() if installed else None
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: found)
        triton._installed.cache_clear()
        monkeypatch.setenv("TRITON_INTERPRET", "1" if interpreted else "0")
        monkeypatch.setattr(torch.cuda, "is_available", lambda: capability is not None)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Some GPU")

    yield become
    triton._installed.cache_clear()


@pytest.mark.parametrize(
    ("known", "says"),
    [
        ({"installed": False}, "Triton is not installed"),
        ({"installed": False, "interpreted": True}, "Triton is not installed"),
        ({}, "it needs an NVIDIA GPU"),
        ({"capability": (7, 2)}, "needs compute capability 7.5 or later, and Some GPU has less"),
    ],
    ids=["absent", "absent, interpreted", "no GPU", "old GPU"],
)
def test_where_it_cannot_run_it_says_why(machine, known, says):
    machine(**known)
    assert says in triton.unavailable()


def test_it_is_searched_for_once(machine, monkeypatch):
    machine(installed=False)
    assert triton.unavailable()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: pytest.fail("searched again"))
    assert triton.unavailable()


@pytest.mark.parametrize(
    "known",
    [{"interpreted": True}, {"capability": (7, 5)}, {"capability": (9, 0)}],
    ids=["interpreted", "oldest GPU", "newer GPU"],
)
def test_where_it_can_run_it_says_nothing(machine, known):
    machine(**known)
    assert triton.unavailable() is None
    assert ("interpreter" in triton.summary()) == known.get("interpreted", False)


def test_it_serves_tokens_of_its_device_but_none_in_double_precision(machine):
    single, double = (
        ScanInputs(*make_inputs(Case(L=2), dtype)) for dtype in (torch.float32, torch.float64)
    )
    machine()
    assert "it runs on CUDA devices, and the tokens are on cpu" in triton.declines(single)
    machine(interpreted=True)
    assert triton.declines(single) is None
    assert "the tokens are torch.float64" in triton.declines(double)
    meta = single._replace(u=single.u.to("meta"))
    assert "the tokens are on meta" in triton.declines(meta)
