"""``zoo doctor``: what it says of a GPU, a kernel, a self-check and bfloat16."""

from __future__ import annotations

import platform
import shutil
import sys

import numpy as np
import pytest
import torch

from tests.helpers.healthy_machine import elf_header, healthy
from zoo.cli import main
from zoo.commands import doctor, gpu_advice
from zoo.data.images import Photo, write_photo
from zoo.ops import precision
from zoo.ops.passes import self_check as passes
from zoo.ops.scan import native, triton
from zoo.ops.scan.self_check import decision, processes, toolchain, verdicts

UNAVAILABLE, NVIDIA_DRIVER = native.unavailable, gpu_advice.nvidia_driver


@pytest.fixture
def machine(monkeypatch):
    return healthy(monkeypatch)


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
