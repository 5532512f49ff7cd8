"""The build command: what it makes, where it keeps it, what it says when it cannot.

Slow: nvcc compiles every kernel for every architecture, without a spilled register.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.helpers.plugin_checks import check_exports, make
from tests.helpers.scan_cases import Case
from trt_plugins import build as building
from trt_plugins.build import (
    ARCHITECTURES,
    REPORT,
    SOURCES,
    BuildError,
    build,
    find_nvcc,
    kernel_reports,
    main,
)
from trt_plugins.harness import Harness, HarnessError
from zoo.files import cache_folder
from zoo.ops.scan.names import EACH, SUM

FAKE = """#!/bin/sh
# Stands for a compiler: writes what it was asked into the file after -o.
[ "$1" = --version ] && { echo 1.0; exit; }
[ "$1" = --list-gpu-arch ] && { printf 'compute_75\\ncompute_90\\n'; exit; }
echo run >> "$LOG"
[ -e "$BROKEN" ] && { echo 'plugin.cu(7): error: nothing works' >&2; exit 1; }
words="$*"
while [ "$1" != -o ]; do shift; done
echo "$words" > "$2"
"""


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """A quick compiler instead of the real ones; returns the list of its runs."""
    home = tmp_path / "cuda"
    (home / "bin").mkdir(parents=True)
    for name in ("nvcc", "cxx"):
        (home / "bin" / name).write_text(FAKE)
        (home / "bin" / name).chmod(0o755)
    monkeypatch.setenv("CUDA_HOME", str(home))
    monkeypatch.setenv("CXX", str(home / "bin" / "cxx"))
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    monkeypatch.setenv("BROKEN", str(tmp_path / "broken"))
    (tmp_path / "log").touch()
    return lambda: len((tmp_path / "log").read_text().splitlines())


@pytest.mark.parametrize("shim", [False, True], ids=["nvcc", "shim"])
def test_it_compiles_once(shim, compiler, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    first = build(shim=shim)
    assert compiler() == 1 and first.is_relative_to(tmp_path / "cache")
    assert "only once; can take several minutes" in caplog.text and str(first) in caplog.text
    assert build(shim=shim) == first and compiler() == 1
    assert build(shim=shim, force=True) == first and compiler() == 2
    assert {path.name for path in first.parent.iterdir()} == {first.name, REPORT}


def test_other_sources_flags_or_compilers_are_another_library(compiler, tmp_path):
    sources = tmp_path / "csrc"
    shutil.copytree(SOURCES, sources)
    made = [build(sources=sources), build([90], sources=sources)]
    with (sources / "device.h").open("a") as file:
        file.write("// changed\n")
    made.append(build(sources=sources))
    nvcc = find_nvcc()
    nvcc.write_text(nvcc.read_text().replace("echo 1.0", "echo 1.1"))
    made.append(build(sources=sources))
    assert len(set(made)) == compiler() == 4


def test_it_compiles_for_what_the_compiler_knows(compiler):
    words = build().read_text()
    for code in ("arch=compute_75,code=sm_75", "arch=compute_90,code=sm_90"):
        assert code in words
    # Any other GPU compiles the intermediate code of the oldest.
    assert "arch=compute_75,code=compute_75" in words and "120" not in words
    assert "arch=compute_90,code=compute_90" in build([90]).read_text()
    with pytest.raises(BuildError, match="does not support architecture 120; it supports 75, 90"):
        build([90, 120])


def test_compilers_are_given_every_word_that_they_need(compiler, tmp_path, monkeypatch):
    home = tmp_path / "cuda"
    cxx = f"{home / 'bin' / 'cxx'} -m64"
    monkeypatch.setenv("CXX", cxx)
    (home / "bin" / "nvcc").rename(home / "real")
    (home / "bin" / "nvcc").symlink_to(home / "real")
    words = build([90, 75]).read_text().partition(" -o ")[0]
    assert words == (
        "-std=c++17 -O3 -shared -Xcompiler -fPIC,-fvisibility=hidden -Xptxas -v "
        "-gencode arch=compute_90,code=sm_90 -gencode arch=compute_75,code=sm_75 "
        "-gencode arch=compute_75,code=compute_75 "
        f"-ccbin {cxx} -L {tmp_path / 'lib'} --threads 0 plugin.cu"
    )
    host = "-m64 -std=c++17 -O1 -shared -fPIC -fvisibility=hidden -Wno-unknown-pragmas"
    words = build(shim=True).read_text().partition(" -o ")[0]
    assert words == f"{host} -x c++ plugin.cu"
    words = building.build_harness().read_text().partition(" -o ")[0]
    assert words == f"{host} harness.cpp -ldl"
    monkeypatch.delenv("CXX")
    assert "-ccbin" not in build([90, 75]).read_text()


def test_the_key_of_a_library_is_of_names_and_contents_in_any_sequence(tmp_path, monkeypatch):
    sources = tmp_path / "csrc"
    (sources / "folder").mkdir(parents=True)
    for name in ("a", "b", "c"):
        (sources / name).write_text(name)
    command = [sys.executable, "-O"]
    key = building._key(command, sources)
    listed = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda self: reversed([*listed(self)]))
    again = building._key(command, sources)
    monkeypatch.setattr(Path, "iterdir", lambda self: iter(sorted(listed(self))))
    assert key == again == building._key(command, sources) and len(key) == 16
    assert building._key([sys.executable, "-I"], sources) != key
    (sources / "c").rename(sources / "d")
    assert building._key(command, sources) != key


def test_the_compiler_of_the_host_is_the_one_asked_for_or_the_first_found(monkeypatch):
    there = {"mine", "g++", "clang++"}
    monkeypatch.setattr(building.shutil, "which", lambda name: name if name in there else None)
    monkeypatch.setenv("CXX", "mine -m64")
    assert building._host_compiler() == ["mine", "-m64"]
    monkeypatch.setenv("CXX", "missing")
    assert building._host_compiler() == ["g++"]
    there |= {"c++"}
    assert building._host_compiler() == ["c++"]
    there -= {"c++", "g++"}
    monkeypatch.delenv("CXX")
    assert building._host_compiler() == ["clang++"]


def test_a_failed_build_says_why_and_leaves_nothing(compiler, tmp_path):
    (tmp_path / "broken").touch()
    with pytest.raises(BuildError, match=r"nvcc failed: plugin.cu\(7\): error: nothing works"):
        build()
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_without_a_compiler_it_says_what_to_install(monkeypatch, tmp_path, capsys):
    for variable in ("CUDA_HOME", "CUDA_PATH", "CXX"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(Path, "is_file", lambda self: False)
    with pytest.raises(BuildError, match="install the CUDA toolkit and set CUDA_HOME, or pip inst"):
        find_nvcc()
    assert main([]) == 2
    assert capsys.readouterr().err.startswith(
        "python -m trt_plugins.build: error: compiling the TensorRT plugin "
    )
    with pytest.raises(BuildError, match="no C\\+\\+ compiler was found"):
        build(shim=True)


def test_a_wrong_cuda_home_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    with pytest.raises(BuildError, match=r"CUDA_HOME is .*, but this folder has no bin/nvcc"):
        find_nvcc()


def test_the_first_variable_that_names_a_toolkit_decides(compiler, monkeypatch, tmp_path):
    home = tmp_path / "cuda"
    monkeypatch.setenv("CUDA_PATH", str(tmp_path / "other"))
    assert find_nvcc() == home / "bin" / "nvcc"
    monkeypatch.delenv("CUDA_HOME")
    with pytest.raises(BuildError, match=r"CUDA_PATH is .*other, but"):
        find_nvcc()


def test_words_of_the_command_reach_the_build(monkeypatch, tmp_path, capsys):
    asked = []
    monkeypatch.setattr(
        building, "build", lambda *words, **more: asked.append((words, more)) or tmp_path / "a.so"
    )
    monkeypatch.setattr(building, "architectures_here", lambda: (87,))
    for words in ([], ["--arch", "8.0, 90", "--force"], ["--arch", "native", "--shim"]):
        assert main(words) == 0
    assert asked == [
        ((None,), {"force": False, "shim": False}),
        (((80, 90),), {"force": True, "shim": False}),
        (((87,),), {"force": False, "shim": True}),
    ]


def test_what_compilers_say_is_kept_or_told(tmp_path):
    def said(script):
        return building._run_compiler(["sh", "-c", script], tmp_path)

    assert said("echo a; echo b >&2; pwd") == f"a\n{tmp_path}\nb\n"
    for script, told in (
        ("echo first; echo '  fatal: x  ' >&2; exit 1", "fatal: x"),
        ("echo an error; exit 3", "an error"),
        ("echo ' nothing '; echo known >&2; exit 1", "nothing known"),
        (f"echo {'e' * 400}; exit 1", "e" * 300),
    ):
        with pytest.raises(BuildError) as error:
            said(script)
        assert str(error.value) == f"sh failed: {told}"
    nvcc = tmp_path / "nvcc"
    nvcc.write_text("#!/bin/sh\necho ' no such option ' >&2; exit 1\n")
    nvcc.chmod(0o755)
    with pytest.raises(BuildError, match=r"nvcc --list-gpu-arch lists no GPU: no such option$"):
        building._known_architectures(nvcc)
    assert len(building._key([str(nvcc)], tmp_path)) == 16  # it may not know --version


def test_nvcc_of_pip_packages_is_found(monkeypatch, tmp_path):
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(variable, raising=False)
    nvcc = tmp_path / "nvidia" / "cu13" / "bin" / "nvcc"
    nvcc.parent.mkdir(parents=True)
    nvcc.touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "nvidia", raising=False)
    monkeypatch.setattr(building, "USUAL_NVCC", tmp_path / "nothing")
    assert find_nvcc() == nvcc
    older = tmp_path / "nvidia" / "cu12" / "bin" / "nvcc"
    older.parent.mkdir(parents=True)
    older.touch()
    found = Path.glob
    for order in (sorted, lambda paths: sorted(paths, reverse=True)):
        monkeypatch.setattr(Path, "glob", lambda self, text, o=order: iter(o(found(self, text))))
        assert find_nvcc() == older


def test_a_cache_that_cannot_be_written_is_named(compiler, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "file"))
    with pytest.raises(BuildError, match=r"cannot write: .*place, for example with ZOO_CACHE"):
        build()
    assert compiler() == 0  # it would take minutes


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.delenv("ZOO_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "mamba-restoration-zoo"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "mamba-restoration-zoo"


def test_the_command_prints_the_library_and_copies_it(compiler, tmp_path, capsys):
    assert main(["--arch", "9.0", "-o", str(tmp_path / "mine.so")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'mine.so'}\n"
    assert "code=sm_90" in (tmp_path / "mine.so").read_text()
    for words, message in (
        (["--arch", "hopper"], "--arch hopper: write all, native, or numbers such as 80,90"),
        (["--arch", "42"], "does not support architecture 42"),
    ):
        assert main(words) == 2
        assert message in capsys.readouterr().err


def test_this_machines_gpus_are_those_of_pytorch(monkeypatch):
    """On a Jetson there is no nvidia-smi, or one that says nothing."""
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(torch.version, "cuda", "12.6")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "get_device_capability", [(9, 0), (8, 7), (9, 0)].__getitem__)
    assert building.architectures_here() == (87, 90)


@pytest.mark.parametrize("rocm", [False, True])
def test_without_pytorch_for_cuda_the_driver_is_asked(rocm, compiler, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: rocm)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: pytest.fail("these are AMD's"))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(BuildError, match="PyTorch finds no NVIDIA GPU, and there is no nvidia-smi"):
        building.architectures_here()
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\nprintf '9.0\\n8.6\\n9.0\\n'\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(shutil, "which", lambda name: str(smi))
    assert building.architectures_here() == (86, 90)
    smi.write_text("#!/bin/sh\necho '[N/A]'\n")
    with pytest.raises(BuildError, match=r"PyTorch and nvidia-smi find no GPU: \[N/A\]"):
        building.architectures_here()
    smi.write_text("#!/bin/sh\necho 9.0 was here; exit 3\n")
    with pytest.raises(BuildError, match=r"PyTorch and nvidia-smi find no GPU: 9\.0 was here"):
        building.architectures_here()


CUDA_12_6 = (50, 52, 53, 60, 61, 62, 70, 72, 75, 80, 86, 87, 89, 90)


def cmake_architectures(known, tmp_path):
    """What CMake compiles for if the compiler knows these GPUs: the process, and its output."""
    if not shutil.which("cmake"):
        pytest.skip("cmake is not installed")
    listed = "".join(f"compute_{architecture}\\n" for architecture in known)
    nvcc, script = tmp_path / "nvcc", tmp_path / "print.cmake"
    nvcc.write_text(f"#!/bin/sh\n[ $1 = --list-gpu-arch ] && printf '{listed}'\n")
    nvcc.chmod(0o755)
    folder = Path(building.__file__).parent
    script.write_text(
        f"include({folder}/architectures.cmake)\nzoo_architectures(found {nvcc})\n"
        'message("${found}")\n'
    )
    return subprocess.run(["cmake", "-P", str(script)], capture_output=True, text=True)


def test_cmake_compiles_for_the_same_gpus_that_the_compiler_knows(tmp_path):
    def expected(known):
        first, *rest = (a for a in ARCHITECTURES if a in known)
        return ";".join([str(first), *(f"{a}-real" for a in rest)])

    for known in (CUDA_12_6, ARCHITECTURES, (*ARCHITECTURES, 88, 103, 110, 121), (90, 103, 121)):
        assert cmake_architectures(known, tmp_path).stderr.strip() == expected(known)
    assert "87-real" in expected(CUDA_12_6) and "100" not in expected(CUDA_12_6)
    failed = cmake_architectures((), tmp_path)
    assert failed.returncode and "--list-gpu-arch lists no GPU" in failed.stderr


def test_the_report_of_registers_is_read(tmp_path):
    (tmp_path / REPORT).write_text(
        "ptxas info    : 0 bytes gmem\n"
        "ptxas info    : Compiling entry function '_Za' for 'sm_90'\n"
        "ptxas info    : Function properties for _Za\n"
        "    16 bytes stack frame, 12 bytes spill stores, 8 bytes spill loads\n"
        "ptxas info    : Used 255 registers, used 1 barriers, 9760 bytes smem\n"
        "ptxas info    : Compiling entry function '_Zb' for 'sm_75'\n"
        "ptxas info    : Function properties for _Zb\n"
        "    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n"
        "ptxas info    : Used 40 registers\n"
    )
    first, second = kernel_reports(tmp_path / "library.so")
    assert (first.name, first.architecture, first.registers, first.spilled) == (
        "_Za", "sm_90", 255, 20,
    )  # fmt: skip
    assert (second.name, second.architecture, second.spilled) == ("_Zb", "sm_75", 0)


# ---- With the real compiler ----


@pytest.fixture(scope="module")
def library(nvcc):
    return build()


KERNELS = 3 * 2 * 4 + 1 + 3
"""Of each architecture: walks of three dtypes, with and without output, of up to 8, 12, 16 and 32
states; the carry; the rounding of three dtypes."""


@pytest.mark.slow
def test_no_kernel_spills_on_any_architecture(library):
    reports = kernel_reports(library)
    for architecture in ARCHITECTURES:
        mine = [r for r in reports if r.architecture == f"sm_{architecture}"]
        assert len({r.name for r in mine}) == KERNELS, architecture
        assert [r for r in mine if r.spilled] == []


@pytest.mark.slow
def test_a_spilling_kernel_is_found(nvcc, tmp_path, monkeypatch):
    """Sixteen blocks at once leave 32 registers a thread, of the 64 and more that kernels take."""
    sources = tmp_path / "csrc"
    shutil.copytree(SOURCES, sources)
    kernels = sources / "selective_scan.cuh"
    blocks = "(least_blocks<T, kStates, kWrite>())"
    text = kernels.read_text()
    assert blocks in text
    kernels.write_text(text.replace(blocks, "16"))
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    reports = kernel_reports(build([90], sources=sources))
    assert len({r.name for r in reports}) == KERNELS and any(r.spilled for r in reports)


@pytest.mark.slow
def test_the_compiled_plugin_lives_up_to_its_first_launch(library, capfd):
    check_exports(library)
    for name in (EACH, SUM):
        inputs = make(Case(), torch.float16)
        with Harness(library, name, inputs) as harness:
            assert harness.empty_output(inputs).dtype == torch.float16
            if not torch.cuda.is_available():
                with pytest.raises(HarnessError, match="enqueue returned 1"):
                    harness(inputs)
                assert f"zoo::{name}: the kernel did not start: CUDA" in capfd.readouterr().err


@pytest.mark.slow
def test_cmake_builds_it_too(nvcc, tmp_path):
    if not shutil.which("cmake"):
        pytest.skip("cmake is not installed")
    project = Path(building.__file__).parent
    configure = ["cmake", "-S", str(project), "-B", str(tmp_path), f"-DCMAKE_CUDA_COMPILER={nvcc}"]
    flags = tmp_path / "CMakeFiles" / "zoo_tensorrt.dir" / "flags.make"
    for _ in range(2):  # CMake must not remember a choice of its own
        subprocess.run(configure, check=True)
        chosen = set(map(int, re.findall(r"sm_(\d+)", flags.read_text())))
        assert chosen == building._known_architectures(nvcc) & {*ARCHITECTURES}
    subprocess.run([*configure, "-DCMAKE_CUDA_ARCHITECTURES=90"], check=True)
    assert set(re.findall(r"sm_(\d+)", flags.read_text())) == {"90"}
    subprocess.run(["cmake", "--build", str(tmp_path)], check=True)
    library = tmp_path / "libzoo_tensorrt.so"
    check_exports(library)
    Harness(library, SUM, make(Case(), torch.float32)).close()
