"""Finds public sets of bursts on disk by the name of a folder: SyntheticBurst, BurstSR, RealBSR.

Sources: the names that deep-burst-sr and FBANet give the folders of their sets.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from zoo.data.burst.finding import INSIDE
from zoo.errors import ImageError

ALIASES = {
    "SyntheticBurst": ("syntheticburst", "syntheticburstval", "synburst", "synburstval"),
    "BurstSR": ("burstsr", "burstsrdataset"),
    "RealBSR_RAW": ("realbsrraw", "realbsr/raw", "realbsrdataset/raw"),
    "RealBSR_RGB": ("realbsrrgb", "realbsr/rgb", "realbsrdataset/rgb", "realbsr", "realbsrdataset"),
}
"""Folders of each set, in lower case and without marks between words."""

HALVES = ("test", "val", "testpatch", "valpatch")
"""The part of a set that is for testing."""


def find_burst_set(source: str | Path, names: Iterable[str]) -> tuple[str | None, Path]:
    """Find a set of bursts at a path.

    Args:
        source: the folder of the set or of its half for testing, a folder that holds it, or any
            other folder of bursts.
        names: names of the sets that are looked for, of :data:`ALIASES` or others.

    Returns:
        The name of the set and the folder of its bursts; None and the path if it is none of them.

    Raises:
        ImageError: if the path does not exist.
    """
    root = Path(source)
    if not root.exists():
        raise ImageError(f"burst {str(root)!r} does not exist; check the path")
    for name in names:
        places = ALIASES.get(name, (_plain(name),))
        for place in places:  # RealBSR, which has RAW and RGB
            above, _, last = place.rpartition("/")
            inner = _below(root, last) if above and _ends_with(root, above) else None
            if inner is not None:
                return name, _half(inner)
        for folder in (root, *list(root.resolve().parents)[:3]):
            if any(_ends_with(folder, place) for place in places) and _is_test(root, folder):
                return name, _half(root)
        for place in places:
            if (found := _below(root, place)) is not None:
                return name, _half(found)
    return None, root


def _plain(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())


def _ends_with(folder: Path, place: str) -> bool:
    wanted = place.split("/")
    parts = folder.resolve().parts[-len(wanted) :]
    return [_plain(part) for part in parts] == wanted


def _is_test(root: Path, folder: Path) -> bool:
    """Whether the path from the set's folder to the root leads through halves and bursts only."""
    inside = root.resolve().relative_to(folder.resolve()).parts
    return all(part.lower() in HALVES or part in INSIDE for part in inside)


def _below(root: Path, place: str) -> Path | None:
    found: Path | None = root
    for part in place.split("/"):
        inside = sorted(found.iterdir()) if found is not None and found.is_dir() else []
        found = next((path for path in inside if path.is_dir() and _plain(path.name) == part), None)
    return found


def _half(folder: Path) -> Path:
    for _ in range(2):  # RGB/test/testpatch
        inside = [folder / name for name in HALVES]
        folder = next((path for path in inside if path.is_dir()), folder)
    return folder
