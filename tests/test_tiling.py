"""Tiles: how an image is cut, and what happens on a device whose memory is small."""

from __future__ import annotations

import weakref
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import zoo
from tests.helpers.networks import Nearest
from zoo.errors import ZooError
from zoo.inference import RestoreSettings, restore_tensor, runner
from zoo.inference.runner import channels_last
from zoo.inference.tiling import BURST_TILE, TILE, fitting_tile, spans


class Memory:
    """A device whose network takes ``bytes_a_pixel``."""

    def __init__(self, free, bytes_a_pixel=1000):
        self.bytes_free, self.bytes_a_pixel, self.released = free, bytes_a_pixel, 0
        self.pixels = 0

    def run(self, image):
        self.pixels = image.shape[-2] * image.shape[-1]
        return image

    def watch(self, network, inputs):
        """A hook before a network's forward pass."""
        self.run(*inputs)

    def free(self):
        return self.bytes_free

    def peak(self, function):
        function()
        return self.bytes_a_pixel * self.pixels

    def release(self):
        self.released += 1


@settings(max_examples=60, deadline=None)
@given(size=st.integers(1, 200), tile=st.integers(1, 64), overlap=st.integers(0, 32))
def test_tiles_cover_a_side_and_overlap_enough(size, tile, overlap):
    overlap = min(overlap, tile // 2)
    cut = list(spans(size, tile, overlap))
    assert cut[0].start == 0 and cut[-1].stop == size
    for before, after in pairwise(cut):
        assert before.start < after.start <= before.stop - overlap
    assert all(s.stop - s.start == min(tile, size) for s in cut)


@pytest.mark.parametrize(
    ("free", "tile"),
    [
        (10e9, 0),  # all of it
        (1000 * 900 * 1000 / 0.8, 0),  # just so
        (1000 * 900 * 1000 / 0.8 - 1000, 896),  # not quite: a multiple of 64
        (1000 * 300**2 / 0.8, 256),
        (1, 128),  # no less than the tile that was measured: it did run
    ],
)
def test_tiles_are_sized_to_free_memory(free, tile):
    memory, image = Memory(free), torch.zeros(1, 1, 1000, 900)
    assert fitting_tile(memory.run, image, 32, memory) == tile
    assert memory.pixels == (TILE // 4) ** 2


def test_a_tile_is_no_smaller_than_its_overlaps():
    assert fitting_tile(Memory(1).run, torch.zeros(1, 1, 1000, 900), 100, Memory(1)) == 200
    assert fitting_tile(Memory(1).run, torch.zeros(1, 1, 1000, 900), 300, None) == 600


def test_small_images_are_not_measured_and_without_facts_tiles_have_the_default_size():
    def never(image):
        raise AssertionError("measured")

    assert fitting_tile(never, torch.zeros(1, 3, 400, 600), 32, Memory(1)) == 0
    assert fitting_tile(never, torch.zeros(1, 3, 4000, 600), 32, None) == TILE
    assert fitting_tile(never, torch.zeros(1, 8, 3, 4000, 600), 32, None, BURST_TILE) == BURST_TILE


def test_restoring_sizes_tiles_by_memory(monkeypatch):
    network, image = Nearest(), torch.rand(1, 3, 700, 600)
    # An eighth of the image's pixels: 0.8 * free / 1000 = 52,500 and so tiles of 192.
    memory = Memory(1000 * 700 * 600 / 8 / 0.8)
    network.register_forward_pre_hook(memory.watch)
    monkeypatch.setattr(runner, "memory_of", lambda device: memory)
    found = restore_tensor(network, image)
    torch.testing.assert_close(found, image.repeat_interleave(2, 2).repeat_interleave(2, 3))
    assert set(network.sizes) == {(128, 128), (192, 192)}
    network.sizes.clear()
    restore_tensor(network, image, RestoreSettings(tile=0))
    assert network.sizes == [(700, 600)]


def test_when_memory_runs_out_tiles_are_halved(caplog):
    class Hungry(Nearest):
        def forward(self, image_BIHW):
            if max(image_BIHW.shape[2:]) > 60:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(image_BIHW)

    image = torch.rand(1, 3, 100, 90)
    found = restore_tensor(Hungry(), image, RestoreSettings(tile=0, overlap=8))
    torch.testing.assert_close(found, Nearest()(image))
    assert "trying tiles of 50" in caplog.text


def test_memory_that_never_suffices_is_an_error():
    class Insatiable(Nearest):
        def forward(self, image_BIHW):
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(ZooError, match="memory ran out even with tiles of 50"):
        restore_tensor(Insatiable(), torch.rand(1, 3, 100, 90), RestoreSettings(tile=0, overlap=8))


def test_memory_that_was_judged_too_large_is_given_back(monkeypatch):
    """Another program takes the memory between measuring and running."""

    class Robbed(Nearest):
        def forward(self, image_BIHW):
            if max(image_BIHW.shape[2:]) > 400:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(image_BIHW)

    network, image, memory = Robbed(), torch.rand(1, 3, 700, 600), Memory(1e12)
    network.register_forward_pre_hook(memory.watch)
    monkeypatch.setattr(runner, "memory_of", lambda device: memory)
    found = restore_tensor(network, image)
    torch.testing.assert_close(found, image.repeat_interleave(2, 2).repeat_interleave(2, 3))
    assert memory.released == 1 and network.sizes[-1] == (350, 350)


def test_what_was_computed_before_memory_ran_out_is_released_first(monkeypatch):
    """PyTorch cannot give back what an error still holds on to."""
    held = []

    class Hungry(Nearest):
        def forward(self, image_BIHW):
            if len(held) < 1:
                computed = torch.zeros(1)
                held.append(weakref.ref(computed))
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(image_BIHW)

    memory = Memory(1e12)
    memory.release = lambda: held.append(held[0]() is None)
    monkeypatch.setattr(runner, "memory_of", lambda device: memory)
    restore_tensor(Hungry(), torch.rand(1, 3, 90, 90), RestoreSettings(tile=0, overlap=8))
    assert held[1] is True


@pytest.mark.parametrize("model", ["mambair_tiny_x2", "mambacsr_tiny_x2", "qmambabsr_tiny"])
def test_networks_take_images_whose_channels_are_last(model):
    """The layout that restoring uses on a GPU changes nothing."""
    network = zoo.build(model).eval()
    frames = (3, network.channels) if model.startswith("qmambabsr") else (network.channels,)
    image = torch.rand(1, *frames, 16, 24)
    laid = channels_last(image)
    assert laid.stride(-3) == 1 and torch.equal(laid, image)
    assert image.dim() == 5 or laid.is_contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        torch.testing.assert_close(network(laid), network(image), atol=1e-5, rtol=1e-4)
