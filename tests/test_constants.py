"""Numbers at the top of modules, against a table: limits, thresholds and tags of file formats.

Most of them are decisions that no behaviour shows exactly. Changing one is a line in the table too.
"""

from __future__ import annotations

import ast
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
    raise ValueError


def constants(text):
    """The numbers that a module assigns to names in capital letters, by name."""
    found = {}
    for statement in ast.parse(text).body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                if name.isupper() and statement.value is not None:
                    try:
                        found[name] = number(statement.value)
                    except ValueError:
                        continue
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
    text = "A = 1\nB: int = 2**4 - 1\n_C = (-1.5, (2, 1 << 3))"
    others = "D = True\ne = 5\nF = len('x')\nG = ()"
    assert constants(f"{text}\n{others}") == {"A": 1, "B": 15, "_C": [-1.5, [2, 8]]}
