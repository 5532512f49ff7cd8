"""Figures of analyses: colours, scales, and what is written where."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from tests.helpers import strokes
from zoo.analysis import Attribution, ChannelActivations, ReceptiveField, ScanDecay
from zoo.plots.analysis import (
    figure_of_activations,
    figure_of_attribution,
    figure_of_decay,
    figure_of_fields,
)
from zoo.plots.figure import (
    CURVES,
    Bar,
    curves,
    enlarged,
    fitted,
    framed,
    heat,
    in_rows,
    marked,
    small_width,
)
from zoo.plots.scan_order import MARGIN, TITLE, text_width

RED, WHITE = [165, 15, 21], [255, 255, 255]


@pytest.fixture
def drawn(monkeypatch):
    return strokes.record(monkeypatch)


def words(drawn):
    return [text for text, _ in drawn.texts]


def test_heat_runs_from_nothing_to_the_largest_value():
    light = heat(np.array([[0, 1, 2, 4.0]]), colors="light")[0].tolist()
    assert light[0] == WHITE and light[3] == RED
    assert np.abs(np.array(light[1]) - [253, 212, 194]).max() <= 1  # a quarter of the largest
    dark = heat(np.array([[0, 1, 2, 4.0]]))[0].astype(int)
    assert (np.diff(dark.sum(1)) > 0).all()  # ever brighter
    assert dark[0].max() < 10 and dark[3][0] > 240 and dark[3][2] < dark[3][1]  # yellow
    assert (heat(np.zeros((2, 2)), colors="light") == 255).all()


def test_colours_by_decades_are_even_steps_for_powers_of_ten():
    found = heat(np.array([[1e-9, 0.01, 0.1, 1]]), decades=2, colors="light")[0].tolist()
    even = heat(np.array([[0, 0, 1, 2.0]]), colors="light")[0].tolist()
    assert found == even


def test_a_bar_has_the_colours_of_the_map_and_its_numbers_beside_them(drawn):
    bar = Bar(colors="light").drawn(101)
    assert bar[0, 12].tolist() == RED and bar[100, 12].tolist() == WHITE
    assert (bar[:, :10] == 255).all() and (bar[:, 26:] == 255).all()
    assert np.abs(bar[75, 10].astype(int) - [253, 212, 194]).max() <= 2
    assert bar.shape[1] == 32 + small_width("1")
    Bar(decades=2).drawn(101)
    assert drawn.texts == [
        *(("1", (32, 11)), ("0", (32, 99))),
        *(("1", (32, 11)), ("1e-1", (32, 55)), ("1e-2", (32, 99))),
    ]


def test_a_panel_has_its_title_above_its_lines_below_and_its_bar_beside(drawn):
    pixels = np.full((40, 30, 3), 7, np.uint8)
    panel = framed(pixels, "title", ["one", "another"], beside=Bar(decades=1, colors="light"))
    assert drawn.texts[2:] == [
        *(("title", (MARGIN, TITLE - 16)),),
        *(("one", (MARGIN, TITLE + 60)), ("another", (MARGIN, TITLE + 82))),
    ]
    assert drawn.boxes == [((MARGIN - 1, TITLE - 1), (MARGIN + 30, TITLE + 40))]
    assert (panel[TITLE : TITLE + 40, MARGIN : MARGIN + 30] == 7).all()
    assert panel[TITLE, MARGIN + 30 + 12].tolist() == RED
    assert panel.shape[0] == TITLE + 40 + MARGIN + 44
    wide = 30 + 32 + small_width("1e-1")
    assert panel.shape[1] == 2 * MARGIN + max(wide, text_width("title"), small_width("another"))
    assert framed(pixels, "a title that is wide", []).shape[1] == 2 * MARGIN + text_width(
        "a title that is wide"
    )


def test_pixels_are_repeated_whole_times_and_large_pictures_shrunk():
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert np.array_equal(enlarged(pixels, 12), pixels.repeat(3, 0).repeat(3, 1))
    assert enlarged(pixels, 2).shape == (2, 4, 3)  # no more than twice the size
    assert enlarged(np.zeros((90, 30, 3), np.uint8), 30).shape == (30, 10, 3)
    assert enlarged(np.zeros((900, 1, 3), np.uint8), 30).shape == (30, 1, 3)
    assert np.array_equal(fitted(pixels, np.zeros((4, 8, 3))), pixels.repeat(2, 0).repeat(2, 1))


def test_a_pixel_of_a_picture_that_is_shrunk_is_the_mean_of_those_that_it_covers():
    pixels = np.zeros((90, 90, 3), np.uint8)
    pixels[1::3, 1::3] = 90
    assert (enlarged(pixels, 30) == 10).all()


def test_a_target_is_marked_where_it_is(drawn):
    marked(np.zeros((80, 120, 3), np.uint8), 2, 5, 3, 8)
    assert drawn.boxes == [((49, 19), (80, 50))]


def test_panels_fill_rows_and_what_is_left_is_white():
    small, tall = np.zeros((2, 3, 3), np.uint8), np.ones((4, 3, 3), np.uint8)
    found = in_rows([small, tall, small], 2)
    assert found.shape == (6, 6, 3)
    assert (found[:2, :3] == 0).all() and (found[2:4, :3] == 255).all()
    assert (found[:4, 3:] == 1).all()
    assert (found[4:, :3] == 0).all() and (found[4:, 3:] == 255).all()


def test_curves_lie_on_a_logarithmic_axis_of_distances(drawn):
    distances, values = np.array([1, 10, 100]), np.array([1, 0.5, 0])
    lines = {"first": (distances, values), "second": (distances[:2], values[:2])}
    curves("title", lines, x_title="distance", width=200, height=100)
    assert drawn.curves == [
        ([[48, TITLE], [148, TITLE + 50], [248, TITLE + 100]], CURVES[0]),
        ([[48, TITLE], [148, TITLE + 50]], CURVES[1]),
    ]
    middle = 48 + 100 - small_width("distance") // 2
    assert drawn.texts == [
        ("title", (48, TITLE - 16)),
        *((f"{n / 4:g}", (10, TITLE + 105 - 25 * n)) for n in range(5)),
        *((f"{10**n}", (40 + 100 * n, TITLE + 120)) for n in range(3)),
        ("distance", (middle, TITLE + 144)),
        *(("first", (296, TITLE + 19)), ("second", (296, TITLE + 43))),
    ]
    legend = [line for line in drawn.lines if line[2] in CURVES]
    assert legend == [
        ((264, TITLE + 14 + 24 * n), (288, TITLE + 14 + 24 * n), CURVES[n]) for n in range(2)
    ]
    grid = [line[:2] for line in drawn.lines if line not in legend]
    assert grid[0] == ((48, TITLE + 100), (248, TITLE + 100))
    assert grid[-1] == ((248, TITLE), (248, TITLE + 100))


def test_curves_without_points_are_named_all_the_same(drawn):
    none = np.zeros(0)
    curves("title", {"none": (none, none)}, x_title="x")
    assert drawn.curves == [] and "none" in words(drawn)


def test_a_receptive_field_has_its_extent_below(drawn):
    field_HW = torch.zeros(9, 9, dtype=torch.float64)
    field_HW[4, 4], field_HW[4, 6] = 0.6, 0.4
    fields = {"one": ReceptiveField(field_HW, 4, 4), "two": ReceptiveField(field_HW, 4, 4)}
    figure_of_fields(fields)
    told = ["50 % within 1 px (1.2%)", "99 % within 5 px (30.9%)"]
    found = words(drawn)
    assert [word for word in found if not word.startswith("1")] == [
        *("one", *told, "two", *told),
    ]
    assert found[:5] == ["1", "1e-1", "1e-2", "1e-3", "1e-4"]


def test_an_attribution_shows_photo_map_contribution_and_result(drawn):
    image_IHW = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    map_IHW = torch.zeros(3, 16, 16, dtype=torch.float64)
    map_IHW[0, 2, 3], map_IHW[1, 2, 3], map_IHW[2, 5, 5] = 2.0, -1.0, -1.0
    output_IHW = torch.full((3, 32, 32), 0.25)
    found = Attribution(map_IHW, 4, 6, 8, 1.0, 0.5, output_IHW)
    figure = figure_of_attribution(image_IHW, {"mine": found})
    assert [word for word in words(drawn) if word[0] not in "01"] == [
        *("mine", "photo and target", "attribution", "diffusion index 0.78"),
        *("contribution", "smoothed, on the photo", "result", "with the target"),
    ]
    # The target, three times: in the photo, the map and the result, each 20 times as large.
    targets = [box for box in drawn.boxes if box == ((119, 79), (280, 240))]
    assert len(targets) == 3
    side = np.s_[TITLE : TITLE + 320]
    photo = figure[side, MARGIN : MARGIN + 320]
    pixels = (image_IHW * 255).round().byte().permute(1, 2, 0).numpy()
    assert np.array_equal(photo[10::20, 10::20], pixels)
    shown = figure[side, -MARGIN - 320 : -MARGIN]
    assert (shown == 64).all()
    place = 2 * MARGIN + 320 + MARGIN
    assert figure[TITLE + 50, place + 70].tolist() == RED  # the largest of the sum's sizes
    assert figure[TITLE + 110, place + 110].tolist() == RED
    assert figure[TITLE + 10, place + 10].tolist() == WHITE
    # What contributes lies over the photo, which is as it was where nothing does.
    over = figure[side, : -3 * MARGIN - 320][:, -320:]
    same = (np.abs(over[10::20, 10::20].astype(int) - pixels) <= 1).all(2)
    assert same[14:].all() and not same[2, 3]
    spread = cv2.GaussianBlur(found.magnitude.numpy(), (0, 0), 2.0)
    share = 0.55 * np.sqrt(spread / spread.max())[..., None]
    mixed = (1 - share) * pixels + share * heat(spread)
    assert np.abs(over[10::20, 10::20] - mixed).max() <= 1
    bar = figure[side, place + 320 + 12]  # of the map's colours
    assert bar[0].tolist() == RED and bar[-1].tolist() == WHITE


@pytest.mark.parametrize(("bands", "shown"), [(1, (0, 0, 0)), (2, (0, 0, 0)), (5, (0, 1, 2))])
def test_of_bands_the_first_three_are_shown(monkeypatch, drawn, bands, shown):
    image_IHW = torch.arange(bands)[:, None, None].expand(bands, 8, 8) / 10
    map_IHW = torch.ones(bands, 8, 8, dtype=torch.float64)
    found = Attribution(map_IHW, 0, 0, 4, 1.0, 0.5, image_IHW)
    pixel = figure_of_attribution(image_IHW, {"m": found})[TITLE + 1, MARGIN + 1]
    assert pixel.tolist() == [round(25.5 * band + 1e-6) for band in shown]


def test_bars_of_channels_stand_in_their_sequence(drawn):
    values = torch.tensor([0.5, 1.0, 0.05, 0.25], dtype=torch.float64)
    layers = [
        ChannelActivations("a.mixer", torch.ones(2, dtype=torch.float64)),
        ChannelActivations("b.mixer", values),
    ]
    picture = figure_of_activations(layers, 1)
    assert words(drawn) == [
        *("activations of b.mixer", "75% of 4 channels have a tenth of the largest"),
        *("a.mixer: 100%", "b.mixer: 75%"),
        "all layers: channels from the most to the least active",
        "white to red: 0 to the largest activation of the layer; right: share of active channels",
    ]
    bars = picture[TITLE : TITLE + 160, MARGIN : MARGIN + 640]
    blue = (bars == (31, 119, 180)).all(2)
    heights = [int(blue[:, 160 * n + 80].sum()) for n in range(4)]
    assert heights == [78, 156, 8, 39]
    assert blue[-1].sum() == 640 - 4  # a pixel between bars
    of_all = picture[TITLE + 160 + MARGIN + 22 :][TITLE:]
    ramp = heat(np.array([[1, 0.5, 0.25, 0.05]]), colors="light")[0]
    for n in range(4):  # sorted, the second layer in the second line of 22 pixels
        assert of_all[30, MARGIN + 160 * n + 80].tolist() == ramp[n].tolist()
    drawn.texts.clear()
    figure_of_activations(layers[:1], 0)
    assert len(drawn.texts) == 2  # one layer needs no second panel


def test_names_of_many_layers_are_left_out(drawn):
    values = torch.ones(3, dtype=torch.float64)
    figure_of_activations([ChannelActivations("a", values)] * 64, 0)
    assert words(drawn).count("a: 100%") == 64
    drawn.texts.clear()
    figure_of_activations([ChannelActivations("a", values)] * 65, 0)
    assert words(drawn).count("a: 100%") == 0


def test_a_decay_is_curves_and_maps_of_every_direction(drawn):
    distance_D = torch.tensor([1, 2, 4])
    kept_KD = torch.tensor([[0.9, 0.4, 0.1], [0.9, 0.8, 0.7]], dtype=torch.float64)
    maps_KHW = torch.rand(2, 4, 4, dtype=torch.float64)
    decay = ScanDecay("here", ("row", "column"), distance_D, kept_KD, maps_KHW, maps_KHW)
    figure_of_decay(decay)
    found = words(drawn)
    assert found[0] == "state that is left, here"
    assert "distance along the path in tokens" in found
    assert "row: half after 2" in found and "column: more than half" in found
    assert [word for word in found if "each token" in word] == [
        *(2 * ["left of each token at the middle"]),
        *(2 * ["weight of each token at the middle"]),
    ]
    assert found.count("row") == found.count("column") == 2 and found.count("1e-4") == 4
    assert [points[1][1] - points[0][1] for points, _ in drawn.curves] == [160, 32]
    drawn.texts.clear()
    figure_of_decay(ScanDecay("here", ("row",), distance_D, kept_KD[:1], None, None))
    assert not any("each token" in word for word in words(drawn))
