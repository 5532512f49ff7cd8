"""``python -m trt_plugins.build``: compiles the TensorRT plugin, once, and says where it is.

The library serves TensorRT 10, TensorRT 11 and TensorRT-RTX and needs none of them to be built:
only NVIDIA's compiler ``nvcc``. It is kept in the user's cache folder, under a hash of its sources
and flags, and is built again when they change. C++ users who would rather have CMake find
``CMakeLists.txt`` beside this file.

Environment: ``CUDA_HOME`` (or ``CUDA_PATH``) names a CUDA toolkit; ``ZOO_CACHE`` another cache
folder than ``$XDG_CACHE_HOME/mamba-restoration-zoo``; ``CXX`` the C++ compiler of the host.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from zoo.command import run_command
from zoo.errors import WriteError, ZooError
from zoo.files import cache_folder, check_writable, write_text, write_whole

logger = logging.getLogger(__name__)

SOURCES = Path(__file__).with_name("csrc")

LIBRARY = "libzoo_tensorrt.so"
REPORT = "compiler.txt"
"""What the compiler said, beside the library."""

ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)
"""Compute capabilities with machine code of their own, times ten. Any other GPU from the first on
compiles the intermediate code that is in the library too, once, when it first loads it."""

USUAL_NVCC = Path("/usr/local/cuda/bin/nvcc")

NVCC = ("-std=c++17", "-O3", "-shared", "-Xcompiler", "-fPIC,-fvisibility=hidden", "-Xptxas", "-v")
HOST = ("-std=c++17", "-O1", "-shared", "-fPIC", "-fvisibility=hidden", "-Wno-unknown-pragmas")


class BuildError(ZooError):
    """The plugin cannot be compiled here."""


@dataclass(frozen=True)
class KernelReport:
    """What the compiler says of one kernel for one architecture."""

    name: str
    architecture: str
    registers: int
    spilled: int
    """Bytes that did not fit into registers."""


def build(
    architectures: Iterable[int] | None = None,
    *,
    force: bool = False,
    shim: bool = False,
    sources: Path = SOURCES,
) -> Path:
    """Compile the plugin, unless that has been done, and return the library.

    Args:
        architectures: compute capabilities times ten, such as 90; by default all of
            ``ARCHITECTURES`` that the compiler knows.
        force: compile even if it is there.
        shim: for tests: the same sources for this CPU, by a C++ compiler; see csrc/cpu_shim.h.
        sources: folder of the sources.

    Raises:
        BuildError: where there is no compiler or it fails, with what to do.
    """
    if shim:
        command = [*_host_compiler(), *HOST, "-x", "c++", "plugin.cu"]
        return _compiled(command, sources, LIBRARY, "the plugin for this CPU", force)
    nvcc = find_nvcc()
    known = _known_architectures(nvcc)
    wanted = tuple(architectures or (a for a in ARCHITECTURES if a in known))
    if unknown := [a for a in wanted if a not in known]:
        raise BuildError(
            f"{nvcc} does not compile for architecture {unknown[0]}; "
            f"it knows {', '.join(map(str, sorted(known)))}"
        )
    codes = [f"arch=compute_{a},code=sm_{a}" for a in wanted]
    codes.append(f"arch=compute_{min(wanted)},code=compute_{min(wanted)}")
    command = [str(nvcc), *NVCC, *(word for code in codes for word in ("-gencode", code))]
    if host := os.environ.get("CXX"):
        command += ["-ccbin", host]
    # Packages of pip have the runtime elsewhere than the compiler looks.
    command += ["-L", str(nvcc.resolve().parent.parent / "lib"), "--threads", "0", "plugin.cu"]
    what = f"the TensorRT plugin for architectures {', '.join(map(str, wanted))}"
    return _compiled(command, sources, LIBRARY, what, force)


def build_harness(*, force: bool = False) -> Path:
    """Compile what drives a plugin without TensorRT (csrc/harness.cpp) and return the library.

    Raises:
        BuildError: where there is no C++ compiler or it fails.
    """
    command = [*_host_compiler(), *HOST, "harness.cpp", "-ldl"]
    return _compiled(command, SOURCES, "libzoo_harness.so", "the harness of the plugin", force)


def find_nvcc() -> Path:
    """NVIDIA's compiler: of CUDA_HOME, on the PATH, in the usual place, or of pip's packages.

    Raises:
        BuildError: where there is none, with how to get it.
    """
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        if home := os.environ.get(variable):
            nvcc = Path(home) / "bin" / "nvcc"
            if nvcc.is_file():
                return nvcc
            raise BuildError(f"{variable} is {home}, but there is no bin/nvcc in it")
    if found := shutil.which("nvcc"):
        return Path(found)
    places = [USUAL_NVCC]
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        places += sorted(Path(folder).glob("cu*/bin/nvcc"))
    for place in places:
        if place.is_file():
            return place
    raise BuildError(
        "the TensorRT plugin is compiled by nvcc, which is not here; install the CUDA toolkit and "
        "set CUDA_HOME, or pip install nvidia-cuda-nvcc nvidia-cuda-runtime nvidia-cuda-cccl"
    )


def architectures_here() -> tuple[int, ...]:
    """Compute capabilities of this machine's GPUs, times ten, as the driver tells them.

    Raises:
        BuildError: where there is no driver or no GPU.
    """
    words = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    if not shutil.which(words[0]):
        raise BuildError("this machine has no NVIDIA driver (no nvidia-smi)")
    listed = subprocess.run(words, capture_output=True, text=True, check=False)
    found = {int(major + minor) for major, minor in re.findall(r"(\d+)\.(\d)", listed.stdout)}
    if listed.returncode or not found:
        raise BuildError(f"nvidia-smi shows no GPU: {listed.stdout.strip()[:200]}")
    return tuple(sorted(found))


def kernel_reports(library: Path) -> list[KernelReport]:
    """What the compiler reported of each kernel when it built a library."""
    text = library.with_name(REPORT).read_text()
    found = re.findall(
        r"Compiling entry function '(\w+)' for '(\w+)'.*?"
        r"(\d+) bytes spill stores, (\d+) bytes spill loads.*?Used (\d+) registers",
        text,
        re.DOTALL,
    )
    return [
        KernelReport(name, architecture, int(registers), int(stores) + int(loads))
        for name, architecture, stores, loads, registers in found
    ]


def _compiled(command: list[str], sources: Path, name: str, what: str, force: bool) -> Path:
    folder = cache_folder() / "tensorrt" / _key(command, sources)
    library = folder / name
    if library.is_file() and not force:
        return library
    logger.info("compiling %s with %s: once, up to some minutes", what, command[0])
    begun = time.monotonic()
    try:
        check_writable(library)
        with tempfile.TemporaryDirectory() as temporary:
            made = Path(temporary) / name
            said = _run_compiler([*command, "-o", str(made)], sources)
            write_text(folder / REPORT, said)
            # A process that has loaded the old library keeps it.
            write_whole(library, lambda to: shutil.copyfile(made, to))
    except WriteError as error:
        raise BuildError(f"{error}, with ZOO_CACHE for instance") from error
    logger.info("compiled %s in %.0f s: %s", what, time.monotonic() - begun, library)
    return library


def _run_compiler(command: list[str], sources: Path) -> str:
    """What the compiler said, if it succeeded."""
    done = subprocess.run(command, cwd=sources, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    if done.returncode:
        lines = [line.strip() for line in said.splitlines() if "error" in line or "fatal" in line]
        raise BuildError(f"{command[0]} failed: {(lines or [said.strip()])[0][:300]}")
    return said


def _key(command: list[str], sources: Path) -> str:
    """Tells sources, flags and compiler apart."""
    version = subprocess.run([command[0], "--version"], capture_output=True, text=True, check=False)
    digest = hashlib.sha256(repr((command, version.stdout)).encode())
    for path in sorted(sources.iterdir()):
        if path.is_file():
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _known_architectures(nvcc: Path) -> set[int]:
    listed = subprocess.run(
        [str(nvcc), "--list-gpu-arch"], capture_output=True, text=True, check=False
    )
    known = {int(number) for number in re.findall(r"compute_(\d+)\b", listed.stdout)}
    if not known:
        raise BuildError(f"{nvcc} --list-gpu-arch names no GPU: {listed.stderr.strip()[:200]}")
    return known


def _host_compiler() -> list[str]:
    asked = [os.environ.get("CXX"), "c++", "g++", "clang++"]
    for words in asked:
        if words and shutil.which(words.split()[0]):
            return words.split()
    raise BuildError("no C++ compiler is here; install g++ or clang++, or set CXX")


def _architectures(text: str) -> tuple[int, ...] | None:
    """Of the command line: "all", "native", or numbers such as "80,90"."""
    if text == "all":
        return None
    if text == "native":
        return architectures_here()
    try:
        return tuple(int(part.strip().replace(".", "")) for part in text.split(","))
    except ValueError:
        raise BuildError(f"--arch {text}: write all, native, or numbers such as 80,90") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trt_plugins.build",
        description="Compile the TensorRT plugin and print the path of its library.",
        epilog="The library is kept in a cache folder, which ZOO_CACHE changes, and compiled again "
        "only when its sources or flags change. CUDA_HOME names a CUDA toolkit other than the one "
        "on the PATH.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--arch",
        default="all",
        metavar="all|native|80,90",
        help="GPUs to compile for: all, this machine's, or compute capabilities times ten [all]",
    )
    parser.add_argument("-o", "--output", type=Path, help="also copy the library to this file")
    parser.add_argument("--force", action="store_true", help="compile even if it is there")
    parser.add_argument(
        "--shim", action="store_true", help="for tests: the same sources for this CPU, without CUDA"
    )
    return parser


def _run(options: argparse.Namespace) -> int:
    library = build(_architectures(options.arch), force=options.force, shim=options.shim)
    if options.output:
        write_whole(options.output, lambda temporary: shutil.copyfile(library, temporary))
        library = options.output
    print(library)  # noqa: T201
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code, 2 where the plugin cannot be compiled."""
    return run_command(_parser(), _run, arguments)


if __name__ == "__main__":
    sys.exit(main())
