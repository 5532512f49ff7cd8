"""What may import what; ``make lint`` checks the contracts of pyproject.toml."""

from __future__ import annotations

import ast
import graphlib
import importlib
import re
import sys
from pathlib import Path

import grimp
import pytest

import zoo
from zoo.cli import COMMANDS

ROOT = Path(__file__).parents[1]
PACKAGES = ("zoo", "export", "recipes", "trt_plugins")
CORE = {
    "einops": "einops",
    "numpy": "numpy",
    "opencv-python-headless": "cv2",
    "pyyaml": "yaml",
    "safetensors": "safetensors",
    "torch": "torch",
    "tqdm": "tqdm",
}
"""The core dependencies, and the module of each."""

NEED = {
    **{
        f"zoo.ops.scan.triton.{n}": {"triton"}
        for n in ("device", "gradients", "kernels", "norm", "plan")
    },
    **{
        f"export.{n}": {"onnx"}
        for n in ("engine", "engine_file", "routes", "scan_function", "verify")
    },
    "zoo.ops.scan.self_check.tiny": {"triton"},
    "export.blocks": {"onnx_ir"},
    "export.graph": {"onnx", "onnx_ir", "onnxscript"},
    "export.tracing": {"onnx", "onnx_ir", "onnxscript"},
    "zoo.app.page": {"gradio"},
}
"""Modules that may import an optional package at the top: they are useless without it."""

LOAD = {*NEED, "zoo.ops.scan.triton.launch"}
"""Modules that may load one, by themselves or through these modules."""


def test_there_is_no_import_circle():
    """Imports inside functions count; imports for type checkers do not."""
    graph = grimp.build_graph(*PACKAGES, exclude_type_checking_imports=True, cache_dir=None)
    assert len(graph.modules) > 100
    imports = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    graphlib.TopologicalSorter(imports).prepare()  # raises CycleError, which names the circle


@pytest.fixture(scope="module")
def trees():
    """The syntax tree of each module."""
    found = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = ast.parse(path.read_text(encoding="utf-8"))
    assert len(found) > 100
    return found


def test_modules_import_only_the_core_at_the_top(trees):
    imports = {name: set(imported_at_the_top(tree.body)) for name, tree in trees.items()}
    for name, direct in imports.items():
        wrong = not_core(name, direct) - NEED.get(name, set())
        assert not wrong, f"{name} imports {wrong}; import them in the function that uses them"


def test_importing_loads_nothing_optional(trees):
    """Not by another module either, except in export: its commands need ONNX."""
    imports = {name: set(imported_at_the_top(tree.body)) for name, tree in trees.items()}
    for name in imports:
        if name not in LOAD and name.partition(".")[0] != "export":
            wrong = not_core(name, loaded(name, imports))
            assert not wrong, f"import {name} loads {wrong}"


def test_each_exception_is_in_use(trees):
    for name, packages in NEED.items():
        assert not_core(name, set(imported_at_the_top(trees[name].body))) == packages, name


def not_core(name, modules):
    """Return the packages of ``modules`` that a module may not import at its top."""
    own = {"zoo"} if name.partition(".")[0] == "zoo" else set(PACKAGES)
    allowed = {*sys.stdlib_module_names, *CORE.values(), *own}
    boards = {m for m in modules if m.startswith("torch.utils.tensorboard")}  # not in torch
    return boards | ({module.partition(".")[0] for module in modules} - allowed)


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("import PIL", {"PIL"}),
        ("from scipy.ndimage import zoom", {"scipy"}),
        ("import recipes.train", {"recipes"}),
        ("from torch.utils import tensorboard", {"torch.utils.tensorboard"}),
        ("import os, numpy as np\nfrom zoo.errors import ZooError\nfrom torch import nn", set()),
        ("def f():\n    import PIL", set()),
        ("try:\n    import PIL\nexcept ImportError:\n    pass", {"PIL"}),
    ],
)
def test_what_is_not_core_is_found(line, wrong):
    assert not_core("zoo.files", set(imported_at_the_top(ast.parse(line).body))) == wrong


def test_the_core_is_what_the_package_depends_on():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (listed,) = re.findall(r"^dependencies = \[\n(.*?)^\]", text, re.MULTILINE | re.DOTALL)
    assert sorted(re.findall(r'"([\w-]+)', listed)) == sorted(CORE)


def test_nothing_in_zoo_imports_names_of_the_package_itself(trees):
    """Its names are imported on demand, so the contracts would not see the dependency."""
    for name, tree in trees.items():
        if name.partition(".")[0] == "zoo":
            assert not of_the_package_itself(tree), f"{name}: import from the module instead"


def of_the_package_itself(tree):
    """Return the names that a module imports from the package ``zoo``, in functions too."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name == "zoo"]
        elif isinstance(node, ast.ImportFrom) and node.module == "zoo":
            names = [alias.name for alias in node.names]
            paths = {name: ROOT / "zoo" / name for name in names}
            found += [
                n for n, p in paths.items() if not (p.is_dir() or p.with_suffix(".py").exists())
            ]
    return found


def test_imports_of_the_package_itself_are_found():
    code = "import zoo.files\nfrom zoo import errors, heads\ndef f():\n    import zoo\n"
    tree = ast.parse(f"{code}    from zoo import load, ops")
    assert of_the_package_itself(tree) == ["zoo", "load"]


def test_names_of_the_package_are_where_it_looks_for_them():
    assert sorted(zoo._HOMES) == zoo.__all__
    for name, home in zoo._HOMES.items():
        assert hasattr(importlib.import_module(home), name), f"{home} has no {name}"


def test_forwarded_commands_exist():
    for home, _ in COMMANDS.values():
        assert callable(importlib.import_module(home).main), home


def test_no_test_imports_another():
    """What tests share is in modules that hold no tests."""
    for path in (ROOT / "tests").rglob("*.py"):
        nodes = ast.walk(ast.parse(path.read_text()))
        everywhere = [node for node in nodes if isinstance(node, (ast.Import, ast.ImportFrom))]
        shared = [n for n in imported_at_the_top(everywhere) if n.startswith("tests.")]
        assert not [name for name in shared if ".test_" in name], f"{path} imports {shared}"


def imported_at_the_top(body):
    """Names of what is imported with the module: of ``from a import b`` both ``a`` and ``a.b``."""
    for node in body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written in full"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from imported_at_the_top(node.orelse)
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for field in ("body", "orelse", "handlers", "finalbody"):
                yield from imported_at_the_top(getattr(node, field, []))


def loaded(name, imports):
    """What importing a module loads, directly or through modules of ours."""
    seen, waiting = set(), [name]
    while waiting:
        module = waiting.pop()
        if module in seen:
            continue
        seen.add(module)
        parent = module.rpartition(".")[0]  # a package is imported before its modules
        waiting += [*imports.get(module, ()), *([parent] if parent else [])]
    return seen
