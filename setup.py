"""Builds the C++ kernel of the selective scan. For everything else, see ``pyproject.toml``.

Without a C++ compiler the installation still succeeds: scans then run on other backends, and
``zoo.backends()`` says why the native one is missing.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

SOURCES = Path("zoo/ops/scan/csrc")
FLAGS = [
    *("-O3", "-std=c++17", "-fPIC", "-fvisibility=hidden", "-fno-exceptions", "-fno-rtti"),
    *("-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-maybe-uninitialized"),
]
AVX2 = ["-mavx2", "-mfma", "-mf16c"]
# One library for every CPU: each instruction set is a separate source file, chosen at run time.
LEVELS = {
    "level_portable": [],
    "level_avx2": AVX2,
    "level_avx512": [
        *AVX2,
        *(f"-mavx512{part}" for part in ("f", "dq", "bw", "vl")),
        "-mprefer-vector-width=512",
    ],
}


def compiler() -> str:
    """Find the C++ compiler: $CXX, the one that built Python, or the first of the usual names."""
    asked = [os.environ.get("CXX"), sysconfig.get_config_var("CXX"), "c++", "g++", "clang++"]
    found = (words for words in asked if words and shutil.which(words.split()[0]))
    return next(found, "c++")


class BuildKernel(build_ext):
    """Compiles each file with its own flags and links a plain library, independent of Python."""

    def get_ext_filename(self, fullname: str) -> str:
        return str(Path(*fullname.split("."))) + ".so"

    def get_export_symbols(self, ext: Extension) -> list[str]:
        return []

    def build_extension(self, ext: Extension) -> None:
        own = os.environ.get("CXXFLAGS", "").split()
        if os.name == "posix":
            command = compiler().split()
            linker = [*command, *own, "-shared", "-pthread"]
            if sys.platform == "linux":
                linker.append("-Wl,--as-needed")  # omits the C++ library, which is not used
            for name in ("compiler_so", "compiler_so_cxx"):
                self.compiler.set_executable(name, command)
            for name in ("linker_so", "linker_so_cxx"):
                self.compiler.set_executable(name, linker)
        objects = []
        for source in ext.sources:
            flags = [*FLAGS, *LEVELS.get(Path(source).stem, []), *own]
            objects += self.compiler.compile(
                [source], output_dir=self.build_temp, extra_postargs=flags, depends=ext.depends
            )
        self.compiler.link_shared_object(objects, self.get_ext_fullpath(ext.name))


class Wheel(bdist_wheel):
    """Tags the wheel for any Python 3 on the platform, because the library is independent of it."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


def sources() -> list[str]:
    """Source files for the architecture of this machine."""
    wide = platform.machine().lower() in ("x86_64", "amd64")
    left_out = set() if wide else {"level_avx2", "level_avx512"}
    return sorted(str(path) for path in SOURCES.glob("*.cpp") if path.stem not in left_out)


setup(
    ext_modules=[
        Extension(
            "zoo.ops.scan._native",
            sources(),
            depends=sorted(str(path) for path in SOURCES.glob("*.h")),
            optional=True,
        )
    ],
    cmdclass={"build_ext": BuildKernel, "bdist_wheel": Wheel},
)
