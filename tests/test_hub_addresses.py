"""Addresses of files on the Hugging Face Hub, and what is said without its library."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path, PureWindowsPath
from types import SimpleNamespace

import pytest

import zoo
from tests.helpers.small_weights import small_network
from zoo.checkpoints.hub import Address, fetched, files_of, is_address, parsed
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


class Errors:
    """The errors of the Hub's library; a file that is not in the cache is one that is not there."""

    class HfHubHTTPError(Exception): ...

    class RepositoryNotFoundError(HfHubHTTPError): ...

    class GatedRepoError(RepositoryNotFoundError): ...

    class RevisionNotFoundError(HfHubHTTPError): ...

    class EntryNotFoundError(Exception): ...

    class LocalEntryNotFoundError(EntryNotFoundError): ...

    class HFValidationError(Exception): ...


class Library:
    """In place of the Hub's library: a repository with files, or an error."""

    errors = Errors

    def __init__(self, monkeypatch, *files, offline=False, error=None):
        self.files, self.error, self.asked = files, error, []
        self.constants = SimpleNamespace(HF_HUB_OFFLINE=offline)
        monkeypatch.setattr("zoo.checkpoints.hub.imported", lambda: self)

    def HfApi(self):  # noqa: N802 - its name
        return self

    def list_repo_files(self, repo, *, revision=None):
        return self._answer(repo, revision) or list(self.files)

    def hf_hub_download(self, repo, file, *, revision=None):
        self._answer(repo, file, revision)
        return f"/cache/{file}"

    def _answer(self, *asked):
        self.asked.append(asked)
        if self.error is not None:
            raise self.error


def test_a_file_is_asked_for_at_its_revision(monkeypatch):
    library = Library(monkeypatch)
    assert fetched("hf:me/net@v2/x/a.pth") == Path("/cache/x/a.pth")
    assert fetched("hf:me/net/b.pth") == Path("/cache/b.pth")
    assert library.asked == [("me/net", "x/a.pth", "v2"), ("me/net", "b.pth", None)]


@pytest.mark.parametrize("name", ["x/a.safetensors", "a.pth", "a.pt", "a.ckpt"])
def test_the_only_file_of_weights_need_not_be_named(name, monkeypatch):
    library = Library(monkeypatch, "README.md", name, "config.json")
    assert files_of(Address("me/net", "", "v2")) == [name]
    assert fetched("hf:me/net@v2") == Path("/cache") / name
    assert library.asked == [("me/net", "v2")] * 2 + [("me/net", name, "v2")]


def test_of_several_files_the_usual_name_is_taken_or_one_is_to_be_named(monkeypatch):
    others = [f"{number}.pth" for number in range(7)]
    Library(monkeypatch, *others, "model.safetensors")
    assert fetched("hf:me/net").name == "model.safetensors"
    library = Library(monkeypatch, "a.pth", offline=True)  # nobody can be asked
    assert fetched("hf:me/net").name == "model.safetensors" and len(library.asked) == 1
    for files, told in (
        (others[:6], "6 files of weights (0.pth, 1.pth, 2.pth, 3.pth, 4.pth, 5.pth)"),
        (others, "7 files of weights (0.pth, 1.pth, 2.pth, 3.pth, 4.pth, 5.pth, ...)"),
        (["README.md"], "no file of weights"),
    ):
        Library(monkeypatch, *files)
        message = f"hf:me/net: the repository has {told}; name one: hf:me/net/FILE"
        with pytest.raises(CheckpointError, match=f"^{re.escape(message)}$"):
            fetched("hf:me/net")


class RefusedError(Exception):
    """An answer with a code, of any library."""

    def __init__(self, code):
        super().__init__(f"code {code}")
        self.response = SimpleNamespace(status_code=code)


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (Errors.GatedRepoError(), ZooError, "you may not read this; ask for access on its page"),
        (
            RefusedError(403),
            ZooError,
            "you may not read this; ask for access on its page, then run",
        ),
        (Errors.RepositoryNotFoundError(), CheckpointError, "there is no such repository, or it"),
        (RefusedError(401), CheckpointError, "there is no such repository, or it is private"),
        (Errors.RevisionNotFoundError(), CheckpointError, "the repository has no such revision$"),
        (Errors.LocalEntryNotFoundError(), ZooError, "the file is not in the cache, and the Hub"),
        (Errors.EntryNotFoundError(), CheckpointError, "the repository has no such file$"),
        (Errors.HFValidationError(), CheckpointError, "this is no name of a repository$"),
        (
            Errors.HfHubHTTPError("no"),
            ZooError,
            r"the Hub does not answer \(no\); try again later$",
        ),
        (OSError("cut"), ZooError, r"the Hub does not answer \(cut\); try again later$"),
        (type("Late", (Exception,), {"__module__": "httpx._x"})("late"), ZooError, r"\(late\)"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_the_hub_refuses_is_one_sentence(error, kind, told, monkeypatch):
    Library(monkeypatch, error=error)
    for ask in (lambda: fetched("hf:me/net/a.pth"), lambda: files_of(Address("me/net", "", None))):
        with pytest.raises(ZooError, match=f"^hf:me/net(/a.pth)?: .*{told}") as caught:
            ask()
        assert type(caught.value) is kind and caught.value.__cause__ is error


def test_other_errors_are_not_taken_for_those_of_the_hub(monkeypatch):
    for error in (KeyError("bug"), ZooError("mine"), RefusedError(500)):
        Library(monkeypatch, error=error)
        with pytest.raises(type(error)) as caught:
            fetched("hf:me/net/a.pth")
        assert caught.value is error


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
