"""What an installation says about itself, and what it promises to pip."""

from __future__ import annotations

import base64
import hashlib
import importlib
import os
import platform
import re
import shutil
import subprocess
import sys
from contextlib import nullcontext
from importlib.metadata import PathDistribution
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from build_tools import torch_source
from build_tools.description import LINK, long_description
from zoo import shipped
from zoo.cli import REQUIRED, main
from zoo.commands import doctor, gpu_advice
from zoo.data.images import Photo, write_photo
from zoo.errors import EXTRAS, ZooError, pip_install
from zoo.ops import precision
from zoo.ops.passes import self_check as passes
from zoo.ops.scan import mamba_ssm, native, triton
from zoo.ops.scan.self_check import decision, processes, toolchain, verdicts

ROOT = Path(__file__).parents[1]


def settings():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11 or newer reads TOML")
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_an_installation_holds_every_package():
    """The list is written out, because some folders at the top level do not belong to it."""
    listed = settings()["tool"]["setuptools"]["packages"]
    tops = {name.partition(".")[0] for name in listed}
    folders = {path.parent for top in tops for path in (ROOT / top).rglob("*.py")}
    assert {".".join(folder.relative_to(ROOT).parts) for folder in folders} == set(listed)
    assert len(listed) == len(set(listed))


# ---- zoo doctor ----

UNAVAILABLE, NVIDIA_DRIVER = native.unavailable, gpu_advice.nvidia_driver


def elf_header(machine):
    """The start of a library of Linux for a processor, by its number in the ELF standard."""
    return b"\x7fELF\x02\x01".ljust(18, b"\0") + machine.to_bytes(2, "little") + bytes(44)


@pytest.fixture
def machine(monkeypatch):
    """A machine with nothing to say about; each test changes one thing."""
    monkeypatch.delenv("ZOO_SCAN_BACKEND", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.version, "hip", None, raising=False)
    monkeypatch.setattr(native, "unavailable", lambda: None)
    monkeypatch.setattr(doctor, "bfloat16_is_slow", lambda device: False)
    monkeypatch.setattr(gpu_advice, "nvidia_driver", lambda: None)
    for backend in (triton, mamba_ssm):
        monkeypatch.setattr(backend, "unavailable", lambda: "it is not here")
    return monkeypatch


def test_doctor_has_nothing_to_say_of_a_right_installation(machine):
    assert list(doctor.advice()) == []


def test_doctor_warns_of_a_cuda_build_without_a_gpu(machine):
    machine.setattr(torch.version, "cuda", "13.0")
    (sentence,) = doctor.advice()
    assert "built for CUDA, but finds no GPU" in sentence
    assert "--index-url https://download.pytorch.org/whl/cpu in a new environment" in sentence
    machine.setattr(torch.cuda, "is_available", lambda: True)
    assert not any("finds no GPU" in each for each in doctor.advice())


RELEASES = {
    "535.183.01": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 2024\n",
    "580.65.06": "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release\n",
    "": "NVRM version: another form\n",
}
"""What the kernel says of drivers, and their versions."""


@pytest.fixture
def driver(machine, tmp_path):
    """A function that gives the machine a driver of a version, or none."""
    machine.setattr(gpu_advice, "nvidia_driver", NVIDIA_DRIVER)
    machine.setattr(gpu_advice, "ROOT", tmp_path)
    machine.setattr(shutil, "which", lambda name: None)
    file = tmp_path / "proc/driver/nvidia/version"

    def install(version):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(RELEASES[version])

    return install


@pytest.mark.parametrize("version", RELEASES)
@pytest.mark.parametrize("cuda", ["12.6", "13.0"])
def test_a_driver_that_is_too_old_is_named(version, cuda, driver, machine):
    machine.setattr(torch.version, "cuda", cuda)
    assert gpu_advice.gpu_that_pytorch_misses() is None
    driver(version)
    assert gpu_advice.nvidia_driver() == version
    sentence = gpu_advice.gpu_that_pytorch_misses()
    if (version, cuda) == ("535.183.01", "13.0"):
        assert "CUDA 13.0, which needs NVIDIA's driver 580 or later" in sentence
        assert "this machine has 535.183.01" in sentence and sentence.endswith("whl/cu126")
        assert list(doctor.advice()) == [sentence]
    else:
        assert sentence is None
    machine.setattr(torch.cuda, "is_available", lambda: True)
    assert gpu_advice.gpu_that_pytorch_misses() is None


@pytest.mark.parametrize("sign", ["driver", "nvidia-smi", "Jetson"])
def test_a_gpu_that_pytorch_for_cpus_cannot_use_is_told(sign, driver, machine, tmp_path):
    """As on Windows, where PyPI has no other build, and on a Jetson, which has no nvidia-smi."""
    machine.setattr(torch.version, "cuda", None)
    assert gpu_advice.gpu_that_pytorch_misses() is None
    if sign == "driver":
        driver("580.65.06")
    elif sign == "nvidia-smi":
        machine.setattr(shutil, "which", lambda name: {"nvidia-smi": "there"}.get(name))
    else:
        (tmp_path / "etc").mkdir()
        (tmp_path / "etc" / "nv_tegra_release").write_text("# R36 (release), REVISION: 4.3")
    sentence = gpu_advice.gpu_that_pytorch_misses()
    assert "this PyTorch is the build for CPUs" in sentence
    assert ("jetson-ai-lab.io/jp6" in sentence) == (sign == "Jetson") != ("cu130" in sentence)
    assert list(doctor.advice()) == [sentence]
    machine.setattr(torch.version, "hip", "6.4", raising=False)
    assert gpu_advice.gpu_that_pytorch_misses() is None


@pytest.mark.parametrize("library", ["missing", "of another processor", "no library"])
def test_doctor_warns_of_a_kernel_that_cannot_be_used(machine, tmp_path, capsys, library):
    machine.setattr(native, "unavailable", UNAVAILABLE)
    machine.setattr(native, "library", native.library.__wrapped__)
    machine.setattr(native, "LIBRARY", tmp_path / "_native.so")
    reason = "the package again (pip install --force-reinstall --no-deps --no-cache-dir)"
    if library == "of another processor":
        native.LIBRARY.write_bytes(elf_header(machine=8))
        machine.setattr(platform, "machine", lambda: "x86_64")
        reason = "it is for another processor, not x86_64"
    elif library == "no library":
        native.LIBRARY.write_bytes(b"no library")
        reason = "does not load"
    (sentence,) = doctor.advice()
    assert "the C++ kernel cannot be used, so restoring on the CPU is slow" in sentence
    assert reason in sentence
    assert main(["doctor"]) == 0
    assert f"warning: {sentence}\n" in capsys.readouterr().out


def test_doctor_names_the_case_that_the_kernel_of_a_cpu_has_failed(machine, tmp_path, capsys):
    """The warning of a self-check asks to attach what this command prints."""
    if native.unavailable():
        pytest.skip("needs the C++ kernel")
    machine.setenv("ZOO_CACHE", str(tmp_path))
    machine.setenv("ZOO_SELF_CHECK", "1")
    for part, error in (("native", "y is off"), (passes.PART, "a norm is off")):
        verdicts.write(decision._cpu_key(part, native.level()), verdicts.Verdict(False, "X", error))
    scan, features = doctor.advice()
    assert f"(native) with the instruction set {native.level()} has failed" in scan
    assert "case X: y is off" in scan and "case X: a norm is off" in features
    machine.setenv("ZOO_SELF_CHECK", "0")
    assert not list(doctor.advice())
    machine.setenv("ZOO_SELF_CHECK", "yes")
    assert main(["doctor"]) == 2
    assert "ZOO_SELF_CHECK is 'yes'; it must be 0" in capsys.readouterr().err


def test_doctor_warns_of_a_slow_bfloat16(machine):
    machine.setattr(doctor, "bfloat16_is_slow", lambda device: True)
    (sentence,) = doctor.advice()
    assert "bfloat16 is slower than float32 here" in sentence


def test_doctor_says_why_a_gpu_runs_on_chunked(machine, tmp_path):
    def advice():
        return [each.partition("which is slower: ")[2] for each in doctor.advice()]

    machine.setenv("ZOO_CACHE", str(tmp_path))
    machine.setenv("ZOO_SELF_CHECK", "1")
    machine.setattr(torch.cuda, "is_available", lambda: True)
    assert advice() == ["it is not here"]
    machine.setattr(triton, "unavailable", lambda: None)
    machine.setattr(torch.cuda, "current_device", lambda: 0)
    key = {"device": "Some GPU"}
    machine.setattr(decision.machine, "of_gpu", lambda device: key)
    machine.setattr(processes, "tiny_kernel_fails", lambda device: None)
    assert advice() == []
    machine.setattr(processes, "tiny_kernel_fails", lambda device: "no driver")
    assert advice() == ["Triton cannot run a kernel of three lines: no driver"]
    machine.setattr(toolchain, "missing", lambda: "Triton misses a C compiler")
    assert advice() == ["Triton misses a C compiler"]
    verdicts.write({**key, "backend": "triton"}, verdicts.Verdict(False, "one", "y is NaN"))
    assert advice() == ["their self-check has failed: y is NaN"]
    verdicts.write({**key, "backend": "triton"}, verdicts.Verdict(True))
    assert advice() == []
    machine.setenv("ZOO_SCAN_BACKEND", "triton")
    assert list(doctor.advice()) == []


@pytest.mark.parametrize(
    ("there", "variable", "lacks"),
    [
        ({"gcc"}, None, None),
        ({"clang"}, None, None),
        (set(), None, "Triton misses a C compiler; on Debian and Ubuntu: apt install gcc"),
        ({"gcc"}, "icc -x", "the C compiler that the environment variable CC names (icc -x); on"),
        ({"icc"}, "icc -x", None),
        ({"gcc"}, "  ", None),
        ({"/my tools/gcc"}, "'/my tools/gcc' -O2", None),
        ({"/my tools/gcc"}, "/my tools/gcc", None),
        ({"gcc"}, "'icc", "the C compiler that the environment variable CC names ('icc)"),
    ],
    ids=[
        *("gcc", "clang", "none", "CC is missing", "CC is there"),
        *("CC is blank", "CC is quoted", "CC has spaces", "CC has an open quote"),
    ],
)
def test_what_triton_needs_beside_itself(monkeypatch, tmp_path, there, variable, lacks):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(toolchain.shutil, "which", lambda name: name if name in there else None)
    monkeypatch.delenv("CC", raising=False)
    if variable:
        monkeypatch.setenv("CC", variable)
    header = tmp_path / "Python.h"
    header.write_text("")
    monkeypatch.setattr(toolchain, "header", lambda: header)
    found = toolchain.missing()
    assert found == lacks if lacks is None else lacks in found
    header.unlink()
    assert f"Python's headers ({header}); on" in toolchain.missing()
    assert toolchain.missing().endswith("python3-dev")
    monkeypatch.setattr(sys, "platform", "win32")
    assert toolchain.missing() is None


@pytest.mark.parametrize(
    ("machine_name", "instructions", "slow"),
    [("x86_64", (False, False), True), ("x86_64", (True, False), False),
     ("AMD64", (False, True), False), ("aarch64", (False, False), False)],
)  # fmt: skip
def test_bfloat16_is_slow_without_instructions_for_it(
    monkeypatch, machine_name, instructions, slow
):
    monkeypatch.setattr(precision.platform, "machine", lambda: machine_name)
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    for name, there in zip(names, instructions, strict=True):
        monkeypatch.setattr(torch.cpu, name, lambda there=there: there)
    assert precision.bfloat16_is_slow("cpu") is slow
    assert not precision.bfloat16_is_slow("cuda:0")
    monkeypatch.delattr(torch.cpu, names[0])  # a PyTorch that does not tell
    assert not precision.bfloat16_is_slow("cpu")


@pytest.mark.parametrize("slow", [True, False])
def test_restoring_in_a_slow_bfloat16_says_so(tmp_path, monkeypatch, caplog, slow):
    monkeypatch.setattr("zoo.commands.restore.bfloat16_is_slow", lambda device: slow)
    photo = tmp_path / "photo.png"
    write_photo(photo, Photo(np.full((8, 8, 3), 0.5, np.float32)))
    words = ["restore", str(photo), "-o", str(tmp_path / "big.png"), "-n", "mambair_tiny_x2"]
    assert main([*words, "--precision", "bf16"]) == 0
    assert ("--precision bf16: bfloat16 is slower" in caplog.text) is slow
    caplog.clear()
    assert main([*words, "--overwrite"]) == 0 and "bfloat16" not in caplog.text


# ---- Packages of others ----


def test_a_foreign_package_of_the_same_name_is_named(tmp_path):
    foreign = tmp_path / "export"
    foreign.mkdir()
    (foreign / "__init__.py").write_text("raise SystemExit('foreign code ran')\n")
    paths = os.pathsep.join([str(tmp_path), str(ROOT)])
    words = "import sys; from zoo.cli import main; sys.exit(main(['export', 'onnx']))"
    done = subprocess.run(
        [sys.executable, "-c", words],
        capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": paths},
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("zoo export onnx: error: our package 'export' is hidden: ")
    assert str(foreign / "__init__.py") in done.stderr and done.stderr.count("\n") == 1


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A folder as pip leaves it, with a list of files and checksums, from which zoo runs."""
    contents = {"zoo/shipped.py": b"1", "zoo/ops/scan/_native.so": b"23", "export/__init__.py": b""}
    rows = ["mamba_restoration_zoo-1.dist-info/RECORD,,", "../../../bin/zoo,sha256=abc,1"]
    for name, content in contents.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
        checksum = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode()
        rows.append(f"{name},sha256={checksum.rstrip('=')},{len(content)}")
    facts = tmp_path / "mamba_restoration_zoo-1.dist-info"
    facts.mkdir()
    (facts / "RECORD").write_text("\n".join(rows))
    monkeypatch.setattr(shipped, "distribution", lambda name: PathDistribution(facts))
    monkeypatch.setattr(shipped, "__file__", str(tmp_path / "zoo/shipped.py"))
    return tmp_path


def test_files_that_others_have_overwritten_are_named(installed, machine):
    assert shipped.altered_files() == []
    (installed / "zoo/ops/scan/_native.so").write_bytes(b"2")
    (installed / "export/__init__.py").write_text("foreign = True\n")
    assert shipped.altered_files() == ["zoo/ops/scan/_native.so", "export/__init__.py"]
    assert shipped.altered_files("export/*") == ["export/__init__.py"]
    link = installed.parent / f"{installed.name}.link"
    link.symlink_to(installed)
    machine.setattr(shipped, "__file__", str(link / "zoo/shipped.py"))
    assert shipped.altered_files("export/*") == ["export/__init__.py"]
    (installed / "zoo/ops/scan/_native.so").unlink()
    machine.setattr(doctor, "check_not_hidden", lambda package: None)
    (sentence,) = doctor.advice()
    assert sentence.startswith(
        "files that are not as they were installed: 1 (zoo/ops/scan/_native.so); another package"
    )


def test_each_package_that_another_one_hides_is_told(machine, monkeypatch):
    def check(package):
        if package in ("export", "trt_plugins"):
            raise ZooError(f"{package} is hidden")

    monkeypatch.setattr(doctor, "check_not_hidden", check)
    assert list(doctor.advice()) == ["export is hidden", "trt_plugins is hidden"]


def test_three_altered_files_are_named_at_most(machine, monkeypatch):
    names = ["zoo/__init__.py", *(f"zoo/{letter}.py" for letter in "abcd")]
    for count, told in ((3, "3 (zoo/a.py, zoo/b.py, zoo/c.py)"), (4, "4 (zoo/a.py, zoo/b.py, zoo")):
        monkeypatch.setattr(doctor, "altered_files", lambda count=count: names[: count + 1])
        (sentence,) = doctor.advice()
        assert sentence.startswith(f"files that are not as they were installed: {told}")
        assert (", ...); another" in sentence) == (count > 3)


def test_a_package_that_another_one_has_overwritten_is_not_run(installed, monkeypatch):
    spec = SimpleNamespace(origin=str(installed / "export/__init__.py"))
    monkeypatch.setattr(shipped, "find_spec", lambda name: spec)
    shipped.check_not_hidden("export")
    (installed / "export/__init__.py").write_text("foreign = True\n")
    with pytest.raises(ZooError, match=r"our package .export. was overwritten: .*__init__"):
        shipped.check_not_hidden("export")


def test_a_checkout_is_not_compared_with_another_installation(installed, monkeypatch):
    (installed / "export/__init__.py").write_text("foreign = True\n")
    monkeypatch.setattr(shipped, "__file__", str(ROOT / "zoo/shipped.py"))
    assert shipped.altered_files() == []


def test_a_kernel_of_an_older_checkout_is_not_used(monkeypatch):
    def missing():
        raise AttributeError("undefined symbol: zoo_scan_softplus")

    monkeypatch.setattr(native, "library", missing)
    monkeypatch.setattr(native, "LIBRARY", ROOT / "pyproject.toml")
    assert native.unavailable() == (
        "its library is of another version of the package (undefined symbol: zoo_scan_softplus); "
        "install it again"
    )


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the files of Linux")
@pytest.mark.skipif(not native.LIBRARY.exists(), reason="needs the kernel")
def test_a_kernel_that_is_cut_off_is_not_loaded(tmp_path, monkeypatch):
    """The process would die of it (SIGBUS)."""
    whole = native.LIBRARY.read_bytes()
    library = tmp_path / "_native.so"
    monkeypatch.setattr(native, "LIBRARY", library)
    monkeypatch.setattr(native, "library", native.library.__wrapped__)
    for size in (len(whole) - 1, len(whole) // 2, 100):
        library.write_bytes(whole[:size])
        assert "the file is cut off); install the package again" in native.unavailable(), size
    for size in (0, 10):
        library.write_bytes(whole[:size])
        assert "does not load" in native.unavailable()
    library.write_bytes(whole)
    assert native.unavailable() is None


@pytest.mark.parametrize(("here", "number"), [("x86_64", 62), ("aarch64", 183)])
def test_a_kernel_of_another_processor_is_named(tmp_path, monkeypatch, here, number):
    library = tmp_path / "_native.so"
    monkeypatch.setattr(platform, "machine", lambda: here)
    library.write_bytes(elf_header(number))
    assert native._fault(library) is None
    other = {"x86_64": ("aarch64", 183), "aarch64": ("x86_64", 62)}[here]
    library.write_bytes(elf_header(other[1]))
    assert native._fault(library) == f"it is for {other[0]}, not {here}"
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")  # no number is known: nothing said
    assert native._fault(library) is None


# ---- What pip is told ----


def test_the_constraints_are_given_to_pytorch_too():
    """In the second command alone they would exchange its build for that of another index."""
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "pip install -c constraints.txt .`" not in page
    assert "`-c constraints.txt` in both commands" in page


@pytest.mark.parametrize("module", REQUIRED)
def test_a_required_package_that_is_missing_is_named(monkeypatch, capsys, module):
    """As after ``pip install --no-deps``."""

    def missing(name):
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    monkeypatch.setattr(importlib, "import_module", missing)
    assert main(["doctor"]) == 2
    told = f"zoo doctor: error: {REQUIRED[module]} is not installed"
    assert told in capsys.readouterr().err


def test_a_module_of_ours_that_is_missing_is_a_bug(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError("No module named 'zoo.lost'", name="zoo.lost")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ModuleNotFoundError, match=r"zoo\.lost"):
        main(["doctor"])


def test_every_required_package_has_its_name():
    assert all(find_spec(module) for module in REQUIRED)
    required = settings()["project"]["dependencies"]
    assert sorted(re.match(r"[\w-]+", name)[0] for name in required) == sorted(REQUIRED.values())


def test_messages_name_the_packages_of_an_extra():
    extras = settings()["project"]["optional-dependencies"]
    for extra, packages in EXTRAS.items():
        assert [re.match(r"[\w-]+", name)[0] for name in extras[extra]] == list(packages)
    assert pip_install("raw") == "pip install rawpy (the extra [raw])"


def test_nothing_sends_to_an_index_that_does_not_have_the_package():
    folders = ("zoo", "export", "recipes", "trt_plugins", "docs")
    for path in (path for name in folders for path in (ROOT / name).rglob("*.*")):
        if path.suffix in (".py", ".md"):
            assert "mamba-restoration-zoo[" not in path.read_text(encoding="utf-8"), path


MARKER = re.compile(r'^([\w.-]+)==([\w.]+)(?:; python_version (<|>=) "3\.11")?$')


def test_each_python_gets_one_version_of_a_package():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    found: dict[str, list[str | None]] = {}
    for line in (line for line in lines if not line.startswith("#")):
        name, _, bound = MARKER.match(line).groups()
        found.setdefault(name.lower(), []).append(bound)
    for name, bounds in found.items():
        assert bounds in ([None], [">=", "<"]), name


def test_the_oldest_versions_are_the_lower_bounds():
    wanted = dict(
        re.match(r"([\w-]+)>=([\d.]+)$", d).groups() for d in settings()["project"]["dependencies"]
    )
    lines = (ROOT / "tests/oldest.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.lower().split("==") for line in lines if not line.startswith("#"))
    assert pinned.keys() == wanted.keys()
    for name, version in wanted.items():
        assert f"{pinned[name]}.".startswith(f"{version}."), name


def test_the_description_on_an_index_has_no_link_to_a_file(tmp_path):
    text = long_description(ROOT)
    assert not LINK.search(text)
    assert "](https://arxiv.org/" in text and "## Install" in text and "docs/images" not in text
    (tmp_path / "pyproject.toml").write_text('Repository = "https://example.org/zoo"\n')
    (tmp_path / "README.md").write_text("![a](b.png)\n[c](d.md#e) [f](https://g.h) [i](#j)\n")
    assert long_description(tmp_path) == (
        "![a](https://example.org/zoo/raw/main/b.png)\n"
        "[c](https://example.org/zoo/blob/main/d.md#e) [f](https://g.h) [i](#j)\n"
    )


def test_a_source_of_pytorch_becomes_options_of_pip(tmp_path, monkeypatch, capsys):
    assert torch_source.options("") == []
    folder = tmp_path / "my wheels"
    folder.mkdir()
    words = torch_source.options(str(folder))
    assert words == ["--find-links", folder.as_uri()] and " " not in words[1]  # for the shell
    with pytest.raises(FileNotFoundError, match="no URL and no folder"):
        torch_source.options(str(tmp_path / "missing"))
    asked = []

    def answer(url, timeout):
        asked.append(url)
        return nullcontext()

    monkeypatch.setattr(torch_source, "urlopen", answer)
    index = "https://example.org/whl/cpu"
    assert torch_source.options(index) == ["--extra-index-url", index]
    assert asked == [f"{index}/torch/"]

    def fail(url, timeout):
        raise OSError("no route")

    monkeypatch.setattr(torch_source, "urlopen", fail)
    assert torch_source.options(index) == []
    assert "does not answer (no route)" in capsys.readouterr().err
    assert torch_source.options(" ") == []
    monkeypatch.undo()
    with pytest.raises(FileNotFoundError, match="no URL: Invalid"):
        torch_source.options("http://[bad")
