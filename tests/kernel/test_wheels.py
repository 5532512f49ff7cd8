"""What ``make wheels`` has built: contents, formats, and the kernels of foreign platforms.

    python -m pytest tests/kernel/test_wheels.py --wheels dist

Kernels run where this machine can run them: those of Linux and musl directly, of 64-bit ARM under
qemu-user (Debian: qemu-user, libc6-arm64-cross), of Windows under wine. macOS cannot run here.
"""

from __future__ import annotations

import os
import shlex
import shutil
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from build_tools import kernel
from tests.kernel import stored_cases

ROOT = Path(__file__).parents[2]
PACKAGES = ("zoo", "export", "recipes", "trt_plugins")
SHIPPED = (
    *(".py", ".yaml", ".safetensors", ".md", ".cu", ".cuh", ".cpp", ".h", ".txt", ".typed"),
    ".cmake",
)
ZIG = shlex.split(os.environ.get("ZIG", f"{sys.executable} -m ziglang"))

pytestmark = pytest.mark.slow

FORMATS = {
    ("linux", "x86_64"): ("elf", 62),
    ("linux", "aarch64"): ("elf", 183),
    ("macos", "aarch64"): ("mach-o", 0x0100000C),
    ("macos", "x86_64"): ("mach-o", 0x01000007),
    ("windows", "x86_64"): ("pe", 0x8664),
}
"""The format of a library and the number of its architecture there."""


@pytest.fixture(scope="module")
def artefacts(request):
    folder = request.config.getoption("--wheels")
    if folder is None:
        pytest.skip("tests what `make wheels` has built: --wheels FOLDER")
    return folder.resolve()


def wheel_of(artefacts, tag):
    return next(artefacts.glob(f"mamba_restoration_zoo-*-py3-none-{tag}.whl"))


def library_of(artefacts, platform, folder):
    name = "zoo/ops/scan/" + ("_native.dll" if platform.windows else "_native.so")
    with zipfile.ZipFile(wheel_of(artefacts, platform.tag)) as wheel:
        return Path(wheel.extract(name, folder))


def tracked():
    words = ["git", "ls-files", "-z"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    return {name for name in done.stdout.split("\0") if name}


def shipped():
    """The files of the packages, without the sources of the compiled kernel."""
    found = {name for name in tracked() if name.split("/")[0] in PACKAGES}
    return {name for name in found if "/scan/csrc/" not in name and name.endswith(SHIPPED)}


def test_there_is_a_wheel_for_each_platform_one_for_the_rest_and_an_sdist(artefacts):
    names = sorted(path.name for path in artefacts.iterdir())
    tags = sorted(n.removesuffix(".whl").split("-")[-1] for n in names if n.endswith(".whl"))
    assert tags == sorted([*kernel.PLATFORMS, kernel.ANYWHERE])
    assert len(names) == len(tags) + 1 and names[-1].endswith(".tar.gz")


@pytest.mark.parametrize("tag", [*kernel.PLATFORMS, kernel.ANYWHERE])
def test_a_wheel_holds_the_packages_and_its_kernel(artefacts, tag):
    with zipfile.ZipFile(wheel_of(artefacts, tag)) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        facts = next(name for name in wheel.namelist() if name.endswith("/WHEEL"))
        assert f"Tag: py3-none-{tag}\n" in wheel.read(facts).decode()
    windows = tag in kernel.PLATFORMS and kernel.PLATFORMS[tag].windows
    library = "_native.dll" if windows else "_native.so"
    own = set() if tag == kernel.ANYWHERE else {f"zoo/ops/scan/{library}"}
    assert names == shipped() | own


def test_the_sdist_holds_the_repository(artefacts):
    with tarfile.open(next(artefacts.glob("*.tar.gz"))) as archive:
        files = [member for member in archive.getmembers() if member.isfile()]
        assert {m.uid for m in files} == {0} and len({m.mtime for m in files}) == 1
    names = {member.name.split("/", 1)[1] for member in files}
    made = {name for name in names if ".egg-info/" in name} | {"PKG-INFO", "setup.cfg"}
    assert names - made == tracked()


def described(data):
    """The format of a library and the number of its architecture."""
    if data[:4] == b"\x7fELF":
        return "elf", struct.unpack_from("<H", data, 18)[0]
    if data[:2] == b"MZ":
        start = struct.unpack_from("<I", data, 60)[0]
        assert data[start : start + 4] == b"PE\0\0"
        return "pe", struct.unpack_from("<H", data, start + 4)[0]
    assert data[:4] == b"\xcf\xfa\xed\xfe"
    return "mach-o", struct.unpack_from("<I", data, 4)[0]


@pytest.mark.parametrize("tag", kernel.PLATFORMS)
def test_a_kernel_is_of_its_platform_and_has_its_interface(artefacts, tag, tmp_path):
    platform = kernel.PLATFORMS[tag]
    data = library_of(artefacts, platform, tmp_path).read_bytes()
    system = platform.target.split("-")[1].split(".")[0]
    assert described(data) == FORMATS[system, platform.machine]
    for symbol in (b"zoo_scan_forward", b"zoo_scan_backward", b"RegisterCustomOps"):
        assert symbol in data
    levels = (b"avx512\0", b"avx2\0") if platform.machine == "x86_64" else (b"neon\0",)
    assert all(level in data for level in (*levels, b"portable\0"))


@pytest.mark.parametrize("tag", [t for t in kernel.PLATFORMS if t.startswith("macosx")])
def test_the_kernels_for_macos_are_as_its_loader_wants_them(artefacts, tag, tmp_path):
    """Signed where it must be (ARM), and for macOS 11; they are not run."""
    if not shutil.which("llvm-objdump"):
        pytest.skip("needs llvm-objdump (Debian: llvm)")
    library = library_of(artefacts, kernel.PLATFORMS[tag], tmp_path)
    words = ["llvm-objdump", "--macho", "--private-headers", str(library)]
    shown = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert "minos 11.0" in shown and "name @rpath/_native.so" in shown
    assert "/usr/lib/libSystem.B.dylib" in shown and shown.count("LC_LOAD_DYLIB") == 1
    assert tag.endswith("x86_64") or "LC_CODE_SIGNATURE" in shown


def runner(platform, folder):
    """The command before the check program, its environment, and the levels it must run."""
    if platform.windows:
        # Nothing of the user's own Windows, and no question to install Mono or Gecko.
        none = {"WINEDEBUG": "-all", "WINEDLLOVERRIDES": "mscoree,mshtml="}
        return ["wine"], {"WINEPREFIX": str(folder), **none}, ["portable"]
    if platform.machine == "aarch64" and kernel.this_machine() != "aarch64":
        return ["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"], {}, ["neon", "portable"]
    return [], {}, ["portable"]


@pytest.mark.parametrize("tag", [t for t in kernel.PLATFORMS if not t.startswith("macosx")])
def test_a_kernel_passes_the_stored_cases_on_its_platform(artefacts, tag, tmp_path):
    platform = kernel.PLATFORMS[tag]
    before, extra, levels = runner(platform, tmp_path / "wine")
    if before and not shutil.which(before[0]):
        pytest.skip(f"needs {before[0]}")
    if "musl" in tag and not Path("/lib/ld-musl-x86_64.so.1").exists():
        pytest.skip("needs musl")
    program = tmp_path / "scan_check.exe"
    library = library_of(artefacts, platform, tmp_path)
    source = stored_cases.FILE.with_name("scan_check.c")
    shared = ["-dynamic"] if "musl" in tag else []
    libraries = [] if platform.windows else ["-ldl", "-lm"]
    words = [*ZIG, "cc", "-target", platform.target, *shared, "-O1", str(source)]
    subprocess.run([*words, "-o", str(program), *libraries], check=True)
    for wanted in ([], levels):
        done = subprocess.run(
            [*before, program, library, stored_cases.FILE, *wanted],
            capture_output=True, text=True, check=False, env={**os.environ, **extra},
        )  # fmt: skip
        sys.stdout.write(f"\n{tag}\n{done.stdout}")
        assert done.returncode == 0 and "PASSED" in done.stdout, done.stdout + done.stderr
