"""What the app does without its page: jobs, previews, networks on offer, the command's errors."""

from __future__ import annotations

import logging
import shutil
import socket
import sys
import threading
import zipfile

import numpy as np
import pytest
from PIL import Image

import zoo
from tests.helpers.networks import Nearest
from tests.helpers.small_weights import small_network
from zoo.app import work
from zoo.app.models import DEFAULT, Models
from zoo.app.server import check_address, is_loopback
from zoo.app.visitors import Visitors
from zoo.app.work import Cancelled, Job, packed
from zoo.cli import main
from zoo.commands import app
from zoo.data import Photo, read_photo, write_photo
from zoo.errors import ZooError
from zoo.inference import RestoreSettings

OTHERS = [
    *("mambacsr_tiny_x2", "mambacsr_tiny_x4", "mambair_tiny_denoise", "mambair_tiny_jpeg"),
    *("mambair_tiny_photo_x4", "mambair_tiny_x2", "mambair_tiny_x4"),
]
"""Models whose weights ship and that take one photo, other than the default one."""

SETTINGS = RestoreSettings()


def photo(path, height=6, width=8, channels=3, **facts):
    values = np.random.default_rng(0).integers(0, 256, (height, width, channels)) / 255
    write_photo(path, Photo(values.astype(np.float32), **facts))
    return path


def twice(values):
    return values.repeat(2, 0).repeat(2, 1)


def folder_of(tmp_path):
    (tmp_path / "job").mkdir()
    return tmp_path / "job"


def test_each_photo_is_restored_under_its_name(tmp_path):
    first, second = photo(tmp_path / "a.png"), photo(tmp_path / "b.webp", 4, 5)
    told = []
    job = Job(folder_of(tmp_path))
    found = [*job.run(Nearest(), [first, second], SETTINGS, progress=told.append)]
    assert [result.name for result in found] == ["a.png", "b.webp"]
    assert [result.output.name for result in found] == ["a_x2.png", "b_x2.webp"]
    for result, source in zip(found, (first, second), strict=True):
        expected = twice(read_photo(source).color_HWC)
        np.testing.assert_array_equal(read_photo(result.output).color_HWC, expected)
    assert told[0] == 0 and told[-1] == 1 and told == sorted(told) and 0.5 in told


def test_the_preview_is_both_pictures_with_8_bits(tmp_path):
    alpha = np.linspace(0, 1, 48, dtype=np.float32).reshape(6, 8)
    source = photo(tmp_path / "a.png", bit_depth=16, alpha_HW=alpha)
    [result] = Job(folder_of(tmp_path)).run(Nearest(), [source], SETTINGS)
    assert read_photo(result.output).bit_depth == 16
    preview = result.preview
    assert (preview.width, preview.height, preview.cut) == (16, 12, False)
    before, after = read_photo(preview.before), read_photo(preview.after)
    assert before.bit_depth == after.bit_depth == 8
    assert before.color_HWC.shape == (6, 8, 3) and after.alpha_HW.shape == (12, 16)
    np.testing.assert_allclose(before.color_HWC, read_photo(source).color_HWC, atol=1 / 500)
    np.testing.assert_allclose(after.color_HWC, read_photo(result.output).color_HWC, atol=1 / 500)


def test_a_gray_photo_that_becomes_a_picture_in_colour_is_shown_and_bands_are_not(tmp_path):
    class Colours(Nearest):
        def forward(self, image_BIHW):
            return super().forward(image_BIHW).repeat(1, self.out_channels, 1, 1)

    source = photo(tmp_path / "a.png", channels=1)
    (tmp_path / "job").mkdir()
    for channels, shown in ((3, True), (2, False)):
        network = Colours(2, channels=1)
        network._set_sizes(scale=2, channels=1, out_channels=channels)
        format = "" if shown else "npy"
        [result] = Job(tmp_path / "job").run(network, [source], SETTINGS, format=format)
        assert result.output is not None, result.error
        assert (result.preview is not None) == shown
    assert read_photo(tmp_path / "job/1/preview/after.png").color_HWC.shape == (12, 16, 3)


def test_of_a_large_photo_the_middle_is_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(work, "PREVIEW", 64)  # 8 x 8 pixels of the output, 4 x 4 of the input
    source = photo(tmp_path / "a.png", 3, 9)
    [result] = Job(folder_of(tmp_path)).run(Nearest(), [source], SETTINGS)
    preview = result.preview
    assert (preview.width, preview.height, preview.cut) == (8, 6, True)
    middle = read_photo(source).color_HWC[:, 2:6]
    np.testing.assert_array_equal(read_photo(preview.before).color_HWC, middle)
    np.testing.assert_array_equal(read_photo(preview.after).color_HWC, twice(middle))


@pytest.mark.parametrize("most", [2**25, 16])
def test_the_preview_of_measured_values_is_a_plain_picture(most, tmp_path, monkeypatch):
    """The page shows neither a range of values nor where there are none."""
    written = []

    def read(path, value_range):
        pixels = np.full((6, 8, 3), 0.5, np.float32) if path.name == "a.tif" else twice(
            np.full((6, 8, 3), 0.25, np.float32)
        )  # fmt: skip
        none = np.zeros(pixels.shape, bool)
        return Photo(pixels, bit_depth=32, value_range=(0.0, 9.0), no_data_HWC=none)

    monkeypatch.setattr(work, "PREVIEW", most)
    monkeypatch.setattr(work, "read_photo", read)
    monkeypatch.setattr(work, "write_photo", lambda path, shown: written.append((path.name, shown)))
    found = work._preview(Nearest(), tmp_path / "a.tif", tmp_path / "b.tif", tmp_path / "p")
    assert [name for name, _ in written] == ["before.png", "after.png"]
    side = (6, 8) if most > 16 else (2, 2)
    assert [shown.color_HWC.shape[:2] for _, shown in written] == [side, (2 * side[0], 2 * side[1])]
    for _, shown in written:
        assert (shown.bit_depth, shown.value_range, shown.no_data_HWC) == (8, None, None)
    assert (found.height, found.width, found.cut) == (2 * side[0], 2 * side[1], most == 16)


def test_a_failure_names_the_photo_and_not_the_folder(tmp_path, caplog):
    (tmp_path / "no.png").write_bytes(b"nothing")
    good = photo(tmp_path / "good.png")
    found = [*Job(folder_of(tmp_path)).run(Nearest(), [tmp_path / "no.png", good], SETTINGS)]
    assert found[0].output is None and found[0].preview is None and found[0].seconds == 0
    assert 0 < found[1].seconds < 600
    assert "no.png" in found[0].error and str(tmp_path) not in found[0].error
    assert found[1].output is not None and not caplog.records

    broken = Nearest()
    broken.forward = lambda image: image[:, :, 1:].foo
    [result] = Job(tmp_path / "job").run(broken, [good], SETTINGS)
    assert result.output is None and result.error
    assert "good.png cannot be restored" in caplog.text  # with its traceback, for the server


def test_the_visitor_reads_what_the_command_warns_of(tmp_path):
    Image.new("CMYK", (8, 6)).save(tmp_path / "print.jpg")
    plain = photo(tmp_path / "plain.png")
    first, second = Job(folder_of(tmp_path)).run(
        Nearest(), [tmp_path / "print.jpg", plain], SETTINGS
    )
    [warning] = first.warnings  # once, although the preview reads the photo again
    assert warning.startswith("print.jpg: CMYK became RGB") and second.warnings == ()


def test_warnings_are_those_of_the_own_photos(tmp_path):
    def progress(done):
        other = threading.Thread(target=logging.getLogger("zoo.x").warning, args=("theirs",))
        other.start()
        other.join()

    source = photo(tmp_path / "a.png")
    [result] = Job(folder_of(tmp_path)).run(Nearest(), [source], SETTINGS, progress=progress)
    assert result.output is not None and result.warnings == ()


def test_who_leaves_while_a_photo_is_restored_leaves_no_file(tmp_path, monkeypatch):
    job = Job(folder_of(tmp_path))

    def preview(network, photo, output, folder):
        job.remove()  # after the last tile, when nothing asks whether to go on
        folder.mkdir(parents=True)

    monkeypatch.setattr(work, "_preview", preview)
    with pytest.raises(Cancelled):
        next(job.run(Nearest(), [photo(tmp_path / "a.png")], SETTINGS))
    assert job.removed and not job.folder.exists()


def test_cancelling_keeps_what_is_done(tmp_path):
    job = Job(folder_of(tmp_path))
    sources = [photo(tmp_path / f"{name}.png", 40, 40) for name in "abc"]

    def progress(done):
        if done > 0.4:  # in the second of three
            job.cancel()

    settings, results = RestoreSettings(tile=16, overlap=4), []
    with pytest.raises(Cancelled):
        for result in job.run(Nearest(), sources, settings, progress=progress):
            results.append(result)
    assert [result.output.name for result in results] == ["a_x2.png"]
    assert results[0].output.exists()
    assert not [*(job.folder / "2").glob("*")] and not (job.folder / "3").exists()


def test_several_outputs_are_packed(tmp_path):
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
    sources = [photo(tmp_path / name) for name in ("x/a.png", "y/a.png", "b.png")]
    results = [*Job(folder_of(tmp_path)).run(Nearest(), sources, SETTINGS)]
    assert packed(results[:1], tmp_path / "one.zip") is None
    with zipfile.ZipFile(packed(results, tmp_path / "all.zip")) as archive:
        assert archive.namelist() == ["1_a_x2.png", "2_a_x2.png", "b_x2.png"]
        assert archive.read("2_a_x2.png") == results[1].output.read_bytes()


def test_visitors_have_jobs_of_their_own(tmp_path):
    visitors = Visitors(tmp_path, at_once=2)
    mine, theirs = visitors.begin("me"), visitors.begin("them")
    assert mine.folder != theirs.folder
    visitors.cancel("me")
    visitors.cancel("nobody")
    source = photo(tmp_path / "a.png")
    with pytest.raises(Cancelled):
        next(mine.run(Nearest(), [source], SETTINGS))
    [result] = theirs.run(Nearest(), [source], SETTINGS)
    again = visitors.begin("me")  # what the last one wrote is gone, and it is not cancelled
    assert not mine.folder.exists() and again.folder.exists()
    next(again.run(Nearest(), [source], SETTINGS))
    visitors.leave("them")
    shutil.rmtree(visitors.begin("them").folder)  # as one who tidies up temporary files does
    visitors.leave("them")
    assert not result.output.exists()
    with pytest.raises(Cancelled):
        next(theirs.run(Nearest(), [source], SETTINGS))


def test_jobs_are_looked_up_and_changed_by_one_visitor_at_a_time(tmp_path):
    visitors = Visitors(tmp_path, at_once=2)
    touched = []

    class Watched(dict):
        def get(self, *given):
            touched.append(("get", visitors._lock.locked()))
            return super().get(*given)

        def pop(self, *given):
            touched.append(("pop", visitors._lock.locked()))
            return super().pop(*given)

        def __setitem__(self, *given):
            touched.append(("set", visitors._lock.locked()))
            super().__setitem__(*given)

    visitors._jobs = Watched()
    assert visitors.begin("me").folder.name.startswith("job-")
    visitors.cancel("me")
    assert touched == [("pop", True), ("set", True), ("get", True)]
    assert not visitors._lock.locked()


def test_a_network_is_loaded_by_one_visitor_at_a_time(monkeypatch):
    models, locked = Models(), []

    def choose(name, weights):
        locked.append((name, models._lock.locked()))
        return Nearest().train()

    monkeypatch.setattr("zoo.app.models.choose_network", choose)
    assert not models.get(OTHERS[0]).training
    assert locked == [(OTHERS[0], True)] and not models._lock.locked()


def test_models_on_offer():
    models = Models()
    assert models.names == ["mambair_tiny_photo_x2", *OTHERS]  # no burst network
    network = models.get(DEFAULT)
    assert network is models.get(DEFAULT) and not network.training
    with pytest.raises(ZooError, match=f"'other' is not on offer; choose one of {DEFAULT}"):
        models.get("other")


def test_given_weights_come_first(tmp_path):
    network = small_network()
    zoo.save(network, tmp_path / "a=b.safetensors")
    models = Models([str(tmp_path / "a=b.safetensors")])
    assert models.names == ["a=b", DEFAULT, *OTHERS]
    assert sum(p.numel() for p in models.get("a=b").parameters()) == sum(
        p.numel() for p in network.parameters()
    )
    named = f"{DEFAULT}={zoo.shipped.WEIGHTS / DEFAULT}.safetensors"
    assert Models([named]).names[0] == DEFAULT
    with pytest.raises(ZooError, match="two files of weights are named 'mambair_tiny_photo_x2'"):
        Models([named, named])
    with pytest.raises(ZooError, match="needs a burst"):
        Models([str(zoo.shipped.WEIGHTS / "qmambabsr_tiny.safetensors")])


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("localhost", True), ("::1", True),
     ("2001:db8::1", False), ("", False),
     ("0.0.0.0", False), ("192.168.0.1", False), ("example.org", False)],
)  # fmt: skip
def test_loopback_addresses(host, loopback):
    assert is_loopback(host) is loopback


@pytest.mark.parametrize("host", ["nowhere.invalid", "192.0.2.1", "a..b", "999.1.1.1"])
def test_an_address_of_another_machine(host):
    with pytest.raises(ZooError, match=rf"^--host {host}: this machine has no such address \("):
        check_address(host)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_an_address_of_this_machine(host, monkeypatch):
    asked, ask = [], socket.getaddrinfo

    def watched(*words, **options):
        asked.append((words, options))
        return ask(*words, **options)

    monkeypatch.setattr(socket, "getaddrinfo", watched)
    check_address(host)
    assert asked == [((host, 0), {"type": socket.SOCK_STREAM})]  # any port that is free


def test_the_command_without_gradio(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["app"]) == 2
    assert "the app needs Gradio: pip install gradio (the extra [app])" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-w", "missing.pth"], "missing.pth"),
        (["--port", "0"], "--port 0: give a whole number from 1 to 65535"),
        (["--device", "tpu"], "--device tpu: unknown device"),
    ],
)
def test_what_is_given_is_checked_first(words, said, capsys):
    assert main(["app", *words]) == 2
    assert said in capsys.readouterr().err


def test_options_reach_the_server(monkeypatch, capsys):
    given = {}

    def serve(models, *, ready, **options):
        given.update(options, names=models.names)
        ready("http://127.0.0.1:1/")

    printed = []
    monkeypatch.setattr(app, "serve", serve)
    monkeypatch.setattr(app, "print", lambda *_, flush: printed.append(flush), raising=False)
    assert main(["app"]) == 0 and printed == [True]  # a script may wait for the address
    monkeypatch.delattr(app, "print")
    words = ["--host", "::1", "--port", "9", "--max-upload", "7", "--at-once", "3", "--open"]
    assert main(["app", *words]) == 0
    assert given == {
        "host": "::1",
        "port": 9,
        "most_megabytes": 7,
        "at_once": 3,
        "open_browser": True,
        "names": [DEFAULT, *OTHERS],
    }
    assert capsys.readouterr().out == "the page is at http://127.0.0.1:1/ (Ctrl-C ends it)\n"
