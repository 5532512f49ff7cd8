"""The check of a built site: each link leads to a file of the site, and to an anchor in it."""

from __future__ import annotations

from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

OWN = ("link", "script", "img", "source", "iframe")
"""Elements that a browser loads by itself: from other hosts, a site would not work offline."""


class _Page(HTMLParser):
    """The anchors of a page, and what it links to."""

    def __init__(self) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        for name in ("id", "name"):
            if value := given.get(name):
                self.anchors.add(value)
        if tag == "link" and given.get("rel") == "canonical":
            return
        for name in ("href", "src"):
            if (target := given.get(name)) is not None:
                self.links.append((tag, target))


def faults(site: Path) -> list[str]:
    """Return what is wrong with the links of a site: a line for each, with the page and the link.

    Links to other hosts are not followed. What the browser would load from them is a fault.

    Args:
        site: the folder of the built site.
    """
    found = []
    for path in sorted(site.rglob("*.html")):
        for tag, target in _page(path).links:
            fault = _fault(site, path, tag, target)
            if fault:
                found.append(f"{path.relative_to(site)}: {target}: {fault}")
    return found


def _fault(site: Path, page: Path, tag: str, target: str) -> str:
    parts = urlsplit(target)
    if parts.scheme in ("http", "https") or parts.netloc:
        return "is loaded from another host" if tag in OWN else ""
    if parts.scheme:  # mailto, data
        return ""
    # The page of what is not found has links from the root of the site.
    start = site if parts.path.startswith("/") else page.parent
    path = (start / unquote(parts.path).lstrip("/")).resolve() if parts.path else page
    if path.is_dir():
        path /= "index.html"
    if not path.is_relative_to(site.resolve()) or not path.is_file():
        return "is no file of the site"
    anchor = unquote(parts.fragment)
    generated = anchor.startswith(("__", ":~:"))  # the theme's own, and texts to look for
    if anchor and not generated and path.suffix == ".html" and anchor not in _page(path).anchors:
        return "is no anchor of that page"
    return ""


@cache
def _page(path: Path) -> _Page:
    page = _Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page
