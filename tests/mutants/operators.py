"""Faults that people make: each operator turns a piece of code into a likely mistake.

An operator is a generator of faults of one node. All are tried on every node of a file.
"""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Callable, Iterator
from itertools import pairwise

from tests.mutants.source import TEXTS, Source

Fault = tuple[str, int, int, str]
"""Name of the operator, where the replaced bytes start and stop, and what replaces them."""


def _whole(source: Source, node: ast.AST, name: str, text: str) -> Fault:
    return name, source.start(node), source.stop(node), text


def _wrapped(source: Source, node: ast.expr) -> str:
    text = source.text(node)
    plain = isinstance(node, ast.Name | ast.Attribute | ast.Call | ast.Subscript | ast.Constant)
    return text if plain else f"({text})"


_SIGNS = {ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "/"), ast.Div: ("/", "*")}
_ARITHMETIC = {**_SIGNS, ast.FloorDiv: ("//", "*"), ast.Mod: ("%", "//"), ast.Pow: ("**", "*")}


def wrong_sign(source: Source, node: ast.AST) -> Iterator[Fault]:
    """Plus for minus, times for divided by; a minus forgotten; text and lists are not added so."""
    if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC and not _is_text(node):
        old, new = _ARITHMETIC[type(node.op)]
        start, gap = source.between(node.left, node.right)
        if old in gap:
            place = start + gap.index(old)
            yield "wrong sign", place, place + len(old), new
    if isinstance(node, ast.AugAssign) and type(node.op) in _SIGNS and not _is_text(node.value):
        old, new = _SIGNS[type(node.op)]
        start, gap = source.between(node.target, node.value)
        if old in gap:
            yield "wrong sign", start + gap.index(old), start + gap.index(old) + 1, new
    minus = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub)
    if minus and not isinstance(node.operand, ast.Constant):
        yield _whole(source, node, "wrong sign", source.text(node.operand))


def _is_text(node: ast.AST) -> bool:
    return any(
        isinstance(item, ast.JoinedStr | ast.List | ast.Tuple)
        or (isinstance(item, ast.Constant) and isinstance(item.value, str))
        for item in ast.walk(node)
    )


def dropped_term(source: Source, node: ast.AST) -> Iterator[Fault]:
    if not isinstance(node, ast.BinOp) or type(node.op) not in _ARITHMETIC:
        return
    yield _whole(source, node, "dropped term", _wrapped(source, node.left))
    if isinstance(node.op, ast.Add | ast.Mult):
        yield _whole(source, node, "dropped term", _wrapped(source, node.right))


_AXES = re.compile(r"(^|\.)(permute|transpose|movedim|rot90|swapaxes|rearrange)$")
"""Their arguments are axes: one that is another is refused, two that are exchanged are not."""


def wrong_constant(source: Source, node: ast.AST) -> Iterator[Fault]:
    """Numbers one off or doubled, switches flipped, the last axis for the one before."""
    parent = source.parents.get(node)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = node.operand
        if isinstance(value, ast.Constant) and type(value.value) is int and value.value in (1, 2):
            yield _whole(source, node, "wrong axis or index", f"-{3 - value.value}")
    if not isinstance(node, ast.Constant) or isinstance(parent, ast.UnaryOp):
        return
    if isinstance(parent, ast.Call) and _AXES.search(source.text(parent.func)):
        return
    name = "wrong default" if _is_default(source, node) else "wrong constant"
    value = node.value
    if isinstance(value, bool):
        yield _whole(source, node, name, str(not value))
    elif isinstance(value, int):
        yield _whole(source, node, name, str(value + 1))
        if value > 1:
            yield _whole(source, node, name, str(value - 1))
    elif isinstance(value, float) and not 0 < abs(value) < 1e-6:
        # Guards against division by nothing are smaller than that, and any will do.
        yield _whole(source, node, name, repr(value * 2 if value else 1.0))
        if value:
            yield _whole(source, node, name, repr(value / 10))


def _is_default(source: Source, node: ast.AST) -> bool:
    parent = source.parents.get(node)
    if isinstance(parent, ast.arguments):
        return True
    around = source.parents.get(parent) if parent is not None else None
    return isinstance(parent, ast.AnnAssign) and isinstance(around, ast.ClassDef)


_OTHER = {
    **{"reflect": "replicate", "replicate": "reflect", "constant": "replicate"},
    **{"bilinear": "bicubic", "bicubic": "bilinear", "nearest": "bilinear"},
    **{"y": "all", "all": "y", "sum": "mean", "mean": "sum", "ij": "xy", "xy": "ij"},
    **{"fp16": "fp32", "fp32": "fp16", "bf16": "fp32", "height": "width", "width": "height"},
    **{"cpu": "meta", "relu": "silu", "silu": "relu", "min": "max", "max": "min"},
    **{"official": "corrected", "first": "last", "last": "first", "auto": "none"},
}


def wrong_choice(source: Source, node: ast.AST) -> Iterator[Fault]:
    """Another word where a word is a choice: a mode, a key, a name."""
    if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
        return
    name = "wrong default" if _is_default(source, node) else "wrong choice"
    if re.fullmatch(r"[A-Za-z_][\w.\-/]*", node.value):
        quote = source.text(node)[-1]
        others = re.findall(r"['\"]([^'\"]+)['\"]", _annotation_of_default(source, node))
        other = next((word for word in others if word != node.value), None)
        other = other or _OTHER.get(node.value, f"{node.value}_")
        yield _whole(source, node, name, quote + other + quote)


def _annotation_of_default(source: Source, node: ast.AST) -> str:
    """Such as ``Literal["adam", "adamw"]``, which tells what else it could be."""
    parent = source.parents.get(node)
    found = parent.annotation if isinstance(parent, ast.AnnAssign) else None
    if isinstance(parent, ast.arguments):
        placed = [*parent.posonlyargs, *parent.args]
        pairs = list(zip(reversed(placed), reversed(parent.defaults), strict=False))
        pairs += [(a, b) for a, b in zip(parent.kwonlyargs, parent.kw_defaults, strict=True) if b]
        found = next((argument.annotation for argument, value in pairs if value is node), None)
    return "" if found is None else source.text(found)


def swapped_axes_of_a_pattern(source: Source, node: ast.AST) -> Iterator[Fault]:
    """The last two axes after the arrow of an einsum or einops pattern."""
    if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
        return
    found = re.fullmatch(r"(.*->\s*)(.*?)(\w+)(\s+)(\w+)(\)?\s*)", node.value)
    if found:
        start, head, one, gap, two, end = found.groups()
        yield _whole(source, node, "swapped axes", repr(start + head + two + gap + one + end))
    found = re.fullmatch(r"([a-z,.]+->[a-z.]*)([a-z])([a-z])", node.value)
    if found:
        yield _whole(source, node, "swapped axes", repr(found[1] + found[3] + found[2]))


_KIN = [
    {"height", "width", "h", "w", "rows", "columns", "row", "column", "x", "y", "top", "left"},
    {"start", "stop", "first", "last", "second", "low", "high", "lower", "upper", "min", "max"},
    {"mean", "std", "gain", "bias", "scale", "shift", "weight", "red", "green", "blue", "r", "b"},
    {"before", "after", "old", "new", "source", "target", "a", "c", "d", "clean", "degraded"},
    {"restored", "baseline", "shot", "read", "tile", "overlap", "psnr", "ssim", "size", "step"},
]


_SYMMETRIC = re.compile(
    r"(^|\.)(min|max|maximum|minimum|equal|gcd|lcm|transpose|swapaxes|flip|"
    r"mean|sum|amax|amin|std|var|any|all|norm|squeeze)$"
)
"""Functions whose arguments, or whose axes, can be exchanged."""


def swapped(source: Source, node: ast.AST) -> Iterator[Fault]:
    """Neighbours exchanged: arguments, members of a tuple, names that take its members apart."""
    if isinstance(node, ast.Call):
        items = node.args
        if _SYMMETRIC.search(source.text(node.func)):
            return
    elif isinstance(node, ast.Tuple):
        items, parent = node.elts, source.parents.get(node)
        if isinstance(parent, ast.Compare | ast.ExceptHandler):
            return
        if isinstance(parent, ast.Call) and _SYMMETRIC.search(source.text(parent.func)):
            return
    else:
        return
    for left, right in pairwise(items):
        if _alike(source.text(left), source.text(right)):
            _, gap = source.between(left, right)
            text = source.text(right) + gap + source.text(left)
            if gap.strip() == ",":
                yield "swapped", source.start(left), source.stop(right), text


def _alike(left: str, right: str) -> bool:
    """Whether a tired author could take one for the other."""
    if left == right or "*" in left[:1] + right[:1] or max(len(left), len(right)) > 40:
        return False
    if re.fullmatch(r"-?[\d.]+", left) and re.fullmatch(r"-?[\d.]+", right):
        return True
    one, two = (set(re.findall(r"[a-z]+", text.lower())) for text in (left, right))
    if any(one & kin and two & kin for kin in _KIN):
        return True
    return difflib.SequenceMatcher(None, left, right).ratio() > 0.7


_COMPARISONS: dict[type, list[tuple[str, str]]] = {
    ast.Lt: [("<", "<="), ("<", ">=")],
    ast.LtE: [("<=", "<"), ("<=", ">")],
    ast.Gt: [(">", ">="), (">", "<=")],
    ast.GtE: [(">=", ">"), (">=", "<")],
    ast.Eq: [("==", "!=")],
    ast.NotEq: [("!=", "==")],
    ast.Is: [("is", "is not")],
    ast.IsNot: [("is not", "is")],
    ast.In: [("in", "not in")],
    ast.NotIn: [("not in", "in")],
}


def wrong_comparison(source: Source, node: ast.AST) -> Iterator[Fault]:
    if not isinstance(node, ast.Compare) or len(node.ops) != 1:
        return
    start, gap = source.between(node.left, node.comparators[0])
    for old, new in _COMPARISONS[type(node.ops[0])]:
        if old in gap:
            place = start + gap.index(old)
            yield "wrong comparison", place, place + len(old), new


def wrong_condition(source: Source, node: ast.AST) -> Iterator[Fault]:
    """``and`` for ``or``, half of a condition forgotten, a condition negated, a check left out."""
    if isinstance(node, ast.BoolOp):
        old, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in pairwise(node.values):
            start, gap = source.between(left, right)
            if old in gap and len(node.values) == 2:
                place = start + gap.index(old)
                yield "and for or", place, place + len(old), new
        if len(node.values) == 2:
            for part in node.values:
                yield _whole(source, node, "half a condition", _wrapped(source, part))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield _whole(source, node, "negated condition", _wrapped(source, node.operand))
    if isinstance(node, ast.If | ast.IfExp | ast.While) and not isinstance(
        node.test, ast.Compare | ast.UnaryOp | ast.Constant
    ):
        text = f"not ({source.text(node.test)})"
        yield _whole(source, node.test, "negated condition", text)
    if isinstance(node, ast.If) and not node.orelse:
        leaves = ast.Raise | ast.Return | ast.Continue | ast.Break
        if len(node.body) == 1 and isinstance(node.body[0], leaves):
            yield _whole(source, node.test, "forgotten case", "False")


# Neither has contiguous(), cpu(), to() or clone(): most of the time their lack changes nothing.
_STEPS = {
    *("eval", "train", "clamp", "clamp_", "clip", "detach", "abs", "sqrt", "square", "exp", "log"),
    *("flip", "roll", "transpose", "permute", "flatten", "float", "double", "round", "floor"),
    *(
        "sigmoid",
        "relu",
        "lower",
        "upper",
        "strip",
        "resolve",
        "copy",
        "clone",
        "sort",
        "mT",
        "neg",
    ),
    *("requires_grad_", "mul", "div", "add", "sub", "mul_", "div_", "add_", "sub_", "fliplr"),
    *("masked_fill", "nan_to_num", "expanduser", "absolute", "rstrip", "lstrip", "long"),
}
_FUNCTIONS = {
    *("abs", "sorted", "round", "reversed", "min", "max", "torch.flip", "torch.abs", "torch.sqrt"),
    *("F.softplus", "F.silu", "F.relu", "F.gelu", "torch.exp", "torch.sigmoid", "math.sqrt"),
    *("torch.log", "math.log", "torch.roll", "math.ceil", "math.floor", "np.clip", "np.rint"),
    *("torch.clamp", "np.sqrt", "np.flip", "F.pad", "F.normalize", "set"),
    *("torch.round", "np.round", "frozenset", "torch.tanh", "copy.deepcopy", "deepcopy"),
}


def forgotten_call(source: Source, node: ast.AST) -> Iterator[Fault]:
    """``x.clamp(0, 1)`` or ``abs(x)`` as ``x``; of ``max(a, b)`` one of the two."""
    if not isinstance(node, ast.Call):
        return
    function = source.text(node.func)
    step = isinstance(node.func, ast.Attribute) and node.func.attr in _STEPS
    if step and not re.match(r"(torch|F|math|np)\.", function):
        yield _whole(source, node, "forgotten call", source.text(node.func.value))
    if function in _FUNCTIONS and node.args and not isinstance(node.args[0], ast.Starred):
        several = function in ("min", "max")
        if not several or len(node.args) > 1:
            for item in node.args if several else node.args[:1]:
                yield _whole(source, node, "forgotten call", _wrapped(source, item))
    if function == "range" and len(node.args) == 1:
        text = source.text(node.args[0])
        yield _whole(source, node.args[0], "off by one", f"{text} - 1")


_UNMISSED = re.compile(
    r"torch\.cuda\.|\w*logger\.|logging\.|super\(\)\.__init__|\w+\.add_argument\("
)
"""Calls that are not forgotten: logs, and what fails at once for all to see."""


def forgotten_statement(source: Source, node: ast.AST) -> Iterator[Fault]:
    called = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    if called and not _UNMISSED.match(source.text(node)):
        yield _whole(source, node, "forgotten statement", "pass")
    if isinstance(node, ast.AugAssign | ast.Continue | ast.Break | ast.Delete):
        yield _whole(source, node, "forgotten statement", "pass")
    if isinstance(node, ast.Assign):
        (target, *more) = node.targets
        around = [item.name for item in source.above(node) if isinstance(item, ast.FunctionDef)]
        stored = isinstance(target, ast.Attribute | ast.Subscript) and "__init__" not in around
        names = {item.id for item in ast.walk(node.value) if isinstance(item, ast.Name)}
        again = isinstance(target, ast.Name) and target.id in names
        if around and not more and (stored or again):
            yield _whole(source, node, "forgotten statement", "pass")


def forgotten_context(source: Source, node: ast.AST) -> Iterator[Fault]:
    """The body of a ``with`` without it; a decorator of PyTorch left away."""
    if isinstance(node, ast.With) and not any(item.optional_vars for item in node.items):
        start, stop = source.start(node), source.stop(node.items[-1].context_expr)
        rest = re.match(rb"\s*,?\s*\)?\s*:", source.content[stop:])
        if rest:
            yield "forgotten with", start, stop + rest.end(), "if True:"
    if isinstance(node, ast.FunctionDef):
        for item in node.decorator_list:
            text = source.text(item)
            if text.startswith("torch.") and "jit" not in text:
                name = "forgotten decorator"
                yield name, source.start(item), source.stop(item), "(lambda function: function)"


UNMOVED = TEXTS | {"required", "type", "dest", "nargs", "exist_ok", "parents"}
"""Keywords that are not dropped."""


def dropped_keyword(source: Source, node: ast.AST) -> Iterator[Fault]:
    if not isinstance(node, ast.Call):
        return
    function = source.text(node.func).split(".")[-1]
    for item in node.keywords:
        if item.arg is None or item.arg in UNMOVED or (function, item.arg) in source.required:
            continue
        start, stop = source.start(item), source.stop(item)
        before = source.content[:start].rstrip()
        after = re.match(rb"\s*,", source.content[stop:])
        if before.endswith(b","):
            yield "dropped keyword", len(before) - 1, stop, ""
        elif before.endswith(b"("):
            yield "dropped keyword", start, stop + (after.end() if after else 0), ""


OPERATORS: list[Callable[[Source, ast.AST], Iterator[Fault]]] = [
    wrong_sign,
    dropped_term,
    wrong_constant,
    wrong_choice,
    swapped_axes_of_a_pattern,
    swapped,
    wrong_comparison,
    wrong_condition,
    forgotten_call,
    forgotten_statement,
    forgotten_context,
    dropped_keyword,
]
