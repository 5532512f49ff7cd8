"""CONTRIBUTING.md does what it says: its files are written, its commands run, its table is true."""

from __future__ import annotations

import fnmatch
import importlib
import os
import re
import types
from pathlib import Path

import pytest
import torch
import yaml

import zoo
from tests.helpers.scripts import run_script
from zoo.data import read_photo
from zoo.inference import RestoreSettings, restore_tensor
from zoo.ops import selective_scan
from zoo.ops.scan import dispatch
from zoo.registry import kind, kinds

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
NAMED = {
    found[1]: text for _, text in BLOCKS if (found := re.match(r"# ([\w.]+)\n", text)) is not None
}
"""Code blocks whose first line is a file's name."""

COMMANDS = [text for language, text in BLOCKS if language == "sh"]


@pytest.fixture
def folder(tmp_path):
    """A folder with the example's files, outside the checkout."""
    for name in ("mine.py", "mine.yaml"):
        (tmp_path / name).write_text(NAMED[name])
    return tmp_path


def run(folder, script, **environment):
    """Run a script of the guide as someone would who has followed it so far."""
    own = {"PYTEST_ADDOPTS": "-p no:cacheprovider", "ZOO": str(ROOT)}
    return run_script(folder, script, 600, **own, **environment)


@pytest.mark.long
def test_the_worked_example(folder):
    """From an idea to a verified ONNX file, by the guide's own files and commands."""
    check, train_and_export = COMMANDS
    done = run(folder, check)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^7 passed", done.stdout, re.MULTILINE), done.stdout
    assert read_photo(folder / "interlaced.png").color_HWC.shape[2] == 3

    done = run(folder, train_and_export)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "verified: worst" in done.stdout
    assert "step 1 of 1: loss" in done.stdout + done.stderr
    assert (folder / "mine.onnx").stat().st_size > 10_000


@pytest.mark.long
def test_the_check_of_an_order_can_fail(folder):
    """The command that the guide gives sees a row that is left out."""
    wrong = NAMED["mine.py"].replace("2 * (step_H1 - even) + 1", "2 * (step_H1 - even)")
    assert wrong != NAMED["mine.py"]
    (folder / "mine.py").write_text(wrong)
    done = run(
        folder,
        'python -m pytest "$ZOO/tests/scans/test_orders.py" --import mine -k "interlaced and once"',
    )
    assert done.returncode == 1 and "1 failed" in done.stdout, done.stdout


@pytest.mark.long
def test_a_package_that_announces_its_parts(folder):
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11 or newer reads TOML")
    project = tomllib.loads(NAMED["pyproject.toml"])["project"]
    [(group, entries)] = project["entry-points"].items()
    assert project["dependencies"] == ["mamba-restoration-zoo"]
    installed = folder / "installed"
    facts = installed / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    lines = [f"{name} = {module}" for name, module in entries.items()]
    (facts / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines, ""]))
    (folder / "mine.py").rename(installed / "mine.py")
    paths = os.pathsep.join([str(installed), str(ROOT)])
    done = run(folder, "zoo show scan/interlaced", PYTHONPATH=paths)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("scan/interlaced: Rows 0, 2, 4, ... and then rows 1, 3, 5")

    (installed / "mine.py").unlink()
    done = run(folder, "zoo list", PYTHONPATH=paths)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "my-restoration lists parts in 'mine', which cannot be imported" in done.stderr


def module_of(name):
    """A Python file of the guide, loaded under a name that nothing else imports."""
    module = types.ModuleType(name)
    exec(compile(NAMED[name], name, "exec"), module.__dict__)
    return module


def test_the_smallest_backend(monkeypatch):
    monkeypatch.setitem(dispatch.BACKENDS, "mine", module_of("my_backend.py"))
    tokens, delta = torch.rand(1, 6, 4, requires_grad=True), torch.rand(1, 6, 2, 4)
    state = -torch.rand(2, 4, 3)
    B, C = torch.rand(2, 1, 6, 2, 3)
    order = torch.stack([torch.arange(6), torch.arange(6).flip(0)]).int()
    inputs = (tokens, delta, None, torch.rand(2, 4), state, B, C, torch.rand(2, 4), order)
    found, expected = (selective_scan(*inputs, backend=name) for name in ("mine", "reference"))
    assert torch.equal(found, expected)
    gradients = [torch.autograd.grad(y.sum(), tokens)[0] for y in (found, expected)]
    assert torch.equal(*gradients) and gradients[0].any()
    assert "mine" in [status.name for status in zoo.backends() if status.available]


def test_the_smallest_runtime():
    seen = []

    def enlarge(image):
        seen.append(tuple(image.shape))
        return image.repeat_interleave(2, 2).repeat_interleave(2, 3)

    facts = {"model": "m", "scale": "2", "channels": "3", "input": "image", "size_multiple": "1"}
    network = module_of("my_runtime.py").MyNetwork(enlarge, facts)
    image = torch.rand(3, 3, 5, 9)
    found = restore_tensor(network, image, RestoreSettings(tile=0))
    assert torch.equal(found, image.repeat_interleave(2, 2).repeat_interleave(2, 3))
    assert seen == [(2, 3, 8, 9), (1, 3, 8, 9)]


def test_the_network_with_a_guide():
    """Its parts take any block and fusion, and the guide reaches the output in every tile."""
    module_of("my_pansharpener.py")
    small = {"type": "pansharpener", "dim": 8, "block": {"branch": None}, "scale": 2}
    network = zoo.build({"network": small}).eval()
    image, pan = network.example_inputs(5, 6)
    found, other = (
        restore_tensor(network, image, RestoreSettings(tile=4, overlap=1), guides=(guide,))
        for guide in (pan, 1 - pan)
    )
    assert found.shape == (1, 3, 10, 12) and not torch.isclose(found, other).all()
    network.train()(image, pan).mean().backward()
    assert not [name for name, p in network.named_parameters() if p.grad is None]

    # Its fusion in the groups of another network.
    grouped = zoo.build(yaml.safe_load(NAMED["pan.yaml"])).eval()
    assert [type(f).__name__ for f in grouped.guidance.fusions] == ["GatedSum", "GatedSum"]
    image, pan = grouped.example_inputs(5, 6)
    found, other = (restore_tensor(grouped, image, guides=(guide,)) for guide in (pan, 1 - pan))
    assert found.shape == (1, 3, 10, 12) and not torch.isclose(found, other).all()


def test_the_table_of_kinds_is_complete_and_true():
    rows = re.findall(r"^\| `(\w+)` \| `([\w.]+)` \| (.*?) \| `([\w.]+)` \|$", GUIDE, re.MULTILINE)
    for name, contract, supplied, registry in rows:
        assert named(registry) is kind(name)
        assert named(contract) is kind(name).contract
        listed = [] if supplied == "nothing" else re.findall(r"`(\w+)`", supplied)
        assert list(kind(name).supplied) == listed
    ours = {n for n, r in kinds().items() if r.contract.__module__.startswith("zoo.")}
    assert ours == {row[0] for row in rows}


def test_the_readme_lists_what_each_extra_installs():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11 or newer reads TOML")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {f"`[{name}]`": names for name, names in project["optional-dependencies"].items()}
    extras["(core)"] = project["dependencies"]
    table = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Extras")[2]
    rows = dict(re.findall(r"^\| (`\[[\w-]+\]`|\(core\)) \| (.*?) \|", table, re.MULTILINE))
    for extra, names in extras.items():
        wanted = {re.match(r"[\w-]+", name)[0] for name in names}  # some twice, by Python
        assert sorted(rows[extra].split(", ")) == sorted(wanted)
    assert rows.keys() == extras.keys()


def named(dotted):
    home, _, name = dotted.rpartition(".")
    return getattr(importlib.import_module(home), name)


def anchors_of(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_and_paths_lead_somewhere(name):
    text = re.sub(r"\s+", " ", (ROOT / name).read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if "://" not in target:
            file, _, anchor = target.partition("#")
            assert (ROOT / file).exists(), target
            assert not anchor or anchor in anchors_of(ROOT / (file or name)), target
    if name == "CONTRIBUTING.md":  # a log also names files that are gone
        known = r"`((?:zoo|tests|export|recipes|benchmarks|docs|examples|trt_plugins)/[\w./]*)`"
        paths = [path for path in re.findall(known, text) if "NAME" not in path]
        assert len(paths) > 30
        assert not [path for path in paths if not (ROOT / path).exists()]
        objects = re.findall(r"`(zoo\.[\w.]+\.[A-Z]\w*)`", text)
        assert len(objects) > 20 and all(map(named, objects))


def test_the_citation_names_this_version_and_the_papers_of_the_recipes():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors", "type"} <= set(citation)
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    [stated] = re.findall(r'^version = "(.*)"$', pyproject, re.MULTILINE)
    assert citation["version"] == stated == zoo.__version__
    cited = {}
    for reference in citation["references"]:
        assert {"type", "title", "authors"} <= set(reference)
        for author in reference["authors"]:
            assert {"family-names", "given-names"} <= set(author)
        [arxiv] = [i["value"] for i in reference["identifiers"] if i["value"].startswith("arXiv:")]
        cited[arxiv.removeprefix("arXiv:")] = reference["title"]
    papers = [zoo.recipe.load_recipe(name).paper for name in zoo.list_models()]
    assert cited == {paper.arxiv: paper.title for paper in papers if paper is not None}


@pytest.mark.parametrize(
    "path",
    [
        ".pre-commit-config.yaml",
        ".github/workflows/ci.yml",
        ".github/ISSUE_TEMPLATE/bug.yml",
        ".github/ISSUE_TEMPLATE/network.yml",
        ".github/ISSUE_TEMPLATE/question.yml",
        ".github/ISSUE_TEMPLATE/config.yml",
    ],
)
def test_files_of_the_hosting_parse(path):
    data = yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))
    assert isinstance(data, dict)
    if "ISSUE_TEMPLATE" in path and not path.endswith("config.yml"):
        assert {"name", "description", "body"} <= set(data)
        ids = [item["id"] for item in data["body"] if item["type"] != "markdown"]
        assert ids and len(ids) == len(set(ids))
    if path.endswith("bug.yml"):
        assert "zoo doctor" in yaml.safe_dump(data)
    if path.endswith("ci.yml"):
        steps = [step for job in data["jobs"].values() for step in job["steps"]]
        assert any(step.get("run") == ".ci/run" for step in steps)


def test_environments_of_the_makefile_stay_out_of_commits():
    """Some hold gigabytes; git and ruff leave alone what is ignored."""
    makefile = (ROOT / "Makefile").read_text()
    folders = re.findall(r"^\w*VENV \?= (\S+)|^\w*VENV = (\S+)", makefile, re.MULTILINE)
    names = [one or other for one, other in folders]
    assert len(names) >= 7
    patterns = (ROOT / ".gitignore").read_text().split()
    ignored = {
        name
        for name in names
        for pattern in patterns
        if fnmatch.fnmatch(f"{name}/", pattern.removeprefix("/"))
    }
    assert ignored == {*names}
    cleaned = makefile.partition("\nclean:\n")[2]
    kept = [name for name in re.findall(r"^(\w*VENV)\b", makefile, re.MULTILINE)
            if f"$({name})" not in cleaned]  # fmt: skip
    assert not kept
