"""Restoring in memory: arrays, PIL images, bytes of files and tensors give their own kind."""

from __future__ import annotations

import io
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import zoo
from tests.helpers.case_names import case_name
from tests.helpers.networks import Nearest
from tests.helpers.photographs import exif
from zoo.data import Photo, read_photo, write_photo
from zoo.errors import CheckpointError, ImageError, ZooError
from zoo.networks import Network
from zoo.registry import Capabilities

RANDOM = np.random.default_rng(0)


def enlarged(image):
    """What the network computes of an array: its pixels twice."""
    return image.repeat(2, 0).repeat(2, 1)


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 1), (3, 4, 3)], ids=case_name)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "float32", "float64"])
@pytest.mark.parametrize("channels", [1, 3])
def test_an_array_gives_an_array_of_its_shape_and_dtype(shape, dtype, channels):
    high = {"uint8": 255, "uint16": 65535}.get(dtype, 1)
    image = (RANDOM.random(shape) * high).astype(dtype)
    found = zoo.restore(Nearest(channels=channels), image)
    assert found.dtype == image.dtype and found.shape == (6, 8, *shape[2:])
    tolerance = 0 if high == 255 else 1 if high > 255 else 1e-3  # of rounding to float32 or 16
    np.testing.assert_allclose(found.astype(float), enlarged(image).astype(float), atol=tolerance)


@pytest.mark.parametrize("channels", [2, 4])
def test_two_and_four_channels_are_colour_and_alpha(channels, tmp_path):
    """As in a file: alpha is enlarged by bicubic, and the network does not see it."""
    image = np.full((5, 4, channels), 200, np.uint8)
    image[2:, :, -1] = 0
    found = zoo.restore(Nearest(), image)
    swapped = image if channels == 2 else image[..., [2, 1, 0, 3]]
    if channels == 4:
        cv2.imwrite(str(tmp_path / "a.png"), swapped)
        zoo.restore(Nearest(), tmp_path / "a.png", tmp_path / "b.png", progress=False)
        stored = cv2.imread(str(tmp_path / "b.png"), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(found, stored[..., [2, 1, 0, 3]])
    assert found.shape == (10, 8, channels) and set(found[..., :-1].flat) == {200}


def test_a_network_of_other_channels_takes_them_as_they_are():
    image = RANDOM.random((3, 4, 8)).astype(np.float32)
    assert np.array_equal(zoo.restore(Nearest(channels=8), image), enlarged(image))


@pytest.mark.parametrize("shape", [(3, 5, 4), (2, 3, 5, 4)], ids=case_name)
@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "float64"])
def test_a_tensor_gives_a_tensor_of_its_shape_and_dtype(shape, dtype):
    values = torch.from_numpy(RANDOM.random(shape))
    image = (values * 255).byte() if dtype == "uint8" else values.to(getattr(torch, dtype))
    found = zoo.restore(Nearest(), image)
    expected = image.repeat_interleave(2, -1).repeat_interleave(2, -2)
    assert found.dtype == image.dtype and found.shape == expected.shape
    # The network computes in float32.
    torch.testing.assert_close(found, expected, atol=0 if dtype == "uint8" else 1e-6, rtol=1e-6)


def test_a_burst_is_a_tensor_of_frames():
    class First(Nearest):
        burst = 2
        capabilities = Capabilities(input="burst")

        def forward(self, frames_BTIHW, flow=None):
            return super().forward(frames_BTIHW[:, 0, :3])

    frames = torch.rand(2, 4, 3, 5)
    told = []
    zoo.restore(First(channels=4), torch.stack([frames] * 4), progress=told.append)
    assert told == [0.25, 0.5, 0.75, 1]
    with pytest.raises(ImageError, match="value_range is for images"):
        zoo.restore(First(channels=4), frames, value_range=(0, 2))
    found = zoo.restore(First(channels=4), frames)
    assert found.shape == (3, 6, 10) and torch.equal(found[:, ::2, ::2], frames[0, :3])
    assert torch.equal(zoo.restore(First(channels=4), torch.stack([frames, frames]))[1], found)
    with pytest.raises(ImageError, match=r"bursts are given as a path or as a tensor \(T, 4, H, W"):
        zoo.restore(First(channels=4), np.zeros((3, 4, 3), np.uint8))
    with pytest.raises(ImageError, match=r"the shape \(4, 3, 5\); for this network it is \(T, I"):
        zoo.restore(First(channels=4), frames[0])


@pytest.mark.parametrize("extension", [".png", ".jpg", ".webp", ".tif"])
def test_the_bytes_of_a_file_give_the_bytes_of_a_file_of_its_format(extension, tmp_path):
    path, out = tmp_path / f"a{extension}", tmp_path / f"b{extension}"
    write_photo(path, Photo(RANDOM.random((6, 5, 3)).astype(np.float32), None, 8))
    zoo.restore(Nearest(), path, out, progress=False)
    for kind in (bytes, bytearray, memoryview):
        assert zoo.restore(Nearest(), kind(path.read_bytes())) == out.read_bytes()
    if extension == ".jpg":
        assert len(zoo.restore(Nearest(), path.read_bytes(), quality=20)) < out.stat().st_size


def test_bytes_that_are_no_image_are_named():
    with pytest.raises(ImageError, match=r"image file '\(bytes\)' cannot be decoded: its content"):
        zoo.restore(Nearest(), b"no image")


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("L", "L"), ("LA", "LA"), ("RGB", "RGB"), ("RGBA", "RGBA"), ("1", "L"), ("P", "RGB"),
     ("I;16", "I;16")],
)  # fmt: skip
def test_a_pil_image_gives_a_pil_image(mode, expected):
    if mode == "I;16":
        image = Image.fromarray(np.arange(12, dtype=np.uint16).reshape(3, 4) * 5000)
    else:
        image = Image.fromarray(RANDOM.integers(0, 256, (3, 4, 3), np.uint8)).convert(mode)
    image.info["icc_profile"] = b"profile"
    found = zoo.restore(Nearest(), image)
    assert (found.mode, found.size, found.info) == (expected, (8, 6), {"icc_profile": b"profile"})
    given = np.asarray(image.convert(expected) if mode != expected else image)
    if mode not in ("LA", "RGBA"):  # bicubic alpha
        assert np.abs(np.asarray(found).astype(int) - enlarged(given)).max() <= (mode == "I;16")


def test_a_pil_image_keeps_its_transparency_or_is_refused():
    palette = Image.new("P", (4, 3), 1)
    palette.info["transparency"] = 1
    assert zoo.restore(Nearest(), palette).mode == "RGBA"
    with pytest.raises(ImageError, match=r"the PIL image has the mode CMYK.*convert\('RGB'\)"):
        zoo.restore(Nearest(), Image.new("CMYK", (4, 3)))


@pytest.mark.parametrize(
    ("mode", "level", "expected"), [("1", 0, "LA"), ("L", 100, "LA"), ("RGB", (100,) * 3, "RGBA")]
)
def test_a_transparent_colour_of_a_pil_image_becomes_alpha(mode, level, expected):
    image = Image.new("L", (4, 3), 255)
    image.paste(0 if mode == "1" else 100, (0, 0, 2, 3))
    image = image.convert(mode)
    image.info["transparency"] = level
    found = zoo.restore(Nearest(1), image)
    assert found.mode == expected and "transparency" not in found.info
    assert np.asarray(found)[..., -1].tolist() == [[0, 0, 255, 255]] * 3


def test_a_deep_pil_image_with_a_transparent_level_is_refused():
    image = Image.fromarray(np.zeros((3, 4), np.uint16))
    image.info["transparency"] = 0
    with pytest.raises(ImageError, match="16 bits and a transparent level"):
        zoo.restore(Nearest(), image)


@pytest.mark.parametrize("kind", ["gif", "png", "webp", "tiff"])
def test_an_animation_of_pil_is_not_restored_as_its_first_frame(kind):
    from PIL import ImageSequence

    frames = [Image.new("RGB", (4, 3), colour) for colour in ("red", "lime", "blue")]
    held = io.BytesIO()
    frames[0].save(held, kind, save_all=True, append_images=frames[1:])
    image = Image.open(held)
    with pytest.raises(ImageError, match=r"has 3 frames.*frame\.copy\(\)"):
        zoo.restore(Nearest(), image)
    done = [zoo.restore(Nearest(), frame.copy()) for frame in ImageSequence.Iterator(image)]
    assert len(done) == 3
    if kind in ("gif", "webp"):
        with pytest.raises(
            ImageError, match="save the bytes as FILE, run 'zoo data frames FILE -o "
        ):
            zoo.restore(Nearest(), held.getvalue())


def test_a_view_beside_the_picture_of_pil_is_said(caplog):
    held = io.BytesIO()
    Image.new("RGB", (4, 3)).save(
        held, "MPO", save_all=True, append_images=[Image.new("RGB", (4, 3))]
    )
    assert zoo.restore(Nearest(), Image.open(held)).size == (8, 6)
    assert "has 2 pictures; the current one is restored" in caplog.text


def test_a_pil_image_says_its_new_size_and_resolution():
    image = Image.new("RGB", (36, 24))
    image.info |= {"dpi": (300, 200), "exif": b"Exif\0\0" + exif(), "xmp": b"packet"}
    found = zoo.restore(Nearest(), image)
    assert found.info["dpi"] == (600, 400) and found.info["xmp"] == b"packet"
    said = found.getexif()
    below = said.get_ifd(0x8769)
    assert (said[282], said[283]) == (600, 400)
    assert (below[0xA002], below[0xA003]) == found.size == (72, 48)
    assert zoo.restore(Nearest(), image, strip_metadata=True).info == {}
    image.info = {"exif": b"no block"}
    assert zoo.restore(Nearest(), image).info == {"exif": b"no block"}


def test_options_of_files_that_have_no_effect_in_memory_are_refused():
    for image in (np.zeros((3, 4, 3)), torch.zeros(3, 3, 4), Image.new("RGB", (4, 3))):
        for given in ({"quality": 80}, {"lossless": True}):
            with pytest.raises(ImageError, match=f"{next(iter(given))} is for files; leave it out"):
                zoo.restore(Nearest(), image, **given)
    for image in (np.zeros((3, 4, 3)), torch.zeros(3, 3, 4)):
        with pytest.raises(ImageError, match="strip_metadata has no effect"):
            zoo.restore(Nearest(), image, strip_metadata=True)
    held = io.BytesIO()
    Image.new("RGB", (4, 3)).save(held, "PNG")
    network = Nearest()
    with pytest.raises(ImageError, match="PNG has no quality"):
        zoo.restore(network, held.getvalue(), quality=80)
    assert not network.sizes


def test_a_model_is_named_in_place_of_a_network(tmp_path):
    image = RANDOM.integers(0, 256, (6, 5, 3), np.uint8)
    expected = zoo.restore(zoo.load("mambair_tiny_x2"), image)
    assert np.array_equal(zoo.restore("mambair_tiny_x2", image), expected)
    assert expected.shape == (12, 10, 3) and len(np.unique(expected)) > 10
    write_photo(tmp_path / "a.png", Photo(image.astype(np.float32) / 255))
    zoo.restore("mambair_tiny_x2", tmp_path / "a.png", tmp_path / "b.png", progress=False)
    assert np.array_equal(np.round(read_photo(tmp_path / "b.png").color_HWC * 255), expected)
    with pytest.raises(CheckpointError, match="did you mean 'mambair_tiny_x2'"):
        zoo.restore("mambair_tny_x2", image)


WRONG = [
    (np.zeros((3, 4, 5)), r"shape \(3, 4, 5\).*; its channels are first: use .*\(1, 2, 0\)"),
    (np.zeros((7, 4, 7)), r"shape \(7, 4, 7\); .* with C = 1 or 2 or 3 or 4, or \(H, W\)$"),
    (np.zeros((2, 4, 4, 3)), r"shape \(2, 4, 4, 3\); .*restore the images of a batch one by one"),
    (np.zeros(4), r"shape \(4,\); an image is \(H, W, C\)"),
    (np.zeros((0, 4, 3)), r"shape \(0, 4, 3\)"),
    (np.zeros((4, 4, 3), np.int64), "the array has int64 values; an image has uint8 from 0 to 255"),
    (np.zeros((4, 4, 3), bool), "the array has bool values"),
    (np.full((4, 4, 3), 200.0), "the image has values up to 200; .* divide it by 255"),
    (np.full((4, 4, 3), -1.0), "the image has values down to -1; networks take 0 to 1"),
    (torch.zeros(4, 5, 3), r"shape \(4, 5, 3\).*its channels are last: use x.movedim\(-1, -3\)"),
    (torch.zeros(2, 4, 5, 3), r"its channels are last"),
    (torch.zeros(1, 4, 5), r"shape \(1, 4, 5\); .* with I = 3$"),
    (torch.zeros(4, 5), r"shape \(4, 5\); for this network it is \(I, H, W\) or \(B, I, H, W\)"),
    (torch.zeros(3, 4, 5, dtype=torch.int32), "the tensor has int32 values"),
    (torch.full((3, 4, 5), 255.0), "the image has values up to 255"),
    ([[0.5]], "an image is a path, a NumPy array, .* not list"),
]


@pytest.mark.parametrize(("image", "message"), WRONG, ids=[str(i) for i in range(len(WRONG))])
def test_what_is_no_image_is_told_in_one_sentence(image, message):
    with pytest.raises(ZooError, match=message) as found:
        zoo.restore(Nearest(), image)
    assert len(str(found.value)) < 300


def test_what_is_for_files_is_refused_for_an_image_in_memory(tmp_path):
    image = np.zeros((3, 4, 3), np.uint8)
    for name, value in {"overwrite": True, "suffix": "x", "look": "plain"}.items():
        with pytest.raises(ImageError, match=f"{name} is for files"):
            zoo.restore(Nearest(), image, **{name: value})
    with pytest.raises(ImageError, match="target is for files"):
        zoo.restore(Nearest(), image, tmp_path / "a.png")
    with pytest.raises(ImageError, match=r"a\.png: give the file or folder to write, too"):
        zoo.restore(Nearest(), tmp_path / "a.png")


class Ranged(Nearest):
    """A network that was trained on values from 100 to 4100."""

    recipe = SimpleNamespace(train={"data": {"range": [100, 4100]}})


@pytest.mark.parametrize("dtype", ["uint16", "float32", "float64"])
@pytest.mark.parametrize("channels", [1, 3, 8])
def test_arrays_and_tensors_have_the_trained_range_as_the_bytes_of_their_file(dtype, channels):
    values = RANDOM.integers(0, 4300, (5, 6, channels)).astype(dtype)
    network = Ranged(channels=channels)
    if channels in (1, 3):  # alpha has the range of its type
        opaque = np.full((5, 6, 1), 65535 if dtype == "uint16" else 1, dtype)
        found = zoo.restore(network, np.concatenate([values, opaque], axis=2))
        assert (found[..., -1] == opaque[0, 0, 0]).all() and np.array_equal(
            found[..., :-1], zoo.restore(network, values)
        )
    stored = io.BytesIO()
    np.save(stored, values)
    expected = np.atleast_3d(np.load(io.BytesIO(zoo.restore(network, stored.getvalue()))))
    assert np.array_equal(zoo.restore(network, values), expected)
    np.testing.assert_allclose(expected, enlarged(values.clip(100, 4100)), atol=1e-3)
    plain = Nearest(channels=channels)
    assert np.array_equal(zoo.restore(plain, values, value_range=(100, 4100)), expected)
    tensor = torch.from_numpy(values.transpose(2, 0, 1).copy())
    found = zoo.restore(network, tensor)
    assert found.dtype == tensor.dtype and not found.is_inference()
    np.testing.assert_allclose(found.numpy().transpose(1, 2, 0), expected, atol=1e-3)


def test_an_array_has_no_data_where_it_is_nan_and_a_tensor_may_not_be_nan(caplog):
    image = RANDOM.random((4, 5, 3)).astype(np.float32)
    expected = enlarged(image)
    image[1, 2] = np.nan
    expected[2:4, 4:6] = np.nan
    for network, options in ((Nearest(), {}), (Nearest(), {"value_range": (0, 1)})):
        np.testing.assert_allclose(zoo.restore(network, image, **options), expected, atol=1e-6)
        assert "the array has 1 pixels without data" in caplog.text
        with pytest.raises(ZooError, match="NaN or infinite values; replace them first"):
            zoo.restore(network, torch.from_numpy(image).permute(2, 0, 1), **options)


def test_shares_of_values_are_told_as_people_write_them(caplog):
    image = np.full((2, 500), 9, np.float32)
    zoo.restore(Nearest(channels=1), image, value_range=(0, 1))
    assert "100 % of the values are outside (0.0, 1.0)" in caplog.text
    image[:] = np.nan
    image[0, 0] = 0
    zoo.restore(Nearest(channels=1), image)
    assert "has 999 pixels without data (100 %:" in caplog.text


@pytest.mark.parametrize("alpha", [255.0, -1.0, np.nan])
def test_alpha_of_floats_is_from_0_to_1(alpha):
    image = np.ones((4, 5, 4))
    image[1, 2, 3] = alpha
    with pytest.raises(ImageError, match="it is alpha, which is from 0 to 1"):
        zoo.restore(Nearest(), image)
    image[1, 2, 3] = 0  # bicubic interpolation overshoots beside it
    found = zoo.restore(Nearest(), image)[..., 3]
    assert found.min() >= 0 and found.max() <= 1


def test_tensors_without_values_of_their_own_are_refused():
    with pytest.raises(ImageError, match=r"stored as torch\.sparse_coo; use x\.to_dense\(\)"):
        zoo.restore(Nearest(), torch.zeros(3, 4, 5).to_sparse())
    with pytest.raises(ImageError, match="on the device meta, so it has no values"):
        zoo.restore(Nearest(), torch.zeros(3, 4, 5, device="meta"))


def test_a_compiled_network_is_restored_with():
    image = RANDOM.random((4, 5, 3)).astype(np.float32)
    compiled = torch.nn.Module()  # torch.compile takes seconds
    compiled._orig_mod = Nearest()
    assert np.array_equal(zoo.restore(compiled, image), enlarged(image))
    with pytest.raises(ZooError, match="Linear is no network of this package"):
        zoo.restore(torch.nn.Linear(1, 1), image)


@pytest.mark.parametrize("value_range", [(1, 0), (0, 1, 2), 5, ("a", "b")], ids=str)
def test_a_range_that_is_none_is_told_in_one_sentence(value_range):
    with pytest.raises(ZooError, match="it must be the value that is black and the larger value"):
        zoo.restore(Nearest(), np.zeros((4, 5, 3), np.float32), value_range=value_range)


def test_the_image_that_is_given_stays_as_it_is():
    values = RANDOM.random((3, 4, 4)).astype(np.float32)
    before = values.copy()
    zoo.restore(Nearest(), values)
    assert np.array_equal(values, before)


class Recoloured(Network):
    """Other channels out than in: the first channel times 1, 1/2, 1/3 ..."""

    scale = 1

    def __init__(self, channels, out_channels):
        super().__init__()
        self._set_sizes(scale=1, channels=channels, out_channels=out_channels)
        self.unit = torch.nn.Parameter(torch.ones(()))

    def forward(self, image_BIHW):
        parts = 1 / torch.arange(1.0, self.out_channels + 1)[:, None, None]
        return image_BIHW[:, :1] * parts * self.unit


@pytest.mark.parametrize("kind", ["uint8", "uint16"])
def test_a_gray_array_becomes_all_channels_that_the_network_returns(kind):
    """Only the first one came back: a network that colours seemed to do nothing."""
    gray = np.full((4, 5), 240, kind)
    found = zoo.restore(Recoloured(1, 3), gray)
    assert found.shape == (4, 5, 3) and found[0, 0].tolist() == [240, 120, 80]
    colour = gray[..., None].repeat(3, 2)
    assert zoo.restore(Recoloured(3, 1), colour).shape == (4, 5, 1)


def test_a_pil_image_takes_the_mode_of_what_the_network_returns():
    gray, colour = Image.new("L", (5, 4), 240), Image.new("RGB", (5, 4), (240, 0, 0))
    found = zoo.restore(Recoloured(1, 3), gray)
    assert found.mode == "RGB" and found.getpixel((0, 0)) == (240, 120, 80)
    found = zoo.restore(Recoloured(3, 1), colour)
    assert found.mode == "L" and found.getpixel((0, 0)) == 240
    for channels in (2, 8):
        with pytest.raises(ImageError, match=f"returns {channels} channels, which no PIL image"):
            zoo.restore(Recoloured(3, channels), colour)
    with pytest.raises(ImageError, match="16 bits and 3 channels, which PIL does not have"):
        zoo.restore(Recoloured(1, 3), Image.new("I;16", (5, 4)))


def test_a_masked_array_says_how_to_give_what_has_no_data():
    masked = np.ma.masked_greater(RANDOM.random((4, 4, 3)), 0.5)
    with pytest.raises(ImageError, match=r"use image\.filled\(numpy\.nan\)"):
        zoo.restore(Nearest(), masked)


class Bad(Nearest):
    """Returns NaN in one place."""

    def forward(self, image_BIHW):
        found = super().forward(image_BIHW)
        found[..., 0, 0] = float("nan")
        return found


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 5, 3), np.uint8),
        torch.zeros(3, 4, 5, dtype=torch.uint8),
        torch.zeros(3, 4, 5, dtype=torch.uint16),
        torch.zeros(2, 3, 4, 5),
    ],
    ids=["array", "uint8", "uint16", "float32"],
)
def test_a_result_that_is_not_finite_is_an_error(image):
    with pytest.raises(ImageError, match=r"the result has NaN or infinite values; .* fp16"):
        zoo.restore(Bad(), image)


@pytest.mark.parametrize(
    ("mode", "fix"),
    [
        ("I", r"numpy.asarray\(image\).astype\('uint16'\)"),
        ("F", r"numpy.asarray\(image\), with value_range=\(LOW, HIGH\)"),
        ("CMYK", r"image.convert\('RGB'\)"),
    ],
)
def test_a_pil_image_without_a_range_says_how_to_keep_its_values(mode, fix):
    with pytest.raises(ImageError, match=rf"mode {mode}, which has no defined range here; .*{fix}"):
        zoo.restore(Nearest(), Image.new(mode, (4, 5)))


def test_the_advice_for_a_pil_image_of_whole_numbers_keeps_its_values():
    values = np.linspace(0, 65535, 20).reshape(4, 5).astype(np.int32)
    image = Image.fromarray(values, "I")
    found = zoo.restore(Nearest(1), np.asarray(image).astype("uint16"))
    assert np.array_equal(found, values)
