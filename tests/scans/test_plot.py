"""Pictures of scan orders."""

from __future__ import annotations

import numpy as np
import pytest

from zoo.data.images import read_photo
from zoo.errors import ZooError
from zoo.scans import Hilbert, Raster, Window
from zoo.scans.plot import plot_order, render_order


def test_a_plot_is_written_whole(tmp_path):
    plot_order(Window(size=4), 6, 6, tmp_path / "window.png")
    assert [path.name for path in tmp_path.iterdir()] == ["window.png"]
    picture = read_photo(tmp_path / "window.png").color_HWC
    assert np.array_equal((picture * 255).round(), render_order(Window(size=4), 6, 6))


def test_one_panel_a_direction_and_different_ones():
    one = render_order(Raster(directions=("row",)), 8, 8)
    four = render_order(Raster(), 8, 8)
    assert four.shape[1] == 4 * one.shape[1]
    assert np.array_equal(four[:, : one.shape[1]], one)
    panels = np.split(four, 4, axis=1)
    assert all(not np.array_equal(panels[0], panel) for panel in panels[1:])


def test_colours_run_along_the_path():
    picture = render_order(Hilbert(directions=("hilbert",)), 16, 16).reshape(-1, 3)
    colourful = np.unique(picture[np.ptp(picture, axis=1) > 60], axis=0)
    assert len(colourful) > 50


def test_too_large_a_grid_is_refused():
    with pytest.raises(ZooError, match="65x10 cannot be drawn"):
        render_order(Raster(), 65, 10)
