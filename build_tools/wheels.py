"""Builds everything that is published, on one Linux machine: ``make wheels``.

    python -m build_tools.wheels [FOLDER]

An sdist, a wheel for each platform of ``kernel.PLATFORMS``, and one without the kernel for the
rest, all from the files that git tracks. The same files give the same bytes: times come from
SOURCE_DATE_EPOCH, by default the time of the last commit. Then the usual tools check the result.
"""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from build_tools import kernel

EPOCH = "SOURCE_DATE_EPOCH"


def main(words: list[str]) -> int:
    target = Path(words[0] if words else "dist").resolve()
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    os.umask(0o022)  # modes of files are part of the archives
    os.environ.setdefault(EPOCH, _output("git", "log", "-1", "--format=%ct"))
    sdist = build_sdist(target)
    for tag in (*kernel.PLATFORMS, kernel.ANYWHERE):
        print(f"building {tag}", flush=True)
        build_wheel(sdist, target, tag)
    check(target)
    print("\n".join(sorted(path.name for path in target.iterdir())))
    return 0


def build_sdist(target: Path) -> Path:
    """Build the sdist from the files that git tracks, and nothing else that lies in the folder."""
    with tempfile.TemporaryDirectory() as folder:
        for name in _output("git", "ls-files", "-z").split("\0"):
            if name and (kernel.ROOT / name).is_file():
                copy = Path(folder, name)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(kernel.ROOT / name, copy)
        words = "import sys; from build_tools import backend; backend.build_sdist(sys.argv[1])"
        command = (sys.executable, "-c", words, str(target))
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    sdist = next(target.glob("*.tar.gz"))
    _normalise(sdist)
    return sdist


def _normalise(archive: Path) -> None:
    """Write the archive again, with equal owners, times and modes, in the order of names."""
    with tarfile.open(archive) as source, tempfile.TemporaryFile() as plain:
        with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as copy:
            for member in sorted(source.getmembers(), key=lambda member: member.name):
                member.uid = member.gid = 0
                member.uname = member.gname = ""
                member.mtime = int(os.environ[EPOCH])
                member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
                member.pax_headers = {}
                copy.addfile(member, source.extractfile(member) if member.isfile() else None)
        plain.seek(0)
        again = archive.with_suffix(".again")
        with again.open("wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as packed:
            shutil.copyfileobj(plain, packed)
    again.replace(archive)


def build_wheel(sdist: Path, target: Path, tag: str) -> None:
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps")
    _run(*pip, "-w", str(target), str(sdist), env={**os.environ, kernel.PLATFORM: tag})


def check(target: Path) -> None:
    """Run the checkers of long description, contents and, for manylinux, symbol versions."""
    wheels = sorted(map(str, target.glob("*.whl")))
    python = (sys.executable, "-m")
    _run(*python, "twine", "check", "--strict", *wheels, *map(str, target.glob("*.gz")))
    _run(*python, "check_wheel_contents", *wheels)
    for wheel in wheels:
        if "linux" in wheel:
            shown = _output(*python, "auditwheel", "show", wheel)
            tag = wheel.removesuffix(".whl").split("-")[-1]
            if f'"{tag}"' not in shown:
                raise SystemExit(f"auditwheel does not agree that this is {tag}:\n{shown}")


def _output(*words: str) -> str:
    done = subprocess.run(words, cwd=kernel.ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip()


def _run(*words: str, env: dict[str, str] | None = None) -> None:
    subprocess.run(words, cwd=kernel.ROOT, env=env, check=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
