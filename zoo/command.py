"""What all commands share: common options, the version, loading the user's parts, error messages.

:func:`run_command` runs every command of the project: ``zoo``, ``recipes/*.py``,
``python -m export.*``, ``python -m zoo.data.*`` and ``python -m trt_plugins.build``.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import io
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import PathFinder
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import Any, TextIO

from zoo.errors import ToldElsewhereError, WriteError, ZooError, is_out_of_memory, reason_of
from zoo.interrupts import INTERRUPTED, end_quiet_start, quiet_imports
from zoo.limits import MAX_PARAMETERS, OPTION, VARIABLE, use_max_parameters

ENTRY_POINTS = "zoo.parts"
"""Entry-point group in which installed packages list their modules that register parts."""

COMPAT = "reproduce the authors' outputs, including an error in their code (cross-scale MambaCSR)"
"""Help of the option ``--compat`` of the commands that load weights."""

BAD_INPUT, BROKEN_PIPE = 2, 141
"""Exit codes for an error that the user can fix, and for a closed pipe."""


def package_version() -> str:
    """Return the version of the installed package; it is also ``zoo.__version__``.

    The version is set in ``pyproject.toml``. Without an installation, it is "0+unknown".
    """
    try:
        return version("mamba-restoration-zoo")
    except PackageNotFoundError:
        return "0+unknown"


COMMON_OPTIONS: dict[str, dict[str, Any]] = {
    "--import": {
        "dest": "imports",
        "action": "append",
        "metavar": "MODULE",
        "help": "Python module that registers your own parts; may be repeated",
    },
    "--debug": {"action": "store_true", "help": "show tracebacks"},
    OPTION: {
        "metavar": "N",
        "help": f"error for networks with more parameters [{VARIABLE}, or {MAX_PARAMETERS}]",
    },
}
"""The options that all commands share; those with a ``metavar`` take a value."""


def add_common_options(parser: argparse.ArgumentParser, **settings: Any) -> None:
    """Add the options that all commands share; :func:`run_command` reads them."""
    for option, meaning in COMMON_OPTIONS.items():
        parser.add_argument(option, **meaning, **settings)


def leading_options(words: Sequence[str]) -> int:
    """Count the words before a command: options that all commands share, and their values."""
    count = 0
    while count < len(words):
        option, equals, _ = words[count].partition("=")
        if option not in COMMON_OPTIONS:
            break
        count += 2 if "metavar" in COMMON_OPTIONS[option] and not equals else 1
    return count


def parse_size(text: str, unit: str) -> tuple[int, int]:
    """Parse the height and width of ``--size HxW``.

    Args:
        text: value of the option.
        unit: unit of both numbers, for the error message.

    Raises:
        ZooError: if the text is not two integers of at least 1 with an "x" between, or they are too
            large.
    """
    found = re.fullmatch(r"([1-9][0-9]*)x([1-9][0-9]*)", text[:30])
    if found is None:
        raise ZooError(f"--size {text[:30]!r}: write height x width in {unit}, such as 16x24")
    height, width = int(found[1]), int(found[2])
    if height * width > _MOST_PIXELS:
        raise ZooError(f"--size {text}: give at most {_MOST_PIXELS} {unit} in all")
    return height, width


def named_paths(option: str, words: Sequence[str] | None) -> dict[str, str]:
    """Return what a repeated option ``NAME=PATH`` gives, by name.

    Args:
        option: the option, for the error message.
        words: its values; None if it is not given.

    Raises:
        ZooError: if a value has no name or no path, or a name is given twice.
    """
    found: dict[str, str] = {}
    for word in words or ():
        name, _, path = word.partition("=")
        if not (name and path):
            raise ZooError(f"{option} {word}: write NAME=PATH")
        if name in found:
            raise ZooError(f"{option} {name} is given twice; leave one out")
        found[name] = path
    return found


def whole(option: str, least: int, most: int | None = None) -> Callable[[str], int]:
    """Return a parser of the values of an option: whole numbers in a range.

    It is the ``type`` of the option, and raises a ZooError for other values.

    Args:
        option: name of the option, for the error message.
        least: smallest number.
        most: largest number; None for a limit beyond all sensible values.
    """

    def parse(text: str) -> int:
        number = int(text) if re.fullmatch(r"[+-]?[0-9]{1,18}", text) else None
        if number is None or not least <= number <= (_MOST if most is None else most):
            wanted = f"of at least {least}" if most is None else f"from {least} to {most}"
            raise ZooError(f"{option} {text[:30]}: give a whole number {wanted}")
        return number

    return parse


_MOST, _MOST_PIXELS = 2**31 - 1, 2**28


def run_command(
    parser: argparse.ArgumentParser,
    run: Callable[[argparse.Namespace], int | None],
    arguments: Sequence[str] | None = None,
    *,
    prog: str | None = None,
    intermixed: bool = False,
) -> int:
    """Parse the arguments, import the user's parts, run the command, and return the exit code.

    An error that the user can fix is printed as one line on standard error. ``--debug`` shows its
    traceback instead. If the reader of a pipe closes it, as ``head`` does, the command ends
    quietly.

    Args:
        parser: parser of the command. The options of :func:`add_common_options` are added to it.
        run: runs the command and returns the exit code; None means 0.
        arguments: words of the command line; None for ``sys.argv``.
        prog: name of the command in the usage and in errors; None for the parser's ``prog``.
        intermixed: whether options may be between positional arguments.

    Returns:
        The exit code of ``run``, 2 for an error that the user can fix, 130 after Ctrl-C, or 141 if
        the reader of standard output has closed it.
    """
    end_quiet_start()  # the modules of the command have been imported
    with _named_output():
        return _run_command(parser, run, arguments, prog, intermixed)


def _run_command(
    parser: argparse.ArgumentParser,
    run: Callable[[argparse.Namespace], int | None],
    arguments: Sequence[str] | None,
    prog: str | None,
    intermixed: bool,
) -> int:
    parser.prog = prog or parser.prog
    add_common_options(parser)
    read = parser.parse_intermixed_args if intermixed else parser.parse_args
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = argparse.Namespace(debug=False)
    # argparse ignores errors when it prints the help, so it prints to memory.
    printed = io.StringIO()
    try:
        try:
            _check_none_empty(words)
            with contextlib.redirect_stdout(printed):
                options = read(words)
        except SystemExit:  # after --help and --version
            print(printed.getvalue(), end="", flush=True)  # noqa: T201
            raise
        logging.basicConfig(level=logging.INFO, format="%(message)s")
        for client in ("httpx", "httpx2"):
            logging.getLogger(client).setLevel(logging.WARNING)  # they log every request
        with quiet_imports():
            import_parts(options.imports or ())
        with use_max_parameters(options.max_parameters):
            code = run(options) or 0
        print(end="", flush=True)  # noqa: T201
        return code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)  # noqa: T201
        return INTERRUPTED
    except BrokenPipeError:
        if options.debug:
            raise
        _discard_output()
        return BROKEN_PIPE
    except Exception as error:
        if options.debug or not _is_mendable(error):
            raise
        if isinstance(error, ToldElsewhereError):
            return BAD_INPUT
        # Errors of the system are not checked for their length.
        message = ZooError(_sentence(error))
        print(f"{parser.prog}: error: {message}", file=sys.stderr)  # noqa: T201
        return BAD_INPUT


def _check_none_empty(words: Sequence[str]) -> None:
    """Raise a ZooError if a word is empty, or an option's value after "=".

    Python's Path turns an empty text into the current folder.
    """
    for before, word in zip(["", *words], words, strict=False):
        option, equals, value = word.partition("=")
        if word and not (option.startswith("-") and equals and not value):
            continue
        place = f" after {before!r}" if not word and before else f" of {option!r}" if word else ""
        raise ZooError(
            f"the argument{place} is empty, as if a shell variable were not set; give a value, or "
            "leave the argument out"
        )


class _Output:
    """Standard output, whose errors say that they are its own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._named_errors():
            return self._stream.write(text)

    def flush(self) -> None:
        with self._named_errors():
            self._stream.flush()

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError as error:
            _discard_output()
            reason = error.strerror or error
            raise WriteError(f"standard output: cannot write: {reason}") from error


@contextlib.contextmanager
def _named_output() -> Iterator[None]:
    """Within the block, errors of standard output say that they are its own."""
    if sys.stdout is None:  # it is closed, and print does nothing
        yield
        return
    with contextlib.redirect_stdout(_Output(sys.stdout)):
        yield


def _discard_output() -> None:
    """Drop what is still buffered, because Python complains about it at its exit."""
    with contextlib.suppress(OSError, ValueError):  # a replaced standard output has no descriptor
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _sentence(error: Exception) -> str:
    """Return the message of an error, without the error number of the system."""
    if is_out_of_memory(error) and not isinstance(error, ZooError):
        reason = reason_of(error)
        return f"memory ran out ({reason}); close other programs, or use smaller settings"
    if isinstance(error, ZooError) or not isinstance(error, OSError) or not error.strerror:
        return str(error)
    if error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    return error.strerror


def _is_mendable(error: Exception) -> bool:
    """Return whether the error comes from the input and not from a bug in the package."""
    # The operator does not import the rest of the package, so its error is not a ZooError. Without
    # the operator, the error is not its own, and importing it would take a second.
    scan = sys.modules.get("zoo.ops.scan")
    own = (scan.BackendError,) if scan else ()
    return isinstance(error, (ZooError, OSError, *own)) or is_out_of_memory(error)


def import_parts(modules: Sequence[str]) -> None:
    """Import the given modules, and the modules that installed packages list as entry points.

    The given modules are also looked for in the current folder, and so are the modules that they
    import. Installed modules come first. Nothing else is looked for in the current folder.

    Raises:
        ZooError: if a module cannot be imported; the message names it.
    """
    for entry in entry_points(group=ENTRY_POINTS):
        try:
            entry.load()
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            package = entry.dist.name if entry.dist else "an installed package"
            raise ZooError(
                f"{package} lists parts in {entry.value!r}, which cannot be imported: "
                f"{_import_error(entry.value.partition(':')[0], error)}; repair or uninstall it"
            ) from error
    for module in modules:
        if not module or module.startswith("."):
            raise ZooError(f"--import {module!r}: {_GIVE_NAME}")
        _check_not_hidden(module.partition(".")[0])
        try:
            _import_also_from_here(module)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            text = _import_error(module, error)
            if _is_absent(module, error):
                text += f"; {_GIVE_NAME}"
            raise ZooError(f"--import {module}: {text}") from error
        if module not in _imported:
            _imported.append(module)


_imported: list[str] = []
"""Modules that ``--import`` has named in this process."""


class ImportedParts:
    """The modules that ``--import`` has named in this process.

    When it is unpickled in another process, the modules are imported there in the same way.
    """

    def __reduce__(self) -> tuple[Callable[[], ImportedParts], tuple[()], list[str]]:
        return ImportedParts, (), list(_imported)

    def __setstate__(self, modules: list[str]) -> None:
        import_parts(modules)


def _import_also_from_here(module: str) -> None:
    """Import a module, with the current folder as the last place to look."""
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.append(here)
    try:
        importlib.import_module(module)
    finally:
        if added and here in sys.path:
            sys.path.remove(here)


def _check_not_hidden(name: str) -> None:
    """Check that no installed module hides the one of the current folder."""
    here = PathFinder.find_spec(name, [str(Path.cwd())])
    loaded = sys.modules.get(name)
    first = loaded.__spec__ if loaded else importlib.util.find_spec(name)
    if not here or not here.origin or not first or not first.origin:
        return  # at most one of them is a module or a package
    if os.path.realpath(here.origin) != os.path.realpath(first.origin):
        raise ZooError(
            f"--import {name}: {here.origin} is hidden by an installed module of the same name; "
            "rename the file"
        )


_GIVE_NAME = "give the name, without .py, of a module that is in this folder or installed"


def _is_absent(module: str, error: BaseException) -> bool:
    """Return whether the module itself, or a package that it is in, does not exist."""
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    return missing is not None and f"{module}.".startswith(f"{missing}.")


def _import_error(module: str, error: BaseException) -> str:
    """Say in one line why a module cannot be imported, with the file and line where known."""
    if isinstance(error, ModuleNotFoundError) and error.name is not None:
        if _is_absent(module, error):
            return f"no module {error.name!r}"
        return f"{module} was found, but it needs {error.name!r}, which is missing{_place(error)}"
    message = error.msg if isinstance(error, SyntaxError) else _text(error)
    if not isinstance(error, ZooError):
        name = type(error).__name__
        message = f"{name}: {message}" if message else name
    return f"{message}{_place(error)}"


def _text(error: BaseException) -> str:
    """Return the message of an error in one line; "" if it cannot even say that."""
    try:
        return " ".join(str(error).split())
    except Exception:
        return ""


def _place(error: BaseException) -> str:
    """Return `` (FILE:LINE)`` of an error in a module that was imported; "" if it is unknown."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" ({error.filename}:{error.lineno})"
    machinery = ("<frozen", __file__, importlib.__file__)
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith(machinery):
            return f" ({frame.filename}:{frame.lineno})"
    return ""
