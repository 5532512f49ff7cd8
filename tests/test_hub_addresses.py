"""Addresses of files on the Hugging Face Hub, and what is said without its library."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path, PureWindowsPath

import pytest

import zoo
from tests.helpers.small_weights import small_network
from zoo.checkpoints.hub import Address, is_address, parsed
from zoo.cli import main
from zoo.errors import CheckpointError, ZooError
from zoo.integrations.hub import model_card


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hf:me/net/a.pth", Address("me/net", "a.pth", None)),
        ("hf:me/net/x/y/a.pth", Address("me/net", "x/y/a.pth", None)),
        ("hf:me/net@v2/a.pth", Address("me/net", "a.pth", "v2")),
        ("hf:me/net", Address("me/net", "", None)),
        ("hf:me/net/", Address("me/net", "", None)),
        ("hf:me/net@main", Address("me/net", "", "main")),
        ("hf://me/net@v2/x/a.pth", Address("me/net", "x/a.pth", "v2")),
        ("HF:me/net", Address("me/net", "", None)),
        ("hf:me/net@refs/pr/1/a.pth", Address("me/net", "a.pth", "refs/pr/1")),
        ("hf:me/net@refs/pr/1", Address("me/net", "", "refs/pr/1")),
    ],
)
def test_an_address_has_repository_file_and_revision(text, expected):
    assert is_address(text) and is_address(Path(text)) and not is_address("me/net/a.pth")
    for form in (text, Path(text), PureWindowsPath(text)):
        assert parsed(form) == expected


@pytest.mark.parametrize(
    "text", ["hf:", "hf:me", "hf:/", "hf://me", "hf:me/net/../a.pth", "hf:me//a"]
)
def test_what_is_no_address_says_how_to_write_one(text):
    with pytest.raises(CheckpointError, match="write hf:OWNER/REPO/FILE, such as hf:cguoh"):
        parsed(text)


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("https://huggingface.co/me/net/resolve/main/x/a.pth", "write hf:me/net/x/a.pth"),
        ("https://hf.co/me/net/blob/v2/a.pth?download=true", "write hf:me/net@v2/a.pth"),
        ("https://huggingface.co/me/net", "write hf:me/net"),
        ("https://huggingface.co/me/net/tree/v2", "write hf:me/net@v2"),
        ("https://huggingface.co/me", "download it, and name the file"),
        ("HTTP://github.com/me/net/releases/download/a.pth", "download it, and name the file"),
    ],
)
def test_a_web_address_says_what_to_write(text, advice):
    for form in (text, Path(text), PureWindowsPath(text)):
        with pytest.raises(CheckpointError, match=rf"^'?https://.*from the web; {advice}$"):
            zoo.load(form if isinstance(form, str) else str(form))


def test_without_the_library_a_message_names_it(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ZooError, match=r"needs huggingface_hub: pip install huggingface_hub \("):
        zoo.load("hf:me/net/a.pth")
    with pytest.raises(ZooError, match="needs huggingface_hub"):
        zoo.push(small_network(), "me/net")
    assert main(["restore", "x.png", "-o", str(tmp_path), "-w", "hf:me/net/a.pth"]) == 2
    assert "the Hub needs huggingface_hub" in capsys.readouterr().err


def test_importing_the_adapters_imports_no_library():
    for name in ("zoo.integrations.hub", "zoo.checkpoints.released", "zoo.integrations.spandrel"):
        importlib.import_module(name)
    if importlib.util.find_spec("huggingface_hub") is None:
        assert "huggingface_hub" not in sys.modules


def test_a_card_says_what_a_network_takes():
    burst = model_card(zoo.load("qmambabsr_tiny"), "me/burst", "More.")
    assert "takes a burst of frames" in burst and burst.endswith("\n\nMore.\n")
    image = model_card(zoo.build("mambair_car10"), "me/net")
    assert "images of 1 channel," in image and "arXiv 2402.15648" in image
    assert "15,771,025 parameters; scale 1" in image
