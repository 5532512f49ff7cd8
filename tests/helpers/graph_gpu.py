"""A stand-in for the part of CUDA that records graphs: two GPUs, streams, and graphs of operators.

PyTorch's own ``torch.cuda.graph`` runs on it. Tensors are on the CPU; which GPU they are on is said
by what asks for it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Stream:
    def __init__(self, gpu, device=None):
        self.gpu, self.device = gpu, torch.device(device) if device else gpu.device
        gpu.streams.append(self)


class _Device:
    def __init__(self, gpu, device):
        self.gpu, self.device = gpu, device

    def __enter__(self):
        self.before, self.gpu.device = self.gpu.device, self.device

    def __exit__(self, *error):
        self.gpu.device = self.before


class _Recorded(TorchDispatchMode):
    def __init__(self, calls):
        super().__init__()
        self.calls = calls

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, found))
        return found


class Gpu:
    """What was done: captures with their stream, pool and options."""

    def __init__(self, monkeypatch):
        self.device = torch.device("cuda", 0)
        self.streams, self.captures, self.ended = [], [], []
        self.fails = False
        self.usual = {}
        self.now = {}
        gpu = self

        class Graph:
            """Knows the operators between begin and end, if they ran on its stream's GPU."""

            def capture_begin(self, pool=None, **options):
                gpu.captures.append((gpu.stream(), pool, options))
                self.calls = []
                self.mode = _Recorded(self.calls)
                self.mode.__enter__()

            def capture_end(self):
                self.mode.__exit__(None, None, None)
                if gpu.fails:
                    raise RuntimeError("operation failed due to a previous error during capture")

            def replay(self):
                for func, args, kwargs, before in self.calls:
                    now = func(*args, **kwargs)
                    for old, new in zip(tree_leaves(before), tree_leaves(now), strict=True):
                        if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                            old.copy_(new)

        class StreamContext:
            def __init__(self, stream):
                self.stream = stream

            def __enter__(self):
                self.before = gpu.device, gpu.stream()
                gpu.set_stream(self.stream)

            def __exit__(self, *error):
                gpu.set_stream(self.before[1])
                gpu.device = self.before[0]

        pools = iter(range(1, 100))
        for name, value in {
            "Stream": lambda device=None: Stream(gpu, device),
            "stream": StreamContext,
            "set_stream": self.set_stream,
            "current_stream": lambda device=None: gpu.stream(device),
            "device": lambda device: _Device(gpu, device),
            "synchronize": lambda *given: None,
            "empty_cache": lambda: None,
            "CUDAGraph": Graph,
            "graph_pool_handle": lambda: (0, next(pools)),
        }.items():
            monkeypatch.setattr(torch.cuda, name, value)
        monkeypatch.setattr(torch._C, "_host_emptyCache", lambda: None, raising=False)
        ended = lambda index, pool: self.ended.append((index, pool))  # noqa: E731
        monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", ended, raising=False)

    def stream(self, device=None):
        device = device or self.device
        return self.now.get(device) or self.usual.setdefault(device, Stream(self, device))

    def set_stream(self, stream):
        self.now[stream.device], self.device = stream, stream.device
