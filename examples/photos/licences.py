"""Licence and author of a file in a package, as the package itself states them.

Debian packages state them for each file in ``copyright`` (machine-readable format 1.0, DEP-5), KDE
wallpapers in a ``metadata.json`` beside the images. Other packages have one licence for all files.
"""

from __future__ import annotations

import json
import re
from fnmatch import fnmatchcase
from typing import NamedTuple

_MOST_AUTHORS = 4
"""A longer list names everybody who worked on the package, and not who took a photo."""


class Rights(NamedTuple):
    """What a package says of a file."""

    licence: str
    author: str


def of_debian_file(copyright_text: str, path: str) -> Rights | None:
    """What the last fitting paragraph of a ``copyright`` file says of an installed file.

    Patterns are paths in the source, of which the installed path keeps the end, or the name only. A
    paragraph that fits the path wins over one that names the file, and that over ``Files: *``.
    """
    found, best = None, 0
    for paragraph in re.split(r"\n\s*\n", copyright_text):
        fields = _fields(paragraph)
        fit = max((_fit(path, pattern) for pattern in fields.get("files", "").split()), default=0)
        if fit and fit >= best and "license" in fields:
            best = fit
            authors = [_without_years(line) for line in fields.get("copyright", "").splitlines()]
            found = Rights(
                fields["license"].splitlines()[0].strip(),
                _named(list(dict.fromkeys(filter(None, authors)))),
            )
    return found


def of_kde_metadata(text: str) -> Rights | None:
    """Licence and authors of a KDE wallpaper's ``metadata.json``; None for another program's."""
    try:
        plugin = json.loads(text)["KPlugin"]
        authors = "; ".join(author.get("Name", "") for author in plugin.get("Authors", []))
        return Rights(str(plugin.get("License", "")), authors)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def _fields(paragraph: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    last = ""
    for line in paragraph.splitlines():
        if line[:1].isspace() and last:
            fields[last] += "\n" + line.strip()
        elif ":" in line:
            last, _, value = line.partition(":")
            last = last.strip().lower()
            fields[last] = value.strip()
    return fields


def _named(authors: list[str]) -> str:
    return "; ".join(authors) if len(authors) <= _MOST_AUTHORS else "the authors of the package"


def _fit(path: str, pattern: str) -> int:
    """3 if the pattern fits the end of the path, 2 its name, 1 if it fits everything, else 0."""
    if pattern == "*":
        return 1
    # Variants for screens with twice the pixels are named as the usual files in the source.
    parts = path.replace("@2x", "").split("/")
    if any(fnmatchcase("/".join(parts[start:]), pattern) for start in range(len(parts))):
        return 3
    return 2 if parts[-1] == pattern.split("/")[-1] else 0


def _without_years(line: str) -> str:
    text = re.sub(r"^[\s\d,.-]*(\(unspecified\))?", "", line)
    text = re.sub(r"<[^>]*>|\([^)]*@[^)]*\)", "", text)
    text = re.sub(r",\s*\d{4}(-\d{4})?$", "", text).strip(" ,\u00b4")
    return text[1:-1] if re.fullmatch(r'"[^"]*"', text) else text
