"""Images that decoders accept although pixels are missing, or that would take all memory."""

from __future__ import annotations

import os
import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from tests.fuzz.images import declaring, solid_bmp
from tests.helpers.tiffs import tiff_with_alpha
from zoo.data import decoding, headers, raster, tiff
from zoo.data.images import read_photo
from zoo.errors import ImageError

SMOOTH = cv2.resize(
    np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8), (96, 80), interpolation=2
)


def encoded(extension, *options, samples=SMOOTH):
    return cv2.imencode(extension, samples, options)[1].tobytes()


def refused(path, data):
    path.write_bytes(data)
    with pytest.raises(ImageError) as error:
        read_photo(path)
    return str(error.value)


@pytest.mark.parametrize("progressive", [0, 1])
def test_a_jpeg_with_missing_bytes_is_refused(tmp_path, progressive, capfd):
    data = encoded(".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, progressive)
    for missing in (20, 60, 1500):
        said = refused(tmp_path / "a.jpg", data[: -2 - missing] + data[-2:])
        assert "a.jpg" in said and "Corrupt JPEG data" in said
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("compression", "said"), [(5, "LZWDecode"), (32773, "PackBitsDecode"), (8, "damaged")]
)
def test_a_tiff_with_a_damaged_strip_is_refused(tmp_path, compression, said, capfd):
    data = encoded(".tiff", cv2.IMWRITE_TIFF_COMPRESSION, compression)
    at = len(data) // 2
    assert said in refused(tmp_path / "a.tif", data[:at] + bytes(200) + data[at + 200 :])
    (tmp_path / "b.tif").write_bytes(data)
    levels = np.round(read_photo(tmp_path / "b.tif").color_HWC * 255)
    assert np.array_equal(levels[..., ::-1], SMOOTH)
    assert capfd.readouterr().err == ""


def test_an_unknown_tag_is_no_damage(tmp_path):
    data = tiff_with_alpha(np.full((2, 3, 4), 255), 2)
    at = data.index(struct.pack("<HHI", 284, 3, 1))
    (tmp_path / "a.tif").write_bytes(data[:at] + struct.pack("<H", 300) + data[at + 2 :])
    assert read_photo(tmp_path / "a.tif").color_HWC.min() == 1


@pytest.mark.parametrize("strips", [[(8, 60)] * 3, [(0, 2**32 - 1)]])
def test_strips_that_are_longer_than_the_file_are_not_inflated(strips):
    places, lengths = zip(*strips, strict=True)
    numbers = struct.pack(f"<{2 * len(strips)}I", *places, *lengths)
    tags = [(256, 1, 9), (257, 1, 9), (259, 1, 8), (273, len(strips), 8)]
    tags.append((279, len(strips), 8 + 4 * len(strips)))
    if len(strips) == 1:
        tags[3:] = [(273, 1, places[0]), (279, 1, lengths[0])]
    directory = struct.pack("<H", len(tags)) + b"".join(
        struct.pack("<HHII", tag, 4, count, value) for tag, count, value in tags
    )
    data = b"II*\0" + struct.pack("<I", 8 + len(numbers)) + numbers + directory
    assert tiff.is_damaged(data)


@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("kind", ["B", "H", "I"])
def test_alpha_of_every_kind_of_tiff_is_divided_out(tmp_path, endian, big, kind):
    samples = np.dstack([SMOOTH[..., ::-1], np.full(SMOOTH.shape[:2], 128)])
    (tmp_path / "a.tif").write_bytes(tiff_with_alpha(samples, 2, endian=endian, big=big, kind=kind))
    photo = read_photo(tmp_path / "a.tif")
    np.testing.assert_allclose(photo.color_HWC * 255, samples[..., :3], atol=1.1)


def padded(data):
    """A JPEG with much metadata."""
    return data[:2] + (b"\xff\xfe\xff\xff" + bytes(2**16 - 3)) * 13 + data[2:]


def test_metadata_of_a_jpeg_are_no_image(tmp_path):
    gray = encoded(".jpg", samples=np.zeros((64, 64), np.uint8))
    assert not headers.is_cut_short(padded(gray))
    assert headers.is_cut_short(padded(declaring(gray, 6000, 6000)))


BOMBS = {
    "bmp": (".bmp", lambda: solid_bmp(30_000, 30_000)),
    "webp": (".webp", lambda: declaring(encoded(".webp", 64, 101), 9000, 9000)),
    "jpeg": (".jpg", lambda: declaring(encoded(".jpg"), 20_000, 20_000)),
    "png": (".png", lambda: declaring(encoded(".png"), 20_000, 20_000)),
    "tiff": (".tif", lambda: big_tiff()),
}


def big_tiff():
    data = bytearray(tiff_with_alpha(np.zeros((2, 2, 4)), 2))
    struct.pack_into("<H", data, 10 + 8, 20_000)
    struct.pack_into("<H", data, 22 + 8, 20_000)
    return bytes(data)


@pytest.mark.parametrize("name", BOMBS)
def test_what_declares_too_many_pixels_is_not_decoded(tmp_path, name, monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", None)
    extension, data = BOMBS[name]
    said = refused(tmp_path / f"a{extension}", data())
    assert "0 pixels, and the limit is 67,108,864 pixels" in said and "ZOO_MAX_PIXELS" in said


def test_the_limit_of_pixels_can_be_changed(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(encoded(".png"))
    for limit, fits in ((96 * 80, True), (96 * 80 - 1, False)):
        monkeypatch.setenv("ZOO_MAX_PIXELS", str(limit))
        if fits:
            assert read_photo(tmp_path / "a.png").color_HWC.shape == (80, 96, 3)
        else:
            assert "96x80 pixels" in refused(tmp_path / "a.png", encoded(".png"))


@pytest.mark.parametrize("extension", [".png", ".jpg", ".bmp", ".tif", ".webp"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_size_is_read_from_every_format(extension, channels):
    samples = np.zeros((5, 301, channels), np.uint8)
    for options in ((), (cv2.IMWRITE_WEBP_QUALITY, 50)) if extension == ".webp" else ((),):
        done, data = cv2.imencode(extension, samples, options)
        assert done and headers.size(data.tobytes()) == (301, 5)


def test_a_compressed_bmp_without_data_is_refused_and_a_solid_one_is_not(tmp_path):
    assert "damaged" in refused(tmp_path / "a.bmp", solid_bmp(3000, 3000))
    runs = b"\xff\x05" * 4 + b"\0\0"
    (tmp_path / "b.bmp").write_bytes(solid_bmp(4, 4 * 255, runs * 4 + b"\0\1"))
    assert read_photo(tmp_path / "b.bmp").color_HWC.shape[:2] == (4, 1020)


def test_what_others_write_while_an_image_is_decoded_is_not_lost(tmp_path, capfd, monkeypatch):
    (tmp_path / "a.jpg").write_bytes(encoded(".jpg"))
    decode = cv2.imdecode

    def while_others_write(*arguments):
        os.write(2, b"progress 50 %\nCorrupt")
        return decode(*arguments)

    monkeypatch.setattr(cv2, "imdecode", while_others_write)
    read_photo(tmp_path / "a.jpg")
    assert capfd.readouterr().err == "progress 50 %\nCorrupt"


def test_threads_blame_the_damaged_image_only(tmp_path):
    whole = encoded(".jpg")
    paths = [tmp_path / f"{number}.jpg" for number in range(40)]
    for number, path in enumerate(paths):
        path.write_bytes(whole[:-62] + whole[-2:] if number % 5 == 0 else whole)

    def is_refused(path):
        try:
            read_photo(path)
        except ImageError:
            return True
        return False

    level = cv2.utils.logging.getLogLevel()
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(is_refused, paths))
    assert [number for number, hit in enumerate(found) if hit] == list(range(0, 40, 5))
    assert cv2.utils.logging.getLogLevel() == level


def test_images_are_decoded_without_a_standard_error_stream(tmp_path):
    (tmp_path / "a.jpg").write_bytes(encoded(".jpg"))
    kept = os.dup(2)
    os.close(2)
    try:
        read_photo(tmp_path / "a.jpg")
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(2)
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def test_bytes_between_the_picture_and_the_end_marker_are_no_damage(tmp_path):
    data = encoded(".jpg")
    (tmp_path / "clean.jpg").write_bytes(data)
    (tmp_path / "camera.jpg").write_bytes(data[:-2] + bytes(5) + data[-2:])
    clean, camera = (read_photo(tmp_path / f"{name}.jpg").color_HWC for name in ("clean", "camera"))
    assert np.array_equal(clean, camera)


def test_an_image_for_which_the_decoder_has_no_memory_is_not_called_damaged(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(encoded(".png"))
    full, other = cv2.error("full"), cv2.error("other")
    full.code, other.code = cv2.Error.StsNoMem, cv2.Error.StsError
    for error, said in ((full, "larger than the free memory"), (other, "damaged or cut short")):

        def fail(*_, error=error):
            raise error

        monkeypatch.setattr(cv2, "imdecode", fail)
        with pytest.raises(ImageError, match=said):
            read_photo(tmp_path / "a.png")


@pytest.mark.skipif(not hasattr(os, "register_at_fork"), reason="has no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_process_is_forked_only_while_no_image_is_decoded():
    """The new one would have a file in place of its standard error stream, and a lock for ever."""
    done = []

    def fork():
        child = os.fork()
        if child == 0:
            os._exit(0 if decoding._alone.acquire(blocking=False) else 1)
        done.append(os.waitpid(child, 0)[1])

    with decoding._alone:
        thread = threading.Thread(target=fork)
        thread.start()
        thread.join(0.2)
        assert not done
    thread.join(10)
    assert done == [0] and not decoding._alone.locked()


def test_what_is_deflated_in_a_tiff_is_checked():
    """Its decoder compares no checksum, and takes what comes before the damage."""
    data = encoded(".tiff", cv2.IMWRITE_TIFF_COMPRESSION, 8)
    assert not tiff.is_damaged(data)
    place, length = (tiff.value(data, tag) for tag in (273, 279))
    for at in (0, 40, length - 1):  # the head, the data, the checksum
        wrong = bytearray(data)
        wrong[place + at] ^= 0xFF
        assert tiff.is_damaged(bytes(wrong)), at
        assert headers.is_cut_short(bytes(wrong))
    assert not headers.is_cut_short(data)
    for deflated, most, size in (
        (zlib.compress(bytes(5000)), 9000, 5000),
        (zlib.compress(bytes(5000))[:-1], 9000, 9001),
        (b"no such data", 9000, 9001),
        (b"", 9000, 9001),
    ):
        assert tiff._inflated_size(deflated, most) == size
    assert tiff._inflated_size(zlib.compress(bytes(2**22)), 9000) > 9000


def test_a_large_image_of_one_colour_is_not_called_damaged():
    """More than the 16 MB that tiles may have beyond the borders."""
    samples = np.zeros((2400, 2600, 3), np.uint8)
    assert not tiff.is_damaged(encoded(".tiff", cv2.IMWRITE_TIFF_COMPRESSION, 8, samples=samples))


def test_opencvs_log_level_is_changed_by_one_thread_at_a_time(monkeypatch):
    """Two that read it at once would leave it silent for ever."""
    levels, calls = decoding._Levels(), []

    def told(level=5):
        calls.append((level, levels.lock.locked()))
        return level

    monkeypatch.setattr(cv2.utils, "logging", SimpleNamespace(getLogLevel=told, setLogLevel=told))
    with levels.at(3), levels.at(2):
        assert not levels.lock.locked()
    assert calls == [(level, True) for level in (5, 3, 3, 3, 5)] and not levels.lock.locked()


@pytest.mark.parametrize("listen", [False, True])
def test_opencv_logs_nothing_of_its_own_while_it_decodes(monkeypatch, listen):
    """What its decoders say of damage is heard."""
    levels = []
    monkeypatch.setattr(cv2, "imdecode", lambda *_: levels.append(cv2.utils.logging.getLogLevel()))
    assert decoding.decoded(b"none", listen=listen) == (None, "")
    logs = cv2.utils.logging
    assert levels == [logs.LOG_LEVEL_WARNING if listen else logs.LOG_LEVEL_SILENT]
    monkeypatch.setattr(cv2, "imencode", lambda *_: (levels.append(logs.getLogLevel()), None))
    with pytest.raises(ImageError, match=r"cannot hold an image of 3x2 pixels; use \.png"):
        raster._encode(Path("a.jpg"), np.zeros((2, 3, 3), np.uint8), None)
    assert levels[1:] == [logs.LOG_LEVEL_SILENT]


def test_a_standard_error_stream_that_was_closed_is_closed_again(monkeypatch):
    def closed(_):
        raise OSError(9, "Bad file descriptor")

    calls = []
    monkeypatch.setattr(os, "dup", closed)
    monkeypatch.setattr(os, "dup2", lambda *places: calls.append(("dup2", places[1])))
    monkeypatch.setattr(os, "close", lambda place: calls.append(("close", place)))
    with decoding._hearing() as said:
        assert calls == [("dup2", 2)]
    assert calls == [("dup2", 2), ("close", 2)] and said == []


def test_what_others_say_meanwhile_is_lost_where_nobody_can_hear_it(monkeypatch):
    said, written = [], []
    monkeypatch.setattr(os, "write", lambda place, data: written.append((place, data)))
    decoding._sort(b"hello\nCorrupt JPEG data: 9\n", said)
    assert said == ["Corrupt JPEG data: 9"] and written == [(2, b"hello\n")]

    def closed(*_):
        raise OSError(9, "Bad file descriptor")

    monkeypatch.setattr(os, "write", closed)
    decoding._sort(b"hello\n", said)


OPEN = Path("/proc/self/fd")


@pytest.mark.skipif(not OPEN.is_dir(), reason="has no list of open files")
def test_decoding_leaves_no_file_open(tmp_path):
    (tmp_path / "a.jpg").write_bytes(encoded(".jpg"))
    read_photo(tmp_path / "a.jpg")
    before = len(list(OPEN.iterdir()))
    for _ in range(5):
        read_photo(tmp_path / "a.jpg")
    assert len(list(OPEN.iterdir())) == before
