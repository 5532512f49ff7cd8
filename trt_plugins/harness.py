"""Runs the plugin without TensorRT, by the same calls that TensorRT makes (csrc/harness.cpp).

It is for tests and benchmarks. On a GPU it runs the real plugin; on a CPU it runs the plugin that
``trt_plugins.build.build(shim=True)`` compiles from the same sources.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trt_plugins.build import build_harness
from zoo.errors import ZooError
from zoo.ops.scan.names import NAMESPACE, VERSION

_TYPES = {torch.float32: 0, torch.float16: 1, torch.int32: 3, torch.bfloat16: 7, torch.int64: 8}
_DTYPES = {number: dtype for dtype, number in _TYPES.items()}
_OTHERS = {torch.float64: 5}  # another type, which the plugin must refuse
_MOST = 8


class HarnessError(ZooError):
    """A call that TensorRT would make has failed; the plugin's own message is on stderr."""


class _Shape(ctypes.Structure):
    _fields_ = (("rank", ctypes.c_int32), ("size", ctypes.c_int64 * _MOST))


class Harness:
    """A plugin that is created, configured for a range of shapes and attached to a context.

    Args:
        library: path of the plugin's library.
        name: plugin name from :mod:`zoo.ops.scan.names`: ``EACH`` for y per direction, ``SUM`` for
            the sum.
        largest: inputs of the largest call, in the order of
            :class:`zoo.ops.scan.contract.ScanInputs`; only dtypes and shapes are used.
        smallest: inputs of the smallest call; None if it is the same as the largest.
        version: version of the plugin's creator.
        namespace: namespace of the plugin's creator.

    Raises:
        HarnessError: if a step fails; the message names the step.
    """

    def __init__(
        self,
        library: Path,
        name: str,
        largest: Sequence[Tensor],
        smallest: Sequence[Tensor] | None = None,
        *,
        version: str = str(VERSION),
        namespace: str = NAMESPACE,
    ) -> None:
        self._library = _library()
        self._handle = ctypes.c_void_p()
        numbers = [(_TYPES | _OTHERS)[tensor.dtype] for tensor in largest]
        words = (str(library), name, version, namespace)
        self._call(
            self._library.harness_open,
            *(word.encode() for word in words),
            len(largest),
            (ctypes.c_int32 * len(largest))(*numbers),
            _shapes(smallest or largest),
            _shapes(largest),
            ctypes.byref(self._handle),
        )
        self.workspace = int(self._library.harness_workspace(self._handle))
        """Bytes of scratch memory that a call may use."""

    def close(self) -> None:
        """Destroy the plugin and unload its library."""
        if self._handle:
            self._library.harness_close(self._handle)
            self._handle = ctypes.c_void_p()

    def __enter__(self) -> Harness:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def empty_output(self, inputs: Sequence[Tensor]) -> Tensor:
        """Allocate an uninitialised tensor with the shape and dtype that the plugin gives for y."""
        shape = _Shape()
        number = self._library.harness_output(self._handle, _shapes(inputs), ctypes.byref(shape))
        size = list(shape.size)[: shape.rank]
        return torch.empty(size, dtype=_DTYPES[number], device=inputs[0].device)

    def run(self, inputs: Sequence[Tensor], y: Tensor, workspace: Tensor) -> Tensor:
        """Enqueue one call on the current stream of the tensors' device and return y.

        Args:
            inputs: contiguous inputs, within the configured range of shapes.
            y: contiguous tensor for the output.
            workspace: scratch memory, at least ``self.workspace`` bytes.
        """
        if not all(tensor.is_contiguous() for tensor in (*inputs, y)):
            raise HarnessError("tensors must be contiguous, as they are in TensorRT")
        stream = torch.cuda.current_stream().cuda_stream if y.is_cuda else None
        self._call(
            self._library.harness_run,
            self._handle,
            _shapes(inputs),
            (ctypes.c_void_p * len(inputs))(*(tensor.data_ptr() for tensor in inputs)),
            _shapes([y]),
            y.data_ptr(),
            workspace.data_ptr(),
            stream,
        )
        return y

    def __call__(self, inputs: Sequence[Tensor]) -> Tensor:
        """Compute y of the inputs in a new tensor."""
        inputs = [tensor.contiguous() for tensor in inputs]
        workspace = torch.empty(self.workspace, dtype=torch.uint8, device=inputs[0].device)
        return self.run(inputs, self.empty_output(inputs), workspace)

    def _call(self, function: Any, *arguments: object) -> None:
        error = ctypes.create_string_buffer(500)
        if function(*arguments, error, ctypes.c_size_t(len(error))):
            raise HarnessError(error.value.decode(errors="replace"))


def _shapes(tensors: Sequence[Tensor]) -> ctypes.Array[_Shape]:
    return (_Shape * len(tensors))(*(_Shape(t.dim(), tuple(t.shape)) for t in tensors))


@functools.cache
def _library() -> ctypes.CDLL:
    loaded = ctypes.CDLL(str(build_harness()))
    pointer, word, shapes = ctypes.c_void_p, ctypes.c_char_p, ctypes.POINTER(_Shape)
    error = (word, ctypes.c_size_t)
    loaded.harness_open.argtypes = (
        *(word, word, word, word, ctypes.c_int, ctypes.POINTER(ctypes.c_int32), shapes, shapes),
        *(ctypes.POINTER(pointer), *error),
    )
    loaded.harness_close.argtypes = (pointer,)
    loaded.harness_close.restype = None
    loaded.harness_workspace.argtypes = (pointer,)
    loaded.harness_workspace.restype = ctypes.c_size_t
    loaded.harness_output.argtypes = (pointer, shapes, shapes)
    loaded.harness_run.argtypes = (
        *(pointer, shapes, ctypes.POINTER(pointer), shapes, pointer, pointer, pointer, *error),
    )
    return loaded
