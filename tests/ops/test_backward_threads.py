"""A backend that a block asks for also runs its backward passes, in whichever thread they are.

On a GPU, autograd has a thread for each device. Without one, it has other threads, too: those for
backward passes that are nested deeper than 60 times, and they get from their caller what the
threads of devices get.
"""

from __future__ import annotations

import ctypes
import sys
import threading

import pytest
import torch
from torch.utils.checkpoint import checkpoint

import zoo
from zoo.ops.scan import chunked, native, reference, request
from zoo.ops.scan.request import requested

DEEPER = 62


class Nested(torch.autograd.Function):
    """Calls a function in the backward pass, at some depth of nested backward passes."""

    @staticmethod
    def forward(ctx, x, depth, function):
        ctx.depth, ctx.function = depth, function
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        if not ctx.depth:
            ctx.function()
            return grad, None, None
        with torch.enable_grad():
            x = torch.ones(1, requires_grad=True)
            Nested.apply(x, ctx.depth - 1, ctx.function).backward()
        return grad, None, None


def in_a_thread_of_autograd(function):
    threads = []

    def noted():
        threads.append(threading.get_ident())
        function()

    x = torch.ones(1, requires_grad=True)
    Nested.apply(x, DEEPER, noted).backward()
    assert threads and threads[0] != threading.get_ident()


@pytest.fixture
def ran(monkeypatch):
    """The backends that ran, with what they did and in which thread."""
    found = []
    for backend in (chunked, native, reference):
        for what in ("forward", "backward"):
            function = getattr(backend, what)

            def noting(*given, name=backend.NAME, what=what, function=function):
                found.append((name, what, threading.get_ident()))
                return function(*given)

            monkeypatch.setattr(backend, what, noting)
    return found


def scan(u):
    size, order = u.shape[1], torch.arange(u.shape[1], dtype=torch.int32)[None]
    delta, B = torch.full((1, size, 1, 2), 0.5), torch.ones(1, size, 1, 1)
    A, D = -torch.ones(1, 2, 1), torch.ones(1, 2)
    return zoo.selective_scan(u, delta, None, torch.zeros(1, 2), A, B, B, D, order).sum()


def run_of(kind):
    if kind == "checkpointed":
        return lambda u: checkpoint(scan, u, use_reentrant=False)
    return torch.compile(scan, backend="aot_eager", fullgraph=True) if kind == "compiled" else scan


@pytest.mark.parametrize("kind", ["eager", "checkpointed", "compiled"])
@pytest.mark.parametrize("name", ["chunked", "reference"])
def test_a_backward_pass_in_another_thread_has_the_backend_of_its_block(kind, name, ran):
    u = torch.rand(1, 5, 2, requires_grad=True)
    with zoo.use_backend(name):
        loss = run_of(kind)(u)
        in_a_thread_of_autograd(loss.backward)
    assert {backend for backend, _, _ in ran} == {name}
    [thread] = {thread for _, what, thread in ran if what == "backward"}
    assert thread != threading.get_ident()
    assert ("forward", thread) in {(what, t) for _, what, t in ran} or kind != "checkpointed"


def test_blocks_do_not_reach_other_code():
    """Neither other threads, nor backward passes after the block or in one inside it."""
    found = []

    def note():
        found.append(requested())

    def there(function):
        thread = threading.Thread(target=function)
        thread.start()
        thread.join()

    in_a_thread_of_autograd(note)
    with zoo.use_backend("reference"):
        there(note)
        there(lambda: in_a_thread_of_autograd(note))
        with zoo.use_backend("chunked"):
            in_a_thread_of_autograd(note)
        in_a_thread_of_autograd(note)
        note()
    in_a_thread_of_autograd(note)
    note()
    assert found == ["", "", "", "chunked", "reference", "reference", "", ""]


def test_a_backward_pass_in_the_thread_of_a_block_follows_its_context():
    """Other tasks of the same thread, as in asyncio, have not asked for it."""
    import contextvars

    found, outside = [], contextvars.copy_context()
    x = torch.ones(1, requires_grad=True)
    with zoo.use_backend("reference"):
        y = Nested.apply(x, 0, lambda: found.append(requested()))
        outside.run(y.backward)
    assert found == [""]


class HandsOnWithoutCounting:
    """PyTorch before 2.13: it drops a reference that it has not taken."""

    def __init__(self):
        self.held = {}

    def __call__(self, key, value):
        before = self.held.get(key)
        self.held[key] = id(value)
        if before is not None:
            ctypes.pythonapi.Py_DecRef(ctypes.cast(before, ctypes.py_object))


@pytest.mark.parametrize("counts", [True, False], ids=["as it is here", "before 2.13"])
def test_what_is_handed_on_keeps_its_references(counts, monkeypatch):
    """One too few frees an object that others use, and the process crashes later."""
    if not counts:
        monkeypatch.setattr(torch._C, "_stash_obj_in_tls", HandsOnWithoutCounting())
        monkeypatch.setattr(torch._C, "_is_key_in_tls", lambda key: False)
    request._counts_references.cache_clear()
    try:
        values = [(number, "chunked") for number in range(1000, 1100)]
        for value in values:
            request._hand_on(value)
            assert sys.getrefcount(value) == 4  # the list, the loop, PyTorch, the call
        request._hand_on(None)
        # The list, its slice, the loop, the call.
        assert {sys.getrefcount(value) for value in values[:-1]} == {4}
        nothing = sys.getrefcount(None)
        for _ in range(50):
            request._hand_on(None)
        assert abs(sys.getrefcount(None) - nothing) < 10
    finally:
        request._counts_references.cache_clear()
