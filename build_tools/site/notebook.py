"""The notebook as a page: it is run from top to bottom, and shown with what it prints."""

from __future__ import annotations

import base64
import sys
import tempfile
from pathlib import Path
from typing import Any


def write_notebook(notebook: Path, target: Path, folder: Path) -> None:
    """Run a notebook, and write it as a page of Markdown, with its pictures beside it.

    Args:
        notebook: the notebook.
        target: the page, which ends in ``.md``.
        folder: where the notebook runs.

    Raises:
        nbclient.exceptions.CellExecutionError: if a cell fails.
    """
    import nbformat
    from nbclient import NotebookClient
    from traitlets.config import Config

    found = nbformat.read(notebook, as_version=4)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as sockets:
        # By default the kernel listens at ports of this machine, unencrypted, and warns of it.
        place = {} if sys.platform == "win32" else {"transport": "ipc", "ip": f"{sockets}/kernel"}
        NotebookClient(
            found,
            timeout=600,
            kernel_name="python3",
            resources={"metadata": {"path": str(folder)}},
            config=Config({"KernelManager": place}),
        ).execute()
    parts = []
    for number, cell in enumerate(found.cells):
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.source}\n```")
        parts += _shown(cell.outputs, target, number)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _shown(outputs: list[Any], target: Path, number: int) -> list[str]:
    """Return what a cell has printed and drawn; warnings and progress bars are left out."""
    parts = []
    for index, output in enumerate(outputs):
        data = output.get("data", {})
        if "image/png" in data:
            name = f"{target.stem}_{number}_{index}.png"
            (target.parent / name).write_bytes(base64.b64decode(data["image/png"]))
            parts.append(f"![What cell {number} draws]({name})")
        elif output.output_type == "stream" and output.name == "stdout":
            parts.append(f"```text\n{output.text.rstrip()}\n```")
        elif "text/plain" in data:
            parts.append(f"```text\n{data['text/plain']}\n```")
    return parts
