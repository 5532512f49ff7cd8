"""Runs the tests of the C++ kernel on a build that checks every memory access (GCC, Linux).

    python tests/sanitize.py [pytest options]

Address and undefined-behaviour sanitizers; a finding ends the run with its report.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
TESTS = (
    *("tests/ops/test_native.py", "tests/ops/test_passes.py", "tests/ops/test_pass_over_rows.py"),
    *("tests/ops/test_half_products.py", "tests/ops/test_channel_passes.py"),
    *("tests/ops/test_pass_gradients.py", "tests/ops/test_kept_states.py"),
    *("tests/test_prepared.py", "tests/test_prepared_changes.py"),
    *("tests/ops/test_hostile.py", "tests/ops/test_hostile_orders.py"),
    "tests/fuzz/test_fuzz.py::test_hostile_input_is_refused_in_one_sentence[operator]",
)
CHECKS = "-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g -O1"


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        pip = [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "-w",
            folder,
            str(ROOT),
        ]
        subprocess.run(pip, check=True, env={**os.environ, "CXXFLAGS": CHECKS})
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
            library = wheel.extract("zoo/ops/scan/_native.so", folder)
        # Loaded before Python, which is not built with it; with the C++ library, whose exceptions
        # it must find when it starts.
        names = ("libasan.so", "libstdc++.so.6")
        preload = [_path_of(name) for name in names]
        environment = {
            **os.environ,
            "LD_PRELOAD": " ".join(preload),
            "ASAN_OPTIONS": "detect_leaks=0:halt_on_error=1",
            "UBSAN_OPTIONS": "print_stacktrace=1",
        }
        tests = [*TESTS, *sys.argv[1:]]
        words = [sys.executable, "-m", "pytest", f"--native-library={library}", *tests]
        return subprocess.run(words, cwd=ROOT, env=environment, check=False).returncode


def _path_of(library: str) -> str:
    words = ["g++", f"-print-file-name={library}"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
