"""The command line within this process, and a small photo for it."""

from __future__ import annotations

import numpy as np
import pytest

from zoo.cli import main
from zoo.data import Photo, write_photo


def photo_in(folder):
    path = folder / "photo.png"
    write_photo(path, Photo(np.random.default_rng(0).random((12, 10, 3)).astype(np.float32)))
    return path


def run(*words):
    return main([str(word) for word in words])


def shown(capsys, *words):
    """What a command prints before it stops by itself, and its exit code."""
    with pytest.raises(SystemExit) as stop:
        run(*words)
    captured = capsys.readouterr()
    return captured.out + captured.err, stop.value.code
