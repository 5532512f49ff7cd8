"""What a JPEG or PNG file says of the pictures in it, byte by byte."""

from __future__ import annotations

import struct

import pytest

from zoo.data import several
from zoo.data.containers import PNG_SIGNATURE, jpeg_segment, png_chunk

END = b"\xff\xd9"


def picture(width=40, before=b"", signature=b"\xff\xd8", behind=b""):
    frame = jpeg_segment(0xC0, struct.pack(">BHHB", 8, 24, width, 3) + bytes(9))
    return signature + before + frame + jpeg_segment(0xDA, bytes(10)) + behind + END


def listed(entries, form="<", held=None):
    """The segment that lists pictures by size and place; ``held`` is how long it says it is."""
    body = b"".join(struct.pack(f"{form}IIIHH", 0, *entry, 0, 0) for entry in entries)
    mark = b"II*\0" if form == "<" else b"MM\0*"
    head = struct.pack(f"{form}IHHHII", 8, 1, 0xB002, 7, held or len(body), 26) + bytes(4)
    return jpeg_segment(0xE2, b"MPF\0" + mark + head + body)


def file_of(others, held=None, form="<", segments=b""):
    """A picture, its list and then the others, with nothing between them and behind them."""
    number = 1 + len(others)
    length = len(picture(before=segments + listed([(0, 0)] * number, form)))
    block = 2 + len(segments) + 8  # where places are counted from
    entries, at = [(length, 0)], length
    for other in others:
        entries.append((len(other), at - block))
        at += len(other)
    return picture(before=segments + listed(entries, form, held)) + b"".join(others)


@pytest.mark.parametrize("form", ["<", ">"])
def test_pictures_that_fill_a_jpeg_to_its_last_byte_are_all_found(form):
    others = [picture(behind=b"one"), picture(behind=b"two")]
    data = file_of(others, form=form)
    first, *found = several.jpeg_pictures(data)
    assert found == others and data == first + b"".join(others)


def test_a_list_of_pictures_ends_with_its_last_whole_entry():
    others = [picture(behind=b"one"), picture(behind=b"two")]
    assert several.jpeg_pictures(file_of(others, held=47))[1:] == others[:1]
    assert several.jpeg_pictures(file_of(others, held=63))[1:] == others


def test_a_picture_that_is_cut_short_or_starts_otherwise_is_none():
    whole, other = picture(behind=b"one"), picture(signature=b"\xff\xd7")
    assert several.jpeg_pictures(file_of([other, whole]))[1:] == [whole]
    cut = file_of([whole])[:-1]
    assert several.jpeg_pictures(cut) == [cut[: -len(whole) + 1]]
    small = picture(width=39)
    assert several.jpeg_pictures(file_of([small, whole]))[1:] == [whole]


def test_a_list_stands_in_a_segment_of_its_kind_before_the_image_data():
    other = picture(behind=b"one")
    profile = jpeg_segment(0xE2, b"ICC_PROFILE\0\1\1")
    assert len(several.jpeg_pictures(file_of([other], segments=profile))) == 2
    remark = jpeg_segment(0xFE, b"MPF\0")
    assert len(several.jpeg_pictures(file_of([other], segments=remark))) == 2
    # What follows the start of the data is no longer about the file: here two scans.
    late = picture(behind=listed([(20, 0), (20, 0)]))
    assert several.jpeg_pictures(late) == [late]
    late = file_of([other], segments=jpeg_segment(0xDA, bytes(10)))
    assert several.jpeg_pictures(late) == [late]


def png(*chunks):
    return PNG_SIGNATURE + b"".join(png_chunk(*chunk) for chunk in chunks)


def test_a_png_is_an_animation_if_its_chunk_is_whole():
    data, end, frame = (b"IDAT", b"1"), (b"IEND", b""), (b"fcTL", bytes(26))
    assert several.png_animation(png(data, end)) == (0, False)
    for number in (1, 2, 2**24 + 1, 2**32 - 1):
        head = (b"acTL", struct.pack(">II", number, 0))
        assert several.png_animation(png(head, data, frame, end)) == (number, True)
        assert several.png_animation(png(head, frame, data, end)) == (number, False)
    for body in (struct.pack(">I", 3), struct.pack(">III", 3, 0, 0)):
        assert several.png_animation(png((b"acTL", body), data, end)) == (0, False)


def test_the_one_frame_of_an_animation_is_repeated_with_the_next_numbers():
    frame, rows = struct.pack(">I", 0) + b"place", struct.pack(">I", 1) + b"rows"
    head, still, end = (b"acTL", struct.pack(">II", 1, 5)), (b"IDAT", b"s"), (b"IEND", b"")
    more = [(b"fcTL", struct.pack(">I", 2) + b"place"), (b"fdAT", struct.pack(">I", 3) + b"rows")]
    once = png(head, still, (b"fcTL", frame), (b"fdAT", rows), end)
    two = (b"acTL", struct.pack(">II", 2, 5))
    twice = png(two, still, (b"fcTL", frame), (b"fdAT", rows), *more, end)
    assert several.with_second_frame(once) == twice
