"""A Python file as a tree with byte positions, and the parts of it where a fault means nothing."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from typing import TypeAlias

_TOLD = re.compile(
    r"^(print|\w*logger\.\w+|logging\.\w+|warnings\.warn|parser\.error|self\.error|tell|"
    r"sys\.std(out|err)\.write|cast|TypeVar|\w*\.add_argument_group|isinstance|issubclass)$"
)
"""Calls whose arguments are messages, or types."""

TEXTS = {
    *("help", "metavar", "description", "epilog", "prog", "usage", "desc", "unit", "title", "what"),
    *("device", "stacklevel", "exc_info", "encoding", "indent", "strict", "from_"),
}
"""Keywords of texts, and those that no result on a CPU depends on."""

_GPU = re.compile(r"\bcuda\b|is_cuda")
_WINDOWS = re.compile(r"sys\.platform (==|!=) ['\"]win32['\"]")


Parameters: TypeAlias = set[tuple[str, str]]
"""Names of functions, each with the name of a parameter."""


class Source:
    """A parsed file.

    Attributes:
        content: its bytes.
        tree: its syntax tree; every node has its parent in ``parents``.
        required: functions and those parameters of theirs that every call must give.
    """

    def __init__(self, content: bytes, required: Parameters | None = None) -> None:
        self.content, self.required = content, required or set()
        self.tree = ast.parse(content)
        lengths = [0]
        for line in content.splitlines(keepends=True):
            lengths.append(lengths[-1] + len(line))
        self._starts = lengths
        self.parents = {
            child: node for node in ast.walk(self.tree) for child in ast.iter_child_nodes(node)
        }

    def start(self, node: ast.AST) -> int:
        return self._starts[node.lineno - 1] + node.col_offset  # type: ignore[attr-defined]

    def stop(self, node: ast.AST) -> int:
        return self._starts[node.end_lineno - 1] + node.end_col_offset  # type: ignore[attr-defined]

    def text(self, node: ast.AST) -> str:
        return self.content[self.start(node) : self.stop(node)].decode()

    def between(self, left: ast.AST, right: ast.AST) -> tuple[int, str]:
        """Where the gap between two nodes begins, and its text; empty if it holds a comment."""
        start = self.stop(left)
        text = self.content[start : self.start(right)].decode()
        return start, "" if "#" in text else text

    def line(self, number: int) -> str:
        start, stop = self._starts[number - 1], self._starts[number]
        return self.content[start:stop].decode().strip()

    def above(self, node: ast.AST) -> Iterator[ast.AST]:
        """Its parent, the parent's parent, and so on."""
        while node in self.parents:
            node = self.parents[node]
            yield node

    def qualified_name(self, node: ast.AST) -> str:
        """Names of the classes and functions around a node, and its own."""
        names = [found.name for found in (node, *self.above(node)) if isinstance(found, _NAMED)]
        return ".".join(reversed(names))

    def import_lines(self) -> set[int]:
        """Lines that run when the file is imported, and not when a function is called."""
        inside = {
            line
            for node in ast.walk(self.tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            for statement in node.body
            for line in range(statement.lineno, (statement.end_lineno or 0) + 1)
        }
        return set(range(1, len(self._starts))) - inside


def required_parameters(trees: Iterable[ast.AST]) -> Parameters:
    """Names of functions and dataclasses, with each parameter that has no default.

    A call without one of them fails at once, which is not a fault worth planting.
    """
    needed: Parameters = set()
    optional: Parameters = set()
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                _parameters(node.name, node.args, needed, optional)
            if not isinstance(node, ast.ClassDef):
                continue
            for item in node.body:
                if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                    (needed if item.value is None else optional).add((node.name, item.target.id))
                if isinstance(item, ast.FunctionDef) and item.name == "__init__":
                    _parameters(node.name, item.args, needed, optional)
    return needed - optional


def _parameters(
    name: str,
    arguments: ast.arguments,
    needed: set[tuple[str, str]],
    optional: set[tuple[str, str]],
) -> None:
    placed = [*arguments.posonlyargs, *arguments.args]
    first = len(placed) - len(arguments.defaults)
    for index, item in enumerate(placed):
        (needed if index < first else optional).add((name, item.arg))
    for item, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        (needed if default is None else optional).add((name, item.arg))


_NAMED = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def open_nodes(source: Source, excluded: set[str]) -> Iterator[ast.AST]:
    """The nodes in which faults matter, parents before children.

    Left out are docstrings, messages of errors, logs and prints, help texts, annotations and type
    aliases, ``__all__``, f-strings (their positions are unknown before Python 3.12, and most are
    messages), assertions and what else is for type checkers, what runs only as ``__main__``, and
    branches for CUDA and for Windows.

    Args:
        source: the file.
        excluded: qualified names of classes and functions to leave out; "" for the whole file.
    """
    if "" in excluded:
        return
    waiting: list[ast.AST] = [source.tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, _NAMED) and source.qualified_name(node) in excluded:
            continue
        if _closed(source, node):
            continue
        yield node
        waiting.extend(reversed(_children(source, node)))


_SILENT = (
    *(ast.Raise, ast.Assert, ast.JoinedStr),
    *(ast.Import, ast.ImportFrom, ast.Global, ast.Nonlocal),
)


def _closed(source: Source, node: ast.AST) -> bool:
    if isinstance(node, _SILENT):
        return True
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return True
    if isinstance(node, ast.Assign):
        names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        if "__all__" in names or "logger" in names:
            return True
        # An alias such as ``Run = Callable[[Tensor], Tensor]``.
        value = node.value
        alias = isinstance(value, ast.Subscript) and re.match(
            r"(Callable|Union|Optional|Annotated|Literal|dict|list|tuple)\[", source.text(value)
        )
        return bool(alias)
    if isinstance(node, ast.AnnAssign):
        return "TypeAlias" in source.text(node.annotation)
    if isinstance(node, ast.Call) and _GPU.search(source.text(node.func)):
        return True
    if "pragma: no cover" in (source.line(node.lineno) if hasattr(node, "lineno") else ""):
        return True
    return isinstance(node, ast.If) and bool(
        re.match(r"(TYPE_CHECKING|__name__ ==|typing\.TYPE_CHECKING)", source.text(node.test))
    )


def _children(source: Source, node: ast.AST) -> list[ast.AST]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        if any(source.text(item).endswith("overload") for item in node.decorator_list):
            return []
        return [*node.decorator_list, *_defaults(node), *node.body]
    if isinstance(node, ast.Lambda):
        return [*_defaults(node), node.body]
    if isinstance(node, ast.AnnAssign):
        return [node.value] if node.value is not None else []
    if isinstance(node, ast.Call) and _TOLD.match(source.text(node.func)):
        return []
    if isinstance(node, ast.Call):
        named = [item for item in node.keywords if item.arg not in TEXTS]
        options = source.text(node.func).endswith(".add_argument")
        return [node.func, *([] if options else node.args), *named]
    windows = isinstance(node, ast.If) and _WINDOWS.fullmatch(source.text(node.test))
    if windows:
        return list(node.orelse if windows[1] == "==" else node.body)
    if isinstance(node, ast.If | ast.IfExp) and _GPU.search(source.text(node.test)):
        # The branch for CUDA; which of the two it is nobody knows, and the condition is for it.
        other = node.orelse if isinstance(node.orelse, list) else [node.orelse]
        return list(other)
    return list(ast.iter_child_nodes(node))


def _defaults(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> list[ast.AST]:
    found = [*node.args.defaults, *node.args.kw_defaults]
    return [item for item in found if item is not None]
