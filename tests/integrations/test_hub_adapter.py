"""The Hub with a stand-in for its library; the library itself is in test_hub.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import zoo
from tests.helpers import hub_stand_in as hub_errors
from tests.helpers.hub_stand_in import Hub
from tests.helpers.small_weights import small_network
from zoo.checkpoints.hub import fetched, files_of, parsed
from zoo.errors import CheckpointError, ZooError
from zoo.integrations import hub as adapter
from zoo.integrations.hub import model_card


@pytest.fixture
def hub(monkeypatch, tmp_path):
    made = Hub(tmp_path / "cache")
    made.package = made.install(monkeypatch)
    adapter._pretrained.cache_clear()
    yield made
    adapter._pretrained.cache_clear()


@pytest.fixture(scope="module")
def network():
    return small_network()


def same(first, second):
    image = torch.rand(1, 3, 5, 6)
    with torch.inference_mode():
        return torch.equal(first(image), second(image))


def test_a_network_is_published_with_its_recipe_and_card_and_comes_back(hub, network):
    address = zoo.push(network, "hf:me/net", card="## Training\n")
    assert address == "hf:me/net/model.safetensors"
    files = hub.repos["me/net"]
    assert sorted(files) == ["README.md", "config.json", "model.safetensors"]
    assert files["config.json"].decode() == json.dumps(network.recipe.data(), indent=2) + "\n"
    assert files["README.md"].decode() == model_card(network, "me/net", "## Training\n")
    assert hub.calls == [
        ("repo", ("me/net",), {"private": False, "exist_ok": True}),
        (
            "upload",
            ("me/net",),
            {
                "commit_message": "Upload a network of the Mamba Restoration Zoo",
                "revision": None,
            },
        ),
    ]
    assert same(zoo.load(address), network)
    compiled = torch.nn.Module()
    compiled._orig_mod = network
    zoo.push(compiled, "me/compiled")
    assert same(zoo.load("hf:me/compiled"), network)


def test_a_card_that_is_there_stays_unless_another_is_given(hub, network):
    hub.repos["me/net"] = {"README.md": b"mine"}
    zoo.push(network, "me/net", private=True, message="again")
    assert hub.repos["me/net"]["README.md"] == b"mine"
    assert hub.calls[0] == ("repo", ("me/net",), {"private": True, "exist_ok": True})
    assert hub.calls[1] == ("exists", ("me/net", "README.md"), {"revision": None})
    assert hub.calls[2][2] == {"commit_message": "again", "revision": None}
    zoo.push(network, "me/net", card="new")
    assert hub.repos["me/net"]["README.md"].endswith(b"new\n")


@pytest.mark.parametrize(("revision", "made"), [("dev", True), ("refs/pr/1", False)])
def test_a_branch_is_made_and_a_reference_is_not(hub, network, revision, made):
    address = zoo.push(network, "me/net", revision=revision)
    assert address == f"hf:me/net@{revision}/model.safetensors"
    branches = [call for call in hub.calls if call[0] == "branch"]
    assert branches == [("branch", ("me/net",), {"branch": "dev", "exist_ok": True})] * made
    assert {call[2]["revision"] for call in hub.calls if call[0] in ("exists", "upload")} == {
        revision
    }
    for wrong in ("mine", "a/b/c"):
        with pytest.raises(CheckpointError, match=f"'{wrong}': write OWNER/REPO"):
            zoo.push(network, wrong)


def test_a_card_is_whole(network):
    parameters = sum(p.numel() for p in network.parameters())
    recipe = network.recipe
    assert model_card(network, "me/net", "More.\n\n") == (
        "---\nlibrary_name: mamba-restoration-zoo\npipeline_tag: image-to-image\ntags:\n"
        f"- image-restoration\n- mamba\n---\n# {recipe.name}\n\n{recipe.summary}\n\n"
        f"{parameters:,} parameters; scale 2; takes images of 3 channels, of any size.\n\n"
        f"Paper: {recipe.paper.title}, arXiv {recipe.paper.arxiv}\n\n"
        "```sh\nzoo restore photo.png -o restored.png -w hf:me/net\n```\n\n"
        '```python\nimport zoo\n\nnetwork = zoo.load("hf:me/net")\n```\n\nMore.\n'
    )
    plain = zoo.build({"name": "mine", "network": recipe.network})
    card = model_card(plain, "me/net")
    assert "A network for image restoration." in card and "Paper" not in card
    gray = model_card(small_network(channels=1), "me/net")
    assert "; takes images of 1 channel, of any size." in gray
    assert "; takes a burst of frames" in model_card(zoo.build("qmambabsr_tiny"), "me/net")
    assert card.endswith("```\n")


def test_files_come_from_their_revision_and_the_only_one_needs_no_name(hub):
    hub.repos["me/net"] = {"README.md": b"", "x/a.pth": b"a"}
    assert Path(fetched("hf:me/net@v2")).read_bytes() == b"a"
    assert hub.calls == [
        ("list", ("me/net",), {"revision": "v2"}),
        ("download", ("me/net", "x/a.pth"), {"revision": "v2"}),
    ]
    many = ["a.pt", "b.ckpt", "c.pth", "d.safetensors", "e.pt", "f.pt", "g.pt"]
    hub.repos["me/net"] = dict.fromkeys([*many, "b.txt"], b"b")
    assert files_of(parsed("hf:me/net")) == many
    told = "hf:me/net: the repository has {} files of weights ({}); name one: hf:me/net/FILE"
    for count, names in ((7, [*many[:6], "..."]), (6, many[:6])):
        with pytest.raises(CheckpointError) as error:
            fetched("hf:me/net")
        assert str(error.value) == told.format(count, ", ".join(names))
        hub.repos["me/net"].pop("g.pt", None)
    hub.repos["me/net"]["model.safetensors"] = b"standard"
    assert fetched("hf:me/net").read_bytes() == b"standard"
    hub.repos["me/net"] = {"b.txt": b""}
    with pytest.raises(CheckpointError, match="the repository has no file of weights; name one"):
        fetched("hf:me/net")
    hub.calls.clear()
    hub.package.constants.HF_HUB_OFFLINE = True
    hub.repos["me/net"] = {"model.safetensors": b"kept"}
    assert fetched("hf:me/net").read_bytes() == b"kept" and len(hub.calls) == 1


class Httpx(Exception):  # noqa: N818
    __module__ = "httpx._exceptions"


SAID = [
    (hub_errors.GatedRepoError("x", 401), ZooError, "you may not read this; ask for access"),
    (hub_errors.HfHubHTTPError("x", 403), ZooError, "you may not read this; .* 'hf auth login'"),
    (hub_errors.RepositoryNotFoundError("x", 404), CheckpointError, "there is no such repository,"),
    (hub_errors.HfHubHTTPError("x", 401), CheckpointError, "no such repository, or it is private"),
    (hub_errors.RevisionNotFoundError("x", 404), CheckpointError, "has no such revision"),
    (hub_errors.LocalEntryNotFoundError("x"), ZooError, "not in the cache, and the Hub cannot be"),
    (hub_errors.EntryNotFoundError("x"), CheckpointError, "the repository has no such file"),
    (hub_errors.HFValidationError("x"), CheckpointError, "this is no name of a repository"),
    (hub_errors.HfHubHTTPError("late", 500), ZooError, r"does not answer \(.*late.*\); try again"),
    (ConnectionError("cut"), ZooError, r"the Hub does not answer \(.*cut"),
    (Httpx("busy"), ZooError, r"the Hub does not answer \(.*busy"),
]


@pytest.mark.parametrize(("error", "kind", "message"), SAID, ids=map(str, range(len(SAID))))
def test_errors_of_the_hub_are_one_sentence_with_the_fix(hub, network, error, kind, message):
    hub.error = error
    for ask in (
        lambda: fetched("hf:me/net/a.pth"),
        lambda: files_of(parsed("hf:me/net")),
        lambda: zoo.push(network, "me/net"),
        lambda: adapter.Pretrained.from_pretrained("me/net"),
    ):
        with pytest.raises(ZooError, match=rf"^hf:me/net\S*: .*{message}") as found:
            ask()
        assert type(found.value) is kind


def test_other_errors_and_our_own_are_left_as_they_are(hub):
    for hub.error in (ArithmeticError("a defect"), ZooError("our own")):
        with pytest.raises(type(hub.error), match=r"^(a defect|our own)$"):
            fetched("hf:me/net/a.pth")


def test_the_methods_that_users_of_the_hub_know(hub, network, tmp_path):
    ours = adapter.Pretrained(network)
    assert same(ours, network) and adapter.Pretrained is type(ours)
    ours.save_pretrained(tmp_path / "mine")
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == [
        *("README.md", "config.json", "model.safetensors")
    ]
    for source in (tmp_path / "mine", str(tmp_path / "mine")):
        found = adapter.Pretrained.from_pretrained(source, drop_path=0.3)
        assert same(found.network, network) and found.network.recipe.network["drop_path"] == 0.3
    assert not hub.calls
    assert ours.push_to_hub("hf:me/net", private=True) == ("me/net", {"private": True})
    with pytest.raises(AttributeError, match=r"'zoo\.integrations\.hub' has no attribute 'Other'"):
        _ = adapter.Other


@pytest.mark.parametrize(
    ("source", "options", "asked", "revision"),
    [
        ("me/net", {}, "model.safetensors", None),
        ("hf:me/net", {}, "model.safetensors", None),
        ("hf:me/net@v2/x/a.safetensors", {}, "x/a.safetensors", "v2"),
        ("me/net", {"file": "x/a.safetensors", "revision": "v3"}, "x/a.safetensors", "v3"),
        ("hf:me/net@v2", {"revision": "v3"}, "model.safetensors", "v3"),
    ],
)
def test_the_methods_ask_for_the_file_of_an_address(
    hub, network, tmp_path, source, options, asked, revision
):
    zoo.save(network, tmp_path / "w.safetensors")
    hub.repos["me/net"] = {asked: (tmp_path / "w.safetensors").read_bytes()}
    place = {"cache_dir": "c", "force_download": True, "local_files_only": True, "token": "t"}
    assert same(adapter.Pretrained.from_pretrained(source, **place, **options), network)
    assert hub.calls == [("download", ("me/net", asked), {"revision": revision, **place})]


def test_a_folder_without_weights_is_named(hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "me" / "net").mkdir(parents=True)
    for source in (tmp_path, str(tmp_path), "me/net"):
        with pytest.raises(CheckpointError, match=r"the folder has no model\.safetensors; save_p"):
            adapter.Pretrained.from_pretrained(source)
    with pytest.raises(CheckpointError, match=r"the folder has no a\.pth"):
        adapter.Pretrained.from_pretrained(tmp_path, file="a.pth")
    for source in (Path("me/no"), str(tmp_path / "no"), "runs/mine/no", "/zoo-no"):
        with pytest.raises(CheckpointError, match=r"no: there is no such folder; give one that"):
            adapter.Pretrained.from_pretrained(source)
    assert not hub.calls
