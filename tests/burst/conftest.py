"""A photo that bursts are made from."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from zoo.data import Photo, write_photo


@pytest.fixture
def photo(tmp_path):
    coarse = np.random.default_rng(0).random((8, 8, 3)).astype(np.float32)
    pixels = cv2.resize(coarse, (120, 100), interpolation=cv2.INTER_CUBIC).clip(0, 1)
    write_photo(tmp_path / "photo.png", Photo(pixels))
    return tmp_path / "photo.png"
