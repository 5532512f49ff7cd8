"""Released weights, from a server on this machine; the authors' sites were not reached."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
import random
import re
import socket
import sys
import threading
import types
import urllib.error
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import zoo
from tests.helpers.hub_server import sha1
from tests.helpers.small_weights import their_names
from zoo.checkpoints import released, web_files
from zoo.checkpoints.released import PAGE, RELEASED
from zoo.cli import main
from zoo.errors import ZooError
from zoo.files import owned_folder
from zoo.shipped import list_models

NAME = "mambairv2_light_x2"


@functools.cache
def file_of(name):
    content = io.BytesIO()
    torch.save({"params": their_names(zoo.build(name))}, content)
    return content.getvalue()


@pytest.fixture
def sites(web, tmp_path, monkeypatch):
    if not os.environ.get("TEST_INTEGRATIONS"):  # the library would ask the real Hub
        monkeypatch.setattr(
            released, "find_spec", lambda name: None if "hub" in name else find_spec(name)
        )
    monkeypatch.setattr(released, "RELEASE", f"{web.url}/release")
    monkeypatch.setattr(released, "cache_folder", lambda: tmp_path / "own")
    monkeypatch.chdir(tmp_path)
    return web


@pytest.fixture
def any_bytes(monkeypatch):
    """What stands for a file of weights, where it is not the question whether it is one."""
    monkeypatch.setattr(released, "_of_another_network", lambda name, path: None)
    return random.Random(0).randbytes(2_100_000)


def test_weights_come_from_the_hub(hub, sites, tmp_path, capsys):
    data = file_of(NAME)
    sites.repos["cguoh/MambaIR"] = {
        "MambaIRv2/mambairv2_lightSR_x2.pth": data,
        "MambaIR/MambaIR_lightSR_x2.pth": b"other",
        "MambaIRv2/mambairv2_lightSR_x3.pth": b"other",
    }
    assert main(["download", NAME]) == 0
    said = capsys.readouterr().out
    source = "hf:cguoh/MambaIR/MambaIRv2/mambairv2_lightSR_x2.pth"
    assert f"{NAME}.pth: from {source}\n" in said and f"-w {NAME}.pth" in said
    assert (tmp_path / f"{NAME}.pth").read_bytes() == data
    kept = json.loads((tmp_path / f"{NAME}.pth.json").read_text())
    assert kept == {"model": NAME, "source": source, "sha256": hashlib.sha256(data).hexdigest()}
    assert zoo.load(tmp_path / f"{NAME}.pth").scale == 2
    asked = len(sites.requests)
    assert main(["download", NAME]) == 0 and len(sites.requests) == asked
    assert "is there already" in capsys.readouterr().out
    (tmp_path / f"{NAME}.pth").write_bytes(b"mine")
    assert main(["download", NAME]) == 2
    assert "exists, and is not what was downloaded" in capsys.readouterr().err


def test_a_file_of_another_network_is_not_taken(hub, sites, tmp_path, capsys):
    wrong, right = file_of("mambairv2_light_x3"), file_of(NAME)
    sites.repos["cguoh/MambaIR"] = {"mambairv2_light_old2.pth": wrong, "v2_light_x2.pth": right}
    assert main(["download", NAME]) == 0
    assert (tmp_path / f"{NAME}.pth").read_bytes() == right
    sites.repos["cguoh/MambaIR"] = {"mambairv2_light2.pth": wrong, "v2light2.pth": b"<html>"}
    assert main(["download", NAME, "-o", "b.pth"]) == 2
    said = capsys.readouterr().err
    assert "mambairv2_light2.pth: " in said and "get them from https://github.com" in said
    assert not (tmp_path / "b.pth").exists()


def test_the_release_is_next_and_goes_on_where_it_stopped(
    sites, any_bytes, tmp_path, monkeypatch, capsys
):
    sites.repos["release"] = {"mambairv2_lightSR_x2.pth": any_bytes}
    monkeypatch.setattr(web_files, "_CHUNK", 10_000)
    sites.stop_after = 1_500_000
    assert main(["download", NAME]) == 2
    said = capsys.readouterr().err
    assert "1500000 of" in said and "bytes came; try again" in said
    assert main(["download", NAME]) == 0
    assert "bytes=1500000-" in sites.ranges()
    assert (tmp_path / f"{NAME}.pth").read_bytes() == any_bytes


URL_FILE = "mambairv2_lightSR_x2.pth"


def interrupted(sites, data, monkeypatch):
    """What a download of the release has left: 1,500,000 bytes of an older file."""
    monkeypatch.setattr(web_files, "_CHUNK", 10_000)
    old = bytearray(data)
    old[1000] ^= 1
    sites.repos["release"] = {URL_FILE: bytes(old)}
    sites.stop_after = 1_500_000
    assert main(["download", NAME]) == 2
    sites.stop_after = None
    sites.repos["release"][URL_FILE] = data


@pytest.mark.parametrize("if_range", [True, False], ids=["If-Range", "no If-Range"])
def test_parts_of_two_versions_are_not_joined(sites, any_bytes, tmp_path, monkeypatch, if_range):
    interrupted(sites, any_bytes, monkeypatch)
    sites.if_range = if_range
    assert main(["download", NAME]) == 0
    assert (tmp_path / f"{NAME}.pth").read_bytes() == any_bytes
    assert sites.ranges() == ["bytes=1500000-"]


def test_a_part_that_starts_elsewhere_is_not_used(sites, any_bytes, tmp_path, monkeypatch):
    interrupted(sites, any_bytes, monkeypatch)
    sites.repos["release"][URL_FILE] = bytes([*any_bytes[:1000], any_bytes[1000] ^ 1])
    sites.repos["release"][URL_FILE] += any_bytes[1001:]  # the version that the part is of
    sites.shifted = 10
    assert main(["download", NAME]) == 0
    assert (tmp_path / f"{NAME}.pth").read_bytes() == sites.repos["release"][URL_FILE]
    assert sites.ranges() == ["bytes=1500000-"]


@pytest.mark.parametrize("tag", [None, 'W/"{}"'], ids=["no ETag", "weak"])
def test_without_a_version_a_download_starts_anew(sites, any_bytes, tmp_path, monkeypatch, tag):
    sites.tag = tag
    interrupted(sites, any_bytes, monkeypatch)
    assert main(["download", NAME]) == 0
    assert (tmp_path / f"{NAME}.pth").read_bytes() == any_bytes
    assert sites.ranges() == []


def test_a_part_without_its_note_or_with_nothing_left_is_not_used(
    sites, any_bytes, tmp_path, monkeypatch
):
    interrupted(sites, any_bytes, monkeypatch)
    (part,) = (tmp_path / "own").rglob("*.part")
    noted = part.with_name(f"{part.name}.json")
    assert noted.read_text().endswith('"}\n') and json.loads(noted.read_text())["version"]
    noted.unlink()
    assert main(["download", NAME]) == 0 and sites.ranges() == []
    part.write_bytes(b"x" * len(any_bytes))
    note = json.dumps({"version": sites.tag.format(sha1(any_bytes))})
    part.with_name(f"{part.name}.json").write_text(note)
    part.with_suffix("").write_bytes(b"changed")  # so that it is got again
    assert main(["download", NAME, "-o", "b.pth"]) == 0
    assert sites.ranges() == [f"bytes={len(any_bytes)}-"]
    assert (tmp_path / "b.pth").read_bytes() == any_bytes
    assert not list((tmp_path / "own").rglob("*.part*"))


def test_a_file_in_the_cache_is_used_as_long_as_it_is_as_it_came(sites, any_bytes, tmp_path):
    data, sites.repos["release"] = any_bytes, {URL_FILE: any_bytes}

    def asked():
        return len([path for _, path, _ in sites.requests if path.startswith("/release")])

    assert main(["download", NAME]) == 0 and asked() == 1
    assert main(["download", NAME, "-o", "b.pth"]) == 0 and asked() == 1
    assert (tmp_path / "b.pth").read_bytes() == data
    (kept,) = (tmp_path / "own").rglob("*.pth")
    damaged = bytearray(data)
    damaged[len(data) // 2] ^= 1  # in the middle of a tensor, so that it loads
    kept.write_bytes(damaged)
    assert main(["download", NAME, "-o", "c.pth"]) == 0 and asked() == 2
    assert (tmp_path / "c.pth").read_bytes() == data


def test_a_file_that_changed_does_not_stay_where_it_cannot_be_had_again(tmp_path):
    def gone(source, path):
        raise OSError("no such address")

    path = tmp_path / "folder" / "a.pth"
    web_files.cached(path, "here", lambda source, path: path.write_bytes(b"whole"))
    path.write_bytes(b"changed")
    with pytest.raises(OSError, match="no such address"):
        web_files.cached(path, "here", gone)
    assert not path.exists()
    path.with_name("a.pth.json").write_text('{"source": "here"}')  # the note of nothing
    web_files.cached(path, "here", lambda source, path: path.write_bytes(b"whole"))
    assert path.read_bytes() == b"whole"


def test_a_wrong_file_does_not_stay_in_the_cache(sites, monkeypatch, capsys):
    sites.repos["release"] = {URL_FILE: b"<!DOCTYPE html><html>Too many downloads</html>"}
    assert main(["download", NAME]) == 2
    assert "a web page, not weights" in capsys.readouterr().err
    monkeypatch.setattr(released, "_of_another_network", lambda name, path: None)
    sites.repos["release"] = {URL_FILE: b"another"}
    assert main(["download", NAME]) == 0


def test_a_file_that_is_not_taken_does_not_stay_in_the_cache(sites, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(released, "_of_another_network", lambda name, path: "it is none")
    monkeypatch.setattr(
        released, "find_spec", lambda name: None if "hub" in name else find_spec("json")
    )
    given = []

    def give(url, path, quiet):
        given.append(quiet)
        Path(path).write_bytes(b"x")

    monkeypatch.setitem(sys.modules, "gdown", types.SimpleNamespace(download=give))
    assert main(["download", "mambair_light_x2_gen_b"]) == 2 and given == [True]
    assert "no weights could be had (" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "gdown", types.SimpleNamespace())
    assert main(["download", "mambair_light_x2_gen_b"]) == 2
    assert "; Google Drive: " in capsys.readouterr().err
    sites.repos["release"] = {URL_FILE: b"y"}
    assert main(["download", NAME]) == 2
    assert f"/release/{URL_FILE}: it is none" in capsys.readouterr().err
    kept = {path.name for path in (tmp_path / "own").rglob("*.*")}
    assert not {name for name in kept if name.endswith((".pth", ".json"))}


def test_a_file_of_another_model_is_not_what_was_downloaded(sites, any_bytes, tmp_path):
    sites.repos["release"] = {URL_FILE: any_bytes}
    assert main(["download", NAME]) == 0 and released.is_there(NAME, tmp_path / f"{NAME}.pth")
    assert not released.is_there("mambairv2_light_x3", tmp_path / f"{NAME}.pth")
    assert main(["download", "mambairv2_light_x3", "-o", f"{NAME}.pth"]) == 2


def test_weights_of_another_network_are_told(tmp_path, monkeypatch):
    path = tmp_path / "a.pth"
    path.write_bytes(file_of("mambairv2_light_x3"))
    assert released._of_another_network("mambairv2_light_x3", path) is None
    torch.save(zoo.build("mair_light_t_x2").state_dict(), tmp_path / "own.pth")  # not their orders
    assert released._of_another_network("mair_light_t_x2", tmp_path / "own.pth") is None
    built = []
    monkeypatch.setattr(released, "build", lambda one: built.append(zoo.build(one)) or built[-1])
    told = f"a.pth holds another network than {NAME}"
    assert released._of_another_network(NAME, path) == told
    assert len(built) == 2 and all(next(one.parameters()).is_meta for one in built)


def test_the_hub_is_asked_first_for_a_fitting_name(sites, any_bytes, tmp_path, monkeypatch):
    names, asked = ["mambairv2_lightSR_x3.pth", "v1/light_x2.pth", "v2/light_x2.pth"], []
    monkeypatch.setattr(released, "find_spec", lambda name: name == "huggingface_hub" or None)
    monkeypatch.setattr(released, "files_of", lambda address: asked.append(address) or names)

    def fetched(source):
        asked.append(source)
        (tmp_path / "fetched").write_bytes(any_bytes)
        return tmp_path / "fetched"

    monkeypatch.setattr(released, "fetched", fetched)
    source = "hf:cguoh/MambaIR/v2/light_x2.pth"
    assert released.download(NAME, tmp_path / "a.pth") == source
    assert asked == [("cguoh/MambaIR", "", None), source] and not sites.requests
    del names[2]
    with pytest.raises(ZooError, match="hf:cguoh/MambaIR has no file of such a name; http"):
        released.download(NAME, tmp_path / "b.pth")

    def refused(address):
        raise ZooError("you may not")

    monkeypatch.setattr(released, "files_of", refused)
    with pytest.raises(ZooError, match=r"no weights could be had \(you may not; http"):
        released.download(NAME, tmp_path / "b.pth")


class Answer(io.BytesIO):
    def __init__(self, data, **headers):
        super().__init__(data)
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class Bar:
    """In place of a progress bar."""

    def __init__(self, **settings):
        self.settings, self.counts, self.closed = settings, [], False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.closed = True

    def update(self, count):
        self.counts.append(count)


@pytest.mark.parametrize(
    ("length", "start", "total"), [("25", 0, 25), ("25", 100, 125), (None, 0, None)]
)
def test_what_comes_is_counted(tmp_path, monkeypatch, length, start, total):
    bars = []

    def shown(**settings):
        bars.append(Bar(**settings))
        return bars[0]

    monkeypatch.setattr(web_files, "tqdm", shown)
    monkeypatch.setattr(web_files, "_CHUNK", 10)
    part = tmp_path / "a.pth.part"
    with part.open("wb") as file:
        file.write(bytes(start))
        web_files._copy(Answer(b"x" * 25, Content_Length=length), file, part, start)
    assert part.read_bytes() == bytes(start) + b"x" * 25
    [bar] = bars
    assert bar.counts == [10, 10, 5] and bar.closed
    assert bar.settings == {
        "total": total, "initial": start, "unit": "B", "unit_scale": True, "desc": "a.pth",
        "disable": None,
    }  # fmt: skip


def test_a_note_is_lines_for_people_and_holds_as_long_as_its_file(tmp_path):
    path = tmp_path / "a.pth"
    path.write_bytes(b"x")
    web_files.keep_note(path, source="there")
    digest = hashlib.sha256(b"x").hexdigest()
    note = tmp_path / "a.pth.json"
    assert note.read_text() == f'{{\n  "source": "there",\n  "sha256": "{digest}"\n}}\n'
    assert web_files.is_as_noted(path, source="there")
    assert not web_files.is_as_noted(path, source="elsewhere")
    path.unlink()
    assert not web_files.is_as_noted(path, source="there")
    for damaged in ("[]", "{", '"text"'):
        note.write_text(damaged)
        assert web_files._read_note(path) == {}
    for _ in range(2):  # nothing of both may be there
        web_files.remove(path)
    assert not list(tmp_path.iterdir())


def test_a_version_is_a_strong_tag_or_a_time():
    time = "Mon, 01 Jan 2024 00:00:00 GMT"
    versions = [
        web_files._version(Answer(b"", **headers))
        for headers in (
            {"ETag": '"a"', "Last_Modified": time},
            {"ETag": 'W/"a"', "Last_Modified": time},
            {"Last_Modified": time},
            {},
        )
    ]
    assert versions == ['"a"', time, time, None]


def test_a_server_may_be_silent_for_half_a_minute(monkeypatch):
    asked = []
    monkeypatch.setattr(
        "urllib.request.urlopen", lambda request, timeout: asked.append((request, timeout))
    )
    web_files._asked("http://localhost/a")
    web_files._asked("http://localhost/a", {"Range": "bytes=1-"})
    assert [(request.headers, timeout) for request, timeout in asked] == [
        ({}, 30), ({"Range": "bytes=1-"}, 30)
    ]  # fmt: skip


def test_the_reason_of_an_address_that_does_not_answer_is_told(sites, monkeypatch):
    for error, told in (
        (urllib.error.URLError("refused"), "refused"),
        (OSError(5, "broken"), r"\[Errno 5\] broken"),
        (OSError(), "OSError"),
    ):

        def failing(*_, error=error):
            raise error

        monkeypatch.setattr(released, "cached", failing)
        with pytest.raises(ZooError, match=rf"/release/{URL_FILE}: {told}\); get them from"):
            released.download(NAME, Path("a.pth"))


def test_two_downloads_of_a_file_at_once_do_not_mix(sites, any_bytes, tmp_path, capsys):
    sites.repos["release"] = {URL_FILE: any_bytes}
    folder = tmp_path / "own" / "released" / NAME
    folder.mkdir(parents=True)
    with owned_folder(folder, "a download"):
        assert main(["download", NAME]) == 2
    assert "a download" in capsys.readouterr().err
    assert main(["download", NAME]) == 0


def test_google_drive_is_last(sites, any_bytes, tmp_path, monkeypatch, capsys):
    name = "mambair_light_x2_gen_b"
    monkeypatch.setattr(released, "find_spec", lambda module: None)
    assert main(["download", name]) == 2
    said = capsys.readouterr().err
    assert "pip install huggingface_hub" in said and "pip install gdown" in said
    asked = []

    def give(url, path, quiet):
        assert quiet  # the bar would be another one than ours
        asked.append(url)
        Path(path).write_bytes(any_bytes)

    monkeypatch.setitem(sys.modules, "gdown", types.SimpleNamespace(download=give))
    monkeypatch.setattr(released, "find_spec", lambda module: module == "gdown" or None)
    assert main(["download", name]) == 0
    assert asked == ["https://drive.google.com/uc?id=1eWovtH7YvEn2Bm9wBK5REOhbIgapsLxM"]
    assert (tmp_path / f"{name}.pth").read_bytes() == any_bytes
    assert main(["download", name, "-o", "b.pth"]) == 0 and len(asked) == 1
    (kept,) = (tmp_path / "own").rglob("*.pth")
    kept.write_bytes(b"changed")
    assert main(["download", name, "-o", "c.pth"]) == 0 and len(asked) == 2


def test_a_target_that_cannot_be_written_is_told_before_the_download(sites, tmp_path, capsys):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    for target, message in (
        ("folder", f"folder is a folder; name a file: -o {Path('folder', NAME)}.pth"),
        ("file/a.pth", "file/a.pth: cannot"),
    ):
        assert main(["download", NAME, "-o", target]) == 2
        assert message in capsys.readouterr().err
    assert not sites.requests


def test_a_server_of_another_kind_is_one_sentence(sites, tmp_path, monkeypatch, capsys):
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr(released, "RELEASE", url)

        def answer():
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"SSH-2.0 no HTTP\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        assert main(["download", NAME]) == 2
    said = capsys.readouterr().err
    assert f"{url}/mambairv2_lightSR_x2.pth: SSH-2.0 no HTTP" in said and PAGE in said


def test_wrong_names_and_the_list(capsys):
    assert main(["download", "mambairv2_lite_x2"]) == 2
    assert "did you mean 'mambairv2_" in capsys.readouterr().err
    assert main(["download", "mambair_tiny_x2"]) == 2
    assert "the weights of mambair_tiny_x2 ship with the package" in capsys.readouterr().err
    assert main(["download", "vmambair_x4"]) == 2
    said = capsys.readouterr().err
    assert "no released weights of vmambair_x4 are known here" in said and "mean" not in said
    assert main(["download", "mambair_light_x4"]) == 2
    assert "did you mean 'mambair_light_x4_gen_b'?" in capsys.readouterr().err
    assert main(["download"]) == 2
    assert main(["download", "--list"]) == 0
    assert set(capsys.readouterr().out.split()) > set(RELEASED)
    assert set(RELEASED) <= set(list_models())


AUTHORS = {
    "mambair_classic_x2": ["MambaIR_SR2.pth", "MambaIR_classicSR_x2.pth", "mambair/SRx2.pth"],
    "mambair_light_x4_gen_b": ["MambaIR_light4.pth", "MambaIR_lightSR_x4.pth"],
    "mambair_realdn": ["MambaIR_realDN.pth"],
    "mambair_real_x4": ["MambaIR_realSR.pth", "MambaIR-real.pth"],
    "mambair_dn25": ["ColorDN_MambaIR_level25.pth", "MambaIR_guassian25.pth"],
    "mambair_car10": ["MambaIR_JEPG10.pth", "MambaIR_CAR_q10.pth"],
    **{name: [one.file] for name, one in RELEASED.items() if one.file},
}
"""Names that the authors use in their options, their README and issues."""


@pytest.mark.parametrize("name", AUTHORS)
def test_each_name_of_the_authors_fits_one_model(name):
    for file in AUTHORS[name]:
        fits = [n for n, one in RELEASED.items() if re.search(one.pattern, file, re.IGNORECASE)]
        assert fits == [name], file
