"""Which tests are run for a mutant, and in which sequence."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.mutants.covered import CoverageMap
from tests.mutants.mutant import Mutant
from tests.mutants.source import Source

LOOKING = ("tests/test_constants.py", "tests/test_dataclasses.py", "tests/test_part_defaults.py")
"""Tests that look at definitions, such as defaults, and run none of their lines."""


class CaseFinder:
    """Finds the tests of a mutant.

    Args:
        known: what tests run.
        contents: of all source files.
    """

    def __init__(self, known: CoverageMap, contents: dict[str, bytes]) -> None:
        self.known, self.contents = known, contents
        self._parsed: dict[str, Source] = {}

    def cases(self, mutant: Mutant) -> list[str]:
        """The tests that run a mutant's line, in the sequence in which they are to be run.

        A line that runs at import, such as a constant or a default, is run by no test of its own:
        its tests are those that look at definitions, and those that run the function it is a
        default of, the class it is in or one made of that, or any function that names what the line
        defines. What a function does only when it
        is called at import, such as a registration, any test may notice: all come after those of
        the file. Of a condition, the tests that run what it decides come first: they are often the
        only ones that can notice it, and few among many.
        """
        source, known = self._source(mutant.path), self.known
        outer = _outermost_import_statement(source, mutant.line)
        if outer is None:
            lines = _lines_of_statement(source, mutant.line)
            found = in_sequence(known.covering(mutant.path, lines), known)
            decided = set(known.covering(mutant.path, _decided(source, mutant.line)))
            found.sort(key=lambda case: case not in decided)
            if not known.imported.get(mutant.path, set()) & lines:
                return found
        else:
            inner = _innermost_statement(source, mutant.line)
            names = _defined(outer) | (set() if inner is None else _defined(inner))
            users = in_sequence(self._users(mutant.path, outer, names), known)
            looking = [case for case in known.cases if case.split("::")[0] in LOOKING]
            found = list(dict.fromkeys([*in_sequence(looking, known), *users]))
            if users:
                return found
        near = self._running_functions_of(mutant.path)
        return list(dict.fromkeys([*found, *near, *in_sequence(list(known.cases), known)]))

    def near(self, mutant: Mutant) -> list[str]:
        """Tests for a mutant that no test is known to run.

        Coverage does not see all that runs: a process that is killed tells nothing. So before such
        a mutant is said to survive, the tests are run that run something else of its file or, where
        there are none, of the files beside it.
        """
        folder = Path(mutant.path).parent
        beside = [path for path in self.contents if Path(path).parent == folder]
        return self._running_functions_of(mutant.path) or self._running_functions_of(*beside)

    def _running_functions_of(self, *paths: str) -> list[str]:
        found: set[str] = set()
        for path in paths:
            source = self._source(path)
            inside = set(range(1, len(source.content.splitlines()) + 1)) - source.import_lines()
            found.update(self.known.covering(path, inside))
        return in_sequence([case for case in self.known.cases if case in found], self.known)

    def _users(self, path: str, statement: ast.stmt, names: set[str]) -> list[str]:
        found = set(self.known.covering(path, _body(statement)))
        for name in names:
            for other, content in self.contents.items():
                if name.encode() in content:
                    source = self._source(other)
                    lines = _mentions(source, name) | _subclasses(source, name)
                    found.update(self.known.covering(other, lines))
        return list(found)

    def _source(self, path: str) -> Source:
        if path not in self._parsed:
            self._parsed[path] = Source(self.contents[path])
        return self._parsed[path]


def in_sequence(cases: list[str], known: CoverageMap) -> list[str]:
    """The cheapest first, but one case of each test before the others of any."""
    cheapest = sorted(cases, key=lambda case: known.cases[case].seconds)
    first: dict[str, str] = {}
    for case in cheapest:
        first.setdefault(case.split("[")[0], case)
    leading = set(first.values())
    return [*first.values(), *(case for case in cheapest if case not in leading)]


def within(cases: list[str], known: CoverageMap, seconds: float) -> list[str]:
    """The first of these tests, for so many seconds in all; at least one."""
    total, found = 0.0, []
    for case in cases:
        total += known.cases[case].seconds
        if found and total > seconds:
            break
        found.append(case)
    return found


def _lines_of_statement(source: Source, line: int) -> set[int]:
    """Coverage counts a statement at its first line, and a body's statements apart."""
    best = _innermost_statement(source, line)
    if best is None:
        return {line}
    inner = getattr(best, "body", None)
    last = inner[0].lineno - 1 if inner else (best.end_lineno or line)
    return set(range(best.lineno, max(last, best.lineno) + 1)) | {line}


def _decided(source: Source, line: int) -> set[int]:
    """Lines that run only if the condition on this line holds."""
    found = _innermost_statement(source, line)
    if not isinstance(found, ast.If | ast.While):
        return set()
    return set(range(found.body[0].lineno, (found.body[-1].end_lineno or 0) + 1))


def _innermost_statement(source: Source, line: int) -> ast.stmt | None:
    best = None
    for node in ast.walk(source.tree):
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or 0):
            best = node if best is None or node.lineno >= best.lineno else best
    return best


def _outermost_import_statement(source: Source, line: int) -> ast.stmt | None:
    """The function, class or statement a line of import belongs to; None for lines of functions."""
    if line not in source.import_lines():
        return None
    found = None
    for node in ast.walk(source.tree):
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or 0):
            if isinstance(node, ast.If | ast.Try | ast.With):
                continue
            if found is None or (
                isinstance(found, ast.ClassDef) and isinstance(node, ast.FunctionDef)
            ):
                found = node
    return _decorated(source, found, line)


def _decorated(source: Source, found: ast.stmt | None, line: int) -> ast.stmt | None:
    if found is not None:
        return found
    for node in ast.walk(source.tree):
        for item in getattr(node, "decorator_list", []):
            if item.lineno <= line <= (item.end_lineno or 0):
                return node  # type: ignore[return-value]
    return None


def _body(node: ast.stmt) -> set[int]:
    """Lines of the functions in a statement: running them means that it is used."""
    return {
        line
        for function in ast.walk(node)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for statement in function.body
        for line in range(statement.lineno, (statement.end_lineno or 0) + 1)
    }


def _defined(node: ast.stmt) -> set[str]:
    """Names that a statement gives to the module; a function's are known by its own lines."""
    if isinstance(node, ast.ClassDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return {
        item.id
        for target in targets
        if target is not None
        for item in ast.walk(target)
        if isinstance(item, ast.Name)
    }


def _subclasses(source: Source, name: str) -> set[int]:
    """Lines of the functions in classes made of a class."""
    return {
        line
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ClassDef)
        if any(source.text(base).split(".")[-1] == name for base in node.bases)
        for line in _body(node)
    }


def _mentions(source: Source, name: str) -> set[int]:
    """Lines of functions in which a name stands, with the whole statement around it."""
    inside = set(range(1, len(source.content.splitlines()) + 1)) - source.import_lines()
    return {
        line
        for node in ast.walk(source.tree)
        if (isinstance(node, ast.Name) and node.id == name)
        or (isinstance(node, ast.Attribute) and node.attr == name)
        for line in _lines_of_statement(source, node.lineno)
    } & inside
