"""The C program that checks the kernel without Python, here on this machine's own build."""

from __future__ import annotations

import shutil
import struct
import subprocess

import pytest

from tests.kernel import stored_cases
from zoo.ops.scan import native

COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")

pytestmark = pytest.mark.skipif(
    COMPILER is None or native.unavailable() is not None,
    reason="needs a C compiler and the C++ kernel",
)


@pytest.fixture(scope="module")
def check(tmp_path_factory):
    """Runs the program on a file of cases."""
    program = tmp_path_factory.mktemp("check") / "scan_check"
    source = stored_cases.FILE.with_name("scan_check.c")
    words = [COMPILER, "-Wall", "-Wextra", "-Werror", source, "-o", program, "-ldl", "-lm"]
    subprocess.run(words, check=True)

    def run(cases, *levels):
        words = [program, native.LIBRARY, cases, *levels]
        return subprocess.run(words, capture_output=True, text=True, check=False)

    return run


def test_every_level_of_this_machine_passes(check):
    done = check(stored_cases.FILE)
    assert done.returncode == 0, done.stdout + done.stderr
    here = [n for n in native.LEVELS if native.library().zoo_scan_level(n.encode())]
    assert [line.split()[0] for line in done.stdout.splitlines()] == [*here, "PASSED"]


def test_a_wrong_result_fails(check, tmp_path):
    """The last number of the file is an expected gradient."""
    data = bytearray(stored_cases.FILE.read_bytes())
    data[-4:] = struct.pack("<f", 100.0)
    wrong = tmp_path / "wrong.bin"
    wrong.write_bytes(data)
    done = check(wrong, "portable")
    assert done.returncode == 1 and "result 8 is off" in done.stdout


def test_a_level_of_another_processor_fails_if_it_is_asked_for(check):
    here = [n for n in native.LEVELS if native.library().zoo_scan_level(n.encode())]
    foreign = next(n for n in native.LEVELS if n not in here)
    assert check(stored_cases.FILE, foreign).returncode == 1


def test_a_damaged_file_of_cases_is_not_run(check, tmp_path):
    short = tmp_path / "short.bin"
    short.write_bytes(stored_cases.FILE.read_bytes()[:-1])
    assert check(short).returncode == 2


def test_the_first_stored_case_is_that_of_the_list():
    """Its inputs are, bit for bit; its results may differ in the last bits."""
    stored, made = stored_cases.FILE.read_bytes(), stored_cases.content(stored_cases.CASES[:1])
    inputs = len(made) - 4 * 500  # the results of this case
    assert stored[:8] == made[:8]
    assert stored[12:inputs] == made[12:inputs]
    assert struct.unpack_from("<i", stored, 8) == (len(stored_cases.CASES),)
