"""Numbers at the top of modules, against a table: limits, thresholds and tags of file formats.

Most of them are decisions that no behaviour shows exactly. Changing one is a line in the table too.
"""

from __future__ import annotations

import ast
import contextlib
import operator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
TABLE = yaml.safe_load((ROOT / "tests" / "constants.yaml").read_text())
FOLDERS = ("zoo", "export", "recipes", "trt_plugins")
OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.LShift: operator.lshift,
    ast.BitOr: operator.or_,
}


def key(node):
    """A key of a table of numbers: a number, a word, or the name of a dtype."""
    if isinstance(node, ast.Attribute):
        return ast.unparse(node)
    if isinstance(node, ast.Constant) and type(node.value) in (int, str):
        return node.value
    raise ValueError


def number(node):
    """The value of an expression of numbers, tuples as lists; ValueError for any other."""
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return value
        case ast.BinOp() if type(node.op) in OPERATORS:
            return OPERATORS[type(node.op)](number(node.left), number(node.right))
        case ast.UnaryOp(op=ast.USub()):
            return -number(node.operand)
        case ast.Tuple(elts=[_, *_]) | ast.List(elts=[_, *_]):
            return [number(item) for item in node.elts]
        case ast.Dict(keys=[_, *_]):
            return {key(k): number(v) for k, v in zip(node.keys, node.values, strict=True)}
    raise ValueError


def assigned(statement):
    """The names that a statement assigns to, each with the expression of its value."""
    match statement:
        case ast.Assign(targets=[ast.Tuple(elts=names)], value=ast.Tuple(elts=values)):
            yield from zip(names, values, strict=True)
        case ast.Assign(targets=[name], value=value) | ast.AnnAssign(target=name, value=value):
            yield name, value


def constants(text):
    """The numbers that a module assigns to names in capital letters, by name."""
    found = {}
    for statement in ast.parse(text).body:
        for name, value in assigned(statement):
            if isinstance(name, ast.Name) and name.id.isupper() and value is not None:
                with contextlib.suppress(ValueError):
                    found[name.id] = number(value)
    return found


def modules():
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), path


FOUND = {name: found for name, path in modules() if (found := constants(path.read_text()))}


@pytest.mark.parametrize("module", sorted({*FOUND, *TABLE}))
def test_numbers_of_modules_are_those_of_the_table(module):
    assert FOUND.get(module, {}) == TABLE.get(module, {}), (
        f"change tests/constants.yaml too, if {module} is right"
    )


def test_numbers_are_found_however_they_are_written():
    text = "A = 1\nB: int = 2**4 - 1\n_C = (-1.5, (2, 1 << 3))\nH, I, j = 3, 'x', 4"
    text += "\nK: dict = {'a': 1, 2: (3, 4), torch.half: -1}"
    others = (
        "D = True\ne = 5\nF = len('x')\nG = ()\nL = {}\nM = {'a': 'b'}\nN = {(1, 2): 3}\nO: int"
    )
    assert constants(f"{text}\n{others}") == {
        **{"A": 1, "B": 15, "_C": [-1.5, [2, 8]], "H": 3},
        **{"K": {"a": 1, 2: [3, 4], "torch.half": -1}},
    }
