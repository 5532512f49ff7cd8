"""Weights on the Hub, against a server on this machine; the real Hub was not reached."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import zoo
from tests.helpers.hub_server import TOKEN
from tests.helpers.official_weights import state_dict
from tests.helpers.small_weights import small_network
from zoo.cli import main
from zoo.data import Photo, read_photo, write_photo
from zoo.errors import CheckpointError, ZooError

ROOT = Path(__file__).parents[2]
IMAGE = torch.rand(1, 3, 9, 11)


@pytest.fixture
def login(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)


@pytest.fixture
def stored(hub, tmp_path):
    """A repository with a file of the authors, of some hundred kilobytes."""
    torch.save({"params": state_dict("ir_light_x3_17x23")}, tmp_path / "x3.pth")
    hub.repos["them/MambaIR"] = {"light/x3.pth": (tmp_path / "x3.pth").read_bytes()}
    return hub.repos["them/MambaIR"]


def same(first, second):
    with torch.inference_mode():
        return torch.equal(first(IMAGE), second(IMAGE))


def test_a_file_is_loaded_and_kept(hub, stored, tmp_path):
    expected = zoo.load(tmp_path / "x3.pth")
    assert same(zoo.load("hf:them/MambaIR/light/x3.pth"), expected)
    downloads = [path for method, path, _ in hub.requests if method == "GET" and "/cdn/" in path]
    assert len(downloads) == 1
    assert same(zoo.load("hf:them/MambaIR@main/light/x3.pth"), expected)
    assert same(zoo.load("hf:them/MambaIR"), expected)  # its only file
    assert same(zoo.load("hf:them/MambaIR/"), expected)
    again = [path for method, path, _ in hub.requests if method == "GET" and "/cdn/" in path]
    assert again == downloads


def test_a_command_takes_an_address(hub, stored, tmp_path, capsys):
    write_photo(tmp_path / "a.png", Photo(IMAGE[0].permute(1, 2, 0).numpy()))
    words = ["-o", str(tmp_path / "b.png"), "-w", "hf:them/MambaIR/light/x3.pth"]
    assert main(["restore", str(tmp_path / "a.png"), *words]) == 0
    assert read_photo(tmp_path / "b.png").color_HWC.shape == (27, 33, 3)


def test_an_interrupted_download_goes_on_where_it_stopped(hub, stored, tmp_path, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 10_000)
    hub.stop_after = 150_000
    size = len(stored["light/x3.pth"])
    assert 300_000 < size < 450_000
    network = zoo.load("hf:them/MambaIR/light/x3.pth")  # each try brings some more
    assert hub.ranges() == ["bytes=150000-", "bytes=300000-"]
    assert same(network, zoo.load(tmp_path / "x3.pth"))


def test_a_download_that_fails_leaves_nothing_that_is_taken_for_the_file(hub, stored, tmp_path):
    address = "hf:them/MambaIR/light/x3.pth"
    hub.stop_after = 0
    with pytest.raises(ZooError, match=r"x3.pth: the Hub does not answer \(.*\); try again later"):
        zoo.load(address)
    hub.stop_after = None
    assert same(zoo.load(address), zoo.load(tmp_path / "x3.pth"))


def test_without_network_the_cache_is_used(hub, stored, tmp_path, monkeypatch):
    import huggingface_hub.constants

    address = "hf:them/MambaIR/light/x3.pth"
    first = zoo.load(address)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    before = len(hub.requests)
    assert same(zoo.load(address), first) and len(hub.requests) == before
    with pytest.raises(ZooError, match=r"hf:them/other/a.pth: the file is not in the cache, and"):
        zoo.load("hf:them/other/a.pth")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("hf:them/MambaIR/none.pth", "hf:them/MambaIR/none.pth: the repository has no such file"),
        (
            "hf:them/nothing/a.pth",
            "there is no such repository, or it is private; .*hf auth login",
        ),
        ("hf:them", "'hf:them': write hf:OWNER/REPO/FILE, such as"),
        ("hf:them/MambaIR/../../etc/a.pth", "write hf:OWNER/REPO/FILE"),
        ("hf:a b/c?d/a.pth", "this is no name of a repository"),
        (
            "hf:them/many",
            r"has 2 files of weights \(a.pth, b.safetensors\); name one: hf:them/many/",
        ),
        ("hf:them/empty", "the repository has no file of weights; name one"),
        ("hf:them/page/a.pth", "^hf:them/page/a.pth: a web page, not weights: download the"),
        ("hf:them/page/none.pth", "^hf:them/page/none.pth: the file is empty: copy or"),
        (
            "hf:them/many/README.md",
            "^hf:them/many/README.md: text, not weights; it starts with '# Card': name a file",
        ),
    ],
)
def test_wrong_addresses_say_what_to_do(hub, stored, address, message):
    hub.repos["them/many"] = {"a.pth": b"1", "b.safetensors": b"2", "README.md": b"# Card\n"}
    hub.repos["them/empty"] = {"README.md": b"3"}
    hub.repos["them/page"] = {"a.pth": b"<html>not weights</html>", "none.pth": b""}
    with pytest.raises(CheckpointError, match=message):
        zoo.load(address)


def test_private_files_need_the_login(hub, stored, monkeypatch):
    hub.private.add("them/MambaIR")
    address = "hf:them/MambaIR/light/x3.pth"
    with pytest.raises(CheckpointError, match="or it is private"):
        zoo.load(address)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert zoo.load(address).scale == 3


@pytest.mark.parametrize("options", [{}, {"scans": ["hilbert"]}], ids=["usual", "unusual"])
def test_a_network_is_published_and_comes_back(hub, login, options):
    network = small_network(**options)
    address = zoo.push(network, "me/my-mamba", card="## Training\n\nOn a cat.")
    assert address == "hf:me/my-mamba/model.safetensors"
    files = hub.repos["me/my-mamba"]
    assert sorted(files) == ["README.md", "config.json", "model.safetensors"]
    assert json.loads(files["config.json"]) == network.recipe.data()
    card = files["README.md"].decode()
    assert card.startswith("---\nlibrary_name: mamba-restoration-zoo\n")
    assert 'zoo.load("hf:me/my-mamba")' in card and card.endswith("On a cat.\n")
    assert same(zoo.load(address), network) and same(zoo.load("hf:me/my-mamba"), network)
    assert zoo.load(address).recipe == network.recipe


def test_a_card_that_was_edited_stays(hub, login):
    zoo.push(small_network(), "me/my-mamba", private=True)
    assert "me/my-mamba" in hub.private
    hub.repos["me/my-mamba"]["README.md"] = b"mine"
    zoo.push(small_network(), "me/my-mamba")
    assert hub.repos["me/my-mamba"]["README.md"] == b"mine"
    zoo.push(small_network(), "me/my-mamba", card="new")
    assert hub.repos["me/my-mamba"]["README.md"] != b"mine"


def test_a_branch_is_made_and_named_in_the_address(hub, login):
    for _ in range(2):  # once it exists, it stays
        address = zoo.push(small_network(), "me/my-mamba", revision="dev")
        assert address == "hf:me/my-mamba@dev/model.safetensors"
    assert hub.branches["me/my-mamba"] == {"main", "dev"}
    assert ("POST", "/api/models/me/my-mamba/commit/dev", None) in hub.requests


def test_publishing_needs_a_login_and_a_name(hub):
    with pytest.raises(ZooError, match=r"hf:me/my-mamba: .*hf auth login"):
        zoo.push(small_network(), "me/my-mamba")
    with pytest.raises(CheckpointError, match="'mine': write OWNER/REPO"):
        zoo.push(small_network(), "mine")
    assert not hub.repos


def test_a_folder_without_weights_is_named(hub, tmp_path):
    from zoo.integrations.hub import Pretrained

    for source in (tmp_path, str(tmp_path)):
        with pytest.raises(CheckpointError, match=r"the folder has no model.safetensors"):
            Pretrained.from_pretrained(source)
    for source in (tmp_path / "no", str(tmp_path / "no"), "runs/mine/no"):
        with pytest.raises(CheckpointError, match=r"no: there is no such folder; give one that"):
            Pretrained.from_pretrained(source)
    assert not hub.requests


def test_a_command_logs_no_requests(hub, stored, tmp_path):
    write_photo(tmp_path / "a.png", Photo(torch.rand(5, 7, 3).numpy()))
    command = [sys.executable, "-m", "zoo", "restore", str(tmp_path / "a.png")]
    command += ["-o", str(tmp_path / "b.png"), "-w", "hf:them/MambaIR/light/x3.pth"]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0 and "HTTP" not in done.stderr + done.stdout, done.stderr


def test_the_methods_that_users_of_the_hub_know(hub, login, tmp_path):
    from zoo.integrations.hub import Pretrained

    network = small_network()
    Pretrained(network).save_pretrained(tmp_path / "mine")
    assert (tmp_path / "mine" / "README.md").read_text().startswith("---\nlibrary_name")
    assert same(Pretrained.from_pretrained(str(tmp_path / "mine")).network, network)
    assert same(zoo.load(tmp_path / "mine" / "model.safetensors"), network)
    Pretrained(network).push_to_hub("me/other")
    found = Pretrained.from_pretrained("me/other")
    assert same(found, network) and not found.network.training
    assert found.network.recipe == network.recipe
    with pytest.raises(CheckpointError, match="no such repository"):
        Pretrained.from_pretrained("me/nothing")


@pytest.mark.parametrize(
    "address", ["hf:me/net", "hf:me/net/", "hf:me/net@main", "hf:me/net/model.safetensors"]
)
def test_the_methods_take_the_addresses_of_load(hub, login, address):
    from zoo.integrations.hub import Pretrained

    network = small_network()
    assert zoo.push(network, "hf:me/net") == "hf:me/net/model.safetensors"
    assert same(Pretrained.from_pretrained(address), network)
    Pretrained(network).push_to_hub("hf:me/other")
    assert set(hub.repos) == {"me/net", "me/other"}


def test_the_methods_load_any_file_and_take_options(hub, stored, tmp_path):
    from zoo.integrations.hub import Pretrained

    expected = zoo.load(tmp_path / "x3.pth")
    assert same(Pretrained.from_pretrained("hf:them/MambaIR/light/x3.pth"), expected)
    found = Pretrained.from_pretrained("them/MambaIR", file="light/x3.pth", drop_path=0.3)
    assert same(found, expected) and found.network.recipe.network["drop_path"] == 0.3
    with pytest.raises(CheckpointError, match="hf:them/MambaIR: the repository has no such file"):
        Pretrained.from_pretrained("hf:them/MambaIR")
