"""Build the documentation site: ``python -m build_tools.site [FOLDER]``, by default build/site.

The pages are written to FOLDER/source, and the site to FOLDER/html. MkDocs runs in strict mode, in
which a warning is an error; then every link is checked.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from build_tools.site.links import faults
from build_tools.site.notebook import write_notebook
from build_tools.site.pages import gather
from build_tools.site.reference import write_reference

ROOT = Path(__file__).resolve().parents[2]
CONFIG = Path(__file__).with_name("mkdocs.yml")


def main(folder: Path) -> int:
    """Build the site and return the exit code: 1 if a page, a cell or a link is at fault."""
    source, site = folder / "source", folder / "html"
    shutil.rmtree(folder, ignore_errors=True)
    source.mkdir(parents=True)
    gather(ROOT, source)
    write_notebook(ROOT / "docs/tour.ipynb", source / "docs/tour.md", folder / "notebook")
    kinds = write_reference(source / "reference")
    shutil.copytree(CONFIG.parent / "assets", source / "assets")
    config = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    hooks = [str(CONFIG.parent / name) for name in config["hooks"]]
    config.update(docs_dir=str(source), site_dir=str(site), hooks=hooks)
    config["nav"] = complete(config["nav"], kinds, source)
    written = folder / "mkdocs.yml"
    written.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-f", str(written)]
    # The theme's makers advertise in the terminal; PYTHONPATH is where docstrings are read.
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    if subprocess.run(command, env=environment).returncode:
        return 1
    found = faults(site)
    print("\n".join(found) or f"the site is {site / 'index.html'}; all links lead somewhere")
    return 1 if found else 0


def complete(nav: list[Any], kinds: Sequence[str], source: Path) -> list[Any]:
    """Return the navigation with a page for each kind of part, and with the pages it leaves out.

    Args:
        nav: sections, each a title with its pages.
        kinds: the kinds of parts.
        source: the folder of the pages.
    """
    parts = [f"reference/{name}.md" for name in kinds]
    full = [{"Parts": parts} if "Parts" in section else section for section in nav]
    pages = [path.relative_to(source).as_posix() for path in sorted((source / "docs").glob("*.md"))]
    more = [page for page in pages if f": {page}\n" not in yaml.safe_dump(full, width=1000)]
    return [*full, {"More": more}] if more else full


if __name__ == "__main__":
    sys.exit(main(Path(*sys.argv[1:2] or ["build/site"]).resolve()))
