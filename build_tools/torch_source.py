"""Prints the options with which pip finds the wanted build of PyTorch, for ``make install``.

    python build_tools/torch_source.py SOURCE

SOURCE is an index (a URL), a folder of wheels, or empty for pip's own choice. An index that does
not answer is left out with a note, so that an installation from another source still works.
"""

from __future__ import annotations

import sys
from pathlib import Path
from urllib.request import urlopen

PATIENCE = 5.0
"""Seconds to wait for an index."""


def options(source: str) -> list[str]:
    """Return pip's options for a source; see the module.

    Raises:
        FileNotFoundError: if it is neither a URL nor a folder.
    """
    source = source.strip()
    if not source:
        return []
    if "://" not in source:
        if not Path(source).is_dir():
            raise FileNotFoundError(f"TORCH_INDEX is {source!r}, which is no URL and no folder")
        return ["--find-links", Path(source).resolve().as_uri()]  # its name may have spaces
    try:
        with urlopen(f"{source.rstrip('/')}/torch/", timeout=PATIENCE):
            # Of equal versions pip takes the one with a suffix, such as 2.13.0+cpu.
            return ["--extra-index-url", source]
    except ValueError as error:
        raise FileNotFoundError(f"TORCH_INDEX is {source!r}, which is no URL: {error}") from error
    except OSError as error:
        note = f"{source} does not answer ({error}); pip chooses the build of PyTorch"
        print(note, file=sys.stderr)
        return []


if __name__ == "__main__":
    try:
        print(*options(sys.argv[1]))
    except FileNotFoundError as error:
        sys.exit(str(error))
