"""A training keeps the memory that it frees, if the process is its own."""

from __future__ import annotations

import pytest

from recipes.train import main
from zoo.inference import kept


@pytest.mark.parametrize("ours", [True, False])
def test_only_a_process_that_runs_the_command_keeps_it(ours, monkeypatch, tmp_path):
    """Until the end: a validation, which keeps memory too, does not undo it."""
    depths = []

    def train(*arguments, **options):
        with kept.kept_memory():
            pass
        depths.append(kept._depth)

    monkeypatch.setattr("zoo.startup.runs_a_command", lambda: ours)
    monkeypatch.setattr("recipes.train.train", train)
    before = kept._depth
    assert main(["mambair_tiny_x2", "-o", str(tmp_path / "run")]) == 0
    kept_here = ours and kept._library() is not None
    assert depths == [before + kept_here] and kept._depth == before
