"""The command line: what it prints, and that every mistake is one line and exit code 2."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import zoo
from tests.helpers.command_line import photo_in, run, shown
from zoo.blocks import Mixer
from zoo.checkpoints import shipped_weights
from zoo.cli import COMMANDS, GROUPS
from zoo.command import COMMON_OPTIONS, leading_options, package_version
from zoo.data import read_photo
from zoo.data.formats import FORMATS
from zoo.plots.scan_order import render_order
from zoo.recipe import load_recipe
from zoo.registry import kinds, temporary_registrations
from zoo.scans import ScanOrder, Window

ROOT = Path(zoo.__file__).parents[1]


@pytest.fixture
def photo(tmp_path):
    return photo_in(tmp_path)


def test_lists_show_what_matches_and_whose_weights_ship(capsys):
    assert run("list", "*_x2") == 0
    lines = capsys.readouterr().out.splitlines()
    names = [line.split()[0] for line in lines[:-2]]
    assert names == zoo.list_models("*_x2") and lines[-1] == "* weights ship with the package"
    marked = [line.split()[0] for line in lines[:-2] if line.split()[1] == "*"]
    assert marked == [name for name in names if name in shipped_weights()] and marked
    assert run("list", "r*", "--parts") == 0
    assert capsys.readouterr().out.split() == zoo.list_parts(pattern="r*")


def test_listing_models_does_not_load_torch():
    """It takes seconds. A mistake is told without it, too."""
    probe = (
        "import sys, zoo.cli; codes = [zoo.cli.main(['list']), zoo.cli.main(['list', 'zzz'])]; "
        "sys.exit('torch' in sys.modules or codes != [0, 2])"
    )
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    found = subprocess.run(
        [sys.executable, "-c", probe], env={**os.environ, "PYTHONPATH": paths}, capture_output=True
    )
    assert found.returncode == 0


@pytest.mark.parametrize("kind", kinds())
def test_every_kind_of_part_is_listed_and_shown(kind, capsys):
    assert run("list", "--parts", kind) == 0
    names = capsys.readouterr().out.split()
    assert names == zoo.list_parts(kind) and names
    for name in names:
        assert run("show", f"{kind}/{name}") == 0
        first = capsys.readouterr().out.splitlines()[0]
        assert re.fullmatch(rf"{kind}/{name}: [^:].*[^:]", first)


def test_show_tells_the_options_of_parts_inside_a_part(capsys):
    assert run("show", "block/rssb") == 0
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()[1:]]
    options = {name: text.strip() for name, text in lines}
    assert options["mixer"] == "mixer = ss2d" and options["mixer.d_state"] == "int = 16"
    assert options["mixer.norm.eps"] == "float = 1e-05"
    # Each line is an override as it stands.
    built = zoo.build("mambair_tiny_x2", **{"block.mixer.norm.eps": 0.5, "depths": [1]})
    assert any(getattr(module, "eps", None) == 0.5 for module in built.modules())


def test_show_tells_the_settings_of_a_default_part_and_the_fields_of_a_section():
    options = zoo.describe("network/single_image").options
    assert options["coarse.fusion.scan.size"] == "int = 16"
    with temporary_registrations():

        @zoo.register("mixer", "mine")
        class Mine(Mixer):
            def __init__(self, dim, *, scan=None, order: ScanOrder = Window(size=5)): ...  # noqa: B008

        assert zoo.describe("mixer/mine").options["order.size"].endswith("= 5")


def test_a_derived_recipe_does_not_show_the_summary_and_paper_of_another(tmp_path, capsys):
    path = tmp_path / "mine.yaml"
    path.write_text("extends: mambair_light_x2\nnetwork: {dim: 30, depths: [1]}\n")
    assert run("show", path) == 0
    text = capsys.readouterr().out
    assert text.startswith("mine: a recipe that extends mambair_light_x2\n")
    assert re.search(r"^  paper +-$", text, re.MULTILINE) and "arXiv" not in text
    path.write_text(path.read_text() + "summary: my own\n")
    assert run("show", path) == 0 and capsys.readouterr().out.startswith("mine: my own\n")
    # A paper has several networks.
    assert load_recipe("mambair_dn25").paper == load_recipe("mambair_dn15").paper is not None


def test_an_unknown_model_suggests_the_nearest_names_first(capsys):
    assert run("show", "mambair_x2") == 2
    said = capsys.readouterr().err
    assert said.endswith(
        "unknown model 'mambair_x2'; did you mean 'mambair_tiny_x2', 'mambair_light_x2' or "
        "'mambair_classic_x2'?\n"
    )
    assert run("show", "MambaIR-lightSR-x4") == 2
    assert "did you mean 'mambair_light_x4'" in capsys.readouterr().err
    assert run("show", "tiny") == 2  # no name is close, so the known ones follow
    known = capsys.readouterr().err.rpartition("known: ")[2].split(", ")
    tiny = ["tiny" in name for name in known]
    assert tiny == sorted(tiny, reverse=True) and tiny[0] and not tiny[-1]


def test_show_counts_operations_for_the_size_and_shows_the_recipe_if_asked(capsys):
    assert run("show", "mambair_tiny_x2") == 0
    text = capsys.readouterr().out
    assert "GFLOPs for 64 x 64" in text and "d_state" not in text
    assert run("show", "mambair_tiny_x2", "--size", "16x24") == 0
    assert "GFLOPs for 16 x 24" in capsys.readouterr().out


def test_lists_and_descriptions(capsys):
    assert run("list", "--parts", "head") == 0
    assert capsys.readouterr().out.split()[-1] == "residual"
    assert run("show", "mambair_tiny_x2", "--recipe") == 0
    shown = capsys.readouterr().out
    described, _, recipe = shown.partition("\n\n")
    assert "parameters" in described and "d_state: 4" in recipe
    assert run("show", "block/rssb") == 0
    assert capsys.readouterr().out.startswith("block/rssb: ")
    assert run("doctor") == 0
    told = capsys.readouterr().out
    assert re.search(r"^  yes  chunked    ", told, re.MULTILINE)
    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    machine = f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads"
    ships = f"{len(zoo.list_models())} models; weights ship for {', '.join(shipped_weights())}"
    assert told.splitlines()[1:4] == [
        *(f"{machine}, CUDA {cuda}", ships, "selective-scan backends, best first:"),
    ]
    assert "\nimage files:\n" in told
    for each in FORMATS:
        assert re.search(rf"^  (yes|no ) +{re.escape(each.name)} ", told, re.MULTILINE), each.name
        assert f"read{' and written' if each.encode else ''}: {', '.join(each.extensions)}" in told
    with pytest.raises(SystemExit) as stop:
        run("--help")
    assert stop.value.code == 0
    assert "restore" in capsys.readouterr().out


def test_drawing_a_scan_of_the_size_and_options_that_were_asked_for(tmp_path):
    path = tmp_path / "a.png"
    assert run("scans", "plot", "window", "size=4", "--size", "8x12", "-o", path) == 0
    expected = render_order(Window(size=4), 8, 12)
    assert np.array_equal(np.round(read_photo(path).color_HWC * 255), expected)
    assert run("scans", "plot", "window", "-o", path) == 0
    expected = render_order(Window(size=8), 16, 16)
    assert np.array_equal(np.round(read_photo(path).color_HWC * 255), expected)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["restore", "PHOTO", "-o", "OUT", "--random-weights"], "name a model with -n"),
        (["restore", "PHOTO", "-o", "OUT", "-s", "3"], "-s 3: without -n, the scale is 2 or 4"),
        (
            ["restore", "PHOTO", "-o", "OUT", "-n", "mambair_lite_x4"],
            "did you mean 'mambair_light_x4'",
        ),
        (["restore", "PHOTO", "-o", "OUT", "-n", "mambair_light_x4"], "no weights ship"),
        (
            ["restore", "PHOTO", "-o", "OUT", "-n", "mambair_tiny_x2", "-s", "4"],
            "the scale of mambair_tiny_x2 is 2",
        ),
        (
            ["restore", "PHOTO", "-o", "OUT", "-n", "mambair_tiny_x2", "-t", "9", "--overlap", "5"],
            "twice the overlap",
        ),
        (["restore", "PHOTO", "-o", "OUT", "-w", "TEXT"], "text.png: text, not weights"),
        (["restore", "TEXT", "-o", "OUT", "-n", "mambair_tiny_x2"], "text.png' cannot be decoded"),
        (["restore", "EMPTY", "-o", "OUT/", "-n", "mambair_tiny_x2"], "holds no image"),
        (["restore", "missing.png", "-o", "OUT", "-n", "mambair_tiny_x2"], "does not exist"),
        (["restore", "PHOTO", "-o", "OUT.txt", "-n", "mambair_tiny_x2"], "not written as '.txt'"),
        (["restore", "", "-o", "OUT", "-n", "mambair_tiny_x2"], "the argument is empty, as if"),
        (
            ["restore", "PHOTO", "-o", "", "-n", "mambair_tiny_x2"],
            "the argument after '-o' is empty",
        ),
        (["restore", "PHOTO", "--output=", "-n", "mambair_tiny_x2"], "of '--output' is empty"),
        (["convert", "", "-o", "OUT.safetensors"], "the argument is empty"),
        (["data", "prepare", "EMPTY", "-o", ""], "the argument after '-o' is empty"),
        (["train", "mambair_tiny_x2", "-o", ""], "the argument after '-o' is empty"),
        (
            ["restore", "PHOTO", "-o", "n" * 300 + ".png", "-n", "mambair_tiny_x2"],
            "n.png: cannot write: File name too long; choose another place",
        ),
        (["restore", "PHOTO", "-o", "TEXT/x.png", "-n", "mambair_tiny_x2"], "text.png"),
        (
            ["restore", "PHOTO", "-o", "OUT", "-n", "mambair_tiny_x2", "--import", "nope"],
            "--import nope",
        ),
        (["list", "zzz"], "no model matches 'zzz'"),
        (["list", "--parts", "blok"], "did you mean 'block'"),
        (["show", "block/rsb"], "did you mean 'rssb'"),
        (["convert", "missing.pth", "-o", "OUT.safetensors"], "does not exist"),
        (["scans", "plot", "knight", "-o", "OUT"], "unknown scan 'knight'"),
        (["scans", "plot", "window", "sise=8", "-o", "OUT"], "did you mean 'size'"),
        (["scans", "plot", "raster", "--size", "8", "-o", "OUT"], "write height x width"),
        (["scans", "plot", "hilbert", "--size", "²x4", "-o", "OUT"], "write height x width"),
        (
            ["train", "mambair_tiny_x2", "--num-workers", "-1"],
            "-1: give a whole number from 0 to 256",
        ),
        (["train", "mambair_tiny_x2", "--num-workers", "9" * 5000], "from 0 to 256"),
        (["restore", "PHOTO", "-o", "OUT", "-t", "-1"], "--tile -1: give a whole number"),
        (["restore", "PHOTO", "-o", "OUT", "-s", "0"], "--scale 0: give a whole number from 1"),
        (["restore", "PHOTO", "-o", "OUT", "--overlap", "x"], "--overlap x: give a whole number"),
        (["evaluate", "mambair_tiny_x2", "-t", "1.5"], "--tile 1.5: give a whole number"),
        (["train", "mambair_tiny_x2", "--budget", "9" * 400 + "d"], "write a duration such as"),
        (["train", "mambair_tiny_x2", "optimizer.lr=-1"], "train.optimizer: lr is -1.0; it must"),
        (["show", "mambair_tiny_x2", "--size", "9" * 5000 + "x1"], "write height x width"),
        (["show", "mambair_tiny_x2", "--size", "99999x99999"], "give at most 268435456 pixels"),
        (["data", "prepare", "EMPTY", "-o", "OUT", "--step", "0"], "--step 0: give a whole number"),
        (["export", "onnx", "-n", "mambair_tiny_x2", "--opset", "17"], "--opset 17: give a whole"),
        (["export", "onnx", "-n", "mambair_tiny_x2", "--shape", "1x3x²x8"], "1x3x²x8"),
        (["evaluate", "mambair_tiny_x2", "--device", "cuda:" + "9" * 5000], "unknown device"),
        (
            ["restore", "PHOTO", "-o", "OUT", "-n", "mambair_tiny_x2", "--device", "foo"],
            "--device foo: unknown device; known: auto, cpu, cuda, cuda:N, mps",
        ),
        (
            ["evaluate", "mambair_tiny_x2", "--device", "meta", "-o", "OUT"],
            "--device meta: unknown device; known: auto, cpu, cuda",
        ),
        (
            ["train", "mambair_tiny_x2", "--device", "cuda:", "-o", "EMPTY"],
            "--device cuda:: unknown device",
        ),
    ],
)
def test_mistakes(tmp_path, photo, capsys, words, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.png").write_text("no image")
    places = {"PHOTO": photo, "EMPTY": tmp_path / "empty", "TEXT": tmp_path / "text.png"}
    before = sorted(tmp_path.rglob("*"))
    filled = []
    for word in words:
        for name, place in places.items():
            word = word.replace(name, str(place))
        filled.append(word.replace("OUT", str(tmp_path / "out.png")))
    assert run(*filled) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert (
        message in error[-1]
        and len(error[-1]) < 500
        and re.match(r"zoo( [a-z ]+)?: error: ", error[-1])
    )
    assert not any("Traceback" in line for line in error)
    assert sorted(tmp_path.rglob("*")) == before


def test_doctor_checks_the_backend_that_the_environment_requests(monkeypatch, capsys):
    monkeypatch.setenv("ZOO_SCAN_BACKEND", "chunked")
    assert run("doctor") == 0
    assert "ZOO_SCAN_BACKEND=chunked" in capsys.readouterr().out
    monkeypatch.setenv("ZOO_SCAN_BACKEND", "chunkd")
    assert run("doctor") == 2
    said = capsys.readouterr()
    assert "ZOO_SCAN_BACKEND=chunkd" in said.out and "did you mean 'chunked'" in said.err
    monkeypatch.setattr("zoo.ops.scan.chunked.unavailable", lambda: "it is ill")
    monkeypatch.setenv("ZOO_SCAN_BACKEND", "chunked")
    assert run("doctor") == 2
    error = capsys.readouterr().err
    assert error == "zoo doctor: error: backend 'chunked' was requested but cannot run: it is ill\n"


def in_a_shell(line):
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    command = f"{sys.executable} -c 'import sys, zoo.cli; sys.exit(zoo.cli.main())'"
    return subprocess.run(
        ["bash", "-c", line.replace("ZOO", command)],
        env={**os.environ, "PYTHONPATH": paths, "PYTHONUNBUFFERED": ""},
        capture_output=True,
        text=True,
    )


@pytest.mark.skipif(sys.platform != "linux", reason="needs bash and /dev/full")
def test_output_that_cannot_be_written():
    message = "error: standard output: cannot write: No space left on device\n"
    # Without a buffer, Python's argparse ignores that the help cannot be written.
    for words in ("ZOO list", "ZOO --help", "PYTHONUNBUFFERED=1 ZOO --help"):
        # The reader is gone before the command prints.
        found = in_a_shell(f"{{ sleep 0.1; {words}; echo $? >&2; }} | exec true")
        assert found.stderr == "141\n"
        if words != "ZOO --help":
            found = in_a_shell(f"{words} > /dev/full")
            name = words.rpartition("ZOO")[2].partition("-")[0]
            assert (found.returncode, found.stderr) == (2, f"zoo{name.rstrip()}: {message}")
    found = in_a_shell("ZOO list >&-")
    assert (found.returncode, found.stderr) == (0, "")


def test_debug_shows_the_traceback(photo, tmp_path):
    with pytest.raises(zoo.errors.ZooError):
        run("restore", photo, "-o", tmp_path / "o.png", "-n", "nothing", "--debug")


def test_the_version(capsys):
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", zoo.__version__)
    assert zoo.__version__ == package_version()
    assert shown(capsys, "--version") == (f"zoo {zoo.__version__}\n", 0)
    assert shown(capsys, "--vers")[1] == 2  # options are not abbreviated
    assert "required: COMMAND" in shown(capsys)[0]
    assert run("doctor") == 0
    assert f"zoo {zoo.__version__}, Python" in capsys.readouterr().out


def test_the_version_and_the_help_do_not_load_torch():
    probe = (
        "import sys, zoo, zoo.cli; zoo.__version__; parser = zoo.cli._parser(); "
        "parser.format_help(); sys.exit('torch' in sys.modules)"
    )
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths}
    assert subprocess.run([sys.executable, "-c", probe], env=environment).returncode == 0


@pytest.mark.parametrize("name", COMMANDS)
def test_forwarded_commands_show_the_name_that_was_typed(capsys, name):
    text, code = shown(capsys, *name.split(), "--help")
    assert code == 0 and text.startswith(f"usage: zoo {name} ")
    assert "--import" in text and "--debug" in text
    text, code = shown(capsys, *name.split(), "--no-such-option")
    assert code == 2 and f"zoo {name}: error: " in text


@pytest.mark.parametrize("name", GROUPS)
def test_groups_list_their_commands(capsys, name):
    text, code = shown(capsys, name, "--help")
    assert code == 0
    members = [full.split()[1] for full in COMMANDS if full.startswith(f"{name} ")]
    assert members and all(re.search(rf"^    {member}\s", text, re.MULTILINE) for member in members)
    assert shown(capsys, name)[1] == 2
    text, code = shown(capsys, name, "nothing")
    assert code == 2 and "invalid choice: 'nothing'" in text


def test_errors_of_forwarded_commands(tmp_path, capsys):
    assert run("export", "onnx", "-n", "mambair_lite_x4", "-o", tmp_path / "a.onnx") == 2
    error = capsys.readouterr().err
    assert error.startswith("zoo export onnx: error: unknown model 'mambair_lite_x4'; did you mean")
    assert run("train", "mambair_tiny_x2", "iterations") == 2
    assert capsys.readouterr().err.startswith("zoo train: error: 'iterations' is not a setting")


def test_common_options_may_stand_before_a_forwarded_command(tmp_path, capsys):
    assert run("--import", "nope", "export", "onnx", "-n", "mambair_tiny_x2") == 2
    assert capsys.readouterr().err.startswith("zoo export onnx: error: --import nope: no module")
    with pytest.raises(zoo.errors.ZooError):
        run("--debug", "train", "nothing")
    imports = ["--import", "zoo.heads", "--import=zoo.scans"]
    assert run(*imports, "scans", "plot", "knight", "-o", "x") == 2
    assert "unknown scan 'knight'" in capsys.readouterr().err
    for option, settings in COMMON_OPTIONS.items():
        value = ["json" if option == "--import" else "5"] if "metavar" in settings else []
        for words in ([option, *value], [f"{option}={value[0]}"] if value else []):
            assert leading_options([*words, "train", option]) == len(words)
    assert run("--max-parameters", 5, "train", "mambair_tiny_x2", "-o", tmp_path / "run") == 2
    assert "parameters" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        run("--import", "train")  # a command is missing: "train" is the module
    assert stop.value.code == 2
