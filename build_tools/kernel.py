"""Compiles the C++ kernel, for this machine or, with Zig's compiler, for another platform.

The library has a plain C interface and links only to the C library of its platform. So one library
serves every version of Python and of PyTorch, and a compiler for another platform needs nothing
from that platform.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "zoo/ops/scan/csrc"
ZIG = "ziglang==0.17.*"
"""The compiler for other platforms, and for machines that have none; from PyPI."""

PLATFORM = "ZOO_PLATFORM"
"""Environment variable: the platform tag of the wheel to build; by default that of this machine."""
ANYWHERE = "any"
"""The tag of a wheel without the kernel."""

FLAGS = (
    *("-O3", "-std=c++17", "-fvisibility=hidden", "-fno-exceptions", "-fno-rtti"),
    "-fno-math-errno",  # or a square root would need another library
    *("-Wall", "-Wextra", "-Wno-unused-parameter"),
    # GCC warns of its own headers; Clang does not know one of these.
    *("-Wno-uninitialized", "-Wno-maybe-uninitialized", "-Wno-unknown-warning-option"),
)
AVX2 = ("-mavx2", "-mfma", "-mf16c")
LEVELS: dict[str, dict[str, tuple[str, ...]]] = {
    "x86_64": {
        "level_avx2": AVX2,
        "level_avx512": (
            *AVX2,
            *(f"-mavx512{part}" for part in ("f", "dq", "bw", "vl")),
            "-mprefer-vector-width=512",
        ),
    },
    "aarch64": {"level_neon": ()},
}
"""The source files of one architecture only, with their flags. One library serves every CPU of an
architecture: it chooses among them at run time."""
TRIAL = """
#include <stdint.h>
typedef float Vector __attribute__((vector_size(16)));
extern "C" int32_t trial(int32_t x) { Vector v = {1}; return x + static_cast<int32_t>(v[0]); }
"""
"""What every compiler that can build the kernel compiles."""
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
"""Other names of architectures."""


class BuildError(Exception):
    """The kernel cannot be compiled."""


@dataclass(frozen=True)
class Platform:
    """A platform that wheels are built for.

    Args:
        tag: the platform tag of its wheels.
        target: its name in Zig, with the oldest C library that it may have.
    """

    tag: str
    target: str

    @property
    def machine(self) -> str:
        return self.target.split("-")[0]

    @property
    def windows(self) -> bool:
        return "windows" in self.target


PLATFORMS = {
    platform.tag: platform
    for platform in (
        Platform("manylinux_2_17_x86_64", "x86_64-linux-gnu.2.17"),
        Platform("manylinux_2_17_aarch64", "aarch64-linux-gnu.2.17"),
        Platform("musllinux_1_2_x86_64", "x86_64-linux-musl"),
        Platform("macosx_11_0_arm64", "aarch64-macos.11.0"),
        Platform("macosx_11_0_x86_64", "x86_64-macos.11.0"),
        Platform("win_amd64", "x86_64-windows-gnu"),
    )
}


def chosen_tag() -> str:
    """The platform tag that ``ZOO_PLATFORM`` names; empty for this machine.

    Raises:
        BuildError: if there is no such platform.
    """
    asked = os.environ.get(PLATFORM, "")
    if asked and asked not in (*PLATFORMS, ANYWHERE):
        raise BuildError(f"{PLATFORM} is {asked!r}; known: {', '.join([*PLATFORMS, ANYWHERE])}")
    return asked


def requirements() -> list[str]:
    """What pip must install for the build: a compiler, if one is needed and there is none."""
    asked = chosen_tag()
    crossing = asked and asked != ANYWHERE
    lacking = not asked and own_compiler() is None and this_platform() is not None
    return [ZIG] if crossing or lacking else []


def own_compiler() -> list[str] | None:
    """The command of this machine's C++ compiler: the first that works.

    $CXX comes first, then Python's own and the usual names. On Windows only $CXX and clang++ are
    tried: a g++ there is MinGW, which other programs bring along and whose kernels crash.
    """
    chosen = os.environ.get("CXX")
    usual = ["clang++"] if os.name == "nt" else ["c++", "g++", "clang++"]
    if os.name != "nt":
        usual.insert(0, sysconfig.get_config_var("CXX") or "")
    if chosen and not _works(_words(chosen)):
        print(f"CXX is {chosen!r}, which compiles no C++17; it is not used", file=sys.stderr)
    found = (_words(command) for command in (chosen, *usual) if command)
    return next((list(words) for words in found if _works(words)), None)


def _words(command: str) -> tuple[str, ...]:
    """A command's words; the path of a compiler may have spaces, too."""
    return (command,) if shutil.which(command) else tuple(command.split())


@functools.cache
def _works(words: tuple[str, ...]) -> bool:
    """Whether a command compiles and links. One that exists may not: macOS has a stand-in of c++
    that only says how to install one."""
    if not shutil.which(words[0]):
        return False
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "trial.cpp")
        source.write_text(TRIAL, encoding="utf-8")
        line = [*words, "-std=c++17", "-shared", str(source), "-o", str(Path(folder, "trial.so"))]
        if os.name != "nt":
            line.append("-fPIC")
        return subprocess.run(line, capture_output=True).returncode == 0


def this_platform() -> Platform | None:
    """The entry of ``PLATFORMS`` for this machine, or None if it has none."""
    system = {"Linux": "linux", "Darwin": "macos", "Windows": "windows"}.get(platform.system())
    library = "gnu" if platform.libc_ver()[0] == "glibc" else "musl"
    ending = f"-{library}" if system == "linux" else ""
    start = f"{this_machine()}-{system}{ending}"
    return next((p for p in PLATFORMS.values() if p.target.startswith(start)), None)


def this_machine() -> str:
    """The architecture of this machine, as Zig calls it."""
    name = platform.machine().lower()
    return MACHINES.get(name, name)


def sources(machine: str) -> dict[Path, tuple[str, ...]]:
    """The source files for an architecture, each with its own flags."""
    special = {stem for levels in LEVELS.values() for stem in levels}
    own = LEVELS.get(machine, {})
    found = sorted(SOURCES.glob("*.cpp"))
    return {p: own.get(p.stem, ()) for p in found if p.stem in own or p.stem not in special}


def library_name() -> str:
    """The file's name in ``zoo/ops/scan``; ``native.py`` looks for it there."""
    return "_native.dll" if _for_windows() else "_native.so"


def build_library(library: Path, temporary: Path) -> None:
    """Compile the kernel for the chosen platform.

    Args:
        library: the file to write.
        temporary: a folder for object files.

    Raises:
        BuildError: if there is no compiler, or it fails.
    """
    target = _target()
    files = sources(target.machine if target else this_machine())
    compiler, linker = _commands(target)
    own = os.environ.get("CXXFLAGS", "").split()
    place = [] if _for_windows() else ["-fPIC"]
    library, temporary = library.resolve(), temporary.resolve()
    library.parent.mkdir(parents=True, exist_ok=True)
    temporary.mkdir(parents=True, exist_ok=True)

    def compile_one(source: Path) -> Path:
        result = temporary / f"{source.stem}.o"
        flags = [*FLAGS, *files[source], *place, *own]
        # A relative name: whatever the compiler notes down is then the same in every folder.
        name = source.relative_to(ROOT).as_posix()
        _run([*compiler, *flags, "-c", name, "-o", str(result)])
        return result

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(compile_one, files))
    linked = temporary / library.name  # for Windows, the linker writes more files beside it
    _run([*linker, *own, "-shared", "-o", str(linked), *map(str, results)])
    shutil.move(linked, library)


def _for_windows() -> bool:
    asked = PLATFORMS.get(chosen_tag())
    return asked.windows if asked else os.name == "nt"


def _target() -> Platform | None:
    """What Zig compiles for; None if this machine's compiler compiles for this machine."""
    if asked := PLATFORMS.get(chosen_tag()):
        return asked
    if own_compiler():
        return None
    here = this_platform()
    if here is None or not _has_zig():
        raise BuildError("there is no C++ compiler; install g++ or clang++, or ziglang with pip")
    return here


def _commands(target: Platform | None) -> tuple[list[str], list[str]]:
    """The compiler and the linker, with the options that depend on the platform."""
    if target is None:
        compiler = own_compiler() or ["c++"]
        threads = [] if os.name == "nt" else ["-pthread"]
        # The C++ library is not used, so the library should not ask for it.
        unused = ["-Wl,--as-needed"] if sys.platform == "linux" else []
        return compiler, [*compiler, *threads, *unused]
    zig = [sys.executable, "-m", "ziglang"]
    common = ["-target", target.target, "-g0"]
    # "zig cc" links without the C++ library, which Zig would build from source first.
    linker = [*zig, "cc", *common, "-s"]
    if "macos" in target.target:  # the library would contain the name of its temporary folder
        linker.append("-Wl,-install_name,@rpath/_native.so")
    if "musl" in target.target:  # its file has another name on each system, but it is loaded
        linker += ["-nostdlib", "-Wl,-z,undefs"]
    return [*zig, "c++", *common], linker


def _has_zig() -> bool:
    return importlib.util.find_spec("ziglang") is not None


def _run(words: list[str]) -> None:
    try:
        subprocess.run(words, cwd=ROOT, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise BuildError(f"the C++ kernel was not compiled: {error}") from error
