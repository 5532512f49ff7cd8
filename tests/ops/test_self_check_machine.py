"""What a verdict of the self-check depends on: GPU, driver, CPU, Triton, code and headers."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from zoo.ops.scan.self_check import decision, machine, toolchain

CPU = torch.device("cpu")


def test_a_verdict_on_a_gpu_depends_on_all_that_compiles_and_runs(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 1))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A GPU")
    monkeypatch.setattr(machine, "driver", lambda: "5")
    monkeypatch.setattr(machine, "triton", lambda: "triton 3")
    monkeypatch.setattr(machine, "our_code", lambda: "c0de")
    monkeypatch.setattr(torch, "__version__", "2.9")
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.version, "hip", None)
    known = {
        "device": "A GPU",
        "compute capability": "9.1",
        "driver": "5",
        "torch": "2.9, CUDA 12.8",
        "triton": "triton 3",
        "our code": "c0de",
    }
    assert machine.of_gpu(CPU) == known
    monkeypatch.setattr(torch.version, "hip", "6.3")
    assert machine.of_gpu(CPU)["torch"] == "2.9, ROCm 6.3"
    assert decision._gpu_key(SimpleNamespace(NAME="one"), CPU)["backend"] == "one"
    monkeypatch.setattr(machine, "processor", lambda: "A CPU")
    found = machine.of_cpu("avx2")
    assert len(found.pop("library")) == 16
    assert found == {
        "device": "A CPU",
        "instruction set": "avx2",
        "torch": "2.9",
        "our code": "c0de",
    }
    assert decision._cpu_key("a part", "avx2")["part"] == "a part"


def test_the_driver_is_that_of_linux_and_of_cuda(monkeypatch, tmp_path):
    file = tmp_path / "version"
    places = []

    def path(place):
        places.append(place)
        return file

    monkeypatch.setattr(machine, "Path", path)

    def fail():
        raise RuntimeError("no device")

    monkeypatch.setattr(torch._C, "_cuda_getDriverVersion", fail, raising=False)
    assert machine.driver() == "unknown"
    file.write_text(" 570.1\n")
    assert machine.driver() == "570.1"
    monkeypatch.setattr(torch._C, "_cuda_getDriverVersion", lambda: 12080)
    assert machine.driver() == "570.1, CUDA 12080"
    monkeypatch.delattr(torch._C, "_cuda_getDriverVersion")
    assert machine.driver() == "570.1"
    assert set(places) == {"/sys/module/nvidia/version"}


def test_the_processor_is_named_and_triton_by_each_of_its_names(monkeypatch, tmp_path):
    file = tmp_path / "cpuinfo"
    file.write_text("processor : 0\nvendor: X\nmodel name\t: A CPU @ 2: 3 GHz\n" + "flags\n" * 50)
    places = []
    monkeypatch.setattr(machine, "Path", lambda place: places.append(place) or file)
    monkeypatch.setattr(machine.platform, "processor", lambda: "")
    monkeypatch.setattr(machine.platform, "machine", lambda: "arm64")
    assert machine.processor() == "A CPU @ 2: 3 GHz" and places == ["/proc/cpuinfo"]
    file.write_text("flags\n" * 39 + "model name\t: the last line that is read\n")
    assert machine.processor() == "the last line that is read"
    file.write_text("flags\n" * 40 + "model name\t: too late\n")
    assert machine.processor() == "arm64"
    file.unlink()
    monkeypatch.setattr(machine.platform, "processor", lambda: "i386")
    assert machine.processor() == "i386"
    installed = {"triton": "3.7", "pytorch-triton": "3.1", "pytorch-triton-rocm": "3.2"}
    installed["triton-windows"] = "3.3"

    def version(name):
        if name not in installed:
            raise machine.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(machine, "version", version)
    assert machine.triton() == (
        "triton 3.7, pytorch-triton 3.1, pytorch-triton-rocm 3.2, triton-windows 3.3"
    )
    installed.clear()
    assert machine.triton() == "none"


def test_a_digest_depends_on_names_and_not_on_the_sequence_of_a_folder(monkeypatch, tmp_path):
    def listed(*, backwards):
        class Listed(type(tmp_path)):
            def rglob(self, pattern):
                return sorted(super().rglob(pattern), reverse=backwards)

        return Listed(tmp_path)

    for name in ("one.py", "two.py"):
        (tmp_path / name).write_text(name)
    digest = machine.our_code.__wrapped__
    monkeypatch.setattr(machine, "_CODE", listed(backwards=False))
    before = digest()
    assert len(before) == 16
    monkeypatch.setattr(machine, "_CODE", listed(backwards=True))
    assert digest() == before
    (tmp_path / "two.py").rename(tmp_path / "three.py")
    assert digest() != before


def test_headers_lie_where_triton_looks_for_them(monkeypatch):
    """Debian's own scheme has another folder, which Triton leaves out."""
    folders = {"posix_prefix": "/usr/include", "osx": "/Library"}
    monkeypatch.setattr(
        toolchain.sysconfig, "get_paths", lambda scheme: {"include": folders[scheme]}
    )
    for scheme, folder in (("posix_local", "/usr/include"), ("osx", "/Library")):
        monkeypatch.setattr(toolchain.sysconfig, "get_default_scheme", lambda s=scheme: s)
        assert toolchain.header().as_posix() == f"{folder}/Python.h"
