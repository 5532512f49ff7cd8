"""Which mutants are tried: spread over the areas by their lines, and the same for the same seed."""

from __future__ import annotations

import ast
import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from tests.mutants.areas import AREAS, EXCLUDED
from tests.mutants.mutant import Mutant, mutants_of
from tests.mutants.source import required_parameters


def sources(root: Path, areas: Mapping[str, list[str]] = AREAS) -> dict[str, str]:
    """The area of each file that faults are planted in."""
    found = {}
    for area, patterns in areas.items():
        for pattern in patterns:
            for path in sorted(root.glob(pattern)):
                found[str(path.relative_to(root))] = area
    return found


class Pool:
    """The faults that can be planted, by area and line.

    Args:
        root: the repository.
        only: the files to take; all if None.
        areas: files of each area.
    """

    def __init__(
        self,
        root: Path,
        only: Collection[str] | None = None,
        areas: Mapping[str, list[str]] = AREAS,
    ) -> None:
        self.areas = sources(root, areas)
        self.contents = {path: (root / path).read_bytes() for path in self.areas}
        required = required_parameters(ast.parse(text) for text in self.contents.values())
        self.lines: dict[str, dict[tuple[str, int], list[Mutant]]] = {}
        for path, area in self.areas.items():
            if only is not None and path not in only:
                continue
            excluded = {name for file, name in EXCLUDED if file == path}
            by_line = self.lines.setdefault(area, defaultdict(list))
            for mutant in mutants_of(path, self.contents[path], excluded, required):
                by_line[path, mutant.line].append(mutant)

    def chosen(self, count: int, seed: int) -> list[Mutant]:
        """So many mutants, each on a line of its own; fewer if there are no more lines.

        The first ones of a larger count are not always those of a smaller, but in each area they
        are.
        """
        shares = shared_out(count, {area: len(lines) for area, lines in self.lines.items()})
        found = []
        for area, share in shares.items():
            mutants = self._in_turn(area, seed)
            found += [mutant for _, mutant in zip(range(share), mutants, strict=False)]
        return found

    def _in_turn(self, area: str, seed: int) -> Iterator[Mutant]:
        """A mutant of each line in a random sequence that edits of other lines leave as it is."""
        seen: Counter[str] = Counter()
        places = []
        for (path, number), mutants in sorted(self.lines[area].items()):
            text = self.contents[path].splitlines()[number - 1].strip().decode()
            seen[f"{path} {text}"] += 1
            places.append((_rank(seed, path, text, seen[f"{path} {text}"]), mutants))
        for rank, mutants in sorted(places, key=lambda place: place[0]):
            # First the kind of fault and then one of its kind: numbers would crowd out the rest.
            mutants = sorted(
                mutants,
                key=lambda mutant: (
                    _rank(rank, mutant.operator),
                    _rank(rank, mutant.replacement, mutant.start - mutants[0].start),
                ),
            )
            for mutant in mutants:
                if mutant.is_program(self.contents[mutant.path]):
                    yield mutant
                    break


def shared_out(count: int, sizes: dict[str, int]) -> dict[str, int]:
    """Divide a count in proportion to sizes; one each, if it suffices, none more than its size."""
    sizes = {name: size for name, size in sizes.items() if size}
    total = sum(sizes.values())
    wanted = {name: count * size / total for name, size in sizes.items()}
    shares = {name: min(sizes[name], max(1, int(value))) for name, value in wanted.items()}
    rest = sorted(wanted, key=lambda name: shares[name] - wanted[name])
    while sum(shares.values()) < min(count, total):
        for name in rest:
            if sum(shares.values()) < min(count, total) and shares[name] < sizes[name]:
                shares[name] += 1
    while sum(shares.values()) > count:
        shares[max(shares, key=lambda name: shares[name])] -= 1
    return shares


def _rank(*words: object) -> str:
    return hashlib.sha1(repr(words).encode()).hexdigest()
