"""What a training does with memory that it frees."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from recipes.train import main
from zoo.training import memory

FAULTS = """
import resource, sys
from zoo.training.memory import keep_freed_memory
kept = keep_freed_memory() if sys.argv[1] == "keep" else None
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
block = b"x" * (48 << 20)  # beyond the largest threshold that glibc chooses itself
block = None
before = faults()
for _ in range(3):
    block = b"x" * (48 << 20)
    block = None
print(kept, faults() - before)
"""

GLIBC = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="for glibc's malloc")


def faults(how, **variables):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    ran = subprocess.run(
        [sys.executable, "-c", FAULTS, how],
        env=environment | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    kept, count = ran.stdout.split()
    return kept, int(count)


@GLIBC
def test_freed_blocks_stay_with_the_process():
    """A page of 4096 bytes that was given back is a fault when it is used again."""
    assert faults("keep")[0] == "True"
    assert faults("keep")[1] < 1000 < 3 * 12_000 < faults("plain")[1]


@GLIBC
@pytest.mark.parametrize(
    "variables",
    [
        {"MALLOC_MMAP_THRESHOLD_": "131072"},
        {"MALLOC_TRIM_THRESHOLD_": "131072"},
        {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=131072"},
    ],
)
def test_settings_of_the_user_come_first(variables):
    kept, count = faults("keep", **variables)
    assert kept == "False"
    assert count > 1000


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert memory.keep_freed_memory() is False


@pytest.mark.parametrize("ours", [True, False])
def test_only_a_process_that_runs_the_command_keeps_it(ours, monkeypatch, tmp_path, capsys):
    asked = []
    monkeypatch.setattr("zoo.startup.runs_a_command", lambda: ours)
    monkeypatch.setattr("recipes.train.keep_freed_memory", lambda: asked.append(1))
    assert main([str(tmp_path / "none.yaml")]) == 2
    assert asked == [1] * ours
    assert "none.yaml" in capsys.readouterr().err
