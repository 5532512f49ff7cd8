"""Released weights, from a server on this machine; the authors' sites were not reached."""

from __future__ import annotations

import hashlib
import io
import json
import re
import socket
import sys
import threading
import types
from pathlib import Path

import pytest
import torch

import zoo
from tests.helpers.small_weights import their_names
from zoo.checkpoints import released
from zoo.checkpoints.released import PAGE, RELEASED
from zoo.cli import main
from zoo.shipped import list_models

NAME = "mambairv2_light_x2"


def file_of(name):
    content = io.BytesIO()
    torch.save({"params": their_names(zoo.build(name))}, content)
    return content.getvalue()


@pytest.fixture
def sites(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(released, "RELEASE", f"{hub.url}/release")
    monkeypatch.setattr(released, "cache_folder", lambda: tmp_path / "own")
    monkeypatch.chdir(tmp_path)
    return hub


def test_weights_come_from_the_hub(sites, tmp_path, capsys):
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


def test_a_file_of_another_network_is_not_taken(sites, tmp_path, capsys):
    wrong, right = file_of("mambairv2_light_x3"), file_of(NAME)
    sites.repos["cguoh/MambaIR"] = {"mambairv2_light_old2.pth": wrong, "v2_light_x2.pth": right}
    assert main(["download", NAME]) == 0
    assert (tmp_path / f"{NAME}.pth").read_bytes() == right
    sites.repos["cguoh/MambaIR"] = {"mambairv2_light2.pth": wrong, "v2light2.pth": b"<html>"}
    assert main(["download", NAME, "-o", "b.pth"]) == 2
    said = capsys.readouterr().err
    assert "mambairv2_light2.pth: " in said and "get them from https://github.com" in said
    assert not (tmp_path / "b.pth").exists()


def test_the_release_is_next_and_goes_on_where_it_stopped(sites, tmp_path, monkeypatch, capsys):
    data = file_of(NAME)
    sites.repos["release"] = {"mambairv2_lightSR_x2.pth": data}
    monkeypatch.setattr(released, "_CHUNK", 10_000)
    sites.stop_after = 1_500_000
    assert len(data) > 2_000_000
    assert main(["download", NAME]) == 2
    said = capsys.readouterr().err
    assert "1500000 of" in said and "bytes came; try again to go on" in said
    assert main(["download", NAME]) == (0 if len(data) < 3_000_000 else 2)
    sites.stop_after = None
    assert main(["download", NAME]) == 0
    assert "bytes=1500000-" in sites.ranges()
    assert (tmp_path / f"{NAME}.pth").read_bytes() == data


def test_google_drive_is_last(sites, tmp_path, monkeypatch, capsys):
    name = "mambair_light_x2_gen_b"
    monkeypatch.setattr(released, "find_spec", lambda module: None)
    assert main(["download", name]) == 2
    said = capsys.readouterr().err
    assert "pip install huggingface_hub" in said and "pip install gdown" in said
    asked = []

    def give(url, path, quiet):
        asked.append(url)
        Path(path).write_bytes(file_of(name))

    monkeypatch.setitem(sys.modules, "gdown", types.SimpleNamespace(download=give))
    monkeypatch.setattr(released, "find_spec", lambda module: module == "gdown" or None)
    assert main(["download", name]) == 0
    assert asked == ["https://drive.google.com/uc?id=1eWovtH7YvEn2Bm9wBK5REOhbIgapsLxM"]
    assert zoo.detect(tmp_path / f"{name}.pth").network["scale"] == 2


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
    assert "no released weights of vmambair_x4 are known here" in capsys.readouterr().err
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
