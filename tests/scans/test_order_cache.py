"""The cache of scan orders: its limits, its lock and what it refuses."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

import zoo
from zoo.errors import RecipeError
from zoo.scans import Raster, ScanOrder, Window
from zoo.scans.base import CACHED_ORDERS, _cache


def test_the_cache_returns_the_same_tensor_and_is_bounded():
    _cache.clear()
    first = Raster().order(3, 4)
    assert Raster().order(3, 4) is first
    for height in range(1, CACHED_ORDERS + 10):
        Raster().order(height, 50)
    assert len(_cache) == CACHED_ORDERS
    assert Raster().order(3, 4) is not first
    assert Raster().order(3, 4, "meta").device.type == "meta"
    assert Raster().order(3, 4).device.type == "cpu"


def test_the_cache_is_looked_into_and_changed_by_one_thread_at_a_time(monkeypatch):
    lock = zoo.scans.base._lock

    class Guarded(OrderedDict):
        def __contains__(self, key):
            assert lock.locked()
            return super().__contains__(key)

        def __setitem__(self, key, value):
            assert lock.locked()
            super().__setitem__(key, value)

        def values(self):
            assert lock.locked()
            return super().values()

    monkeypatch.setattr("zoo.scans.base._cache", Guarded())
    first = Raster().order(3, 4)
    assert Raster().order(3, 4) is first and not lock.locked()


def test_sizes_that_are_symbols_are_traced_in_every_kind_of_trace():
    """No such size can be a key of the cache, and ``is_compiling`` is false here."""
    order = Window(size=3)
    traced = make_fx(lambda x_HW: order.order(*x_HW.shape) + 0, tracing_mode="symbolic")
    graph = traced(torch.zeros(4, 5))
    assert torch.equal(graph(torch.zeros(6, 3)), order.order(6, 3))


def test_the_cache_is_bounded_in_bytes(monkeypatch):
    """Two orders of 4 directions of 10 x 30 tokens fit; the third drops the oldest."""
    _cache.clear()
    size = Raster().order(10, 30).nbytes
    monkeypatch.setattr("zoo.scans.base.CACHED_BYTES", 2 * size)
    first, second = Raster().order(10, 30), Raster().order(30, 10)
    assert Raster().order(10, 30) is first
    Raster().order(15, 20)
    assert len(_cache) == 2
    assert Raster().order(10, 30) is first and Raster().order(30, 10) is not second
    large = Raster().order(50, 60)
    assert len(_cache) == 1 and Raster().order(50, 60) is large


def test_orders_built_in_inference_mode_serve_training():
    _cache.clear()
    with torch.inference_mode():
        order = Raster().order(2, 9)
    assert not order.is_inference()


def test_the_cache_takes_no_order_that_is_wrong():
    class Twice(ScanOrder):
        directions = ("row",)

        def build(self, height, width, device):
            return torch.zeros(1, height * width, dtype=torch.int32)

    with pytest.raises(
        RecipeError, match=r"the scan order Twice of 2 x 3: .* visits token 0 twice"
    ):
        Twice().order(2, 3)
