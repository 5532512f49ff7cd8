"""Packages and kernels that others have hidden, overwritten or damaged are named and not run."""

from __future__ import annotations

import base64
import hashlib
import os
import platform
import subprocess
import sys
from importlib.metadata import PathDistribution
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.helpers.healthy_machine import elf_header, healthy
from zoo import shipped
from zoo.commands import doctor
from zoo.errors import ZooError
from zoo.ops.scan import native

ROOT = Path(__file__).parents[1]


@pytest.fixture
def machine(monkeypatch):
    return healthy(monkeypatch)


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
