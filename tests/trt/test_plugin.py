"""The plugin's life, driven through TensorRT's binary interface without TensorRT.

Every call of tests/trt/test_kernel.py takes a plugin through its whole life too; here is what
the plugin refuses, and what it must look like from outside.
"""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.helpers.plugin_checks import broken, check_exports, make
from tests.helpers.scan_cases import Case
from trt_plugins import harness as harness_module
from trt_plugins.build import SOURCES
from trt_plugins.harness import Harness, HarnessError
from zoo.ops.scan.names import EACH, NAMESPACE, SUM, VERSION

CASE = Case(B=2, L=9, K=3, E=5, R=2, N=4)


def change(inputs, place, tensor):
    return [tensor if i == place else t for i, t in enumerate(inputs)]


@pytest.mark.parametrize(("name", "shape"), [(EACH, (2, 9, 3, 5)), (SUM, (2, 9, 5))])
def test_its_output_has_the_shape_and_dtype_that_it_says(name, shape, shim):
    inputs = make(CASE, torch.float16)
    with Harness(shim, name, inputs) as harness:
        y = harness(inputs)
    assert (tuple(y.shape), y.dtype) == (shape, torch.float16)


@pytest.mark.parametrize(
    ("name", "version", "namespace"),
    [(EACH, "2", NAMESPACE), (SUM, str(VERSION), ""), ("SelectiveScanMean", "1", "zoo")],
)
def test_another_version_namespace_or_name_is_not_found(name, version, namespace, shim):
    inputs = make(CASE, torch.float32)
    with pytest.raises(HarnessError, match=r"no creator of .* there are: zoo::SelectiveScan ver"):
        Harness(shim, name, inputs, version=version, namespace=namespace)


@pytest.mark.slow
@pytest.mark.parametrize(
    "wrong",
    [
        ('kVersion = "1"', 'kVersion = "2"'),
        ('kNamespace = "zoo"', 'kNamespace = ""'),
        ("type == DataType::kINT32", "type == DataType::kINT64"),
        ("types[0] = given[kU];", "types[0] = DataType::kFLOAT;"),
    ],
    ids=["version", "namespace", "order", "output"],
)
def test_a_wrong_plugin_is_found(wrong, shim, tmp_path, monkeypatch):
    library = broken("plugin", wrong, tmp_path, monkeypatch)
    inputs = make(CASE, torch.float16)
    with pytest.raises((HarnessError, AssertionError)), Harness(library, EACH, inputs) as harness:
        assert harness(inputs).dtype == torch.float16


@pytest.mark.parametrize(
    ("place", "dtype"),
    [
        *((0, torch.float64), (1, torch.float32), (2, torch.float16), (4, torch.float16)),
        *((5, torch.bfloat16), (7, torch.float16), (8, torch.int64)),
    ],
    ids=["u", "delta", "delta_weight", "A", "B", "D", "order"],
)
def test_dtypes_that_an_export_never_has_are_refused(place, dtype, shim):
    inputs = make(CASE, torch.float16)
    wrong = change(inputs, place, inputs[place].to(dtype))
    # Where u itself is strange, so is everything that must be like it.
    with pytest.raises(HarnessError, match=f"input {place} is not supported"):
        Harness(shim, EACH, wrong)


@pytest.mark.parametrize(
    ("place", "wrong", "message"),
    [
        (1, (2, 9, 3, 7), "delta_weight (KER) has R = 2, but delta has R = 7"),
        (4, (2, 5, 4), "A (KEN) has K = 2, but delta has K = 3"),
        (5, (2, 8, 3, 4), "B (BLKN) has L = 8, but u has L = 9"),
        (6, (2, 9, 3, 3), "C (BLKN) has N = 3, but A has N = 4"),
        (7, (3,), "D has 1 dimensions; it must have 2: KE"),
        (8, (4, 9), "order (KS) has K = 4, but delta has K = 3"),
        (8, (3, 3, 9), "order (BKS) has B = 3, but u has B = 2"),
        (8, (9,), "order has 1 dimensions; it must have 2: KS, or 3: BKS"),
    ],
    ids=["delta", "A", "B", "C", "D", "order", "order of each image", "order of one axis"],
)
def test_shapes_that_do_not_fit_are_refused_in_a_sentence(place, wrong, message, shim, capfd):
    inputs = make(CASE, torch.float32)
    given = change(inputs, place, torch.zeros(wrong, dtype=inputs[place].dtype))
    with pytest.raises(HarnessError):
        Harness(shim, SUM, given)
    assert f"zoo::SelectiveScanSum: {message}\n" in capfd.readouterr().err
    # Sizes that change from call to call are looked at again.
    if place in (1, 5, 6, 8):
        with Harness(shim, SUM, inputs) as harness, pytest.raises(HarnessError, match="onShape"):
            harness(given)
        assert message in capfd.readouterr().err


def test_more_states_than_it_holds_are_refused(shim, capfd):
    with pytest.raises(HarnessError, match="configurePlugin"):
        Harness(shim, EACH, make(Case(N=33), torch.float32))
    assert "A has N = 33 states; this plugin supports at most 32" in capfd.readouterr().err


def test_the_number_of_inputs_is_checked(shim, capfd):
    with pytest.raises(HarnessError, match="getOutputDataTypes"):
        Harness(shim, EACH, make(CASE, torch.float32)[:8])
    assert "got 8 inputs and 1 outputs; it needs 9 and 1" in capfd.readouterr().err


def test_closing_destroys_the_plugin_once(shim):
    harness, closed = Harness(shim, EACH, make(CASE, torch.float32)), []
    library, handle = harness._library, harness._handle.value

    def close(given):
        closed.append(given.value)
        library.harness_close(given)

    harness._library = SimpleNamespace(harness_close=close)
    harness.close()
    harness.close()
    assert closed == [handle]


def test_functions_of_the_harness_are_declared(shim):
    """Else an address would be cut off, or a number taken for one."""
    loaded = harness_module._library()
    pointer, word, shapes = ctypes.c_void_p, ctypes.c_char_p, ctypes.POINTER(harness_module._Shape)
    error = (word, ctypes.c_size_t)
    numbers, pointers = ctypes.POINTER(ctypes.c_int32), ctypes.POINTER(pointer)
    assert loaded.harness_open.argtypes == (
        *(word, word, word, word, ctypes.c_int, numbers, shapes, shapes, pointers, *error),
    )
    assert loaded.harness_close.argtypes == (pointer,) and loaded.harness_close.restype is None
    assert loaded.harness_workspace.argtypes == (pointer,)
    assert loaded.harness_workspace.restype == ctypes.c_size_t
    assert loaded.harness_output.argtypes == (pointer, shapes, shapes)
    assert loaded.harness_run.argtypes == (
        *(pointer, shapes, pointers, shapes, pointer, pointer, pointer, *error),
    )


class Noted:
    """Stands for the harness's library and notes what it is asked."""

    def __init__(self, message=b""):
        self.calls, self.message = [], message

    def __getattr__(self, name):
        def function(*given):
            self.calls.append((name, given))
            if name == "harness_workspace":
                return 640
            given[-2].value = self.message if name in ("harness_open", "harness_run") else b""
            return int(bool(self.message))

        return function


def test_what_the_harness_asks_of_its_library(monkeypatch, tmp_path):
    library = Noted()
    monkeypatch.setattr(harness_module, "_library", lambda: library)
    largest = [torch.zeros(2, 3), torch.zeros(4, dtype=torch.float64)]
    smallest = [torch.zeros(1, 3), torch.zeros(4)]
    for least in (smallest, None):
        library.calls.clear()
        Harness(tmp_path, "Name", largest, least, version="7", namespace="space")
        [(name, given), (after, _)] = library.calls
        assert (name, after) == ("harness_open", "harness_workspace")
        assert given[:5] == (str(tmp_path).encode(), b"Name", b"7", b"space", 2)
        assert list(given[5]) == [0, 5]
        sizes = [[list(shape.size)[: shape.rank] for shape in shapes] for shapes in given[6:8]]
        assert sizes == [[[1 if least else 2, 3], [4]], [[2, 3], [4]]]
        assert len(given[-2]) == given[-1].value == 500
    library.message = b"\xff it is wrong"
    with pytest.raises(HarnessError, match="\ufffd it is wrong"):
        Harness(tmp_path, "Name", largest)


def test_what_is_not_contiguous_is_refused_or_copied(monkeypatch, tmp_path):
    library = Noted()
    monkeypatch.setattr(harness_module, "_library", lambda: library)
    wide, y = torch.zeros(3, 2).t(), torch.zeros(2, 3)
    with Harness(tmp_path, "Name", [y]) as harness:
        assert harness.workspace == 640
        for inputs, out in (([wide], y), ([y, wide], y), ([y], wide)):
            with pytest.raises(HarnessError, match="must be contiguous"):
                harness.run(inputs, out, y)
        assert harness.run([y, y], y, y) is y
        seen = []
        monkeypatch.setattr(harness, "run", lambda *given: seen.append(given) or y)
        monkeypatch.setattr(harness, "empty_output", lambda inputs: y)
        assert harness([wide]) is y
    [(inputs, out, workspace)] = seen
    assert inputs[0].is_contiguous() and out is y
    assert workspace.dtype == torch.uint8 and workspace.numel() == 640


def test_a_library_without_plugins_is_refused(tmp_path, shim):
    (tmp_path / "empty.c").write_text("int nothing;")
    library = tmp_path / "empty.so"
    words = ["c++", "-shared", "-fPIC", "-o", str(library), str(tmp_path / "empty.c")]
    subprocess.run(words, check=True)
    with pytest.raises(HarnessError, match="does not export getCreators"):
        Harness(library, EACH, make(CASE, torch.float32))
    with pytest.raises(HarnessError, match="does not load"):
        Harness(tmp_path / "none.so", EACH, make(CASE, torch.float32))


def test_it_exports_two_functions_and_needs_nothing_of_tensorrt(shim):
    check_exports(shim)


# ---- Against TensorRT's own headers ----


@pytest.mark.slow
def test_our_declaration_is_laid_out_as_tensorrts(tmp_path, nvcc):
    """With TENSORRT_ROOT: a virtual function at another place would be another function."""
    root = os.environ.get("TENSORRT_ROOT")
    if not root or not (Path(root) / "include" / "NvInferRuntime.h").is_file():
        pytest.skip("set TENSORRT_ROOT to a TensorRT, or to its headers' parent, to compare with")
    (tmp_path / "empty.cu").touch()
    told = subprocess.run(
        [nvcc, "--dryrun", "empty.cu"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    cuda = re.search(r"^#\$ TOP=(.*)$", told.stderr, re.MULTILINE)[1]
    includes = [f"-I{Path(root) / 'include'}", f"-I{Path(cuda) / 'include'}"]
    theirs = _functions(tmp_path / "theirs", includes)
    ours = _functions(tmp_path / "ours", ["-DZOO_OWN_TENSORRT_INTERFACE"])
    assert ours == theirs and [len(functions) for functions in ours] == [56, 10]


def _functions(folder, flags):
    """The virtual functions of plugin and creator in their sequence, compiled with ``flags``."""
    folder.mkdir()
    words = ["g++", "-std=c++17", "-fdump-lang-class", "-fsyntax-only", "-Wno-unknown-pragmas"]
    words += ["-Wno-deprecated-declarations", *flags, "-x", "c++", str(SOURCES / "plugin.cu")]
    subprocess.run(words, cwd=folder, check=True)
    text = next(folder.glob("*.class")).read_text()
    tables = [
        re.search(rf"^Vtable for {{anonymous}}::{name}\n(.*?)\n\n", text, re.DOTALL | re.MULTILINE)
        for name in ("ScanPlugin", "Creator")
    ]
    entries = [
        re.findall(r"^\d+ +\(int \(\*\)\(\.\.\.\)\)(?!\(&)(.*)", t[1], re.MULTILINE) for t in tables
    ]
    return [[entry.split("::")[-1] for entry in each] for each in entries]
