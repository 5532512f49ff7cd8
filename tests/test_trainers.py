"""Checkpoints of any trainer: where the network is, which weights are taken, what is said of it."""

from __future__ import annotations

import itertools
import logging

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

import zoo
from tests.helpers.small_weights import below, holds, small_network, their_names
from zoo.checkpoints import save_official
from zoo.checkpoints.averages import averages_without_names, plain_name
from zoo.checkpoints.files import read_state
from zoo.checkpoints.source import (
    Weights,
    _most_of,
    _under_names_of_releases,
    tell_choice,
    tensors_of,
)
from zoo.checkpoints.trainers import USUAL, Found, joined, network_in, without_usual_names
from zoo.errors import CheckpointError


@pytest.fixture(scope="module")
def plain():
    """The authors' state dict."""
    return their_names(small_network())


@pytest.fixture(scope="module")
def average(plain):
    """Its moving average, which differs everywhere."""
    return {key: tensor + 1 for key, tensor in plain.items()}


LOSS = {"loss.vgg.0.weight": torch.zeros(3), "net_d.conv.weight": torch.zeros(4)}
OPTIMISER = {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1e-4}]}

PLAIN = {
    "no names above": lambda s: s,
    **{
        prefix: lambda s, p=prefix: below(p, s)
        for prefix in ("module.", "_orig_mod.", "model.", "net_g.", "generator.", "my_own_name.")
    },
    "compiled on several GPUs": lambda s: below("module._orig_mod.", s),
    "FSDP": lambda s: below("_fsdp_wrapped_module.", s),
    "wrapped and prefixed": lambda s: {"params": below("module.", s)},
    "with an optimiser": lambda s: {"epoch": 3, "model": s, "optimizer": OPTIMISER, "note": "x"},
    "two levels": lambda s: {"state_dict": {"net_g": s, "net_d": LOSS}},
    "Lightning": lambda s: {
        "epoch": 3,
        "pytorch-lightning_version": "2.1.0",
        "state_dict": {**below("model.", s), **LOSS},
        "optimizer_states": [OPTIMISER],
        "hyper_parameters": {"lr": 1e-4},
    },
    "an empty average": lambda s: {"params": s, "params_ema": {}},
    "no average": lambda s: {"model": s, "model_ema": None},
}


@pytest.mark.parametrize("layout", PLAIN)
def test_the_network_is_found_below_the_names_of_any_trainer(tmp_path, plain, layout, caplog):
    content = PLAIN[layout](plain)
    torch.save(content, tmp_path / "w.ckpt")
    with caplog.at_level(logging.INFO):
        assert holds(zoo.load(tmp_path / "w.ckpt"), plain)
    assert ": used " not in caplog.text  # there was no choice
    assert holds(zoo.load(content), plain)  # the same in memory


def dotless(state):
    return {"decay": torch.tensor(0.9), **{k.replace(".", ""): t for k, t in state.items()}}


AVERAGED = {
    **{
        name: lambda s, a, n=name: {"params": s, n: a}
        for name in (
            *("params_ema", "params-ema", "ema", "EMA", "ema_model", "swa_state_dict"),
            *("paramsEMA", "emaModel", "modelEma", "shadow", "polyak", "mean_teacher"),
        )
    },
    "timm": lambda s, a: {"state_dict": s, "state_dict_ema": a},
    "model_ema": lambda s, a: {"model": s, "model_ema": below("module.", a), "epoch": 1},
    "net_g_ema": lambda s, a: {"net_g": s, "net_d": LOSS, "net_g_ema": a, "net_d_ema": LOSS},
    "AveragedModel": lambda s, a: {"n_averaged": torch.tensor(7), **below("module.", a)},
    "AveragedModel beside": lambda s, a: {
        "model": s,
        "swa": {"n_averaged": torch.tensor(7), **below("module.", a)},
    },
    "unwrapped AveragedModel": lambda s, a: {"model": s, "avg": {"n_averaged": 7, **a}},
    "shadow": lambda s, a: {"model": s, "ema": {"decay": 0.999, "shadow": a}},
    "prefixes": lambda s, a: {
        "step": torch.tensor(5),
        **below("online_model.", s),
        **below("ema_model.", a),
    },
    "names without dots": lambda s, a: {
        "state_dict": {**below("model.", s), **below("model_ema.", dotless(a))}
    },
    "names without dots, deeper": lambda s, a: {
        **below("model.net.", s),
        **below("model_ema.", {f"net{key}": t for key, t in dotless(a).items()}),
    },
    "names without dots, from the top": lambda s, a: {
        **below("model.net.", s),
        **below("ema.", {f"modelnet{key}": t for key, t in dotless(a).items()}),
    },
}


@pytest.mark.parametrize("layout", AVERAGED)
def test_the_average_is_taken_first_and_that_is_said(tmp_path, plain, average, layout, caplog):
    torch.save(AVERAGED[layout](plain, average), tmp_path / "w.pth")
    with caplog.at_level(logging.INFO):
        assert holds(zoo.load(tmp_path / "w.pth"), average)
    assert "w.pth: used the moving average of the weights below" in caplog.text


def test_what_was_not_taken_is_said(tmp_path, plain, average, caplog):
    torch.save({"params": plain, "params_ema": average}, tmp_path / "w.pth")
    torch.save({"best_model": average, "model": plain}, tmp_path / "b.pth")
    with caplog.at_level(logging.INFO):
        zoo.load(tmp_path / "w.pth")
        assert holds(zoo.load(tmp_path / "b.pth"), plain)  # the usual name
    assert (
        "w.pth: used the moving average of the weights below 'params_ema', not those below 'params'"
    ) in caplog.text
    assert "b.pth: used the weights below 'model', not those below 'best_model'" in caplog.text


def test_of_two_usual_names_the_first_of_the_list_counts(plain, average):
    assert holds(zoo.load({"state_dict": average, "params": plain}), plain)
    assert holds(zoo.load({"module": average, "net_g": {"module": plain}}), plain)


def test_of_two_averages_the_first_usual_name_counts(plain, average):
    assert holds(zoo.load({"module_ema": plain, "ema_params": average}), average)
    assert holds(zoo.load({"best_ema": plain, "network_ema": average}), average)


def test_names_above_all_tensors_are_taken_off_while_they_are_usual():
    """So that messages name the tensors of the network, and all of their own names."""
    names = ("net_g_ema.module.body.0.weight", "net_g_ema.module.body.0.bias")
    found = without_usual_names(dict.fromkeys(names, torch.ones(1)))
    assert [*found] == ["body.0.weight", "body.0.bias"]
    apart = dict.fromkeys(("params.conv.weight", "step"), torch.ones(1))
    assert without_usual_names(apart) == apart


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        *((f"net_g_{word}", "net_g") for word in ("ema", "swa", "average", "averaged", "avg")),
        *((f"polyak_{word}", word) for word in ("net", "params", "x2")),
        *((f"{word}_ema", None) for word in ("no", "non", "not", "without", "wo", "pre", "before")),
        *(
            (f"shadow_{word}", word)
            for word in ("model", "state", "dict", "params", "parameters", "weights", "variables")
        ),
        *(("paramsEMA", "params"), ("EMAModel", "model"), ("mean_teacher", ""), ("shadow", "")),
        *(("my_mean_teacher_net", "my_net"), ("no_net_ema", "no_net"), ("ema_not", "not")),
        *(("shadow_net", None), ("teacher", None), ("mean", None), ("cinema", None)),
    ],
    ids=str,
)
def test_a_name_tells_whether_it_is_of_an_average_and_what_else(name, plain):
    found = plain_name(name)
    assert found == (plain and plain.replace("x2", "x_2"))  # numbers are words


def test_usual_names_above_a_network_are_preferred_in_their_sequence():
    names = (
        *("params", "state_dict", "model_state_dict", "model", "net_g", "netG", "generator", "net"),
        *("network", "g", "gen", "weights", "module"),
    )
    assert names == USUAL
    for name, later in itertools.pairwise([*names, "other"]):
        state = {f"{later}.w": torch.zeros(1), f"{name}.w": torch.ones(1)}
        found = network_in(state, lambda tensors: "w" in tensors, "file")
        assert (found.place, found.others) == (f"{name}.", (f"{later}.",))


def test_nothing_is_looked_for_in_a_file_of_our_format():
    """Its names are those of its network, even if they look like those of a trainer."""
    tensors = {name: torch.ones(1) for name in ("weight", "bias", "ema.weight", "ema.bias")}
    ours, other = (Weights("w", "w", tensors, facts) for facts in ({"format": "zoo"}, {}))
    assert tensors_of(nn.Linear(1, 1), ours) == (Found(tensors), None)
    assert tensors_of(nn.Linear(1, 1), other)[0].place == "ema."


def test_names_that_only_look_like_an_average_are_none(plain, caplog):
    with caplog.at_level(logging.INFO):
        for name in ("cinema", "schema", "emaciated", "favg"):
            assert holds(zoo.load({name: plain}), plain)
    assert "moving average" not in caplog.text


@pytest.mark.parametrize(
    "name",
    ["model_no_ema", "params_without_ema", "params_non_ema", "state_dict_pre_ema", "nonEMA"],
)
def test_names_that_deny_an_average_are_none(plain, average, name, caplog):
    with caplog.at_level(logging.INFO):
        assert holds(zoo.load({name: plain}), plain)
        assert "moving average" not in caplog.text
        assert holds(zoo.load({name: plain, "model_ema": average}), average)


NEVER = {
    "PyTorch": lambda s, a: {
        "model": s,
        "swa": {"n_averaged": torch.tensor(0), **below("module.", a)},
    },
    "a plain number": lambda s, a: {"params": s, "avg": {"n_averaged": 0, **a}},
    "ema-pytorch": lambda s, a: {
        **below("model.", s),
        **below("ema_model.", a),
        "initted": torch.tensor(False),
    },
    "ema-pytorch, by its step": lambda s, a: {
        "model": s,
        "ema": {"step": torch.tensor(0), **below("ema_model.", a)},
    },
    "LitEma": lambda s, a: {
        **below("model.", s),
        **below("model_ema.", {**dotless(a), "num_updates": torch.tensor(0)}),
    },
}


@pytest.mark.parametrize("layout", NEVER)
def test_an_average_that_averaged_no_weights_yet_is_not_taken(plain, average, layout, caplog):
    with caplog.at_level(logging.INFO):
        assert holds(zoo.load(NEVER[layout](plain, average)), plain)
    assert "has averaged no weights yet" in caplog.text
    assert "used the moving average" not in caplog.text


def test_an_average_is_ready_once_its_counters_are_not_0(plain, average):
    for counter in ({"num_updates": torch.tensor(9)}, {"num_updates": -1}, {"step": torch.ones(1)}):
        assert holds(zoo.load({"model": plain, "ema": {**counter, "m": average}}), average)


@pytest.mark.parametrize(
    ("names", "layout"),
    [
        ("ema.shadow_params", lambda a: {"ema": {"decay": 0.9, "shadow_params": a}}),
        ("callbacks.EMA.ema_weights", lambda a: {"callbacks": {"EMA": {"ema_weights": a}}}),
    ],
)
def test_an_average_without_names_is_said_not_to_be_used(plain, average, names, layout, caplog):
    with caplog.at_level(logging.INFO):
        content = {"state_dict": plain, **layout(list(average.values()))}
        assert holds(zoo.load({**content, "avg_losses": [torch.zeros(1)]}), plain)
    assert f"average below '{names}' is not used, because it is a list of tensors" in caplog.text
    assert caplog.text.count("moving average") == 1


def test_averages_are_not_looked_for_below_what_has_no_name():
    averages = {"ema": [torch.ones(2, 2)]}
    assert list(averages_without_names({3: averages, "x": averages}, 4)) == ["x.ema"]


def test_all_entries_of_a_file_count_to_the_limit(monkeypatch):
    monkeypatch.setattr("zoo.checkpoints.trainers.MOST_ENTRIES", 4)
    held = {"a": {"b": torch.ones(1), "c": 1}, "d": torch.ones(1)}
    assert list(joined(held, "f")) == ["a.b", "d"]
    with pytest.raises(CheckpointError, match="f: has too many entries; it is no weights file"):
        joined({**held, "e": 1}, "f")


def test_tensors_are_those_of_a_network_if_more_than_half_of_its_names_are_there():
    for names, there, enough in (
        *(("a", "a", True), ("ab", "a", False), ("ab", "abx", True), ("abcd", "ab", False)),
        *(("abcd", "abc", True), ("abcde", "ab", False), ("abcde", "abc", True)),
    ):
        assert _most_of(set(names))(dict.fromkeys(there)) is enough


def test_names_of_tensors_without_rules_count_as_they_are(tmp_path):
    network = zoo.build("mambair_tiny_x2")
    save_official(network, tmp_path / "w.pth")
    tensors, _ = read_state(tmp_path / "w.pth")
    network.register_parameter("mine", torch.nn.Parameter(torch.ones(1)))
    weights = Weights("f", "f", {**tensors, "params.mine": torch.ones(1)}, {})
    counts = [count for count, *_ in _under_names_of_releases(network, weights, ())]
    assert max(counts) == len(tensors) + 1


def test_averages_are_looked_for_below_so_many_names_and_no_more():
    deep = {"a": {"b": {"ema": [torch.ones(2, 2)]}}}
    assert list(averages_without_names(deep, 2)) == ["a.b.ema"]
    assert list(averages_without_names(deep, 1)) == []


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (Found({}), []),
        (Found({}, "model."), []),
        (Found({}, "ema.", True), ["f: used the moving average of the weights below 'ema'"]),
        (Found({}, "", True), ["f: used the moving average of the weights"]),
        (
            Found({}, "a.b.", False, ("c.", "", "d.", "e.")),
            ["f: used the weights below 'a.b', not those below 'c', '', 'd'"],
        ),
        (Found({}, notes=("one", "two")), ["f: one", "f: two"]),
    ],
)
def test_what_was_chosen_is_told_where_there_was_a_choice(found, told, caplog):
    with caplog.at_level(logging.INFO):
        tell_choice("f", found)
    assert caplog.messages == told


def test_an_average_that_lacks_most_tensors_is_said_not_to_be_used(plain, average, caplog):
    few = {key: average[key] for key in list(average)[:3]}
    with caplog.at_level(logging.INFO):
        assert holds(zoo.load({"params": plain, "params_ema": few}), plain)
    lacking = f"it lacks {len(plain) - 3} of {len(plain)} tensors"
    assert f"average below 'params_ema' is not used, because {lacking}" in caplog.text


def test_names_above_a_network_are_at_most_four(plain):
    assert holds(zoo.load(below("a.b.c.d.", plain)), plain)
    with pytest.raises(CheckpointError, match="not recognised"):
        zoo.load(below("a.b.c.d.e.", plain))


def test_weights_that_were_averaged_by_pytorch_are_read(caplog):
    network = small_network()
    averaged = AveragedModel(network)
    averaged.update_parameters(network)
    with torch.no_grad():
        averaged.module.shallow.bias += 1
    with caplog.at_level(logging.INFO):
        found = zoo.load(averaged.state_dict(), recipe=network.recipe)  # our names
    assert torch.equal(found.shallow.bias, network.shallow.bias + 1)
    assert "the state dict: used the moving average of the weights below 'module'" in caplog.text


def test_two_networks_of_one_kind_are_refused(tmp_path, plain, average):
    torch.save({"student": plain, "teacher": average}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="the network twice, below 'student' and 'teacher'"):
        zoo.load(tmp_path / "w.pth")
    content = torch.load(tmp_path / "w.pth", weights_only=True)
    assert holds(zoo.load(content["teacher"]), average)
    torch.save({**plain, **below("module.", plain)}, tmp_path / "both.pth")
    with pytest.raises(CheckpointError, match=r"unexpected \d+: module\."):
        zoo.load(tmp_path / "both.pth")


def test_a_tensor_that_the_average_lacks_is_an_error(plain, average):
    short = {key: tensor for key, tensor in average.items() if key != "conv_first.bias"}
    with pytest.raises(CheckpointError, match=r"missing 1: shallow\.bias"):
        zoo.load({"params": plain, "params_ema": short})


def test_safetensors_of_trainers_in_capitals(tmp_path, plain):
    save_file(below("module.model.", plain), tmp_path / "W.SAFETENSORS")
    assert holds(zoo.load(tmp_path / "W.SAFETENSORS"), plain)
    zoo.convert(tmp_path / "W.SAFETENSORS", tmp_path / "B.SafeTensors")
    zoo.convert(tmp_path / "B.SafeTensors", tmp_path / "C.PTH")
    assert read_state(tmp_path / "B.SafeTensors")[1]["format"] == "zoo"
    assert holds(zoo.load(tmp_path / "C.PTH"), plain)


def test_a_wrong_suffix_does_not_matter(tmp_path, plain):
    save_file(plain, tmp_path / "w.pth")
    torch.save({"params": plain}, tmp_path / "zip.safetensors")
    torch.save(plain, tmp_path / "old.safetensors", _use_new_zipfile_serialization=False)
    for name in ("w.pth", "zip.safetensors", "old.safetensors"):
        assert holds(zoo.load(tmp_path / name), plain)
    (tmp_path / "short.pth").write_bytes((tmp_path / "w.pth").read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"not a readable safetensors file .* truncated"):
        zoo.load(tmp_path / "short.pth")


def test_a_pickled_network_is_said_to_be_none(tmp_path):
    for number, content in enumerate([nn.Linear(1, 1), {"model": nn.Linear(1, 1), "epoch": 3}]):
        torch.save(content, tmp_path / f"{number}.pth")
        with pytest.raises(CheckpointError, match=r"objects such as .*; save the state_dict\(\)"):
            zoo.load(tmp_path / f"{number}.pth")
    torch.save(small_network(), tmp_path / "ours.pth")
    with pytest.raises(CheckpointError, match=r"other objects .*; save the state_dict\(\) of the"):
        zoo.load(tmp_path / "ours.pth")
