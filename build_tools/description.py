"""The README as a package index shows it: an index has no files beside it."""

from __future__ import annotations

import re
from pathlib import Path

LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?://|#|mailto:)([^)\s]+)\)")
"""A link or an image whose target is a file of the repository."""


def long_description(root: Path) -> str:
    """Return the README without links to files that an index does not have.

    With ``Repository`` among the project's URLs (``pyproject.toml``) they become absolute.
    Otherwise their text stays, and images, with their captions, are left out.
    """
    settings = (root / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(r'^Repository = "(.*?)/?"$', settings, re.MULTILINE)
    text = (root / "README.md").read_text(encoding="utf-8")
    if found:
        kind = {"": "blob", "!": "raw"}
        return LINK.sub(lambda m: f"{m[1]}[{m[2]}]({found[1]}/{kind[m[1]]}/main/{m[3]})", text)
    text = re.sub(
        r"^!\[.*?\]\([^)]*\)\n\n(?:\*.*?\*\n\n)?", "", text, flags=re.MULTILINE | re.DOTALL
    )
    return LINK.sub(r"\2", text)
