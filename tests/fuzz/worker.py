"""Runs one area in a process of its own, so that a crash or a hang ends only that process.

The worker tries cases chunk by chunk. It writes each case to a file before it tries it: after a
crash, that file holds the case. The parent process goes on with the next chunk.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fuzz.areas import load
from tests.fuzz.frame import SECONDS, Tally, run

CHUNK = 250
"""Cases of one seed."""

_HARD_MEMORY = 8 * 2**30
"""Bytes of data after which an allocation fails, to protect the machine."""

_GRACE = 10
"""A case is killed after so many times its time limit, but at least half a minute: it did not react
to the alarm."""

_START = 120
"""Seconds that a process may take until its first case."""

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Found:
    """A fault.

    Attributes:
        seed: seed of the chunk of cases that found it; ``--seed`` repeats it.
        case: the case.
        what: what happened.
    """

    seed: int
    case: str
    what: str

    @property
    def kind(self) -> str:
        """Last lines of what happened: findings of one kind are shown once."""
        return "\n".join(self.what.strip().splitlines()[-1:])[:80]


def run_area(name: str, seed: int, count: int) -> Iterator[tuple[Tally, Found | None]]:
    """Try the cases of an area in processes of their own; yields once per chunk of cases."""
    seeds = chunk_seeds(seed, count)
    while seeds:
        for done, tally, found in _run_worker(name, seeds):
            seeds = [(number, size) for number, size in seeds if number > done]
            yield tally, found


def chunk_seeds(seed: int, count: int) -> list[tuple[int, int]]:
    """Seed and number of cases of each chunk."""
    sizes = [CHUNK] * (count // CHUNK) + ([count % CHUNK] if count % CHUNK else [])
    return list(enumerate(sizes, start=seed))


def _run_worker(
    name: str, seeds: list[tuple[int, int]]
) -> Iterator[tuple[int, Tally, Found | None]]:
    with tempfile.TemporaryDirectory(prefix="fuzz-worker-") as text:
        folder = Path(text)
        (folder / "case").touch()
        words = [sys.executable, "-m", "tests.fuzz.worker", name, text, json.dumps(seeds)]
        # Threads that wait must not compute meanwhile: it would count as the time of the case.
        threads = {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive"}
        environment = os.environ | {"TMPDIR": text} | threads
        with (folder / "output").open("w") as output:
            process = subprocess.Popen(
                words, cwd=ROOT, env=environment, stdout=output, stderr=output
            )
        told = 0
        limit = max(30, _GRACE * getattr(load(name), "SECONDS", SECONDS))
        try:
            while True:
                code = process.poll()
                results = _results(folder)
                yield from results[told:]
                told = len(results)
                case = (folder / "case").stat()
                hangs = time.time() - case.st_mtime > (limit if case.st_size else _START)
                if code == 0:
                    return
                if code is None and not hangs:
                    time.sleep(0.1)
                    continue
                process.kill()
                why = "it hangs and ignores the alarm" if code is None else _why(code, folder)
                number = seeds[told][0] if told < len(seeds) else seeds[-1][0]
                yield number, Tally(), Found(number, (folder / "case").read_text(), why)
                return
        finally:
            process.kill()
            process.wait()


def _why(code: int, folder: Path) -> str:
    tail = "\n".join((folder / "output").read_text(errors="replace").splitlines()[-30:])
    return f"{tail}\nthe process ended with code {code}"


def _results(folder: Path) -> list[tuple[int, Tally, Found | None]]:
    path = folder / "results.jsonl"
    found = []
    # A line without its end is still being written.
    for line in path.read_text().rpartition("\n")[0].splitlines() if path.exists() else []:
        values = json.loads(line)
        tally = Tally(Counter(values["outcomes"]), values["slowest"], values["memory"])
        what = values["what"]
        found.append(
            (values["seed"], tally, Found(values["seed"], values["case"], what) if what else None)
        )
    return found


def main(name: str, folder: Path, seeds: list[tuple[int, int]]) -> None:
    """Try chunks of cases; writes a line of ``results.jsonl`` after each."""
    resource.setrlimit(resource.RLIMIT_DATA, (_HARD_MEMORY, _HARD_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    area = load(name)
    last = [""]

    def note(case: Any) -> None:
        last[0] = repr(case)[:100_000]
        (folder / "case").write_text(last[0])

    for number, size in seeds:
        what, tally = "", Tally()
        try:
            tally = run(area, number, size, before=note)
        except Exception:
            what = traceback.format_exc()[-4000:]
        values = {"seed": number, "case": last[0] if what else "", "what": what}
        values |= {"outcomes": tally.outcomes, "slowest": tally.slowest, "memory": tally.memory}
        with (folder / "results.jsonl").open("a") as file:
            file.write(json.dumps(values) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), [tuple(pair) for pair in json.loads(sys.argv[3])])
