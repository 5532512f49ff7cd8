"""Blocks that are prepared once: later calls give what the layers give."""

from __future__ import annotations

import copy
import pickle
import threading

import pytest
import torch
from torch import nn

from tests.helpers.native_kernel import BUILT
from tests.helpers.prepared_blocks import built, comparison, counted_runs, features
from zoo.blocks import RSSB
from zoo.blocks import prepared as module_of_prepared
from zoo.blocks.channel_attention import CAB, LightCAB
from zoo.blocks.prepared import MOST_SHAPES
from zoo.ops import use_backend
from zoo.ops.passes import workspace as module_of_workspace

pytestmark = pytest.mark.skipif(not BUILT, reason="the kernel was not built")


@pytest.fixture
def prepared(monkeypatch):
    return counted_runs(monkeypatch)


@pytest.fixture
def same(monkeypatch, prepared):
    return comparison(monkeypatch, prepared)


@pytest.mark.parametrize("branch", [LightCAB, CAB, None])
@pytest.mark.parametrize("skip_scale", [True, False])
def test_a_prepared_block_gives_what_its_layers_give(branch, skip_scale, same):
    block = built(branch, skip_scale=skip_scale)
    for shape in [(1, 6, 9), (1, 6, 9), (2, 17, 33), (1, 6, 9), (3, 1, 8)]:
        assert same(block, features(*shape))


def test_blocks_of_several_sizes_share_memory(same):
    """A larger block moves it, and the smaller one must follow."""
    small, large = built(), built()
    assert same(small, features(1, 5, 8))
    assert same(large, features(2, 40, 50))
    assert same(small, features(1, 5, 8))


def test_images_that_need_more_memory_than_is_kept_run(same, monkeypatch):
    monkeypatch.setattr(module_of_workspace, "MOST_KEPT", 1)
    monkeypatch.setattr(module_of_workspace, "_kept", threading.local())
    block = built()
    for shape in [(1, 6, 9), (1, 6, 9)]:
        assert same(block, features(*shape))
    assert not vars(module_of_workspace._kept)


def test_shapes_beyond_the_last_ones_are_prepared_anew(same):
    block = built()
    for width in range(8, 10 + MOST_SHAPES):
        assert same(block, features(1, 3, width))
    assert len(block.prepared._threads.found.calls) <= MOST_SHAPES


@pytest.mark.parametrize("which", ["width", "memory", "dtype", "empty"])
def test_features_that_cannot_be_prepared_run_the_layers(which, prepared):
    block = built()
    x = {
        "width": features(1, 6, 7),
        "memory": features(1, 9, 6).transpose(1, 2),
        "dtype": features(1, 6, 9).double(),
        "empty": features(1, 6, 9)[:0],
    }[which]
    if which == "dtype":
        block.double()
    with torch.no_grad():
        assert block(x).shape == x.shape
    assert not prepared


def test_others_see_the_operators(prepared):
    block, x = built(), features(1, 6, 9)
    block(x.requires_grad_()).sum().backward()
    assert x.grad is not None and not prepared
    x = x.detach()
    assert block(x).requires_grad and not prepared
    with torch.no_grad():
        with use_backend("chunked"):
            block(x)
        with torch.autocast("cpu", torch.bfloat16):
            block(x)
        with torch.profiler.profile() as profile:
            block(x)
        assert "zoo::selective_scan" in {event.key for event in profile.key_averages()}
        assert not prepared
        with use_backend("native"):
            block(x)
        assert len(prepared) == 1


def test_frozen_blocks_run_without_no_grad(prepared):
    block, x = built().requires_grad_(False), features(1, 6, 9)
    assert not block(x).requires_grad and len(prepared) == 1


def test_what_is_prepared_is_not_copied_or_saved(same):
    block, x = built(), features(1, 6, 9)
    assert same(block, x)
    shallow = copy.copy(block)
    shallow._parameters = {**block._parameters, "skip_scale": nn.Parameter(3 * block.skip_scale)}
    for other in (copy.deepcopy(block), pickle.loads(pickle.dumps(block)), shallow):
        assert same(other, x)
    assert same(block, x)


def test_threads_run_one_block_at_the_same_time():
    block, shapes = built(), [(1, 16, 24), (2, 9, 40)]
    with torch.no_grad():
        expected = [block(features(*shape)) for shape in shapes]
    wrong = []

    def run(shape, right):
        with torch.inference_mode():
            x = features(*shape)
            wrong.extend(not torch.equal(block(x), right) for _ in range(30))

    threads = [
        threading.Thread(target=run, args=both)
        for both in [*zip(shapes, expected, strict=True)] * 2
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wrong) == 120 and not any(wrong)


def test_results_do_not_depend_on_threads():
    block, x, before, found = built(), features(2, 40, 40), torch.get_num_threads(), []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            with torch.inference_mode():
                found.append(block(x))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(other, found[0]) for other in found)


def test_memory_that_was_given_back_is_not_read():
    block, x = built(), features(1, 6, 9)
    with torch.no_grad():
        block(x)
        block.mixer.in_proj.weight.untyped_storage().resize_(0)
        with pytest.raises(ValueError, match="bytes of memory"):
            block(x)


def test_an_interrupt_while_calls_are_placed_leaves_nothing_stale(same, monkeypatch):
    block, x = built(), features(1, 6, 9)
    assert same(block, x)
    (call,) = block.prepared._threads.found.calls.values()
    call.base = 0

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(module_of_prepared._End, "place", interrupted)
        with pytest.raises(KeyboardInterrupt), torch.no_grad():
            block(x)
    assert call.base == 0
    assert same(block, x)


def test_blocks_that_were_pickled_before_are_prepared(same):
    block = built()
    state = {name: value for name, value in vars(block).items() if name != "prepared"}
    old = RSSB.__new__(RSSB)
    old.__setstate__(state)
    assert same(old, features(1, 6, 9))
