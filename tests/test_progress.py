"""Progress bars: shown on a terminal where one is asked for, one at a time, and nowhere else."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch

import zoo.data.photos
import zoo.data.prepare
import zoo.distributed
import zoo.inference.tiling
import zoo.training.progress
from tests.helpers.networks import Nearest
from zoo.data import Photo, load_training_photos, write_photo
from zoo.data.prepare import prepare
from zoo.distributed import ProcessGroup, map_shared
from zoo.inference import RestoreSettings, restore, restore_tensor
from zoo.training.progress import Progress
from zoo.training.settings import Stage

ON_A_TERMINAL, NEVER = None, True
"""What ``tqdm`` is told as ``disable``."""


@pytest.fixture
def bars(monkeypatch):
    """What each bar is told as ``disable``, with its unit; and which were closed."""
    made = []
    for module in (
        *(zoo.data.photos, zoo.data.prepare, zoo.distributed),
        *(zoo.inference.tiling, zoo.training.progress),
    ):
        real = module.tqdm

        def bar(*words, real=real, **named):
            made.append((named.get("unit"), named["disable"]))
            return real(*words, **{**named, "disable": True})

        monkeypatch.setattr(module, "tqdm", bar)
    return made


@pytest.fixture
def folder(tmp_path):
    for name in ("a", "b"):
        write_photo(tmp_path / "in" / f"{name}.png", Photo(np.zeros((8, 8, 3), np.float32)))
    return tmp_path / "in"


@pytest.mark.parametrize(("asked", "shown"), [(True, ON_A_TERMINAL), (False, NEVER)])
def test_a_bar_is_shown_if_one_is_asked_for(asked, shown, bars, folder, tmp_path):
    prepare(folder, tmp_path / "out", size=4, step=4, progress=asked)
    load_training_photos(folder, progress=asked)
    map_shared(ProcessGroup(), 2, str, task="t", unit="number", progress=asked)
    tiled = RestoreSettings(tile=4, overlap=0)
    restore_tensor(Nearest(), torch.zeros(1, 3, 8, 8), tiled, progress=asked)
    restore(Nearest(), folder / "a.png", tmp_path / "a.png", tile=4, overlap=0, progress=asked)
    units = ["photo", None, "number", "tile", "image", "tile"]
    assert [unit for unit, _ in bars] == units
    by_unit = dict(bars)
    assert {by_unit[unit] for unit in ("photo", None, "number", "tile")} == {shown}


def test_a_bar_of_shared_numbers_knows_how_many_there_are(monkeypatch):
    told, real = [], zoo.distributed.tqdm
    monkeypatch.setattr(
        zoo.distributed,
        "tqdm",
        lambda **named: told.append(named) or real(**named, file=io.StringIO()),
    )
    map_shared(ProcessGroup(), 3, str, task="t", unit="number", progress=False)
    assert told == [{"total": 3, "unit": "number", "disable": True}]


def test_a_large_photo_among_several_has_a_bar_of_its_own(bars, folder, tmp_path):
    write_photo(folder / "large.png", Photo(np.zeros((8, 20, 3), np.float32)))
    restore(Nearest(), folder, tmp_path / "out", tile=8, overlap=0, progress=True)
    assert bars == [("image", ON_A_TERMINAL), ("tile", ON_A_TERMINAL)]
    restore(Nearest(), folder, tmp_path / "no", tile=8, overlap=0, progress=False)
    assert bars[2:] == [("image", NEVER), ("tile", NEVER)]


def test_a_function_is_told_the_progress_of_one_photo_and_of_a_folder(bars, folder, tmp_path):
    told = []
    tiled = {"tile": 4, "overlap": 0, "progress": told.append}
    restore(Nearest(), folder / "a.png", tmp_path / "a.png", **tiled)
    assert told == [0.25, 0.5, 0.75, 1]
    told.clear()
    restore(Nearest(), folder, tmp_path / "out", **tiled)
    assert told == [0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1]
    told.clear()
    restore(Nearest(), np.zeros((4, 4, 3), np.float32), progress=told.append)
    assert told == [1]
    assert {disable for _, disable in bars} <= {NEVER}


def test_an_error_of_the_function_ends_the_work(folder, tmp_path):
    class CancelledError(Exception): ...

    def stop(done):
        raise CancelledError

    with pytest.raises(CancelledError):
        restore(Nearest(), folder, tmp_path / "out", progress=stop)
    assert not list(tmp_path.glob("out/*"))


@pytest.mark.parametrize(("first", "shown"), [(True, ON_A_TERMINAL), (False, NEVER)])
def test_one_process_shows_the_training_and_closes_its_bar(first, shown, bars, tmp_path):
    plan = [Stage(iterations=3, patch=8, batch=1)]
    with Progress(tmp_path, plan, 1, is_first=first) as progress:
        assert bars == [("step", shown)]
        closed = []
        progress.bar.close = lambda: closed.append(True)
    assert closed == [True]


def test_the_bar_of_tiles_goes_where_it_is_below_another(monkeypatch):
    """``leave=None`` keeps the bar of a single image alone."""
    told = []
    monkeypatch.setattr(
        zoo.inference.tiling, "tqdm", lambda tiles, **named: told.append(named) or tiles
    )
    tiled = RestoreSettings(tile=4, overlap=0)
    restore_tensor(Nearest(), torch.zeros(1, 3, 8, 8), tiled, progress=True)
    assert told == [{"unit": "tile", "disable": None, "leave": None}]
