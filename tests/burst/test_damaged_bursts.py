"""Bursts that a file or a caller has made wrong: each is one sentence, before any work."""

from __future__ import annotations

import io
import json
import pickle
import warnings
import zipfile

import cv2
import numpy as np
import pytest
import torch

from tests.helpers.damage import put
from zoo.data.burst.camera import Camera
from zoo.data.burst.facts import _short, _size, load_facts
from zoo.data.burst.finding import find_bursts
from zoo.data.burst.reading import BurstFiles, read_burst
from zoo.errors import ImageError
from zoo.inference.burst import developed
from zoo.pickles import check_pickle

IDENTITY = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
FACTS = {"rgb2cam": IDENTITY, "rgb_gain": 1.2, "red_gain": 2.0, "blue_gain": 1.7}


def refused(path):
    """The message of the error that reading raises."""
    with pytest.raises(ImageError) as caught:
        read_burst(path)
    message = str(caught.value)
    assert len(message) < 500 and "\n" not in message and path.name in message
    return message


def npz(path, **entries):
    np.savez(path, **{"frames": np.ones((2, 4, 2, 2), np.uint16), **entries})
    return path


def npz_that_declares(path, shape):
    """An npz file of a few bytes whose frames have another shape in their header."""
    header = repr({"descr": "<f4", "fortran_order": False, "shape": shape}).encode()
    header = header.ljust(118 + len(header) % 64) + b"\n"
    data = b"\x93NUMPY\x01\0" + len(header).to_bytes(2, "little") + header + bytes(64)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("frames.npy", data)
    return path


def burst(folder, facts=None, name="meta.json"):
    """A burst of one frame, with facts."""
    folder.mkdir(exist_ok=True)
    cv2.imwrite(str(folder / "im_raw_00.png"), np.full((4, 4, 4), 500, np.uint16))
    if facts is not None:
        text = facts if isinstance(facts, bytes) else json.dumps(facts).encode()
        (folder / name).write_bytes(text)
    return folder


@pytest.mark.parametrize("shape", [(2, 4, 10**7, 5 * 10**5), (2**60,) * 4, (2, 4, -1, 1), (2, 4)])
def test_an_npz_file_cannot_ask_for_more_memory_than_it_fills(tmp_path, shape):
    """The first shape is one of 146 TiB."""
    message = refused(npz_that_declares(tmp_path / "a.npz", shape))
    assert "needs" in message or "is negative" in message


def test_an_entry_of_an_npz_file_cannot_declare_more_than_it_has(tmp_path):
    path = npz(tmp_path / "a.npz")
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02")  # the directory of the archive
    data[at + 24 : at + 28] = (2**31).to_bytes(4, "little")
    path.write_bytes(data)
    assert "declares 2147483648 bytes, but has fewer" in refused(path)


@pytest.mark.parametrize("change", ["cut", "checksum", "directory", "method", "encrypted"])
def test_a_damaged_archive_is_told(tmp_path, change):
    path = npz(tmp_path / "a.npz")
    data = bytearray(path.read_bytes())
    if change == "cut":
        data = data[: len(data) // 2]
    elif change == "checksum":
        data[data.index(b"\x01\x00\x01\x00")] ^= 8
    elif change == "directory":
        data[data.rindex(b"PK\x01\x02") + 42] ^= 255
    elif change == "method":
        data[data.rindex(b"PK\x01\x02") + 10] = 97
    else:
        data[data.rindex(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    assert "cannot be read" in refused(path)


def test_a_lone_npy_file_is_no_burst(tmp_path):
    held = io.BytesIO()
    np.save(held, np.zeros((2, 4, 2, 2)))
    (tmp_path / "a.npz").write_bytes(held.getvalue())
    assert "not a zip file" in refused(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("white", "message"),
    [
        ([1023, 1023], "must have 1 finite number"), ("1023", "must have 1 finite number"),
        (np.nan, "must have 1 finite number"), (0, "must be at least 1"), (-5, "at least 1"),
        (1e300, "at least 1"), (1j, "must have 1 finite number"), ([], "must have 1 finite number"),
    ],
)  # fmt: skip
def test_a_white_level_is_one_positive_number(tmp_path, white, message):
    said = refused(npz(tmp_path / "a.npz", white_level=white))
    assert "'white_level'" in said and message in said


@pytest.mark.parametrize("dtype", ["bool", "complex64", "U3", "S2", "M8[s]", "V4", "O"])
def test_frames_are_numbers(tmp_path, dtype):
    frames = np.empty((2, 4, 2, 2), dtype)
    message = refused(npz(tmp_path / "a.npz", frames=frames, white_level=1))
    assert "must be numbers" in message or "Python objects" in message


@pytest.mark.parametrize("dtype", [">f4", "<f8", "<f2", ">u2", "<i8", "|u1"])
def test_frames_may_be_numbers_of_any_type_and_order(tmp_path, dtype):
    frames = np.arange(32).reshape(2, 4, 2, 2, order="F")
    level = 1 if np.dtype(dtype).kind == "f" else 31
    scaled = (frames / 31 if level == 1 else frames).astype(dtype)
    found = read_burst(npz(tmp_path / "a.npz", frames=scaled, white_level=level)).frames_TIHW
    torch.testing.assert_close(found, torch.from_numpy(frames / 31).float(), atol=1e-3, rtol=0)


def test_floating_point_frames_have_one_as_white(tmp_path):
    message = refused(npz(tmp_path / "a.npz", frames=np.full((2, 4, 2, 2), 255.0)))
    assert "has values up to 255; 1 must mean white" in message
    assert "NaN" in refused(npz(tmp_path / "a.npz", frames=np.full((2, 4, 2, 2), 1e300)))


def test_large_arrays_of_an_npz_file_are_no_facts(tmp_path):
    flow = np.zeros((2, 2, 30, 30))
    facts = read_burst(npz(tmp_path / "a.npz", flow=flow, white_level=9, rgb_gain=2.0)).facts
    assert facts == {"white_level": 9, "rgb_gain": 2.0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"[" * 100_000 + b"]" * 100_000, "nested too deeply"), (b"[1]", "not a mapping"),
        (b'{"a": ' + b"9" * 6000 + b"}", "not valid JSON"), (b"{", "not valid JSON"),
        (b"\xff{}", "not valid JSON"), (b"", "is empty"), (b"1", "not a mapping"),
        (b" " * (2**22 + 1), "at most 4194304"),
    ],
)  # fmt: skip
def test_a_file_of_facts_holds_a_mapping(tmp_path, text, message):
    with pytest.raises(ImageError, match=message):
        read_burst(burst(tmp_path / "a", text))


@pytest.mark.parametrize("sign", [1, -1])
def test_frames_of_huge_values_are_one_sentence_and_no_warning(tmp_path, sign):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for value, said in ((1e300, "NaN or infinite"), (1e6, "has values up to 1e\\+06; 1 must")):
            with pytest.raises(ImageError, match=said):
                read_burst(npz(tmp_path / "a.npz", frames=np.full((2, 4, 2, 2), sign * value)))


def test_facts_are_read_by_a_path_of_text(tmp_path):
    (tmp_path / "meta_info.pkl").write_bytes(pickle.dumps({"white_level": 9}))
    assert load_facts(str(tmp_path / "meta_info.pkl")) == {"white_level": 9}


def test_numbers_are_counted_up_to_one_more_than_are_allowed():
    assert [_size([1] * count, 2) for count in (0, 1, 2, 3, 9)] == [0, 1, 2, 3, 3]
    assert _size([torch.zeros(2), np.zeros(3), [4]], 6) == 6
    endless = []
    endless.append(endless)
    assert _size(endless, 3) == 4


def test_words_of_a_message_are_the_first_100_letters_in_one_line():
    assert _short("a \n b" + "c" * 200) == "a b" + "c" * 97


def test_a_file_of_facts_may_start_with_a_byte_order_mark(tmp_path):
    assert read_burst(burst(tmp_path / "a", b"\xef\xbb\xbf{}")).facts == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("red_gain", "2.0"), ("red_gain", 0), ("blue_gain", -1), ("rgb_gain", float("inf")),
        ("rgb_gain", float("nan")), ("rgb_gain", 10**400), ("rgb_gain", [1, 2]),
        ("rgb_gain", 1e7), ("rgb_gain", None), ("rgb2cam", 3), ("rgb2cam", IDENTITY[:2]),
        ("rgb2cam", [["a"] * 3] * 3), ("rgb2cam", [[1, 2, 3]] * 3), ("rgb2cam", [[0] * 3] * 3),
        ("rgb2cam", [[1, 0, 0], [0, 1, 0], [0, 0, 1e-5]]), ("rgb2cam", [[1e400] * 3] * 3),
        ("rgb2cam", [10**400] * 9), ("rgb2cam", ["x" * 10**4]),
    ],
)  # fmt: skip
def test_wrong_gains_and_singular_matrices_are_named_where_they_are_used(tmp_path, name, value):
    """Before, a wrong value changed the look of the picture without a word."""
    found = read_burst(burst(tmp_path / "a", {**FACTS, name: value}))
    linear = torch.rand(3, 4, 4)
    for look in ("auto", "camera"):
        with pytest.raises(ImageError, match=f"burst 'a': {name} is .*; correct") as caught:
            developed(linear, found, look)
        assert len(str(caught.value)) < 500
    for look in ("plain", "linear"):
        assert developed(linear, found, look).color_HWC.shape == (4, 4, 3)


def test_facts_without_a_camera_leave_the_plain_look(tmp_path):
    facts = {key: value for key, value in FACTS.items() if key != "blue_gain"}
    found = read_burst(burst(tmp_path / "a", facts))
    assert found.camera is None
    assert read_burst(burst(tmp_path / "a", FACTS)).camera.red == 2.0


@pytest.mark.parametrize("level", ["60", [1, 2], -1, 1023, float("nan"), [[60, 61, 62, 1e9]]])
def test_a_black_level_is_one_or_four_numbers_below_white(tmp_path, level):
    burst(tmp_path / "samsung_00", {"black_level": level})
    (tmp_path / "samsung_00" / "im_raw_00.png").rename(tmp_path / "samsung_00" / "im_raw.png")
    with pytest.raises(ImageError, match=r"im_raw\.png': black_level is .*; it must"):
        read_burst(tmp_path)


@pytest.mark.parametrize("place", ["folder", "dangling link", "link to itself", "pipe"])
@pytest.mark.parametrize("name", ["im_raw_01.png", "meta.json", "meta_info.pkl", "burst.npz"])
def test_other_things_with_the_name_of_a_file_are_told(tmp_path, name, place):
    folder = burst(tmp_path / "a")
    put(folder / name, b"", place)
    with pytest.raises(ImageError, match=name):
        read_burst(find_bursts(folder)[0])


def test_a_frame_that_is_a_link_to_nothing_is_not_left_out(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((2, 2, 3), np.uint8))
    (tmp_path / "b.png").symlink_to("nowhere")
    with pytest.raises(ImageError, match=r"b\.png' is a link to a missing file"):
        read_burst(tmp_path)


def test_a_path_that_cannot_exist_is_no_burst():
    with pytest.raises(ImageError, match="cannot be read: File name too long"):
        find_bursts("a" * 300)
    with pytest.raises(ImageError, match="cannot be read: File name too long"):
        read_burst("a" * 300)


class Call:
    """A pickle that calls a function with arguments."""

    def __init__(self, function, *arguments, state=None):
        self.words = (function, arguments, state) if state is not None else (function, arguments)

    def __reduce__(self):
        return self.words


def global_(path):
    """The pickle opcodes of a name."""
    return ("c" + path.replace(" ", "\n") + "\n").encode()


def array(dtype, shape, data):
    """A pickle of an array with any state."""
    rebuild = np.zeros(1).__reduce__()[0]
    return Call(rebuild, np.ndarray, (0,), b"b", state=(1, shape, dtype, False, data))


FLAGGED = Call(np.dtype, "V8", state=(3, "|", None, None, None, 8, 1, 63))
"""A dtype whose flags say that its values are addresses of objects."""


def beyond():
    """A pickle of a tensor that ends behind its storage."""
    storage = torch.zeros(2)._typed_storage()
    return Call(torch._utils._rebuild_tensor_v2, storage, 5, (9,), (1,), False, {})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x80\x02Nr\xff\xff\xff\xff.", "is damaged"),  # 4 billion memo entries
        (pickle.dumps(array(np.dtype("O"), (2,), b"0" * 16)), "needs arrays of 'O8'"),
        (pickle.dumps(array(FLAGGED, (2,), b"0" * 16)), "needs arrays of 'V8'"),
        (pickle.dumps(array(np.dtype("f8"), (2**40,), b"")), "is damaged"),
        (pickle.dumps({"a": beyond()}), "is damaged"),
        # Nested tuples as the key of a mapping, and nested lists.
        (b"\x80\x02})" + b"\x85" * 100_000 + b"K\x01s.", "has values that are nested"),
        (b"\x80\x02" + b"]" * 110_000 + b"a" * 109_999 + b".", "has too many values"),
    ],
    ids=["memo", "objects", "flags", "shape", "bounds", "keys", "lists"],
)
def test_a_pickle_cannot_touch_memory_that_is_not_its_own(tmp_path, data, message):
    path = tmp_path / "meta_info.pkl"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=rf"meta_info\.pkl' {message}"):
        load_facts(path)


@pytest.mark.parametrize("state", ["}Vx\nK\x01s", "N}V__defaults__\nNs\x86"], ids=["dict", "slots"])
@pytest.mark.parametrize(
    "name", ["torch._utils _rebuild_tensor_v2", "numpy.core.numeric _frombuffer", "_codecs encode"]
)
def test_a_pickle_cannot_change_a_function(tmp_path, name, state):
    before = torch._utils._rebuild_tensor_v2
    kept = dict(before.__dict__), before.__defaults__
    (tmp_path / "meta_info.pkl").write_bytes(b"\x80\x02" + global_(name) + state.encode() + b"b.")
    with pytest.raises(ImageError):
        load_facts(tmp_path / "meta_info.pkl")
    assert (before.__dict__, before.__defaults__) == kept


def test_facts_may_be_arrays_of_both_bytes_orders_and_tensors_with_strides(tmp_path):
    facts = {
        "rgb2cam": np.asfortranarray(np.array(IDENTITY, ">f4")), "red_gain": np.float32(2),
        "rgb_gain": torch.arange(6.0).reshape(2, 3).t()[1:2, :1], "name": np.array(["a", "ü"]),
        "blue_gain": np.array([1.5], ">f8"),
    }  # fmt: skip
    for protocol in (2, 4, 5):
        (tmp_path / "meta_info.pkl").write_bytes(pickle.dumps(facts, protocol))
        loaded = load_facts(tmp_path / "meta_info.pkl")
        assert loaded["name"].tolist() == ["a", "ü"]
        camera = BurstFiles("x", torch.rand(1, 4, 2, 2), loaded).camera
        assert camera.data() == Camera(torch.eye(3), 1.0, 2.0, 1.5).data()


def test_the_largest_integers_may_be_white(tmp_path):
    frames = np.full((2, 4, 2, 2), 2**64 - 1, np.uint64)
    found = read_burst(npz(tmp_path / "a.npz", frames=frames, white_level=frames[0, 0, 0, 0]))
    assert (found.frames_TIHW == 1).all()
    assert "must be at least 1" in refused(npz(tmp_path / "b.npz", white_level=2.0**65))


def test_the_shape_of_frames_is_told_and_a_long_one_cut(tmp_path):
    message = refused(npz(tmp_path / "a.npz", frames=np.zeros((1,) * 40, np.uint16)))
    assert message.endswith(f"not {'x'.join('1' * 40)[:60]}")
    np.savez(tmp_path / "b.npz", other=np.zeros(3))
    assert refused(tmp_path / "b.npz").endswith("(T, 4 or 3, h, w), not nothing")


def test_the_tensors_of_a_pickle_together_have_a_limit_of_steps(tmp_path, monkeypatch):
    path = tmp_path / "meta_info.pkl"
    data = pickle.dumps({str(n): torch.ones(1) for n in range(20)})
    path.write_bytes(data)
    around = check_pickle(io.BytesIO(data), 10_000)  # without what is in the tensors
    for more, fits in ((2000, True), (100, False)):  # each of them has about 30
        monkeypatch.setattr("zoo.data.burst.plain_pickle._STEPS", around + more)
        if fits:
            assert len(load_facts(path)) == 20
            continue
        with pytest.raises(ImageError, match="too many values"):
            load_facts(path)


def test_all_pixels_of_all_frames_count_to_the_limit(tmp_path, monkeypatch):
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"im_raw_{number}.png"), np.zeros((4, 9, 4), np.uint16))
    for limit, fits in ((108, True), (107, False)):
        monkeypatch.setenv("ZOO_MAX_PIXELS", str(limit))
        if fits:
            assert read_burst(tmp_path).frames_TIHW.shape == (3, 4, 4, 9)
            continue
        with pytest.raises(ImageError, match="its frames have more than 107 pixels; use fewer"):
            read_burst(tmp_path)


def test_facts_of_the_public_layout_are_beside_the_clean_image(tmp_path):
    """Those in the burst's own folder go first."""
    (tmp_path / "bursts").mkdir()
    (tmp_path / "gt" / "1").mkdir(parents=True)
    folder = burst(tmp_path / "bursts" / "1")
    (tmp_path / "gt" / "1" / "meta_info.pkl").write_bytes(pickle.dumps({"a": 1}))
    assert read_burst(folder).facts == {"a": 1}
    (folder / "meta_info.pkl").write_bytes(pickle.dumps({"a": 2}))
    assert read_burst(folder).facts == {"a": 2}
    (folder / "meta.json").write_text('{"a": 3}')
    assert read_burst(folder).facts == {"a": 3}
    (tmp_path / "others").mkdir()
    assert read_burst(burst(tmp_path / "others" / "1")).facts == {}
