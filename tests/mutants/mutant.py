"""Mutants of a file: faults at known places, named so that a result can be kept."""

from __future__ import annotations

import ast
import hashlib
from dataclasses import dataclass

from tests.mutants.operators import OPERATORS
from tests.mutants.source import Parameters, Source, open_nodes


@dataclass(frozen=True)
class Mutant:
    """A fault at one place.

    Attributes:
        path: of the file, from the repository's root.
        operator: the kind of fault.
        line: where it begins, from 1.
        start, stop: the replaced bytes.
        replacement: what replaces them.
        digest: of the file.
    """

    path: str
    operator: str
    line: int
    start: int
    stop: int
    replacement: str
    digest: str

    @property
    def key(self) -> str:
        """Names the mutant for good: another content of the file makes another mutant."""
        words = (self.path, self.digest, self.operator, self.start, self.stop, self.replacement)
        return hashlib.sha1(repr(words).encode()).hexdigest()[:12]

    def applied(self, content: bytes) -> bytes:
        return content[: self.start] + self.replacement.encode() + content[self.stop :]

    def is_program(self, content: bytes) -> bool:
        """Whether the file stays valid Python and becomes another program."""
        try:
            return ast.dump(ast.parse(self.applied(content))) != ast.dump(ast.parse(content))
        except SyntaxError:
            return False

    def difference(self, content: bytes) -> str:
        """The changed lines, as ``old => new``."""
        first = content.rfind(b"\n", 0, self.start) + 1
        last = content.find(b"\n", self.stop)
        after = content[self.stop : last if last >= 0 else None].decode()
        before = content[first : self.start].decode()
        old = content[self.start : self.stop].decode()
        sides = (f"{before}{text}{after}" for text in (old, self.replacement))
        return " => ".join(one_line(side) for side in sides)


def one_line(text: str) -> str:
    return " ".join(line.strip() for line in text.splitlines())


def mutants_of(
    path: str,
    content: bytes,
    excluded: set[str] | None = None,
    required: Parameters | None = None,
) -> list[Mutant]:
    """All faults of a file.

    Args:
        path: of the file, from the repository's root.
        content: its bytes.
        excluded: qualified names that get none; "" for the whole file.
        required: functions and parameters that every call must give: see ``required_parameters``.
    """
    source = Source(content, required)
    digest = hashlib.sha1(content).hexdigest()[:12]
    found: dict[tuple[int, int, str], Mutant] = {}
    for node in open_nodes(source, excluded or set()):
        for operator in OPERATORS:
            for name, start, stop, text in operator(source, node):
                line = content.count(b"\n", 0, start) + 1
                mutant = Mutant(path, name, line, start, stop, text, digest)
                found.setdefault((start, stop, text), mutant)
    return list(found.values())
