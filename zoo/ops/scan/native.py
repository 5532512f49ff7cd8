"""The selective scan in C++: SIMD over channels, threads over images and channels, any CPU.

The library is compiled from the sources in ``csrc`` (see ``build_tools/kernel.py``) or comes with
the wheel of a platform. Its plain C interface is ``csrc/zoo_scan.h``. It chooses its instruction
set ("level") at run time; the environment variable ZOO_NATIVE_LEVEL forces one.

Memory besides inputs and outputs. Forward: 2 (L + 1) floats for each of at most 128 channels
per thread, independent of E and K. Backward: 3 (L + 1) floats for each channel that a thread works
on, and K (R + 2 N) floats per token for each of at most 4 + B sums. In training, the forward pass
keeps the state of every 32nd step, B K N E S / 32 floats, until the backward pass. A backward pass
without them computes them first. The library keeps up to three freed blocks of at most 8 MiB for
its next calls.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.ops.scan.contract import (
    AXES,
    ORDER,
    PARAMETERS,
    SCHEMA,
    TOKENS,
    ScanGradients,
    ScanInputs,
    axis_sizes,
    differentiable,
    gradients_of,
)
from zoo.ops.scan.order import check_order

NAME = "native"

LEVEL_ENVIRONMENT = "ZOO_NATIVE_LEVEL"
LEVELS = ("avx512", "avx2", "neon", "portable")
"""The instruction sets that a library can contain, fastest first."""

LIBRARY = Path(__file__).with_name("_native.dll" if os.name == "nt" else "_native.so")

_DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
_ELF_MACHINES = {"x86_64": 62, "aarch64": 183}
"""Numbers of processors in the header of a library of Linux."""

KEPT_STEPS = 32
"""``ZOO_KEPT_STEPS`` of ``csrc/zoo_scan.h``: of so many steps, the state before one is kept."""

_OUT_OF_MEMORY, _MISALIGNED = 3, 7
"""Statuses of ``csrc/zoo_scan.h``."""
_WRONG_ORDER = {5, 6}
"""The same: an entry of the order is no token, or a token is visited twice."""


class _Scan(ctypes.Structure):
    """``struct ZooScan`` of csrc/zoo_scan.h."""

    _fields_ = (
        ("dtype", ctypes.c_int32),
        ("reduce", ctypes.c_int32),
        *((axis, ctypes.c_int64) for axis in AXES.values()),
        *((name, ctypes.c_void_p) for name in (*TOKENS, *PARAMETERS, *ORDER)),
        ("order_stride", ctypes.c_int64),
        *((f"{name}_stride", ctypes.c_int64 * (len(SCHEMA[name].axes) - 1)) for name in TOKENS),
        ("kept", ctypes.c_void_p),
        ("kept_floats", ctypes.c_int64),
    )


class _Gradients(ctypes.Structure):
    """``struct ZooScanGradients`` of csrc/zoo_scan.h."""

    _fields_ = (
        ("y", ctypes.c_void_p),
        ("y_stride", ctypes.c_int64 * 3),
        *((name, ctypes.c_void_p) for name in (*TOKENS, *PARAMETERS)),
    )


@functools.cache
def library() -> ctypes.CDLL:
    """Load the compiled library and declare its functions.

    Raises:
        OSError: if it is missing or does not load.
    """
    if fault := _fault(LIBRARY):
        raise OSError(f"{LIBRARY}: {fault}")
    loaded = ctypes.CDLL(str(LIBRARY))
    word = ctypes.c_char_p
    loaded.zoo_scan_level.restype = word
    loaded.zoo_scan_level.argtypes = (word,)
    team = (word, ctypes.c_int, ctypes.c_void_p)
    loaded.zoo_scan_forward.argtypes = (ctypes.POINTER(_Scan), ctypes.c_void_p, *team)
    loaded.zoo_scan_backward.argtypes = (
        ctypes.POINTER(_Scan),
        ctypes.POINTER(_Gradients),
        *team,
    )
    loaded.zoo_ort_calls.restype = ctypes.c_int64
    many = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, word)
    loaded.zoo_scan_exp.argtypes = loaded.zoo_scan_softplus.argtypes = many
    return loaded


def _fault(path: Path) -> str | None:
    """What is wrong with a library of Linux (ELF, 64 bits); of others the system itself tells.

    The system maps a file that is cut off all the same, and the process dies when it reads there.
    Of one for another processor it may say that there is no such file.
    """
    with path.open("rb") as file:
        header = file.read(64)
        size = os.fstat(file.fileno()).st_size
    if len(header) < 64 or not header.startswith(b"\x7fELF\x02\x01"):
        return None
    machine = int.from_bytes(header[18:20], "little")
    if machine != _ELF_MACHINES.get(platform.machine(), machine):
        names = {number: name for name, number in _ELF_MACHINES.items()}
        return f"it is for {names.get(machine, 'another processor')}, not {platform.machine()}"
    table = int.from_bytes(header[40:48], "little")  # of sections; it is the last thing in the file
    entry, count = (int.from_bytes(header[at : at + 2], "little") for at in (58, 60))
    return None if table + entry * count <= size else "the file is cut off"


def ort_library() -> str:
    """Path of the library, for ``onnxruntime.SessionOptions.register_custom_ops_library``.

    With it, a session runs ``zoo::SelectiveScan`` and ``zoo::SelectiveScanSum`` on this kernel.

    Raises:
        RuntimeError: if the library cannot run here, with the reason.
    """
    why_not = unavailable()
    if why_not:
        raise RuntimeError(f"no operator for ONNX Runtime: {why_not}")
    return str(LIBRARY)


def ort_calls() -> int:
    """How many times this process has run the scan for ONNX Runtime."""
    return int(library().zoo_ort_calls())


def level() -> str | None:
    """The instruction set that calls use, or None if the requested one cannot run here."""
    name = library().zoo_scan_level(None)
    return name.decode() if name else None


def summary() -> str:
    return f"C++ kernel, instruction set {level()}"


def unavailable() -> str | None:
    if not LIBRARY.exists():
        return (
            "its library is not built: this is the wheel for any platform, or there was no C++ "
            "compiler; install the wheel of this platform, or g++ or clang++ and the package again "
            "(pip install --force-reinstall --no-deps --no-cache-dir)"
        )
    try:
        usable = level()
    except OSError as error:
        return f"its library does not load ({error}); install the package again on this machine"
    except AttributeError as error:  # a checkout that has gone on since the kernel was compiled
        return f"its library is of another version of the package ({error}); install it again"
    if usable is None:
        asked = os.environ.get(LEVEL_ENVIRONMENT)
        known = ", ".join(name for name in LEVELS if library().zoo_scan_level(name.encode()))
        return f"environment variable {LEVEL_ENVIRONMENT} is {asked!r}; this CPU runs {known}"
    return None


def declines(inputs: ScanInputs) -> str | None:
    if inputs.u.device.type != "cpu":
        return f"it runs on the CPU, and the tokens are on {inputs.u.device}"
    if inputs.u.dtype not in _DTYPES:
        return f"it computes in float32, and the tokens are {inputs.u.dtype}"
    return None


def forward(inputs: ScanInputs, reduce: bool) -> Tensor:
    return _forward(_dense(inputs), reduce, None)


def forward_keeping(inputs: ScanInputs, reduce: bool) -> tuple[Tensor, Tensor]:
    dense = _dense(inputs)
    kept = dense.A.new_empty(_kept_shape(dense))
    return _forward(dense, reduce, kept), kept


def _forward(dense: ScanInputs, reduce: bool, kept: Tensor | None) -> Tensor:
    inner = dense.u.shape[2:] if reduce else dense.D.shape
    y = dense.u.new_empty(*dense.u.shape[:2], *inner)
    run("zoo_scan_forward", dense.order, describe(dense, reduce, kept), y.data_ptr())
    return y


def _kept_shape(inputs: ScanInputs) -> tuple[int, ...]:
    """Shape (B, K, (S - 1) // 32, N, E) of the states that a scan keeps."""
    sizes = axis_sizes(inputs)
    return (*(sizes[a] for a in "BK"), (sizes["S"] - 1) // KEPT_STEPS, *(sizes[a] for a in "NE"))


def backward(inputs: ScanInputs, grad_y: Tensor, reduce: bool) -> ScanGradients:
    return _backward(inputs, None, grad_y, reduce)


def backward_kept(inputs: ScanInputs, kept: Tensor, grad_y: Tensor, reduce: bool) -> ScanGradients:
    # Whatever is not what this backend keeps for these inputs is computed again.
    mine = kept.shape == _kept_shape(inputs) and kept.dtype == torch.float32
    return _backward(inputs, kept.contiguous() if mine else None, grad_y, reduce)


def _backward(
    inputs: ScanInputs, kept: Tensor | None, grad_y: Tensor, reduce: bool
) -> ScanGradients:
    dense = _dense(inputs)
    grad_y = _dense_rows(grad_y)
    found = {
        name: torch.empty_like(tensor, memory_format=torch.contiguous_format)
        for name, tensor in differentiable(dense).items()
    }
    stride = [*grad_y.stride()[:-1], 0] if reduce else grad_y.stride()[:-1]
    described = _Gradients(
        y=grad_y.data_ptr(),
        y_stride=tuple(stride),
        **{name: tensor.data_ptr() for name, tensor in found.items()},
    )
    run("zoo_scan_backward", dense.order, describe(dense, reduce, kept), ctypes.byref(described))
    return gradients_of(found)


def _dense(inputs: ScanInputs) -> ScanInputs:
    """Convert the inputs for the library: tokens with contiguous rows, parameters contiguous."""
    return ScanInputs._make([dense(t) for dense, t in zip(_DENSE, inputs, strict=True)])


def _contiguous(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


def _dense_rows(tensor: Tensor) -> Tensor:
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


_DENSE: tuple[Callable[..., Any], ...] = tuple(
    _dense_rows if name in TOKENS else _contiguous for name in SCHEMA
)
_POINTERS = attrgetter(*TOKENS, *PARAMETERS, *ORDER)
_STRIDED = attrgetter(*TOKENS)
"""Both getters return tensors in the order of the C structure."""


def describe(inputs: ScanInputs, reduce: bool, kept: Tensor | None = None) -> _Scan:
    """The structure of a call. Its tensors must lie as the library reads them, and stay alive."""
    return _Scan(
        _DTYPES[inputs.u.dtype],
        reduce,
        *axis_sizes(inputs).values(),
        *[None if t is None else t.data_ptr() for t in _POINTERS(inputs)],
        0 if inputs.order.dim() == 2 else inputs.order.stride(0),
        *[tensor.stride()[:-1] for tensor in _STRIDED(inputs)],
        None if kept is None else kept.data_ptr(),
        0 if kept is None else kept.numel(),
    )


@functools.cache
def _openmp() -> int | None:
    """Address of the OpenMP function that starts PyTorch's threads, or None if it is not found.

    PyTorch's threads spin while they wait for the next operation; a second team would compete with
    them for cores.
    """
    try:
        return ctypes.cast(ctypes.CDLL(None).GOMP_parallel, ctypes.c_void_p).value
    except (AttributeError, OSError, TypeError):
        return None


def run(function: str, order: Tensor, described: _Scan, results: Any) -> None:
    """Call a function of the library on a scan of which this is the order.

    Raises:
        ValueError: if the order is wrong.
    """
    team = (torch.get_num_threads(), _openmp())
    status = getattr(library(), function)(ctypes.byref(described), results, None, *team)
    if status in _WRONG_ORDER:
        check_order(order, described.tokens)  # names the entry
        raise ValueError("order was wrong, and another thread has changed it since")
    raise_for(status, function, "the selective scan")


def raise_for(status: int, function: str, what: str) -> None:
    """Raise the error that a status of the library stands for, if it stands for one."""
    if status == _OUT_OF_MEMORY:
        raise MemoryError(f"out of memory in {what}")
    if status == _MISALIGNED:
        raise ValueError("a tensor's memory starts between two elements; pass a copy of it")
    if status:
        raise RuntimeError(f"{function} failed with status {status}: {unavailable()}")
