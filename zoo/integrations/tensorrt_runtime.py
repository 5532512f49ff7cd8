"""Importing TensorRT and TensorRT-RTX, reading their messages, and loading plugins."""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import importlib.util
import logging
import os
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from zoo.errors import ZooError, pip_install, reason_of
from zoo.files import cache_folder
from zoo.ops.scan.names import NAMESPACE, NODES, VERSION

logger = logging.getLogger(__name__)

MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
"""Python module of each runtime."""

EXTRAS = {"tensorrt": "trt", "tensorrt-rtx": "trt-rtx"}


class EngineError(ZooError, ValueError):
    """TensorRT is missing, or an engine cannot be built, opened or run."""


@dataclass(frozen=True)
class TensorRT:
    """An imported runtime.

    Attributes:
        name: name of the runtime, a key of ``MODULES``.
        api: Python module of the runtime.
    """

    name: str
    api: Any

    @property
    def version(self) -> str:
        """Version of the runtime, such as ``10.16.1.11``."""
        return str(self.api.__version__)

    @property
    def release(self) -> tuple[int, int]:
        """The first two numbers of the version."""
        major, minor, *_ = self.version.split(".")
        return int(major), int(minor)

    def logger(self) -> Any:
        """Return a logger for TensorRT; it keeps errors, for our error messages."""
        return _logger(self.api)

    def load_plugin(self, registry: Any, library: Path) -> None:
        """Register the plugins of a library, for the rest of the process.

        Does nothing if our plugin is registered already.

        Raises:
            EngineError: if the library does not exist or contains no plugins.
        """
        if not library.is_file():
            raise EngineError(f"{library}: the plugin's library does not exist")
        if _OURS & (before := _creators(registry)):
            return
        registry.load_library(str(library.resolve()))
        if _creators(registry) == before:
            raise EngineError(f"{library}: {self.name} finds no plugin in it; build it again")


_OURS = {(name, str(VERSION), NAMESPACE) for name in NODES}


def _creators(registry: Any) -> set[tuple[str, str, str]]:
    """Return the name, version and namespace of each plugin in a registry."""
    return {(c.name, c.plugin_version, c.plugin_namespace) for c in creators(registry)}


def creators(registry: Any) -> list[Any]:
    """Return the creators of plugins in a registry of TensorRT and in those above it.

    Before TensorRT 10.10 (JetPack 6 has 10.3), Python can only list those of the registry itself.
    """
    found = getattr(registry, "all_creators_recursive", None)
    return list(registry.all_creators if found is None else found)


def open_tensorrt(name: str = "auto") -> TensorRT:
    """Import TensorRT or TensorRT-RTX.

    Args:
        name: "tensorrt", "tensorrt-rtx" or "auto". "auto" takes TensorRT if installed, otherwise
            TensorRT-RTX. Without a GPU, it prefers TensorRT-RTX, because TensorRT cannot build
            engines there.

    Raises:
        EngineError: if the runtime is not installed or does not load.
    """
    wanted = [name]
    if name == "auto":
        wanted = sorted(MODULES, reverse=not torch.cuda.is_available())
    reasons = []
    for each in wanted:
        if importlib.util.find_spec(MODULES[each]) is None:
            reasons.append(f"the package {MODULES[each]!r} is not installed")
            continue
        try:
            if each == "tensorrt-rtx":
                _mend_library_name()
            return TensorRT(each, importlib.import_module(MODULES[each]))
        except (ImportError, OSError) as error:
            reasons.append(f"{each} does not load: {reason_of(error)}")
    extra = EXTRAS[wanted[0]]
    raise EngineError(f"{'; '.join(reasons)}; install it: {pip_install(extra)}")


def _mend_library_name() -> None:
    """Provide ``libtensorrt_rtx.so``, which the parser needs and the package does not have.

    The package has only ``libtensorrt_rtx.so.1``. Without the other name, the parser aborts the
    process at its first plugin. It looks in the folder that it was loaded from. So this function
    makes a folder with links to the package's libraries under both names, and loads them from
    there before the package does.
    """
    found = importlib.util.find_spec("tensorrt_rtx_libs")
    if sys.platform != "linux" or found is None or found.origin is None:
        return
    libraries = Path(found.origin).parent
    names = {path.name: path for path in libraries.glob("lib*.so.*")}
    unnumbered = {name.partition(".so")[0] + ".so": path for name, path in names.items()}
    if all((libraries / name).exists() for name in unnumbered):
        return
    if MODULES["tensorrt-rtx"] in sys.modules:
        return
    key = hashlib.sha256(str(libraries).encode()).hexdigest()[:16]
    links = cache_folder() / "tensorrt-rtx" / key
    try:
        links.mkdir(parents=True, exist_ok=True)
        for name, path in (names | unnumbered).items():
            with tempfile.TemporaryDirectory(dir=links) as folder:
                link = Path(folder) / name
                link.symlink_to(path)
                link.replace(links / name)
    except OSError as error:
        raise EngineError(
            f"{links}: cannot write there ({error.strerror}); set ZOO_CACHE to a writable folder"
        ) from error
    # Load the parser last: it needs the other library.
    for name in sorted(names, key=lambda name: "parser" in name):
        ctypes.CDLL(str(links / name), mode=os.RTLD_GLOBAL | os.RTLD_NOW)


def _logger(api: Any) -> Any:
    class Logger(api.ILogger):
        def __init__(self) -> None:
            api.ILogger.__init__(self)
            self.errors: list[str] = []
            self.memory: dict[str, int] = {}

        def log(self, severity: Any, text: str) -> None:
            if severity in (api.ILogger.Severity.INTERNAL_ERROR, api.ILogger.Severity.ERROR):
                self.errors.append(" ".join(text.split()))
            elif found := re.search(r"Total (\w+) Memory: (\d+) bytes", text):
                self.memory[found[1].lower()] = int(found[2])
            else:
                logger.debug("TensorRT: %s", text)

        @property
        def last(self) -> str:
            """The last error, to append to a sentence; empty if there is none."""
            return f": {self.errors[-1][:300]}" if self.errors else ""

    return Logger()


__all__ = ["EXTRAS", "MODULES", "EngineError", "TensorRT", "creators", "open_tensorrt"]
