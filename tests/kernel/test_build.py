"""How the package is built: with and without a compiler, for this machine and for others."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from build_tools import backend, kernel

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def no_choice(monkeypatch):
    """The environment of the tests asks for no platform and no compiler of its own."""
    monkeypatch.delenv(kernel.PLATFORM, raising=False)
    monkeypatch.delenv("CXX", raising=False)


@pytest.fixture
def no_compiler(monkeypatch):
    monkeypatch.setattr(kernel, "own_compiler", lambda: None)
    monkeypatch.setattr(kernel, "_has_zig", lambda: False)


@pytest.fixture
def machine(monkeypatch):
    def pretend(system, architecture, library="glibc"):
        monkeypatch.setattr(platform, "system", lambda: system)
        monkeypatch.setattr(platform, "machine", lambda: architecture)
        monkeypatch.setattr(platform, "libc_ver", lambda: (library, "2.36"))

    return pretend


MACHINES = [
    ("Linux", "x86_64", "glibc", "manylinux_2_17_x86_64"),
    ("Linux", "x86_64", "", "musllinux_1_2_x86_64"),
    ("Linux", "aarch64", "glibc", "manylinux_2_17_aarch64"),
    ("Darwin", "arm64", "", "macosx_11_0_arm64"),
    ("Darwin", "x86_64", "", "macosx_11_0_x86_64"),
    ("Windows", "AMD64", "", "win_amd64"),
]


@pytest.mark.parametrize(("system", "architecture", "library", "tag"), MACHINES)
def test_a_machine_without_compiler_gets_one_from_pypi(
    machine, no_compiler, system, architecture, library, tag
):
    machine(system, architecture, library)
    assert kernel.this_platform() is kernel.PLATFORMS[tag]
    assert kernel.requirements() == [kernel.ZIG]


def test_other_machines_without_compiler_do_without_the_kernel(machine, no_compiler, tmp_path):
    machine("Linux", "riscv64")
    assert kernel.this_platform() is None and kernel.requirements() == []
    with pytest.raises(kernel.BuildError, match=r"no C\+\+ compiler; install g\+\+"):
        kernel.build_library(tmp_path / "library", tmp_path)


def test_a_machine_with_a_compiler_downloads_none(monkeypatch):
    monkeypatch.setattr(kernel, "own_compiler", lambda: ["g++"])
    assert kernel.requirements() == []
    monkeypatch.setenv(kernel.PLATFORM, "win_amd64")
    assert kernel.requirements() == [kernel.ZIG]
    monkeypatch.setenv(kernel.PLATFORM, kernel.ANYWHERE)
    assert kernel.requirements() == []


def test_the_backend_passes_the_compiler_on_to_pip(monkeypatch, no_compiler, machine):
    machine("Linux", "x86_64")
    for name in ("wheel", "editable"):
        asked = f"get_requires_for_build_{name}"
        monkeypatch.setattr(backend.build_meta, asked, lambda settings: ["mine"])
        assert getattr(backend, asked)() == ["mine", kernel.ZIG]


def test_the_compiler_that_is_asked_for_comes_first(monkeypatch, capsys):
    monkeypatch.setattr(kernel, "_works", lambda words: words[0] in ("ccache", "g++"))
    monkeypatch.setenv("CXX", "ccache clang++")
    assert kernel.own_compiler() == ["ccache", "clang++"]
    monkeypatch.setenv("CXX", "clang++-99")
    assert kernel.own_compiler() == ["g++"]
    error = capsys.readouterr().err
    assert error == "CXX is 'clang++-99', which compiles no C++17; it is not used\n"
    monkeypatch.setattr(kernel, "_works", lambda words: False)
    assert kernel.own_compiler() is None


def stand_in(path, lines):
    path.write_text(f"#!/bin/sh\n{lines}\n")
    path.chmod(0o755)
    return str(path)


def test_a_compiler_must_work(monkeypatch, tmp_path):
    """macOS has a program c++ that compiles nothing, and a path may have spaces."""
    if os.name == "nt":
        pytest.skip("needs a shell")
    mute = stand_in(tmp_path / "c++", "echo 'no developer tools were found' >&2; exit 1")
    assert not kernel._works((mute,))
    assert not kernel._works((str(tmp_path / "missing"),))
    real = kernel.own_compiler()
    if real is None:
        pytest.skip("no C++ compiler")
    folder = tmp_path / "Program Files"
    folder.mkdir()
    passing = stand_in(folder / "clang++", f'exec {" ".join(real)} "$@"')
    monkeypatch.setenv("CXX", passing)
    assert kernel.own_compiler() == [passing]


def test_on_windows_no_compiler_of_other_programs_is_taken(monkeypatch):
    tried = []
    monkeypatch.setattr(kernel, "_works", tried.append)
    monkeypatch.setattr(kernel.os, "name", "nt")
    assert kernel.own_compiler() is None and tried == [("clang++",)]


def test_an_unknown_platform_is_named_with_the_known_ones(monkeypatch):
    monkeypatch.setenv(kernel.PLATFORM, "manylinux2014_x86_64")
    with pytest.raises(kernel.BuildError, match=r"'manylinux2014_x86_64'; known: manylinux_2_17"):
        kernel.chosen_tag()


def test_each_architecture_has_its_own_sources():
    names = ("x86_64", "aarch64", "other")
    files = {name: {path.stem for path in kernel.sources(name)} for name in names}
    common = files["other"]
    assert "level_portable" in common and not any("avx" in name for name in common)
    assert files["x86_64"] - common == {"level_avx2", "level_avx512"}
    assert files["aarch64"] - common == {"level_neon"}
    known = {path.stem for path in kernel.SOURCES.glob("*.cpp")}
    assert set.union(*files.values()) == known


def build(folder, left=(), **environment):
    """Build the wheel of a copy of the checkout, as pip does without isolation.

    Args:
        left: files that an earlier build has left in its folder.
    """
    pytest.importorskip("setuptools")
    copy = folder / "copy"
    for place in ("lib", f"lib.{sysconfig.get_platform()}-{sys.implementation.cache_tag}"):
        for name in left:
            file = copy / "build" / place / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("raise SystemExit\n")
    left_out = shutil.ignore_patterns("__pycache__", "_native.*")
    for name in ("zoo", "export", "recipes", "trt_plugins", "build_tools"):
        shutil.copytree(ROOT / name, copy / name, ignore=left_out)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / name, copy)
    words = "import sys; from build_tools import backend; backend.build_wheel(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", words, str(folder)],
        cwd=copy, capture_output=True, text=True, env={**os.environ, **environment},
    )  # fmt: skip
    return done, [zipfile.ZipFile(path) for path in folder.glob("*.whl")]


def test_without_a_compiler_the_wheel_is_one_for_any_platform(tmp_path):
    left = ("zoo/removed.py", "zoo/ops/scan/_native.so", "zoo/ops/scan/_native.dll")
    done, wheels = build(tmp_path, left, PATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert [Path(wheel.filename).name.split("-", 2)[2] for wheel in wheels] == ["py3-none-any.whl"]
    names = wheels[0].namelist()
    assert "zoo/ops/scan/native.py" in names and not any("_native." in name for name in names)
    assert "zoo/removed.py" not in names, "from the folder of an earlier build"
    facts = wheels[0].read(next(name for name in names if name.endswith("/WHEEL"))).decode()
    assert "Root-Is-Purelib: true" in facts and "Tag: py3-none-any" in facts
    assert "there is no C++ compiler" in done.stdout + done.stderr


@pytest.mark.slow
def test_a_wheel_for_a_platform_is_not_built_without_its_kernel(tmp_path):
    """An installation by `pip install` may do without; what is published for a platform may not."""
    done, wheels = build(tmp_path, ZOO_PLATFORM="win_amd64", PYTHONNOUSERSITE="1")
    if done.returncode == 0:
        pytest.skip("ziglang is installed")
    assert not wheels and "the C++ kernel was not compiled" in done.stderr


@pytest.mark.slow
def test_with_a_compiler_the_wheel_is_one_for_this_platform(tmp_path):
    if kernel.own_compiler() is None:
        pytest.skip("no C++ compiler")
    done, (wheel,) = build(tmp_path)
    assert done.returncode == 0, done.stderr
    assert not wheel.filename.endswith("-any.whl") and "-py3-none-" in wheel.filename
    assert f"zoo/ops/scan/{kernel.library_name()}" in wheel.namelist()
