"""What may import what. The layers are contracts in pyproject.toml, which ``make lint`` checks."""

from __future__ import annotations

import ast
import graphlib
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[1]
PACKAGES = ("zoo", "export", "recipes", "trt_plugins")
OPTIONAL = {
    "causal_conv1d", "gradio", "mamba_ssm", "onnx", "onnx_ir", "onnxruntime", "onnxscript",
    "skimage", "sklearn", "spandrel", "tensorboard", "tensorrt", "tensorrt_rtx", "timm",
    "torch.utils.tensorboard", "triton",
}  # fmt: skip
"""Packages that the project works without."""

NEED = {
    "triton": {
        f"zoo.ops.scan.triton.{name}" for name in ("device", "gradients", "kernels", "launch")
    },
    "onnx": {"export"},
    "onnx_ir": {"export"},
    "onnxscript": {"export"},
}
"""Modules and packages that may import an optional one at the top: they are useless without it."""


def test_there_is_no_import_circle():
    """Imports inside functions count; imports for type checkers do not."""
    graph = grimp.build_graph(*PACKAGES, exclude_type_checking_imports=True, cache_dir=None)
    assert len(graph.modules) > 100
    imports = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    graphlib.TopologicalSorter(imports).prepare()  # raises CycleError, which names the circle


def test_importing_takes_nothing_optional():
    imports = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            imports[name] = set(imported_at_the_top(ast.parse(path.read_text()).body))
    assert len(imports) > 100 and "triton" in imports["zoo.ops.scan.triton.kernels"]
    for name in imports:
        for optional in sorted(OPTIONAL & set(loaded(name, imports))):
            needed = NEED.get(optional, set())
            assert any(name == n or name.startswith(f"{n}.") for n in needed), (
                f"import {name} imports {optional}, which is optional; import it in the function "
                "that uses it"
            )


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
    """Third-party modules that importing a module loads, directly or through modules of ours."""
    seen, waiting = set(), [name]
    while waiting:
        module = waiting.pop()
        if module in seen:
            continue
        seen.add(module)
        parent = module.rpartition(".")[0]  # a package is imported before its modules
        waiting += [*imports.get(module, ()), *([parent] if parent else [])]
    return {module for module in seen if module not in imports}
