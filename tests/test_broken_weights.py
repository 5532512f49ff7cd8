"""Weights files that are broken, hostile, foreign or of another network: one sentence each."""

from __future__ import annotations

import json
import zipfile

import pytest
import torch
from safetensors.torch import load_file, save_file

import zoo
from tests.helpers.saved_network import SMALL, metadata_only, saved_small
from zoo.errors import CheckpointError
from zoo.limits import use_max_parameters


@pytest.fixture
def saved(tmp_path):
    return saved_small(tmp_path)


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


def test_names_of_more_than_a_hundred_characters_are_cut(saved):
    for length, told in ((100, "x" * 100), (101, "x" * 97 + "...")):
        state = {**load_file(saved), "x" * length: torch.zeros(1)}
        with pytest.raises(CheckpointError, match=rf"unexpected 1: {told}$"):
            zoo.load(state, recipe=SMALL)
