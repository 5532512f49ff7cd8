"""Weights files: ours and others', whole and broken."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import zoo
from export.model import network_of
from zoo.blocks import RSSB
from zoo.checkpoints import model_in
from zoo.checkpoints.choose import choose_network
from zoo.checkpoints.files import read_state, write_pickled, write_safetensors
from zoo.checkpoints.named_recipe import differences
from zoo.checkpoints.saving import package_version
from zoo.checkpoints.scored import ScoredWeights, scored_weights
from zoo.errors import CheckpointError, RecipeError, WriteError, ZooError
from zoo.limits import use_max_parameters
from zoo.registry import temporary_registrations

SMALL = {"network": {"type": "single_image", "dim": 32, "depths": [1], "scale": 2}}


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "w.safetensors"
    zoo.save(zoo.build(SMALL), path, step="7")
    return path


def test_a_file_says_what_it_is(saved):
    _, metadata = read_state(saved)
    assert metadata["format"] == "zoo" and metadata["step"] == "7"
    assert json.loads(metadata["recipe"])["network"] == SMALL["network"]
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_a_named_recipe_counts_and_a_word_says_where_it_differs(tmp_path, caplog):
    path, name = tmp_path / "w.safetensors", "mambairv2_tiny_x2"
    changes = {"block.mixer.routing": "sample", "block.mixer.prompt": "sorted"}
    zoo.save(zoo.build(name, **changes), path)
    sources = (
        lambda: choose_network(name, path),
        lambda: network_of(name, path).network,
        lambda: zoo.load(path, recipe=name),
    )
    for source in sources:
        caplog.clear()
        mixer = source().groups[0].blocks[0].far.mixer
        assert (mixer.router.routing, mixer.prompt) == ("argmax", "raster")
        assert f"w.safetensors has another recipe than {name}, which is used" in caplog.text
        assert "'network.block.mixer.routing' is the default, not 'sample'" in caplog.text
        assert "'network.block.mixer.prompt' is the default, not 'sorted'" in caplog.text


@pytest.mark.parametrize(
    ("held", "overrides"),
    [
        ({"name": "x", "extends": "mambairv2_tiny_x2"}, {}),
        ({"extends": "mambairv2_tiny_x2"}, {"block.mixer.routing": "sample"}),
        ({"extends": "mambairv2_tiny_x2", "train": {"steps": 7}}, {}),
        ({"extends": 7}, {}),
    ],
    ids=["same", "overridden", "training", "damaged"],
)
def test_no_word_about_a_recipe_in_a_file_that_does_not_differ(held, overrides, tmp_path, caplog):
    path, name = tmp_path / "w.safetensors", "mambairv2_tiny_x2"
    facts = {"format": "zoo", "recipe": json.dumps(held)}
    write_safetensors(path, zoo.build(name).state_dict(), facts)
    zoo.load(path, recipe=name, **overrides)
    assert not caplog.records


def test_parts_are_compared_by_name_or_by_mapping():
    named = {"head": "residual", "scans": ["raster", {"type": "window", "size": 8}], "dim": 4}
    same = {"head": {"type": "residual"}, "scans": [{"type": "raster"}, named["scans"][1]]}
    assert differences(named, {**same, "dim": 4}, ()) is None
    other = {"head": {"type": "plain"}, "scans": ["raster", "hilbert"], "dim": 5, "scale": 2}
    found = differences(named, other, ("dim",))
    assert found == (
        "'network.head.type' is 'residual', not 'plain'; "
        "'network.scans[1].type' is 'window', not 'hilbert'; "
        "'network.scans[1].size' is 8, not the default and so on"
    )


@pytest.mark.parametrize("wrapper", ["params_ema", "params", "state_dict", None])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_wrappers_and_prefixes_are_taken_off(tmp_path, saved, wrapper, prefix):
    state = {prefix + key: value for key, value in load_file(saved).items()}
    content = state if wrapper is None else {"params": {}, wrapper: state, "iter": 5}
    if wrapper == "params_ema":
        content["params"] = {key: value + 1 for key, value in state.items()}
    if wrapper == "state_dict":
        del content["params"]
    torch.save(content, tmp_path / "w.pth")
    network = zoo.load(tmp_path / "w.pth", recipe=SMALL)
    expected = zoo.load(saved).state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in network.state_dict().items())


def test_a_part_that_is_not_imported_is_an_error_with_the_file_and_the_option(tmp_path):
    path = tmp_path / "w.safetensors"
    with temporary_registrations():
        zoo.register("block", "twice")(type("Twice", (RSSB,), {}))
        zoo.save(zoo.build(SMALL, block="twice"), path)
    with pytest.raises(CheckpointError) as error:
        zoo.load(path)
    message = str(error.value)
    assert message.startswith(f"{path}: its recipe has network.block: unknown block 'twice'; known")
    assert message.endswith("; if the part is yours, add --import MODULE")
    assert zoo.load(path, block="rssb")  # an override may repair it


def test_a_wrong_override_is_not_blamed_on_the_file(saved):
    with pytest.raises(RecipeError, match="unknown block 'mine'") as error:
        zoo.load(saved, block="mine")
    assert "its recipe" not in str(error.value)


def test_overrides_apply_when_loading(saved):
    with pytest.raises(CheckpointError, match="wrong size"):
        zoo.load(saved, dim=64)
    assert zoo.load(saved, drop_path=0.5).groups[0].blocks[0].drop_path.rate == 0


def test_missing_and_unexpected_keys_are_listed(tmp_path, saved):
    state = load_file(saved)
    state["extra.weight"] = torch.zeros(2)
    del state["norm.weight"], state["shallow.bias"]
    save_file(state, tmp_path / "broken.safetensors")
    with pytest.raises(CheckpointError) as error:
        zoo.load(tmp_path / "broken.safetensors", recipe=SMALL)
    text = str(error.value)
    assert "missing 2: " in text and "norm.weight" in text and "shallow.bias" in text
    assert "unexpected 1: extra.weight" in text and "broken.safetensors" in text


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_truncated_file_is_one_clear_error(tmp_path, saved, suffix):
    path = tmp_path / f"bad{suffix}"
    if suffix == ".pth":
        torch.save(load_file(saved), path)
    else:
        path.write_bytes(saved.read_bytes())
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=r"bad.*not a readable .*truncated"):
        zoo.load(path)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".md"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty: copy or download it again"),
        (b"\n<!DOCTYPE html><title>Quota", "a web page, not weights: download the file that"),
        (b"<html lang='x'>" + b"\xff" * 9, "a web page, not weights"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid",
            "a pointer of Git LFS, .*git lfs pull",
        ),
        (b"\n# My model\n", "text, not weights; it starts with '# My model': name a file of w"),
        (b"x" * 511 + "é".encode(), "text, not weights; it starts with 'xxx.*"),
        (b'{"type": 1}', """text, not weights; it starts with '{"type": 1}'"""),
    ],
    ids=["empty", "page", "page of another encoding", "LFS", "card", "cut letter", "JSON"],
)
def test_a_file_that_is_no_weights_is_named_for_what_it_is(tmp_path, suffix, content, message):
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"w{suffix}: {message}"):
        zoo.load(path)


@pytest.mark.parametrize("content", [b"\x80\x02broken", b"\x00\x01\x02", b"PK\x03\x04abc"])
def test_a_binary_file_is_not_called_text(tmp_path, content):
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match="not a readable PyTorch weights file"):
        zoo.load(tmp_path / "w.pth")


def test_files_that_could_run_code_are_refused(tmp_path):
    import os

    class Harm:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harm"),)

    torch.save({"params": {"a": torch.zeros(1), "b": Harm()}}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match="other objects than tensors"):
        zoo.load(tmp_path / "evil.pth")
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"params": {"conv.weight": torch.zeros(1)}}, "not recognised.*conv.weight"),
        ({"epoch": 3, "name": "x"}, "not a state dict"),
        ([torch.zeros(1)], "not a state dict"),
    ],
)
def test_foreign_files_are_not_guessed_at(tmp_path, content, message):
    torch.save(content, tmp_path / "foreign.pth")
    with pytest.raises(CheckpointError, match=message):
        zoo.load(tmp_path / "foreign.pth")


def test_a_file_of_theirs_that_lacks_a_key_or_has_a_stray_one_says_so(tmp_path):
    from tests.helpers.official_weights import state_dict

    state = state_dict("ir_classic_x2_16x16")
    torch.save({**state, "stray.weight": torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"unexpected 1: stray\.weight"):
        zoo.load(tmp_path / "w.pth")
    scan = "layers.0.residual_group.blocks.0.self_attention.x_proj_weight"
    torch.save({**state, scan: state[scan][:3]}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="has 3 scan directions, but MambaIR has 1, 2 or 4"):
        zoo.load(tmp_path / "w.pth")
    del state["conv_first.weight"]
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(
        CheckpointError,
        match=r"the key 'conv_first\.weight' is missing; the file may be incomplete$",
    ):
        zoo.load(tmp_path / "w.pth")


def test_names_without_weights_and_unknown_names():
    with pytest.raises(CheckpointError, match=r"no weights ship for 'mambair_light_x4'"):
        zoo.load("mambair_light_x4")
    with pytest.raises(CheckpointError, match="did you mean 'mambair_light_x4'"):
        zoo.load("mambair_lite_x4")
    with pytest.raises(CheckpointError, match="does not exist"):
        zoo.load("missing.pth")


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


def test_shipped_weights_load_by_name():
    from zoo.checkpoints import WEIGHTS, shipped_weights

    assert "mambair_tiny_x2" in shipped_weights()
    for name in shipped_weights():
        assert zoo.load(name).recipe.name == name
        assert (WEIGHTS / f"{name}.md").is_file()
        assert (WEIGHTS / f"{name}.safetensors").stat().st_size < 2e6


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


KINDS = {
    "sparse": lambda t: t.to_sparse(),
    "quantized": lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8),
    "meta": lambda t: t.to("meta"),
    "complex": lambda t: t.to(torch.complex64),
    "repeated": lambda t: t[:1].expand(10**6, *t.shape[1:]),
}


@pytest.mark.filterwarnings("ignore:.*quantize")
@pytest.mark.parametrize("kind", KINDS)
def test_tensors_of_other_kinds_are_named(tmp_path, saved, kind):
    state = load_file(saved)
    torch.save({**state, "norm.weight": KINDS[kind](state["norm.weight"])}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=f"'norm.weight' is a {kind} tensor; save the dense"):
        zoo.load(tmp_path / "w.pth", recipe=SMALL)


def test_tensors_of_the_right_number_of_values_but_another_shape_are_refused(tmp_path, saved):
    """A transposed matrix would give a wrong image without a word."""
    state = load_file(saved)
    key = "groups.0.blocks.0.mixer.in_proj.weight"
    for tensor, message in [
        (state[key].T.contiguous(), rf"wrong size 1: {key} \(32, 128\) instead of \(128, 32\)"),
        (state[key].long(), rf"wrong dtype 1: {key} torch\.int64 instead of torch\.float32"),
        (torch.tensor(1.0), r"wrong size 1: .* \(\) instead of"),
    ]:
        torch.save({**state, key: tensor}, tmp_path / "w.pth")
        with pytest.raises(CheckpointError, match=message):
            zoo.load(tmp_path / "w.pth", recipe=SMALL)


def metadata_only(path, recipe, **tensors):
    save_file(tensors or {"a": torch.zeros(1)}, path, {"format": "zoo", "recipe": recipe})
    return path


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ('{"extends": "PATH", "network": {"scale": 2}}', "can only extend a published one"),
        ('{"extends": "base.yaml"}', "can only extend a published one"),
        ("[" * 100_000, "nested more than 32 levels deep"),
        ("[" * 100_001, "more than 100,000 characters"),
        ("1" * 6000, "an integer has more than 64 bits"),
        ("{", "the recipe in the file is damaged .not valid JSON"),
        ('{"network": {"type": "single_image", "dim": 1000000000}}', "too much for the limit"),
        ('{"network": {"type": "single_image", "depths": [100000000]}}', "adds up to 100,000,000"),
        ('{"network": {"type": "single_image", "drop_path": NaN}}', "expected a finite number"),
        ("[]", "a recipe is a mapping"),
    ],
    ids=range(10),
)
def test_a_hostile_recipe_in_a_file_is_one_sentence_and_opens_nothing(
    tmp_path, monkeypatch, recipe, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.yaml").write_text(json.dumps(SMALL))
    path = metadata_only(
        tmp_path / "w.safetensors", recipe.replace("PATH", str(tmp_path / "base.yaml"))
    )
    with pytest.raises(CheckpointError, match=rf"w\.safetensors: .*{message}") as error:
        zoo.load(path)
    assert len(str(error.value)) < 500


def test_a_recipe_in_a_file_may_extend_a_published_one(tmp_path):
    network = zoo.build("mambair_tiny_x2")
    recipe = '{"extends": "mambair_tiny_x2", "name": "mine"}'
    path = metadata_only(tmp_path / "w.safetensors", recipe, **network.state_dict())
    assert zoo.load(path).recipe.name == "mine" == model_in(path)


def test_a_flipped_bit_in_a_pickle_is_found(tmp_path, saved):
    torch.save(load_file(saved), tmp_path / "w.pth")
    whole = bytearray((tmp_path / "w.pth").read_bytes())
    whole[len(whole) // 2] ^= 1
    (tmp_path / "w.pth").write_bytes(whole)
    with pytest.raises(CheckpointError, match=r"the checksum of .* is wrong"):
        zoo.load(tmp_path / "w.pth", recipe=SMALL)


def test_an_archive_that_declares_more_than_it_holds_is_refused(tmp_path, saved):
    torch.save(load_file(saved), tmp_path / "w.pth")
    with (
        zipfile.ZipFile(tmp_path / "w.pth") as given,
        zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for name in given.namelist():
            bomb.writestr(name, given.read(name))
        bomb.writestr("archive/data/99", bytes(10**7))
    with pytest.raises(CheckpointError, match="declares more data than it holds"):
        zoo.load(tmp_path / "bomb.pth", recipe=SMALL)


def test_other_hostile_files_of_weights(tmp_path, saved):
    tensor = torch.zeros(1)
    for content, message in [
        ({5: tensor}, "entry with a key of int is not a tensor with a name"),
        ({"a": tensor, "_orig_mod.a": tensor}, "has 'a' twice; remove one of the two"),
        ({f"k{i}": tensor for i in range(10_001)}, "has 10,001 tensors, more than 10,000"),
        ({"k" * 10**5: tensor}, "not recognised"),
    ]:
        torch.save(content, tmp_path / "w.pth")
        with pytest.raises(CheckpointError, match=message):
            zoo.load(tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="cannot read weights: File name too long"):
        zoo.load(tmp_path / f"{'x' * 5000}.pth")
    with (
        use_max_parameters(1000),
        pytest.raises(CheckpointError, match="--max-parameters"),
    ):
        zoo.load(saved)


def test_metadata_say_what_wrote_a_file_and_what_the_caller_adds(tmp_path):
    network = zoo.build("mambair_tiny_x2")
    zoo.save(network, tmp_path / "a.safetensors", step="7")
    _, metadata = read_state(tmp_path / "a.safetensors")
    assert json.loads(metadata.pop("recipe")) == network.recipe.data()
    assert metadata == {
        "format": "zoo", "zoo_version": package_version(), "torch_version": torch.__version__,
        "step": "7",
    }  # fmt: skip


def test_names_of_more_than_a_hundred_characters_are_cut(saved):
    for length, told in ((100, "x" * 100), (101, "x" * 97 + "...")):
        state = {**load_file(saved), "x" * length: torch.zeros(1)}
        with pytest.raises(CheckpointError, match=rf"unexpected 1: {told}$"):
            zoo.load(state, recipe=SMALL)


def test_only_weights_of_a_training_are_told_to_be_of_another_one(saved):
    other = zoo.build(SMALL, dim=40).recipe
    for weights, told in (
        (ScoredWeights(saved, "those"), False),
        (ScoredWeights(saved, "those", trained=True), True),
    ):
        with pytest.raises(CheckpointError) as caught:
            weights.network(other)
        assert ("it was trained with other settings" in str(caught.value)) is told


def test_a_file_that_is_missing_is_not_told_to_be_in_the_package(tmp_path):
    recipe = zoo.build("mambair_tiny_x2").recipe
    for given, told in (
        (tmp_path / "missing.pth", f"{tmp_path}/missing.pth"),
        (Path("mambair_tiny_x2"), "those of mambair_tiny_x2 in the package"),
    ):
        assert scored_weights(recipe, given).told == told


def test_compat_without_effect_names_the_file_or_the_model(saved):
    for model, weights, name in ((None, saved, saved), ("mambair_tiny_x2", None, "mambair_tiny")):
        with pytest.raises(ZooError, match=f"^--compat has no effect on {name}"):
            choose_network(model, weights, overrides={"compat": "official"})
