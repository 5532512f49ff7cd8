"""``python -m trt_plugins.build``: compiles the TensorRT plugin once and prints its path.

The library works with TensorRT 10, TensorRT 11 and TensorRT-RTX. Building it needs none of them,
only NVIDIA's compiler ``nvcc``. The library is stored in the user's cache folder, under a hash of
its sources and flags, and is built again when they change. For CMake, there is a ``CMakeLists.txt``
next to this file.

Environment variables: ``CUDA_HOME`` (or ``CUDA_PATH``) is the folder of the CUDA toolkit;
``ZOO_CACHE`` replaces the cache folder ``$XDG_CACHE_HOME/mamba-restoration-zoo``; ``CXX`` is the
host's C++ compiler.
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
"""File next to the library with the output of the compiler."""

ARCHITECTURES = (75, 80, 86, 87, 89, 90, 100, 120)
"""Compute capabilities, times ten, for which the library contains machine code, as far as
the compiler knows them. Any other GPU from the first one on compiles the library's intermediate
code, once, when it first loads the library. 87 is Jetson Orin. architectures.cmake has the same."""

USUAL_NVCC = Path("/usr/local/cuda/bin/nvcc")

NVCC = ("-std=c++17", "-O3", "-shared", "-Xcompiler", "-fPIC,-fvisibility=hidden", "-Xptxas", "-v")
HOST = ("-std=c++17", "-O1", "-shared", "-fPIC", "-fvisibility=hidden", "-Wno-unknown-pragmas")


class BuildError(ZooError):
    """The plugin cannot be compiled on this machine."""


@dataclass(frozen=True)
class KernelReport:
    """The compiler's report on one kernel for one architecture."""

    name: str
    architecture: str
    registers: int
    spilled: int
    """Bytes spilled from registers to memory, stores plus loads."""


def build(
    architectures: Iterable[int] | None = None,
    *,
    force: bool = False,
    shim: bool = False,
    sources: Path = SOURCES,
) -> Path:
    """Compile the plugin, unless it is in the cache, and return the path of the library.

    Args:
        architectures: compute capabilities times ten, such as 90; None for all ``ARCHITECTURES``
            that the compiler supports.
        force: whether to compile even if the library exists.
        shim: whether to compile the same sources for this CPU with a C++ compiler, for tests; see
            csrc/cpu_shim.h.
        sources: folder of the sources.

    Raises:
        BuildError: if there is no compiler or it fails; the message says what to do.
    """
    if shim:
        command = [*_host_compiler(), *HOST, "-x", "c++", "plugin.cu"]
        return _compiled(command, sources, LIBRARY, "the plugin for this CPU", force)
    nvcc = find_nvcc()
    known = _known_architectures(nvcc)
    wanted = tuple(architectures or (a for a in ARCHITECTURES if a in known))
    if unknown := [a for a in wanted if a not in known]:
        raise BuildError(
            f"{nvcc} does not support architecture {unknown[0]}; "
            f"it supports {', '.join(map(str, sorted(known)))}"
        )
    codes = [f"arch=compute_{a},code=sm_{a}" for a in wanted]
    codes.append(f"arch=compute_{min(wanted)},code=compute_{min(wanted)}")
    command = [str(nvcc), *NVCC, *(word for code in codes for word in ("-gencode", code))]
    if host := os.environ.get("CXX"):
        command += ["-ccbin", host]
    # In pip packages, the runtime is not in the folder that the compiler searches.
    command += ["-L", str(nvcc.resolve().parent.parent / "lib"), "--threads", "0", "plugin.cu"]
    what = f"the TensorRT plugin for architectures {', '.join(map(str, wanted))}"
    return _compiled(command, sources, LIBRARY, what, force)


def build_harness(*, force: bool = False) -> Path:
    """Compile the harness that runs a plugin without TensorRT (csrc/harness.cpp).

    Returns:
        The path of the library.

    Raises:
        BuildError: if there is no C++ compiler or it fails.
    """
    command = [*_host_compiler(), *HOST, "harness.cpp", "-ldl"]
    return _compiled(command, SOURCES, "libzoo_harness.so", "the harness of the plugin", force)


def find_nvcc() -> Path:
    """Find nvcc: in CUDA_HOME, on the PATH, in the usual folder, or in the pip packages.

    Raises:
        BuildError: if there is none; the message says how to install it.
    """
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        if home := os.environ.get(variable):
            nvcc = Path(home) / "bin" / "nvcc"
            if nvcc.is_file():
                return nvcc
            raise BuildError(f"{variable} is {home}, but this folder has no bin/nvcc")
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
        "compiling the TensorRT plugin needs nvcc, which was not found; install the CUDA toolkit "
        "and set CUDA_HOME, or pip install nvidia-cuda-nvcc nvidia-cuda-runtime nvidia-cuda-cccl"
    )


def architectures_here() -> tuple[int, ...]:
    """Compute capabilities of this machine's GPUs, times ten, from PyTorch or from the driver.

    On a Jetson only PyTorch knows them. A PyTorch for CPUs does not: then ``nvidia-smi`` is asked.

    Raises:
        BuildError: if neither shows a GPU.
    """
    import torch  # loads for a second, and only this function needs it

    if torch.version.cuda and torch.cuda.is_available():
        capabilities = map(torch.cuda.get_device_capability, range(torch.cuda.device_count()))
        return tuple(sorted({10 * major + minor for major, minor in capabilities}))
    words = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    if not shutil.which(words[0]):
        raise BuildError(
            "PyTorch finds no NVIDIA GPU, and there is no nvidia-smi; name the GPU, as in --arch 87"
        )
    listed = subprocess.run(words, capture_output=True, text=True, check=False)
    found = {int(major + minor) for major, minor in re.findall(r"(\d+)\.(\d)", listed.stdout)}
    if listed.returncode or not found:
        raise BuildError(f"PyTorch and nvidia-smi find no GPU: {listed.stdout.strip()[:200]}")
    return tuple(sorted(found))


def kernel_reports(library: Path) -> list[KernelReport]:
    """The compiler's report on each kernel of a library from :func:`build`."""
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
    logger.info("compiling %s with %s: only once; can take several minutes", what, command[0])
    begun = time.monotonic()
    try:
        check_writable(library)
        with tempfile.TemporaryDirectory() as temporary:
            made = Path(temporary) / name
            said = _run_compiler([*command, "-o", str(made)], sources)
            write_text(folder / REPORT, said)
            # A process that has loaded the old library continues to use it.
            write_whole(library, lambda to: shutil.copyfile(made, to))
    except WriteError as error:
        raise BuildError(f"{error}, for example with ZOO_CACHE") from error
    logger.info("compiled %s in %.0f s: %s", what, time.monotonic() - begun, library)
    return library


def _run_compiler(command: list[str], sources: Path) -> str:
    """Run a compiler and return its output; raise BuildError if it fails."""
    done = subprocess.run(command, cwd=sources, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    if done.returncode:
        lines = [line.strip() for line in said.splitlines() if "error" in line or "fatal" in line]
        raise BuildError(f"{command[0]} failed: {(lines or [said.strip()])[0][:300]}")
    return said


def _key(command: list[str], sources: Path) -> str:
    """A hash of sources, flags and compiler version."""
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
        raise BuildError(f"{nvcc} --list-gpu-arch lists no GPU: {listed.stderr.strip()[:200]}")
    return known


def _host_compiler() -> list[str]:
    asked = [os.environ.get("CXX"), "c++", "g++", "clang++"]
    for words in asked:
        if words and shutil.which(words.split()[0]):
            return words.split()
    raise BuildError("no C++ compiler was found; install g++ or clang++, or set CXX")


def _architectures(text: str) -> tuple[int, ...] | None:
    """Parse the option --arch: "all", "native", or numbers such as "80,90"."""
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
        epilog="The library is stored in a cache folder (set another one with ZOO_CACHE) and is "
        "compiled again only when its sources or flags change. Set CUDA_HOME to use a CUDA toolkit "
        "other than the one on the PATH.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--arch",
        default="all",
        metavar="all|native|80,90",
        help="GPUs to compile for: all, those of this machine, or compute capabilities times ten "
        "[all]",
    )
    parser.add_argument("-o", "--output", type=Path, help="also copy the library to this file")
    parser.add_argument(
        "--force", action="store_true", help="compile even if the library is in the cache"
    )
    parser.add_argument(
        "--shim",
        action="store_true",
        help="compile the same sources for this CPU, without CUDA, for tests",
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
    """Run the command and return its exit code, 2 if the plugin cannot be compiled."""
    return run_command(_parser(), _run, arguments)


if __name__ == "__main__":
    sys.exit(main())
