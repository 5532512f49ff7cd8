"""What an installation promises to pip: packages, names, versions, and where they come from."""

from __future__ import annotations

import importlib
import re
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path

import pytest

from build_tools import torch_source
from build_tools.description import LINK, long_description
from zoo.cli import REQUIRED, main
from zoo.errors import EXTRAS, pip_install

ROOT = Path(__file__).parents[1]


def settings():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11 or newer reads TOML")
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_an_installation_holds_every_package():
    """The list is written out, because some folders at the top level do not belong to it."""
    listed = settings()["tool"]["setuptools"]["packages"]
    tops = {name.partition(".")[0] for name in listed}
    folders = {path.parent for top in tops for path in (ROOT / top).rglob("*.py")}
    assert {".".join(folder.relative_to(ROOT).parts) for folder in folders} == set(listed)
    assert len(listed) == len(set(listed))


def test_the_constraints_are_given_to_pytorch_too():
    """In the second command alone they would exchange its build for that of another index."""
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "pip install -c constraints.txt .`" not in page
    assert "Add `-c constraints.txt` to both commands" in page


@pytest.mark.parametrize("module", REQUIRED)
def test_a_required_package_that_is_missing_is_named(monkeypatch, capsys, module):
    """As after ``pip install --no-deps``."""

    def missing(name):
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    monkeypatch.setattr(importlib, "import_module", missing)
    assert main(["doctor"]) == 2
    told = f"zoo doctor: error: {REQUIRED[module]} is not installed"
    assert told in capsys.readouterr().err


def test_a_module_of_ours_that_is_missing_is_a_bug(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError("No module named 'zoo.lost'", name="zoo.lost")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ModuleNotFoundError, match=r"zoo\.lost"):
        main(["doctor"])


def test_every_required_package_has_its_name():
    assert all(find_spec(module) for module in REQUIRED)
    required = settings()["project"]["dependencies"]
    assert sorted(re.match(r"[\w-]+", name)[0] for name in required) == sorted(REQUIRED.values())


def test_messages_name_the_packages_of_an_extra():
    extras = settings()["project"]["optional-dependencies"]
    for extra, packages in EXTRAS.items():
        assert [re.match(r"[\w-]+", name)[0] for name in extras[extra]] == list(packages)
    assert pip_install("raw") == "pip install rawpy (the extra [raw])"


def test_nothing_sends_to_an_index_that_does_not_have_the_package():
    folders = ("zoo", "export", "recipes", "trt_plugins", "docs")
    for path in (path for name in folders for path in (ROOT / name).rglob("*.*")):
        if path.suffix in (".py", ".md"):
            assert "mamba-restoration-zoo[" not in path.read_text(encoding="utf-8"), path


MARKER = re.compile(r'^([\w.-]+)==([\w.]+)(?:; python_version (<|>=) "3\.11")?$')


def test_each_python_gets_one_version_of_a_package():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    found: dict[str, list[str | None]] = {}
    for line in (line for line in lines if not line.startswith("#")):
        name, _, bound = MARKER.match(line).groups()
        found.setdefault(name.lower(), []).append(bound)
    for name, bounds in found.items():
        assert bounds in ([None], [">=", "<"]), name


def test_the_oldest_versions_are_the_lower_bounds():
    wanted = dict(
        re.match(r"([\w-]+)>=([\d.]+)$", d).groups() for d in settings()["project"]["dependencies"]
    )
    lines = (ROOT / "tests/oldest.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.lower().split("==") for line in lines if not line.startswith("#"))
    assert pinned.keys() == wanted.keys()
    for name, version in wanted.items():
        assert f"{pinned[name]}.".startswith(f"{version}."), name


def test_the_description_on_an_index_has_no_link_to_a_file(tmp_path):
    text = long_description(ROOT)
    assert not LINK.search(text)
    assert "](https://arxiv.org/" in text and "## Install" in text and "docs/images" not in text
    (tmp_path / "pyproject.toml").write_text('Repository = "https://example.org/zoo"\n')
    (tmp_path / "README.md").write_text("![a](b.png)\n[c](d.md#e) [f](https://g.h) [i](#j)\n")
    assert long_description(tmp_path) == (
        "![a](https://example.org/zoo/raw/main/b.png)\n"
        "[c](https://example.org/zoo/blob/main/d.md#e) [f](https://g.h) [i](#j)\n"
    )


def test_a_source_of_pytorch_becomes_options_of_pip(tmp_path, monkeypatch, capsys):
    assert torch_source.options("") == []
    folder = tmp_path / "my wheels"
    folder.mkdir()
    words = torch_source.options(str(folder))
    assert words == ["--find-links", folder.as_uri()] and " " not in words[1]  # for the shell
    with pytest.raises(FileNotFoundError, match="no URL and no folder"):
        torch_source.options(str(tmp_path / "missing"))
    asked = []

    def answer(url, timeout):
        asked.append(url)
        return nullcontext()

    monkeypatch.setattr(torch_source, "urlopen", answer)
    index = "https://example.org/whl/cpu"
    assert torch_source.options(index) == ["--extra-index-url", index]
    assert asked == [f"{index}/torch/"]

    def fail(url, timeout):
        raise OSError("no route")

    monkeypatch.setattr(torch_source, "urlopen", fail)
    assert torch_source.options(index) == []
    assert "does not answer (no route)" in capsys.readouterr().err
    assert torch_source.options(" ") == []
    monkeypatch.undo()
    with pytest.raises(FileNotFoundError, match="no URL: Invalid"):
        torch_source.options("http://[bad")
