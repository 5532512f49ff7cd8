"""Runtimes of ONNX files, each in an environment of its own, which is made once and kept.

``make_environment`` installs the packages of a runtime in a folder, by pip or npm; ``run_cases``
runs files there, by run_files.py or run_files.mjs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
CACHE = HERE.parent / ".runtimes"
"""Folder of the environments."""

NODE = ("onnxruntime-node", "onnxruntime-web")

# The oldest ONNX Runtime that promises to read our files and that installs for this Python, with a
# NumPy of its time.
OLDEST = {
    (3, 12): ("onnxruntime==1.17.3", "numpy==1.26.4"),
    (3, 13): ("onnxruntime==1.20.1", "numpy==2.2.6"),
    (3, 99): ("onnxruntime==1.24.4", "numpy==2.4.6"),
}


@dataclass(frozen=True)
class Runtime:
    """A runtime, or a tool whose file is then run in ONNX Runtime.

    Attributes:
        name: a key of ``run_files.RUNTIMES``, or one of ``NODE``.
        packages: what pip or npm installs.
        whole: whether pip also installs what the packages need. Most need only NumPy.
    """

    name: str
    packages: tuple[str, ...]
    whole: bool = False

    @property
    def folder(self) -> Path:
        """Where its environment is."""
        words = "+".join(self.packages).replace("/", "-")
        return CACHE / words.replace("==", "-").replace("@", "-")


@dataclass(frozen=True)
class Case:
    """One run: a file and its inputs by name."""

    model: Path
    inputs: dict[str, np.ndarray]


@dataclass(frozen=True)
class Result:
    """The output of a run and its seconds, or the error."""

    output: np.ndarray | None = None
    seconds: float = 0.0
    error: str = ""


def oldest() -> Runtime:
    """The oldest ONNX Runtime that this Python can install, of those that read our files."""
    packages = next(p for last, p in OLDEST.items() if sys.version_info[:2] <= last)
    return Runtime("onnxruntime", packages)


def make_environment(runtime: Runtime) -> Path:
    """Install the packages of a runtime unless they are there, and return the folder.

    Raises:
        RuntimeError: if they cannot be installed.
    """
    folder = runtime.folder
    if folder.exists():
        return folder
    CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as parent:
        made = Path(parent) / "made"
        if runtime.name in NODE:
            command = ["npm", "install", "--silent", "--ignore-scripts", "--prefix", str(made)]
        else:
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--only-binary=:all:"]
            command += ["--disable-pip-version-check", "--target", str(made)]
            command += [] if runtime.whole else ["--no-deps"]
        made.mkdir()
        try:
            done = subprocess.run(
                [*command, *runtime.packages], capture_output=True, text=True, check=False
            )
        except FileNotFoundError as error:
            raise RuntimeError(f"{command[0]} is not installed") from error
        if done.returncode:
            raise RuntimeError(f"{' '.join(runtime.packages)}: {done.stderr.strip()[-300:]}")
        # Appears whole, as others may make it at the same time.
        try:
            made.rename(folder)
        except OSError:
            if not folder.exists():
                raise
    return folder


def run_cases(runtime: Runtime, cases: Sequence[Case]) -> tuple[str, list[Result]]:
    """Run files in a runtime, in a process of its own; return its version and the results.

    Raises:
        RuntimeError: if the runtime cannot be installed.
    """
    folder = make_environment(runtime)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        listed = [
            {
                "model": str(case.model.resolve()),
                "inputs": {n: _saved(work / f"{i}.{n}", x) for n, x in case.inputs.items()},
                "output": str(work / f"{i}.output"),
            }
            for i, case in enumerate(cases)
        ]
        (work / "cases.json").write_text(json.dumps(listed))
        done = _run(runtime, folder, work / "cases.json")
        # Some tools print as well.
        lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
        version, *found = map(json.loads, lines or ['{"version": "?"}'])
        ended = {"error": f"the process ended: {' '.join(done.stderr.split())[-300:]}"}
        found += [ended] * (len(cases) - len(found))
        return version["version"], [
            _result(entry, one["output"]) for entry, one in zip(found, listed, strict=True)
        ]


def _saved(path: Path, value: np.ndarray) -> dict[str, Any]:
    np.ascontiguousarray(value).tofile(path)
    return {"file": str(path), "shape": value.shape, "type": value.dtype.name}


def _run(runtime: Runtime, folder: Path, cases: Path) -> subprocess.CompletedProcess[str]:
    words = [runtime.name, str(cases)]
    if runtime.name in NODE:
        command = ["node", str(HERE / "run_files.mjs"), *words, str(folder)]
        return subprocess.run(command, capture_output=True, text=True, check=False)
    # -S leaves out the packages of this environment.
    command = [sys.executable, "-S", str(HERE / "run_files.py"), *words]
    seen = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=seen)


def _result(entry: dict[str, Any], output: Any) -> Result:
    if "error" in entry:
        return Result(error=entry["error"])
    values = np.fromfile(output, np.float32).reshape(entry["shape"])
    return Result(values, entry["seconds"])
