"""Mixed precision and TF32: what is switched, where, and on which processors it pays."""

from __future__ import annotations

import platform
import threading
from contextlib import nullcontext

import pytest
import torch

from zoo.ops import precision
from zoo.ops.precision import autocast, bfloat16_is_slow, float32_products, without_autocast

CPU = torch.device("cpu")


@pytest.mark.parametrize(("name", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_autocast_is_on_in_the_precision_that_is_named(name, dtype):
    with autocast("cpu", name):
        assert torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == dtype
    assert isinstance(autocast("cpu", "fp32"), nullcontext)


def test_without_autocast_it_is_off_and_nothing_is_entered_where_it_was():
    assert isinstance(without_autocast(CPU), nullcontext)
    with torch.autocast("cpu"):
        assert isinstance(without_autocast(torch.device("meta")), nullcontext)
        with without_autocast(CPU):
            assert not torch.is_autocast_enabled("cpu")
        assert torch.is_autocast_enabled("cpu")


def test_settings_of_the_process_change_by_one_thread_at_a_time(monkeypatch):
    lock, seen = threading.Lock(), []
    monkeypatch.setattr(precision, "_tf32_lock", lock)
    monkeypatch.setattr(precision, "_set_tf32", lambda settings: seen.append(lock.locked()))
    with float32_products(), float32_products():
        assert not lock.locked()
    assert seen == [True] * 4


@pytest.fixture
def processor(monkeypatch):
    """A function that makes this processor one of a kind, with or without instructions."""

    def become(machine, avx512, amx):
        monkeypatch.setattr(platform, "machine", lambda: machine)
        for name, has in (("avx512_bf16", avx512), ("amx_tile", amx)):
            monkeypatch.setattr(torch.cpu, f"_is_{name}_supported", lambda h=has: h, raising=False)

    return become


def test_bfloat16_is_slow_on_a_processor_without_instructions_for_it(processor, monkeypatch):
    for machine in ("x86_64", "AMD64"):
        for avx512, amx in ((True, True), (True, False), (False, True)):
            processor(machine, avx512, amx)
            assert bfloat16_is_slow("cpu") is False
        processor(machine, False, False)
        assert bfloat16_is_slow("cpu") is True and bfloat16_is_slow(CPU) is True
    assert bfloat16_is_slow("cuda") is False
    processor("aarch64", False, False)
    assert bfloat16_is_slow("cpu") is False
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        processor("x86_64", False, False)
        monkeypatch.delattr(torch.cpu, name)  # a PyTorch that does not tell
        assert bfloat16_is_slow("cpu") is False
