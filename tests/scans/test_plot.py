"""Pictures of scan orders."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import zoo
from tests.helpers import strokes
from zoo.data.images import Photo, read_photo, write_photo
from zoo.data.pixels import to_tensor
from zoo.errors import ZooError
from zoo.plots.class_order import Walk, render_walk, walk_of
from zoo.plots.scan_order import MARGIN, TITLE, plot_order, render_order
from zoo.plots.scans_plot import main
from zoo.scans import Compose, CrossScale, Diagonal, Hilbert, Raster, Shuffled, Window


def colour_at(picture, token, height, width):
    """The pixel on the centre of a token's cell, in a picture of one direction."""
    cell = (picture.shape[0] - TITLE - MARGIN) // height
    y, x = divmod(token, width)
    return picture[TITLE + y * cell + cell // 2, MARGIN + x * cell + cell // 2].astype(int)


def brightness(colour):
    return colour.sum()


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


def test_more_than_four_directions_take_a_second_row():
    order = Compose(orders=(Raster(), Diagonal(directions=("diagonal",))))
    picture = render_order(order, 8, 8)
    top, bottom = np.split(picture, 2)
    assert (bottom[:, : bottom.shape[1] // 4] < 255).any()
    assert (bottom[:, bottom.shape[1] // 4 :] == 255).all()
    assert (np.split(top, 4, axis=1)[3] < 255).any()


def test_colours_run_along_the_path():
    picture = render_order(Hilbert(directions=("hilbert",)), 16, 16).reshape(-1, 3)
    colourful = np.unique(picture[np.ptp(picture, axis=1) > 60], axis=0)
    assert len(colourful) > 50


def test_the_start_is_a_ring_and_the_end_a_bright_disc():
    for order, start, end in (
        (Raster(directions=("row",)), 0, 255),
        (Raster(directions=("row_reversed",)), 255, 0),
        (Hilbert(directions=("hilbert",)), 0, 15),
    ):
        picture = render_order(order, 16, 16)
        assert (colour_at(picture, start, 16, 16) == 255).all()
        disc = colour_at(picture, end, 16, 16)
        # Plasma is yellow at its bright end: much red and green, little blue.
        assert disc[0] > 200 and disc[1] > 150 and disc[2] < 100


def test_later_steps_are_brighter():
    picture = render_order(Raster(directions=("row",)), 20, 20)
    first, middle, late = (colour_at(picture, token, 20, 20) for token in (25, 205, 385))
    assert brightness(first) < brightness(middle) < brightness(late)


def test_steps_to_neighbours_are_coloured_and_jumps_are_gray():
    def gray_and_coloured(order):
        pixels = render_order(order, 16, 16)[TITLE:].reshape(-1, 3).astype(int)
        spread = np.ptp(pixels, axis=1)
        # The grid is gray too, but lighter.
        return ((spread == 0) & (pixels[:, 0] < 200)).sum(), (spread > 40).sum()

    gray, coloured = gray_and_coloured(Hilbert(directions=("hilbert",)))
    assert gray == 0 and coloured > 1000
    gray, coloured = gray_and_coloured(Shuffled(count=1))
    assert gray > 10 * coloured


def test_titles_are_whole_on_narrow_grids():
    for size in ((61, 2), (2, 2), (1, 1)):
        order = Window(size=8, directions=("row", "column_reversed"))
        picture = render_order(order, *size)
        # The longest title touches neither edge of its panel, and nor does anything else.
        for panel in np.split(picture, 2, axis=1):
            title = (panel[:TITLE] < 255).any(axis=(0, 2)).nonzero()[0]
            assert title.min() >= MARGIN and title.max() < panel.shape[1] - MARGIN // 2


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 64), (64, 1), (12, 12), (13, 5), (64, 64)])
def test_every_grid_up_to_the_largest_is_drawn(size):
    height, width = size
    picture = render_order(Raster(directions=("column",)), height, width)
    assert picture.dtype == np.uint8 and picture.shape[2] == 3
    cell = (picture.shape[0] - TITLE - MARGIN) // height
    assert cell >= 11
    grid = picture[TITLE:, MARGIN:][: height * cell, : width * cell].min(axis=2)
    # The darkest pixel of each token's cell: the path passes through them all.
    darkest = grid.reshape(height, cell, width, cell).min(axis=(1, 3))
    assert (darkest < 200).all()


@pytest.fixture
def drawn(monkeypatch):
    return strokes.record(monkeypatch)


def test_small_grids_show_each_step_on_its_token_and_arrows_that_point_onwards(drawn):
    render_order(Raster(directions=("column",)), 3, 4)
    cell = drawn.discs[2][0][1] - drawn.discs[0][0][1]
    assert cell == 96
    title, *numbers = drawn.texts
    assert title[0] == "column" and [text for text, _ in numbers] == [str(n) for n in range(12)]
    for step, ((at, _, _), (_, place)) in enumerate(zip(drawn.discs[::2], numbers, strict=True)):
        column, row = divmod(step, 3)
        assert at == (MARGIN + 96 * column + 48, TITLE + 96 * row + 48)
        assert abs(place[0] - at[0]) < 30 and abs(place[1] - at[1]) < 30
    filled = [color != (255, 255, 255) for _, color, thickness in drawn.discs[::2]]
    assert filled == [True] + 10 * [False] + [True]  # the first and the last
    assert len(drawn.triangles) == 8  # three columns are left by a jump
    for tip, left, right in drawn.triangles:
        assert tip[1] > left[1] == right[1] and left[0] != right[0]


def test_coarse_tokens_lie_between_the_four_that_they_cover(drawn):
    order = CrossScale(size=2)
    render_order(order, 4, 6)
    coarse = [(at[0] - MARGIN, at[1] - TITLE) for at, _, _ in drawn.discs[::2]]
    tokens = order.order(4, 6)[0].tolist()
    for token, (x, y) in zip(tokens, coarse[: len(tokens)], strict=True):
        if token < 6:
            row, column = divmod(token, 3)
            assert (x, y) == ((2 * column + 1) * 80, (2 * row + 1) * 80)
        else:
            row, column = divmod(token - 6, 6)
            assert (x, y) == (column * 80 + 40, row * 80 + 40)


def test_titles_tell_of_tokens_that_are_added(drawn):
    render_order(Window(size=4, directions=("row",)), 3, 3)
    assert drawn.texts[0][0] == "row  (+7 zero tokens)"


def test_too_large_a_grid_is_refused():
    with pytest.raises(ZooError, match="65x10 cannot be drawn"):
        render_order(Raster(), 65, 10)


# ------------------------------------------------------------------ orders that depend on the image

SMALL_V2 = {
    "dim": 8,
    "depths": [2],
    "block.attention": {"window": 4, "heads": 2},
    "padding": "mirror",
    "pad_to": 4,
}


def small_v2():
    mixer = {"classes": 5, "prompt_rank": 2, "d_state": 2}
    network = zoo.build("mambairv2_tiny_x2", **SMALL_V2, **{"block.mixer": mixer})
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return network


def test_the_classes_and_steps_of_a_photo_are_those_of_the_mixer():
    network, image = small_v2(), torch.rand(3, 6, 10)
    seen = []
    for block in network.groups[0].blocks:
        block.far.mixer.router.register_forward_hook(lambda _m, _i, found: seen.append(found[0]))
    for block in (0, 1, None):
        seen.clear()
        walk = walk_of(network, image, block)
        classes = seen[1 if block is None else block].reshape(8, 12)
        assert walk.place.endswith(f"blocks.{1 if block is None else block}.far.mixer")
        assert np.array_equal(walk.class_HW, classes[:6, :10])
        ranks = classes.flatten().sort(stable=True).indices.argsort().reshape(8, 12)
        assert np.array_equal(walk.step_HW, ranks[:6, :10])
        assert len(np.unique(walk.class_HW)) > 1
    assert not any(m._forward_pre_hooks for m in network.modules())


@pytest.mark.parametrize("size", [(6, 10), (70, 30)])  # drawn token by token, and as colours
def test_tokens_of_a_class_share_a_colour_that_others_do_not_have(size):
    height, width = size
    classes = np.random.default_rng(0).integers(0, 3, size)
    steps = np.argsort(np.argsort(classes.reshape(-1), kind="stable")).reshape(size)
    picture = render_walk(Walk("m", classes, steps, 5), np.zeros((*size, 1), np.float32))
    photo, middle, path = np.hsplit(picture, 3)
    assert (photo[TITLE + 2, MARGIN + 2] == 0).all()
    cell = (picture.shape[0] - TITLE - MARGIN) // height
    colours = {
        (c, tuple(middle[TITLE + y * cell + cell // 2, MARGIN + x * cell + cell // 2]))
        for (y, x), c in np.ndenumerate(classes)
    }
    assert len(colours) == len({c for c, _ in colours}) == len({rgb for _, rgb in colours}) == 3
    assert (path[TITLE:-MARGIN, MARGIN : MARGIN + width * cell] < 250).any()
    if size == (70, 30):
        first, last = np.argwhere(steps == 0)[0], np.argwhere(steps == steps.max())[0]
        ends = [path[TITLE + y * cell + 1, MARGIN + x * cell + 1] for y, x in (first, last)]
        assert ends[0].astype(int).sum() < ends[1].astype(int).sum()


def test_the_command_draws_a_photo_and_says_what_is_missing(tmp_path, capsys, caplog):
    network = small_v2()
    zoo.save(network, tmp_path / "w.safetensors")
    write_photo(tmp_path / "in.png", Photo(np.random.default_rng(0).random((5, 6, 3), np.float32)))
    words = ["by_class", "-o", str(tmp_path / "out.png")]
    given = ["--image", str(tmp_path / "in.png"), "-w", str(tmp_path / "w.safetensors")]
    assert main([*words, *given, "--block", "0"]) == 0
    walk = render_walk(
        walk_of(network, to_tensor(read_photo(tmp_path / "in.png").color_HWC), 0),
        read_photo(tmp_path / "in.png").color_HWC,
    )
    assert np.array_equal((read_photo(tmp_path / "out.png").color_HWC * 255).round(), walk)
    untrained = [*words, *given[:2], "-n", "mambairv2_tiny_x2"]
    assert main([*untrained, "--random-weights"]) == 0
    assert "mambairv2_tiny_x2 has random weights" in caplog.text
    for wrong, message in (
        (words, "depends on the image: give a photo with --image"),
        ([*words, "--image", str(tmp_path / "in.png")], "name a model with -n"),
        ([*words, *given, "--block", "2"], "--block 2: the network has the blocks 0 to 1"),
        (untrained, "or run it untrained with --random-weights"),
        ([*words, *given[:2], "-n", "mambair_tiny_x2"], "no mixer that scans by class"),
        (["hilbert", *words[1:], *given], "'hilbert' does not depend on it; use --size"),
        (["hilbert", *words[1:], *given[2:]], "-w: the order 'hilbert' does not depend on it"),
        (["hilbert", *words[1:], "--block", "0"], "--block: the order 'hilbert' does not"),
        (["hilbert", *words[1:], "--size", ""], "the argument after '--size' is empty"),
        ([*words, *given, "--size", "8x8"], "--size: the photo sets the size of the order"),
        (
            [*words, *given, "directions=[class_reversed]"],
            "directions: the network sets the options of the order 'by_class'",
        ),
    ):
        assert main(wrong) == 2
        assert message in capsys.readouterr().err


def test_blocks_are_counted_among_the_mixers_that_scan_by_class():
    """Another attentive mixer before them takes no number."""
    network = small_v2()
    network.groups[0].blocks[0].far.mixer.scan = Raster(directions=("row",))
    assert walk_of(network, torch.rand(3, 6, 10), 0).place.endswith("blocks.1.far.mixer")
    with pytest.raises(ZooError, match="--block 1: the network has the blocks 0 to 0"):
        walk_of(network, torch.rand(3, 6, 10), 1)
