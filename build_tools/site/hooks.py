"""What MkDocs calls while it builds: docstrings have marks of Sphinx, which it does not know."""

from __future__ import annotations

import re
from typing import Any

ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):(?=<code>)")
"""What stands before a name in Sphinx, as in ``:func:`zoo.load```."""


def on_page_content(html: str, **_: Any) -> str:
    """Remove the roles before names, and one of the two colons before an example."""
    return re.sub(r"::(?=</p>)", ":", ROLE.sub("", html))
