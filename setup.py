"""Adds the C++ kernel to the package. For everything else, see ``pyproject.toml``.

Without a C++ compiler the installation still succeeds: scans then run on other backends,
``zoo doctor`` says that the kernel is missing, and the wheel is tagged for any platform.
"""

from __future__ import annotations

import platform
import shutil
from pathlib import Path
from typing import ClassVar

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build import build
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

from build_tools import kernel
from build_tools.description import long_description


class BuildKernel(build_ext):
    """Compiles the plain library, which is independent of Python."""

    built: ClassVar[bool] = False

    def get_ext_filename(self, fullname: str) -> str:
        return str(Path(*fullname.split(".")).with_name(kernel.library_name()))

    def build_extension(self, ext: Extension) -> None:
        library = Path(self.get_ext_fullpath(ext.name))
        try:
            kernel.build_library(library, Path(self.build_temp))
        except kernel.BuildError as error:
            if kernel.chosen_tag():  # this wheel must have it
                raise SystemExit(str(error)) from error
            raise CompileError(str(error)) from error  # the extension is optional
        BuildKernel.built = True


class Build(build):
    """Starts from an empty folder.

    What an earlier build has left there would get into the wheel: a removed module, or the kernel
    of another platform.
    """

    def run(self) -> None:
        shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()


class Wheel(bdist_wheel):
    """Tags the wheel for any Python 3 on its platform; without the kernel, for any platform."""

    def get_tag(self) -> tuple[str, str, str]:
        if not BuildKernel.built:
            self.root_is_pure = True
            return "py3", "none", kernel.ANYWHERE
        here = super().get_tag()[2].replace("universal2", platform.machine())  # one architecture
        return "py3", "none", kernel.chosen_tag() or here


LIBRARY = Extension("zoo.ops.scan._native", [], optional=True)

setup(
    long_description=long_description(kernel.ROOT),
    long_description_content_type="text/markdown",
    ext_modules=[LIBRARY] if kernel.chosen_tag() != kernel.ANYWHERE else [],
    cmdclass={"build": Build, "build_ext": BuildKernel, "bdist_wheel": Wheel},
)
