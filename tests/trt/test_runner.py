"""The C++ program: its images and tiles against Python's, and what it says without TensorRT."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

import trt_plugins
from zoo.data import Photo, read_photo, write_photo
from zoo.data.pixels import to_array, to_tensor
from zoo.inference import RestoreSettings, restore_tensor
from zoo.networks import Network

EXAMPLES = Path(trt_plugins.__file__).parent / "examples"
FLAGS = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", f"-I{EXAMPLES}"]


def compiled(folder, name, *words):
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler is here")
    subprocess.run([compiler, *FLAGS, *map(str, words), "-o", str(folder / name)], check=True)
    return folder / name


@pytest.fixture(scope="module")
def probe(tmp_path_factory):
    source = Path(__file__).with_name("tiles_probe.cpp")
    return compiled(tmp_path_factory.mktemp("probe"), "tiles_probe", source)


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    sources = [EXAMPLES / "restore.cpp", EXAMPLES / "engine.cpp"]
    flag = "-DZOO_WITHOUT_TENSORRT"
    return compiled(tmp_path_factory.mktemp("program"), "zoo_restore", *sources, flag)


def run(program, *words):
    return subprocess.run(
        [str(program), *map(str, words)], capture_output=True, text=True, check=False
    )


def write_netpbm(path, pixels, most):
    """Pixels (H, W, I), integers up to ``most``; a comment in the header, as GIMP writes it."""
    magic = "P6" if pixels.shape[2] == 3 else "P5"
    header = f"{magic}\n# made by hand\n{pixels.shape[1]} {pixels.shape[0]}\n{most}\n"
    path.write_bytes(header.encode() + pixels.astype(">u2" if most > 255 else "u1").tobytes())


def read_netpbm(path):
    magic, size, most, content = path.read_bytes().split(b"\n", 3)
    width, height = map(int, size.split())
    kind = ">u2" if int(most) > 255 else "u1"
    channels = 3 if magic == b"P6" else 1
    return np.frombuffer(content, kind).reshape(height, width, channels), int(most)


class Probe(Network):
    """The function of tiles_probe.cpp: its output tells where in its tile a pixel lay."""

    scale, channels = 2, 3

    def __init__(self, channels):
        super().__init__()
        self.channels = channels
        self.placement = torch.nn.Parameter(torch.empty(0))

    def forward(self, image):
        large = image.repeat_interleave(2, 2).repeat_interleave(2, 3)
        y, x = torch.arange(large.shape[2])[:, None], torch.arange(large.shape[3])
        return large * (1 - 0.01 * y - 0.005 * x)


@pytest.mark.parametrize(
    ("height", "width", "tile", "overlap"),
    [(20, 31, 64, 8), (64, 50, 32, 8), (33, 70, 32, 16), (40, 40, 20, 0), (1, 90, 32, 4)],
)
@pytest.mark.parametrize("most", [255, 65535])
def test_tiles_are_those_of_python(height, width, tile, overlap, most, probe, tmp_path):
    pixels = np.random.default_rng(0).integers(0, most + 1, (height, width, 3))
    write_netpbm(tmp_path / "in.ppm", pixels, most)
    words = [tmp_path / "in.ppm", tmp_path / "out.ppm", tile, overlap, 1, tile, 3]
    done = run(probe, *words)
    assert done.returncode == 0, done.stderr
    found, kept = read_netpbm(tmp_path / "out.ppm")
    image = to_tensor((pixels / most).astype(np.float32))[None]
    settings = RestoreSettings(tile=tile, overlap=overlap)
    expected = to_array(restore_tensor(Probe(3), image, settings)[0])
    assert kept == most
    # The same float32 sums; where they end on half a step, rounding may go either way.
    assert np.abs(found.astype(np.int64) - np.rint(expected * most)).max() <= 1


def test_small_images_are_padded_to_the_engines_smallest(probe, tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (5, 9, 3))
    write_netpbm(tmp_path / "in.ppm", pixels, 255)
    done = run(probe, tmp_path / "in.ppm", tmp_path / "out.ppm", 32, 4, 16, 32, 3)
    assert done.returncode == 0, done.stderr
    found, _ = read_netpbm(tmp_path / "out.ppm")
    assert found.shape == (10, 18, 3)


@pytest.mark.parametrize(("given", "taken"), [(1, 3), (3, 1), (1, 1)])
def test_gray_and_colour_through_each_other(given, taken, probe, tmp_path):
    pixels = np.random.default_rng(2).integers(0, 256, (12, 14, given))
    write_netpbm(tmp_path / "in.pgm", pixels, 255)
    done = run(probe, tmp_path / "in.pgm", tmp_path / "out.pgm", 32, 4, 1, 32, taken)
    assert done.returncode == 0, done.stderr
    found, _ = read_netpbm(tmp_path / "out.pgm")
    image = to_tensor((pixels / 255).astype(np.float32))[:, None]
    expected = to_array(restore_tensor(Probe(1), image, RestoreSettings())[:, 0])
    assert np.abs(found - np.rint(expected * 255)).max() <= 1


def test_png_where_libpng_is(tmp_path):
    config = shutil.which("libpng-config")
    if config is None or not list(Path("/usr/include").glob("**/png.h")):
        pytest.skip("libpng's headers are not here")
    source = Path(__file__).with_name("tiles_probe.cpp")
    program = compiled(tmp_path, "probe", source, "-DZOO_PNG", "-lpng")
    colour = np.random.default_rng(3).random((13, 17, 3)).astype(np.float32)
    write_photo(tmp_path / "in.png", Photo(colour))
    done = run(program, tmp_path / "in.png", tmp_path / "out.png", 64, 8, 1, 64, 3)
    assert done.returncode == 0, done.stderr
    image = to_tensor(read_photo(tmp_path / "in.png").color_HWC)[None]
    expected = to_array(restore_tensor(Probe(3), image, RestoreSettings())[0])
    found = read_photo(tmp_path / "out.png").color_HWC
    assert np.abs(found - expected).max() <= 1.01 / 255


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a binary PPM"),
        (b"P3\n1 1\n255\n0 0 0", "not a binary PPM"),
        (b"P6\n4 x\n255\n", "header is damaged"),
        (b"P6\n99999999 4\n255\n", "header is damaged"),
        (b"P6\n4 4\n255\nabc", "ends early"),
    ],
)
def test_damaged_images_leave_nothing(content, message, probe, tmp_path):
    (tmp_path / "in.ppm").write_bytes(content)
    done = run(probe, tmp_path / "in.ppm", tmp_path / "out.ppm", 32, 4, 1, 32, 3)
    assert done.returncode == 2 and message in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["in.ppm"]


def test_tiles_that_make_no_sense(probe, tmp_path):
    write_netpbm(tmp_path / "in.ppm", np.zeros((64, 64, 3), int), 255)
    done = run(probe, tmp_path / "in.ppm", tmp_path / "out.ppm", 32, 17, 1, 32, 3)
    assert done.returncode == 2 and "less than twice the overlap" in done.stderr


def test_the_program_without_tensorrt(program, tmp_path):
    shown = run(program, "--help")
    assert shown.returncode == 0 and "--plugin LIBRARY" in shown.stdout
    write_netpbm(tmp_path / "in.ppm", np.zeros((4, 4, 3), int), 255)
    image, engine = tmp_path / "in.ppm", tmp_path / "a.engine"
    for words, message in [
        ([engine, image, tmp_path / "out.ppm"], "a.engine: "),
        ([engine, image], "give an engine, an input and an output"),
        ([engine, image, tmp_path / "out.jpg"], "must end in .ppm"),
        ([engine, tmp_path / "none.ppm", tmp_path / "out.ppm"], "cannot open"),
        ([engine, image, tmp_path / "out.ppm", "--tile", "x"], "--tile x: write a number"),
        ([engine, image, tmp_path / "out.ppm", "--tiles", "2"], "no such option"),
        ([engine, image, tmp_path / "out.ppm", "--plugin"], "needs a value"),
    ]:
        done = run(program, *words)
        assert done.returncode == 2 and message in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["in.ppm"]
