"""The pages of the repository, copied to where MkDocs reads them, with the files they link to."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from build_tools.description import LINK

FENCE = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
"""A code block, in which nothing is a link."""


def gather(root: Path, source: Path) -> list[str]:
    """Copy the pages and the files that they link to, under the paths of the repository.

    Args:
        root: the repository.
        source: an empty folder.

    Returns:
        The paths of the pages, in the repository.

    Raises:
        ValueError: if a link leads to no file of the repository; the message names all of them.
    """
    waiting = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"]
    waiting += [path.relative_to(root).as_posix() for path in sorted((root / "docs").glob("*.md"))]
    pages: list[str] = []
    broken: list[str] = []
    while waiting:
        name = waiting.pop(0)
        if name in pages:
            continue
        pages.append(name)
        text = (root / name).read_text(encoding="utf-8")
        for target in linked(text):
            path = (root / name).parent.joinpath(target.partition("#")[0]).resolve()
            if not path.exists() or not path.is_relative_to(root):
                broken.append(f"{name}: {target}")
            elif path.suffix == ".md":
                waiting.append(path.relative_to(root).as_posix())
            elif path.is_dir():
                _copy_folder(path, source / path.relative_to(root))
            else:
                _copy(path, source / path.relative_to(root))
        _write(source / name, _for_mkdocs(text, (root / name).parent))
    if broken:
        raise ValueError("links that lead nowhere: " + "; ".join(broken))
    return pages


def linked(text: str) -> list[str]:
    """Return the targets of the links to files in a page."""
    return [found[3] for found in LINK.finditer(FENCE.sub("", text))]


def _for_mkdocs(text: str, folder: Path) -> str:
    """Return a page as MkDocs understands it: a folder is its list of files."""

    def to_list(found: re.Match[str]) -> str:
        if (folder / found[3]).is_dir():
            return f"{found[1]}[{found[2]}]({found[3].rstrip('/')}/README.md)"
        return found[0]

    parts = re.split(rf"({FENCE.pattern})", text, flags=FENCE.flags)
    parts[::2] = [LINK.sub(to_list, part) for part in parts[::2]]
    return "".join(parts).replace("<details>", '<details markdown="1">')


def _copy(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, target)


def _copy_folder(folder: Path, target: Path) -> None:
    """Copy the files of a folder, with a page that lists them."""
    files = [path for path in sorted(folder.iterdir()) if path.is_file()]
    lines = [f"# {folder.name}", ""]
    for path in files:
        _copy(path, target / path.name)
        lines.append(f"- [{path.name}]({path.name})")
    if not (folder / "README.md").exists():
        _write(target / "README.md", "\n".join([*lines, ""]))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
