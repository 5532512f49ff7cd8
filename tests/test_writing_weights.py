"""Writing weights: whole or not at all, always the same bytes, and with what wrote them."""

from __future__ import annotations

import json
import os

import pytest
import torch

import zoo
from tests.helpers.saved_network import saved_small
from zoo.checkpoints.files import read_state, write_pickled, write_safetensors
from zoo.checkpoints.saving import package_version
from zoo.errors import CheckpointError, WriteError


@pytest.fixture
def saved(tmp_path):
    return saved_small(tmp_path)


def test_saving_needs_a_recipe_a_suffix_and_a_place(tmp_path, saved):
    from zoo.networks import SingleImage

    with pytest.raises(CheckpointError, match="not built from a recipe"):
        zoo.save(SingleImage(dim=32, depths=(1,)), tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="the suffix must be"):
        zoo.save(zoo.load(saved), tmp_path / "x.pth")
    (tmp_path / "file").write_text("x")
    with pytest.raises(WriteError, match="cannot write"):
        zoo.save(zoo.load(saved), tmp_path / "file" / "x.safetensors")
    with pytest.raises(CheckpointError, match="the suffix must be"):
        zoo.convert(saved, tmp_path / "x.bin")


@pytest.fixture
def full_disk():
    """Files can grow to 100 kB only; what follows is as on a full disk."""
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


class Defect:
    def __reduce__(self):
        raise RuntimeError("no state")


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (lambda path, state: write_safetensors(path, state, {}), "File too large"),
        (write_pickled, "File too large"),
    ],
)
def test_a_full_disk_is_one_clear_error_and_keeps_the_old_file(
    tmp_path, saved, full_disk, write, reason
):
    before = saved.read_bytes()
    with pytest.raises(WriteError, match=rf"w\.safetensors: cannot write: .*{reason}.*space left"):
        write(saved, {"a": torch.zeros(1_000_000)})
    assert saved.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [saved.name]


@pytest.mark.parametrize(
    "write", [lambda path, state: write_safetensors(path, state, {}), write_pickled]
)
def test_the_content_is_in_the_locked_temporary_file(tmp_path, monkeypatch, write):
    """If a library puts a file of its own there, other processes take that for a leftover."""
    sync, seen = os.fsync, []

    def synced(opened):
        [path] = tmp_path.iterdir()
        seen.append(path.stat().st_size)
        assert os.path.samestat(path.stat(), os.fstat(opened))
        sync(opened)

    monkeypatch.setattr(os, "fsync", synced)
    before = os.umask(0o026)
    try:
        write(tmp_path / "w", {"a": torch.zeros(1000)})
    finally:
        os.umask(before)
    assert len(seen) == 1 and seen[0] > 4000
    assert (tmp_path / "w").stat().st_mode & 0o777 == 0o640


def test_the_same_content_is_written_as_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_pickled(tmp_path / name, {"a": torch.arange(4.0), "b": "text"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_defects_are_not_taken_for_a_full_disk(tmp_path):
    with pytest.raises(RuntimeError, match="no state"):
        write_pickled(tmp_path / "w.pth", {"a": Defect()})
    shared = torch.zeros(4)
    with pytest.raises(RuntimeError, match="share memory"):
        write_safetensors(tmp_path / "w.safetensors", {"a": shared, "b": shared}, {})
    assert not list(tmp_path.iterdir())


def test_the_same_weights_are_the_same_bytes(tmp_path):
    """The library writes metadata in an order that is random."""
    tensors = {"b": torch.arange(3.0), "a": torch.ones(2, 2, dtype=torch.half)}
    metadata = {f'"key" {number}\n\x1f\x7f\\é🙂': f"value {number}\t" for number in range(5)}
    path = tmp_path / "a.safetensors"
    found = set()
    for _ in range(5):
        write_safetensors(path, tensors, metadata)
        found.add(path.read_bytes())
    assert len(found) == 1
    state, read = read_state(path)
    assert read == metadata and all(torch.equal(state[key], tensors[key]) for key in tensors)


def test_metadata_say_what_wrote_a_file_and_what_the_caller_adds(tmp_path):
    network = zoo.build("mambair_tiny_x2")
    zoo.save(network, tmp_path / "a.safetensors", step="7")
    _, metadata = read_state(tmp_path / "a.safetensors")
    assert json.loads(metadata.pop("recipe")) == network.recipe.data()
    assert metadata == {
        "format": "zoo", "zoo_version": package_version(), "torch_version": torch.__version__,
        "step": "7",
    }  # fmt: skip
