"""Bursts as others store them: EXIF objects in pickles, DNG files; and ours, there and back."""

from __future__ import annotations

import fractions
import pickle
import re
import sys
import types

import numpy as np
import pytest
import torch

from tests.helpers.dng import MATRIX, dng
from zoo.cli import main as zoo_main
from zoo.data import Photo, read_photo, write_photo
from zoo.data.burst import BurstDataset, BurstSynthesis, mosaic
from zoo.data.burst.__main__ import main as make
from zoo.data.burst.dataset import generator
from zoo.data.burst.facts import load_facts
from zoo.data.burst.finding import find_bursts
from zoo.data.burst.plain_pickle import ExifRatio, ExifTag, load_plain
from zoo.data.burst.raw import _camera, _mosaic, _opened, upright
from zoo.data.burst.reading import read_burst
from zoo.data.burst.stored import read_clean
from zoo.data.burst.writing import write_burst
from zoo.data.photos import TrainingPhoto
from zoo.data.pixels import quantise
from zoo.errors import ImageError
from zoo.evaluation.burst import burst_tests
from zoo.inference.burst import developed
from zoo.metrics.burst import linear_psnr
from zoo.networks.phase import enlarge_frame


class OldRatio:
    """As in exifread 2.1."""

    def __init__(self, num, den):
        self.num, self.den = num, den


class NewRatio(fractions.Fraction):
    """As in exifread 2.3 and later."""


class TextRatio(fractions.Fraction):
    """As :class:`NewRatio` is pickled before Python 3.11."""

    def __reduce__(self):
        return type(self), (str(self),)


class IfdTag:
    def __init__(self, printable, values, **more):
        self.printable, self.values = printable, values
        self.tag, self.field_type, self.field_offset, self.field_length = 33434, 5, 10, 8
        self.__dict__.update(more)


@pytest.fixture
def exifread(monkeypatch):
    """Make a class of exifread from one of this file, while a pickle is written."""

    def named(cls, path):
        module, _, name = path.rpartition(".")
        made = type(name, (cls,), {"__module__": module, "__qualname__": name})
        steps = module.split(".")
        for path in (".".join(steps[: count + 1]) for count in range(len(steps))):
            held = sys.modules.get(path) or types.ModuleType(path)
            monkeypatch.setitem(sys.modules, path, held)
        monkeypatch.setattr(held, name, made, raising=False)
        return made

    return named


def test_gains_of_a_raw_file_are_those_of_red_and_blue_against_green():
    raw = types.SimpleNamespace(
        camera_whitebalance=[6.0, 2.0, 5.0, 0.0], color_matrix=np.diag([2.0, 4.0, 5.0, 1.0])[:3]
    )
    found = _camera(raw)
    assert (found["rgb_gain"], found["red_gain"], found["blue_gain"]) == (1.0, 3.0, 2.5)
    np.testing.assert_allclose(found["rgb2cam"], np.diag([0.5, 0.25, 0.2]))
    for gains in ([0, 2, 5], [6, 0, 5], [6, 2, 0]):
        raw.camera_whitebalance = gains
        assert _camera(raw) == {}


def test_a_mosaic_has_at_least_two_pixels_of_each_plane():
    raw = types.SimpleNamespace(raw_type=types.SimpleNamespace(name="Flat"))
    for shape, whole in (((4, 4), True), ((3, 9), False), ((9, 3), False), ((4, 4, 4), False)):
        raw.raw_image_visible = np.zeros(shape, np.uint16)
        if whole:
            assert _mosaic("a", raw) is raw.raw_image_visible
        else:
            with pytest.raises(ImageError, match="has no Bayer mosaic"):
                _mosaic("a", raw)


def test_arrays_of_both_orders_come_back():
    for array in (np.arange(6.0).reshape(2, 3), np.asfortranarray(np.arange(6).reshape(2, 3))):
        for protocol in (2, 4, 5):
            assert np.array_equal(load_plain(pickle.dumps(array, protocol)), array)


def test_what_a_reader_of_raw_files_says_is_told_in_80_letters(monkeypatch):
    class LibRawError(Exception):
        pass

    def imread(_):
        raise LibRawError(b"x" * 90)

    monkeypatch.setitem(
        sys.modules, "rawpy", types.SimpleNamespace(imread=imread, LibRawError=LibRawError)
    )
    with (
        pytest.raises(ImageError, match=f"^a cannot be read: {'x' * 80}; open it"),
        _opened("a", b""),
    ):
        pass


def test_kinds_of_exif_values_are_numbers():
    assert load_plain(b"\x80\x02cexifread.tags.fields\nFieldType\nK\x05\x85R.") == 5


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    ("ratio", "tag_path"),
    [
        (OldRatio, "exifread.classes.IfdTag"),
        (TextRatio, "exifread.classes.IfdTag"),
        (NewRatio, "exifread.core.ifd_tag.IfdTag"),
    ],
    ids=["2.1", "2.3", "3.5"],
)
def test_exif_tags_of_burstsr_are_read_without_exifread(
    exifread, tmp_path, monkeypatch, ratio, tag_path, protocol
):
    """The facts of the public set: levels, gains, and EXIF tags as objects of exifread."""
    tag, fraction = exifread(IfdTag, tag_path), exifread(ratio, "exifread.utils.Ratio")
    facts = {
        "black_level": [63, 63, 63, 63], "cam_wb": [2.0, 1.0, 1.5, 0.0],
        "color_matrix": np.eye(3, dtype=np.float32),
        "exif_data": {
            "Image ExposureTime": tag("1/100", [fraction(1, 100)]),
            "EXIF MakerNote": tag("[0, 1, ...]", list(range(20_000))),
            "Image Make": tag("Zoo", "Zoo", prefer_printable=True),
        },
    }  # fmt: skip
    data = pickle.dumps(facts, protocol)
    for name in [name for name in sys.modules if name.partition(".")[0] == "exifread"]:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "meta_info.pkl").write_bytes(data)
    found = load_facts(tmp_path / "meta_info.pkl")
    exposure, note, _ = found["exif_data"].values()
    assert type(exposure) is ExifTag and exposure.printable == "1/100"
    [value] = exposure.values
    assert type(value) is ExifRatio and (value.numerator, value.denominator) == (1, 100)
    assert note.values == list(range(20_000)) and found["black_level"] == [63] * 4
    assert "exifread" not in sys.modules


def test_a_pickle_cannot_change_the_stubs_or_name_more_of_exifread(tmp_path):
    """Setting the state of the class itself, or a method in place of data."""
    path = tmp_path / "meta_info.pkl"
    tag = b"cexifread.classes\nIfdTag\n"
    for data in (
        b"\x80\x02" + tag + b"N}U\x06valuesK\x01s\x86b.",  # attributes of the class
        b"\x80\x02" + tag + b"}U\x06valuesK\x01sb.",
        b"\x80\x02cexifread.utils\nmake_string\nU\x01a\x85R.",
        b"\x80\x02cexifread.heic\nIfdTag\n)\x81.",
    ):
        path.write_bytes(data)
        with pytest.raises(ImageError, match=r"could run code|is damaged"):
            load_facts(path)
    assert not isinstance(ExifTag.__dict__["values"], int)


@pytest.fixture
def photo(tmp_path):
    colours = np.random.default_rng(3).random((12, 12, 3)).astype(np.float32)
    pixels = colours.repeat(12, 0).repeat(12, 1)
    write_photo(tmp_path / "photo.png", Photo(pixels))
    return tmp_path / "photo.png"


@pytest.mark.parametrize("npz", [False, True], ids=["files", "npz"])
@pytest.mark.parametrize("noise", ["noisy", "clean"])
@pytest.mark.parametrize("mode", ["raw", "rgb"])
def test_every_kind_of_burst_is_read_and_scored_as_it_was_made(photo, mode, noise, npz):
    """An RGB burst was scored against a clean image of another scale with swapped channels."""
    words = ["--rgb"] * (mode == "rgb") + ["--clean"] * (noise == "clean") + ["--npz"] * npz
    folder = photo.parent / "made"
    assert make([str(photo), "-o", str(folder), "--crop", "64", "--frames", "2", *words]) == 0
    [test] = burst_tests(str(folder), None)
    burst, clean = test.load()
    synthesis = BurstSynthesis(
        frames=2,
        mode=mode,
        space="srgb" if mode == "rgb" else "linear",
        noise=noise == "noisy",
        quantize="official" if noise == "noisy" else "none",
    )
    source = TrainingPhoto("photo", quantise(read_photo(photo).color_HWC))
    made = BurstDataset(
        [source], synthesis=synthesis, patch=64 // synthesis.scale, length=1, seed=0, augment=False
    )[0]
    levels = 2**14 if mode == "raw" else 2**16 - 1
    torch.testing.assert_close(burst.frames_TIHW, made.frames, atol=0.51 / levels, rtol=0)
    torch.testing.assert_close(clean, made.clean, atol=0.51 / levels, rtol=0)
    enlarged = enlarge_frame(made.frames[:1], synthesis.scale, "corner")[0]
    known = linear_psnr(enlarged, made.clean, border=4)
    assert linear_psnr(enlarged, clean, border=4) == pytest.approx(known, abs=0.01)


@pytest.mark.parametrize("mode", ["raw", "rgb"])
def test_the_clean_image_that_is_written_is_the_one_that_is_read(tmp_path, mode):
    synthesis = BurstSynthesis(frames=2, mode=mode, space="srgb" if mode == "rgb" else "linear")
    side = synthesis.window(8 * synthesis.scale)
    made = synthesis(torch.rand(3, side, side), generator(1))
    write_burst(tmp_path, made)
    found = read_clean(tmp_path / "gt" / "im_rgb.png", raw=mode == "raw")
    torch.testing.assert_close(found, made.clean, atol=0.51 / 2**14, rtol=0)


def test_the_clean_image_of_a_users_rgb_burst_may_be_any_photo(tmp_path):
    gray = np.random.default_rng(0).random((6, 5, 1)).astype(np.float32)
    write_photo(tmp_path / "gt" / "im_rgb.png", Photo(gray))
    found = read_clean(tmp_path / "gt" / "im_rgb.png", raw=False)
    expected = torch.from_numpy(gray).permute(2, 0, 1).expand(3, -1, -1)
    torch.testing.assert_close(found, expected, atol=0.51 / 255, rtol=0)


BLACK = (10, 20, 30, 40)
"""Black levels of the first 2 x 2 pixels, row by row."""


def scene():
    """A linear picture, (3, 48, 64), and its mosaic in any phase."""
    return torch.rand(3, 48, 64, generator=torch.Generator().manual_seed(0))


def mosaic_of(scene_3HW, pattern):
    """Values of a sensor with 1000 levels above black."""
    values = np.empty(scene_3HW.shape[1:], np.int64)
    for number, colour in enumerate(pattern):
        part = np.s_[number // 2 :: 2, number % 2 :: 2]
        values[part] = (scene_3HW["RGB".index(colour)].numpy()[part] * 1000).round() + BLACK[number]
    return values


@pytest.mark.parametrize("pattern", ["RGGB", "GRBG", "GBRG", "BGGR"])
def test_dng_files_of_every_phase_give_the_same_planes(tmp_path, pattern):
    """The black level of each colour is subtracted, and 1 is the white level above it."""
    data = dng(mosaic_of(scene(), pattern), pattern, black=BLACK, white=1040)
    (tmp_path / "payload_N000.dng").write_bytes(data)
    (tmp_path / "payload_N001.DNG").write_bytes(data)
    (tmp_path / "lens.txt").write_text("")
    burst = read_burst(tmp_path)
    assert find_bursts(tmp_path) == [tmp_path] and len(burst.frames_TIHW) == 2
    top, left = divmod(pattern.index("R"), 2)
    shown = scene()[:, top:, left:]
    height, width = (side // 2 * 2 for side in shown.shape[1:])
    expected = mosaic(shown[:, :height, :width])
    levels = {colour: 1040 - black for colour, black in zip(pattern, BLACK, strict=True)}
    greens = [1040 - BLACK[n] for n, c in enumerate(pattern) if c == "G"]
    # The first green of the pattern by rows is in the row of red if red is in the first row.
    above, below = greens if top == 0 else greens[::-1]
    white = torch.tensor([levels["R"], above, below, levels["B"]])[:, None, None]
    torch.testing.assert_close(
        burst.frames_TIHW[1], expected * 1000 / white, atol=0.6 / 1000, rtol=0
    )


def test_the_margins_of_a_dng_file_are_left_out(tmp_path):
    values = mosaic_of(scene(), "RGGB")
    framed = np.full((50, 68), 999)
    framed[2:, 4:] = values
    (tmp_path / "a.dng").write_bytes(dng(framed, "RGGB", black=BLACK, white=1040, margin=(2, 4)))
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "a.dng").write_bytes(dng(values, "RGGB", black=BLACK, white=1040))
    plain = read_burst(tmp_path / "plain").frames_TIHW
    (tmp_path / "plain" / "a.dng").unlink()
    assert torch.equal(read_burst(tmp_path).frames_TIHW, plain)


def test_gains_and_colour_matrix_of_a_dng_file_become_facts(tmp_path):
    """Gray of the camera becomes gray, and a file of facts goes first."""
    (tmp_path / "a.dng").write_bytes(dng(mosaic_of(scene(), "RGGB"), "RGGB"))
    camera = read_burst(tmp_path).camera
    assert (camera.red, camera.blue) == pytest.approx((2.0, 1.6))
    xyz = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
         [0.0193339, 0.1191920, 0.9503041]]
    )  # fmt: skip
    matrix = np.array(MATRIX).reshape(3, 3) @ xyz
    matrix /= matrix.sum(1, keepdims=True)
    np.testing.assert_allclose(camera.rgb_to_camera.numpy(), matrix, atol=2e-3)
    gray = camera.process(torch.tensor([0.15, 0.3, 0.3 / 1.6])[:, None, None])
    assert gray.max() - gray.min() < 1e-3
    (tmp_path / "meta.json").write_text('{"red_gain": 3.0}')
    assert read_burst(tmp_path).camera.red == 3.0


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_of_dng_files_is_upright(tmp_path, orientation):
    """As EXIF defines it: which side of the stored picture is at the top and at the left."""
    (tmp_path / "a.dng").write_bytes(
        dng(mosaic_of(scene(), "RGGB"), "RGGB", orientation=orientation)
    )
    burst = read_burst(tmp_path)
    stored = torch.rand(3, 4, 6)
    picture = developed(stored, burst, "linear").color_HWC
    expected = by_exif(stored.permute(1, 2, 0).numpy(), orientation)
    np.testing.assert_array_equal(picture, expected)


def by_exif(stored_HWC, orientation):
    """Pixel by pixel, from the table of EXIF: the side of row 0, then that of column 0."""
    rows, columns = {
        1: ("top", "left"), 2: ("top", "right"), 3: ("bottom", "right"), 4: ("bottom", "left"),
        5: ("left", "top"), 6: ("right", "top"), 7: ("right", "bottom"), 8: ("left", "bottom"),
    }[orientation]  # fmt: skip
    height, width, channels = stored_HWC.shape
    swapped = rows in ("left", "right")
    shown = np.empty((width, height, channels) if swapped else (height, width, channels))
    for row in range(height):
        for column in range(width):
            along = {
                rows: (row, height), columns: (column, width),
            }  # fmt: skip
            place = {}
            for side, (at, length) in along.items():
                axis = 0 if side in ("top", "bottom") else 1
                place[axis] = at if side in ("top", "left") else length - 1 - at
            shown[place[0], place[1]] = stored_HWC[row, column]
    return shown.astype(stored_HWC.dtype)


@pytest.mark.parametrize("flips", range(8))
def test_pictures_are_turned_upright_as_libraw_says(flips):
    """First mirrored, then transposed."""
    picture = torch.arange(24.0).reshape(2, 3, 4)
    found = upright(picture, flips)
    height, width = (4, 3) if flips & 4 else (3, 4)
    for row in range(height):
        for column in range(width):
            at = (column, row) if flips & 4 else (row, column)
            y = 2 - at[0] if flips & 2 else at[0]
            x = 3 - at[1] if flips & 1 else at[1]
            assert torch.equal(found[:, row, column], picture[:, y, x])


def test_damaged_dng_files_are_one_sentence(tmp_path, monkeypatch):
    whole = dng(mosaic_of(scene(), "RGGB"), "RGGB")
    path = tmp_path / "a.dng"
    for data, message in (
        (b"no picture", "cannot be read"), (whole[:700], "cannot be read"),
        (dng(mosaic_of(scene(), "RGGB"), "RGGB", black=(2000,) * 4), "white must be above"),
        (dng(mosaic_of(scene(), "RGGB"), "RRGB"), "no Bayer pattern"),
    ):  # fmt: skip
        path.write_bytes(data)
        with pytest.raises(ImageError, match=message) as caught:
            read_burst(tmp_path)
        assert "a.dng" in str(caught.value) and "\n" not in str(caught.value)
    path.write_bytes(whole)
    monkeypatch.setenv("ZOO_MAX_PIXELS", "700")
    with pytest.raises(ImageError, match="ZOO_MAX_PIXELS"):
        read_burst(tmp_path)


def test_dng_files_without_rawpy_name_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rawpy", None)
    (tmp_path / "a.dng").write_bytes(dng(mosaic_of(scene(), "RGGB"), "RGGB"))
    with pytest.raises(ImageError, match=r"a\.dng' needs rawpy.*the extra \[raw\]"):
        read_burst(tmp_path)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("IMG_1.NEF", r"\.nef files are not read: convert them to DNG"),
        ("clip.mp4", r"\.mp4 files are not read: write their frames as images, with 'ffmpeg"),
        ("a.jxl", r"\.jxl files are not read: convert them to PNG"),
    ],
    ids=["raw", "video", "jxl"],
)
def test_restore_says_how_to_convert_what_it_cannot_read(tmp_path, capsys, name, advice):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(b"data")
    for source in (tmp_path / "in", tmp_path / "in" / name):
        words = [str(source), "-o", str(tmp_path / "out.png"), "-n", "qmambabsr_tiny"]
        assert zoo_main(["restore", *words]) == 2
        said = capsys.readouterr().err
        assert "contains no burst" in said

        assert re.search(advice, said)


def test_a_lone_dng_file_is_one_frame_of_a_burst(tmp_path):
    (tmp_path / "a.dng").write_bytes(b"II*\0")
    with pytest.raises(ImageError, match=r"a\.dng is one frame, so put all frames"):
        find_bursts(tmp_path / "a.dng")


def test_fractions_of_exif_are_of_one_or_two_numbers_or_a_text():
    for given, expected in (((3, 7), (3, 7)), ((3,), (3, 1)), (("3/7",), (3, 7)), (("3",), (3, 1))):
        found = ExifRatio(*given)
        assert (found.numerator, found.denominator) == expected


@pytest.mark.parametrize(
    ("kind", "mosaic"),
    [("Stack", None), ("Flat", np.zeros((9, 9, 3))), ("Flat", np.zeros((3, 9))), ("Flat", None)],
    ids=["complete", "colours", "thin", "none"],
)
def test_a_raw_photo_without_a_mosaic_is_told(kind, mosaic):
    raw = types.SimpleNamespace(raw_type=types.SimpleNamespace(name=kind), raw_image_visible=mosaic)
    with pytest.raises(ImageError, match=r"^a has no Bayer mosaic, its colours are complete; dev"):
        _mosaic("a", raw)
