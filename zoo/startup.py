"""Keeps a command of this project from importing modules that lie in the current folder.

``python -m`` puts the current folder before the standard library, so a ``torch.py`` that lies there
by chance would run. Modules named by ``--import`` are the only ones that commands look for in the
current folder, see :func:`zoo.command.import_parts`.

``zoo/__init__.py`` imports this module before all others. It imports only what Python itself has
loaded before.
"""

from __future__ import annotations

import os
import sys

_ROOT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))  # noqa: PTH120
"""Folder that holds the packages. It stays if it is the current folder: a checkout is used so."""

_PACKAGES = ("zoo", "export", "recipes", "trt_plugins")


def leave_current_folder() -> None:
    """Remove the current folder from ``sys.path`` if this process runs a command of the project.

    The processes that it starts do not look there either. The folder stays if it holds the running
    package, or if the variable PYTHONPATH names it.
    """
    if not runs_a_command():
        return
    # Processes that Python starts, such as those that load data, would look there again. Versions
    # before 3.11 do not know this variable.
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        here = os.path.realpath(os.curdir)
    except OSError:  # it has been removed
        return
    # An empty entry of PYTHONPATH is a mistake in most cases: PATH:$UNSET.
    wanted = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    if here not in map(os.path.realpath, [_ROOT, *wanted]):
        sys.path[:] = [path for path in sys.path if os.path.realpath(path) != here]


def runs_a_command() -> bool:
    """Whether this process, or the one that has started it to load data, runs a command."""
    program = sys.argv[0] if getattr(sys, "argv", None) else ""
    if program == "-m":  # Python is still looking for the module, which is one of these words
        name = sys.orig_argv[-len(sys.argv)]
        return name.removeprefix("-m").partition(".")[0] in _PACKAGES
    folder, name = os.path.split(os.path.realpath(program))
    return folder == os.path.join(_ROOT, "recipes") or name.partition(".")[0] == "zoo"  # noqa: PTH118
