"""The documentation site: its pages, its reference and the check of its links, without MkDocs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from unittest.mock import Mock

import pytest

import zoo
from build_tools.site import __main__ as build_site
from build_tools.site.__main__ import complete
from build_tools.site.hooks import on_page_content
from build_tools.site.links import faults
from build_tools.site.notebook import _shown
from build_tools.site.pages import gather
from build_tools.site.reference import _plain, network_of, users, write_reference

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "build_tools/site/mkdocs.yml"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    gather(ROOT, folder)
    return folder


def test_the_pages_of_the_repository_are_gathered(source):
    for path in ["README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]:
        assert (source / path).exists(), path
    assert (source / "docs/images/scans/hilbert.png").exists()  # in a table
    assert (source / "zoo/weights/mambair_tiny_x2.md").exists()  # linked from the README
    listed = (source / "examples/crossbred/README.md").read_text()  # a folder is its list of files
    assert "(stripes_in_mambacsr.yaml)" in listed
    assert (source / "examples/crossbred/stripes_in_mambacsr.yaml").exists()
    text = (source / "docs/networks.md").read_text()
    assert "(../examples/crossbred/README.md)" in text


def test_what_a_page_links_to_must_exist(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "x").write_text("it is there, but outside")
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        (root / name).write_text("a [link](docs/a.md) and `[no](link.md)`\n")
    (root / "docs").mkdir()
    (root / "docs/a.md").write_text("```\n[not](a.link)\n```\n[gone](b.md#c), [out](../../x)\n")
    with pytest.raises(ValueError, match=r"docs/a.md: b.md#c; docs/a.md: ../../x") as caught:
        gather(root, tmp_path / "source")
    assert "a.link" not in str(caught.value)


@pytest.mark.docs
def test_every_part_and_model_is_in_the_reference(source):
    kinds = write_reference(source / "reference")
    for full in zoo.list_parts():
        kind, name = full.split("/")
        text = (source / f"reference/{kind}.md").read_text()
        assert f"## {name} {{ #{kind}-{name} }}" in text
        part = text.partition(f"## {name} {{")[2].partition("\n## ")[0]
        for option in zoo.describe(full).options:
            assert f"| `{option}` |" in part, f"{full}: {option}"
        picture = f"![{name}](images/{name}.png)" in part
        assert picture == (kind == "scan" and name != "by_class")
    assert sorted(kinds) == sorted({full.split("/")[0] for full in zoo.list_parts()})
    models = (source / "reference/models.md").read_text()
    for name in zoo.list_models():
        assert f"## {name} {{ #{name} }}" in models
    assert "trainable values: 137,008" in models.partition("## mambair_tiny_x2 ")[2][:500]
    rssb = (source / "reference/block.md").read_text().partition("## rssb {")[2]
    assert re.search(r"Trainable values with 64 channels and the defaults: [\d,]{6,}", rssb[:3000])


@pytest.mark.docs
def test_the_recipes_of_a_part_are_those_that_are_built_of_it():
    found = users()
    assert found["scan", "stripes"] == zoo.list_models("mair_*")
    assert found["network", "wavelet"] == ["wavemamba_lol", "wavemamba_uhdll"]
    # Parts that are defaults, in lists, or inside others.
    assert "mambair_tiny_x2" in found["scan", "raster"]
    assert "eamamba_dn15" in found["scan", "diagonal"]
    assert "mambacsr_tiny_x2" in found["scale_fusion", "cross_scale"]
    assert "mambair_tiny_x2" in found["loss", "l1"]
    assert network_of("mambair_tiny_x2").head.__class__.__module__ == "zoo.heads.super_resolution"


def test_marks_of_sphinx_are_taken_out_of_docstrings():
    page = "<p>See :func:`zoo.load`, :func:<code>zoo.load</code>, :mod:<code>zoo</code>::</p>"
    expected = "<p>See :func:`zoo.load`, <code>zoo.load</code>, <code>zoo</code>:</p>"
    assert on_page_content(page, page=None) == expected
    assert on_page_content("<pre>a::b</pre>") == "<pre>a::b</pre>"


def test_text_from_docstrings_is_shown_as_it_is():
    assert _plain("a|b <c> *d* e_f ``g``") == ("a&#124;b &lt;c&gt; &#42;d&#42; e&#95;f `g`")


def test_what_cells_print_and_draw_is_shown(tmp_path):
    outputs = [
        _output("stream", name="stdout", text="one\ntwo\n"),
        _output("stream", name="stderr", text="a warning"),
        _output("display_data", data={"image/png": "iVBORw==", "text/plain": "<Figure>"}),
        _output("execute_result", data={"text/plain": "42"}),
    ]
    assert _shown(outputs, tmp_path / "tour.md", 7) == [
        "```text\none\ntwo\n```",
        "![What cell 7 draws](tour_7_2.png)",
        "```text\n42\n```",
    ]
    assert (tmp_path / "tour_7_2.png").read_bytes() == b"\x89PNG"


class _output(dict):  # noqa: N801  # as nbformat's, whose keys are attributes, too
    def __init__(self, output_type, **values):
        super().__init__(values)
        self.__dict__.update(values, output_type=output_type)


@pytest.mark.parametrize(
    ("built", "links", "code"), [(0, [], 0), (1, [], 1), (0, ["a.html: b: is no file"], 1)]
)
def test_a_warning_or_a_wrong_link_fails_the_build(
    tmp_path, monkeypatch, capsys, built, links, code
):
    commands = []
    monkeypatch.setattr(build_site, "write_notebook", lambda *paths: None)
    monkeypatch.setattr(build_site, "write_reference", lambda folder: ["scan"])
    monkeypatch.setattr(build_site, "faults", lambda site: links)

    def run(command, env):
        commands.append(command)
        return Mock(returncode=built)

    monkeypatch.setattr(build_site.subprocess, "run", run)
    assert build_site.main(tmp_path / "site") == code
    assert "--strict" in commands[0] and (tmp_path / "site/mkdocs.yml").exists()
    assert "\n".join(links) in capsys.readouterr().out


def test_pages_that_the_navigation_leaves_out_are_in_its_last_section(tmp_path):
    (tmp_path / "docs").mkdir()
    for name in ("a", "b", "ab"):
        (tmp_path / f"docs/{name}.md").write_text("")
    nav = [{"Home": [{"The b": "docs/b.md"}]}, {"Parts": []}]
    found = complete(nav, ["scan"], tmp_path)
    assert found[1] == {"Parts": ["reference/scan.md"]}
    assert found[2:] == [{"More": ["docs/a.md", "docs/ab.md"]}]
    assert (
        complete([{"x": [{"y": f"docs/{n}.md"} for n in ("a", "b", "ab")]}], [], tmp_path)[1:] == []
    )


PAGE = '<a id="top" href="{}">x</a><img src="{}"><link rel="canonical" href="https://e.org/">'


@pytest.mark.parametrize(
    ("link", "image", "fault"),
    [
        ("b.html#top", "a.png", None),
        ("#top", "a.png?v=1", None),
        ("folder/", "a.png", None),
        ("https://example.org/x", "a.png", None),
        ("b.html#gone", "a.png", "b.html#gone: is no anchor of that page"),
        ("#gone", "a.png", "#gone: is no anchor"),
        ("c.html", "a.png", "c.html: is no file of the site"),
        ("../outside.html", "a.png", "../outside.html: is no file"),
        ("b.html", "b.png", "b.png: is no file"),
        ("b.html", "https://cdn.example/a.png", "is loaded from another host"),
        ("b.html", "//cdn.example/a.png", "is loaded from another host"),
    ],
)
def test_links_are_checked(tmp_path, link, image, fault):
    (tmp_path / "outside.html").write_text("")
    site = tmp_path / "site"
    (site / "folder").mkdir(parents=True)
    (site / "folder/index.html").write_text(PAGE.format("../b.html#top", "../a.png"))
    (site / "a.png").write_bytes(b"")
    (site / "b.html").write_text(PAGE.format("a.html", "a.png"))
    (site / "a.html").write_text(PAGE.format(link, image))
    found = faults(site)
    assert len(found) == (fault is not None), found
    assert fault is None or (found[0].startswith("a.html: ") and fault in found[0])


def test_the_navigation_names_pages_that_there_are(source):
    config = CONFIG.read_text()
    named = re.findall(r": ([\w/]+\.md)$", config, re.M)
    written = {"docs/tour.md"} | {f"reference/{n}.md" for n in ("api", "gallery", "models")}
    assert len(named) > 20
    for path in named:
        assert path in written or (source / path).exists(), path
    assert "font: false" in config and "http" not in config.partition("theme:")[2]


def test_the_notebook_has_links_to_pages():
    cells = json.loads((ROOT / "docs/tour.ipynb").read_text())["cells"]
    text = "".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    links = re.findall(r"\]\((\w+\.md)\)", text)
    assert len(links) > 3 and all((ROOT / "docs" / link).exists() for link in links)
