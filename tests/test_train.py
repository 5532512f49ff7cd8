"""The trainer: it learns, adds nothing hidden, names mistakes early, and keeps its promises."""

from __future__ import annotations

import json
import logging
import re
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

import recipes.compare
import recipes.train
import zoo
from recipes.train import Trainer, main
from tests.helpers.interruption import interrupted_at
from tests.helpers.training import LIGHT, Rank, losses, make_photos, train
from zoo.data import Bicubic, PatchDataset, Photo, load_training_photos, read_photo, write_photo
from zoo.errors import RecipeError
from zoo.recipe import Recipe, load_recipe
from zoo.training import enable_gradient_checkpointing, parse_duration, shortened
from zoo.training.options import overrides_of
from zoo.training.settings import DataSettings, train_settings


@pytest.fixture
def photos(tmp_path):
    return make_photos(tmp_path / "photos")


def straightforward_loop(photos, steps, *, clip=0.0, ema=0.0, accumulate=1):
    """Training as one would write it first; returns the losses and the weights."""
    torch.manual_seed(0)
    network = zoo.build("mambair_light_x2", dim=32, depths=[2]).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-4, betas=(0.9, 0.99), fused=True)
    average = {key: value.clone() for key, value in network.state_dict().items()}
    pairs = PatchDataset(
        load_training_photos(photos),
        degradation=Bicubic(scale=2),
        patch=16,
        channels=3,
        length=2 * steps,
        seed=0,
    )
    found = []
    for step in range(steps):
        items = [pairs[2 * step], pairs[2 * step + 1]]
        inputs, targets = (torch.stack(column) for column in zip(*items, strict=True))
        optimizer.zero_grad()
        value = 0.0
        for x, y in zip(inputs.chunk(accumulate), targets.chunk(accumulate), strict=True):
            loss = (network(x) - y).abs().mean() / accumulate
            loss.backward()
            value += loss.item()
        if clip:
            torch.nn.utils.clip_grad_norm_(network.parameters(), clip)
        optimizer.step()
        for key, weight in network.state_dict().items():
            decay = min(ema, (2 + step) / (11 + step))
            average[key] = average[key] * decay + weight * (1 - decay)
        found.append(value)
    return found, average


def test_the_light_recipe_trains_as_a_straightforward_loop(photos, tmp_path):
    """With its drop path: losses bit for bit, averaged weights to rounding.

    tests/training has the same on a toy network, for every optimiser, schedule and precision.
    """
    steps, options = 8, {"clip": 0.1, "ema": 0.9, "accumulate": 2}
    expected, weights = straightforward_loop(photos, steps, **options)
    settings = [f"{key}={value}" for key, value in options.items()]
    settings += [f"iterations={steps}", f"save_every={steps}"]
    assert train(photos, tmp_path / "run", *settings, base=LIGHT) == 0
    assert list(losses(tmp_path / "run").values()) == expected
    saved = zoo.load(tmp_path / "run" / "weights.safetensors").state_dict()
    for key, value in weights.items():
        torch.testing.assert_close(saved[key], value, atol=1e-6, rtol=1e-5)


def test_training_lowers_the_loss_and_leaves_what_people_look_for(photos, tmp_path):
    run = tmp_path / "run"
    assert train(photos, run, "iterations=40", "optimizer.lr=3e-3", "save_every=20") == 0
    found = losses(run)
    late, early = ([found[s] for s in range(*span)] for span in ((36, 41), (1, 4)))
    assert np.mean(late) < 0.8 * np.mean(early)
    lines = list(map(json.loads, (run / "metrics.jsonl").read_text().splitlines()))
    assert all(line["images_per_second"] > 0 for line in lines if "loss" in line)
    validations = [line for line in lines if "psnr" in line]
    assert [line["step"] for line in validations] == [20, 40]
    assert validations[0]["photos"][0].keys() >= {"psnr", "ssim", "baseline_psnr"}
    strip = read_photo(run / "validation" / "0.png").color_HWC
    assert strip.shape == (40, 4 * 48 + 3 * 6, 3)
    assert len(list(run.glob("checkpoint-*.pt"))) == 2
    assert zoo.load(run / "weights.safetensors").scale == 2


def test_tensorboard_gets_scalars_and_strips_once_each_also_after_a_crash(photos, tmp_path):
    """Read back with TensorBoard's own reader."""
    from tensorboard.backend.event_processing import event_accumulator as accumulator

    run = tmp_path / "run"
    with interrupted_at(5):
        train(photos, run)
    # Names of event files have the second and a count in this process. TensorBoard reads them in
    # alphabetical order, where 10 comes before 9.
    time.sleep(1 - time.time() % 1)
    assert train(photos, run) == 0  # goes on at step 3; steps 4 and 5 are logged again

    seen = accumulator.EventAccumulator(str(run / "tensorboard"))
    seen.Reload()
    logged = {event.step: event.value for event in seen.Scalars("loss")}
    assert len(seen.Scalars("loss")) == len(logged)
    assert logged == pytest.approx(losses(run), rel=1e-6)  # float32
    assert {"lr", "images_per_second", "psnr", "ssim", "baseline"} <= set(seen.Tags()["scalars"])
    assert [event.step for event in seen.Scalars("psnr")] == [3, 6]
    assert set(seen.Tags()["images"]) == {"validation/0", "validation/1"}
    newest = seen.Images("validation/0")[-1]
    strip = read_photo(run / "validation" / "0.png").color_HWC
    assert (newest.step, newest.height, newest.width) == (6, *strip.shape[:2])
    (tmp_path / "seen.png").write_bytes(newest.encoded_image_string)
    shown = read_photo(tmp_path / "seen.png").color_HWC
    assert np.abs(shown - strip).max() <= 1 / 255 + 1e-6  # one cuts, the other rounds


def test_without_tensorboard_there_are_the_lines_and_pictures(photos, tmp_path, monkeypatch):
    monkeypatch.setattr("zoo.training.metrics_log.find_spec", lambda name: None)
    assert train(photos, tmp_path / "run") == 0
    assert not (tmp_path / "run" / "tensorboard").exists() and len(losses(tmp_path / "run")) == 6


def test_recomputing_runs_blocks_twice_keeps_less_and_changes_no_gradient():
    def gradients(checkpointing):
        torch.manual_seed(0)
        network = zoo.build("mambair_light_x2", dim=32, depths=[2, 1], drop_path=0.5).train()
        assert not checkpointing or enable_gradient_checkpointing(network) == 3
        runs, kept = [], []
        for group in network.groups:
            for block in group.blocks:
                block.norm.register_forward_hook(lambda *_: runs.append(1))
        torch.manual_seed(1)
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: kept.append(t.numel()) or t, lambda t: t
        ):
            loss = network(torch.rand(8, 3, 9, 7)).square().mean()
        loss.backward()
        trained = len(runs)
        network.eval()(torch.rand(1, 3, 4, 4)).sum().backward()
        assert len(runs) == trained + 3  # nothing is computed again in evaluation
        return {name: p.grad for name, p in network.named_parameters()}, trained, sum(kept)

    plain, once, all_kept = gradients(False)
    recomputed, twice, kept = gradients(True)
    assert (once, twice) == (3, 6)
    assert kept < 0.2 * all_kept
    assert plain.keys() == recomputed.keys()
    for name, value in plain.items():
        # Sums over the two uses of an input run in another sequence: a rounding of float32.
        torch.testing.assert_close(value, recomputed[name], atol=1e-7, rtol=1e-5, msg=name)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_trains_with_weights_in_float32(photos, tmp_path, precision):
    words = f"precision={precision}", "gradient_checkpointing=true"
    assert train(photos, tmp_path / "run", *words) == 0
    [checkpoint] = (tmp_path / "run").glob("checkpoint-00000006.pt")
    state = torch.load(checkpoint, weights_only=True)
    assert all(value.dtype == torch.float32 for value in state["network"].values())
    assert bool(state["scaler"]) == (precision == "fp16")
    assert all(np.isfinite(value) for value in losses(tmp_path / "run").values())


def test_starting_from_another_scale_takes_what_fits(photos, tmp_path, caplog):
    other = zoo.build("mambair_light_x3", dim=32, depths=[1])
    zoo.save(other, tmp_path / "x3.safetensors")
    recipe = load_recipe(
        "mambair_light_x2",
        {
            "network.dim": 32,
            "network.depths": [1],
            "train.data.photos": str(photos),
            "train.data.validate": str(photos),
            "train.data.patch": 8,
            "train.initial": str(tmp_path / "x3.safetensors"),
        },
    )
    with caplog.at_level(logging.INFO):
        trainer = Trainer(recipe, tmp_path, device="cpu", num_workers=0)
    given, taken = other.state_dict(), trainer.network.state_dict()
    left = [key for key in taken if not torch.equal(taken[key], given.get(key, torch.empty(0)))]
    assert left and all(key.startswith("head.") for key in left)
    assert "tensors from" in caplog.text and "left at random values: head." in caplog.text


def test_pairs_of_files_are_learnt_from(photos, tmp_path):
    """The degraded files are the clean ones as they are, so the identity is learnt from."""
    noisy = make_photos(tmp_path / "noisy", noise=0.1)
    settings = [
        "mambair_realdn",
        "network.dim=32",
        "network.depths=[1, 1, 1, 1]",
        "network.refinement=0",
        "network.block.mixer.d_state=2",
        "network.block.branch=null",
        "data.stages=[{iterations: 2, patch: 8, batch: 2}, {iterations: 9, patch: 16, batch: 1}]",
        "iterations=4",
        "log_every=1",
        f"data.photos={photos}",
        f"data.degraded={noisy}",
        f"data.validate={photos}",
        f"data.validate_degraded={noisy}",
        "--num-workers=0",
        f"--output={tmp_path / 'run'}",
    ]
    assert main(settings) == 0
    lines = list(map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()))
    assert lines[-1]["baseline"] == pytest.approx(20, abs=1.5)  # sigma 0.1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["optimizer.lrr=1"], r"train\.optimizer\.lrr: unknown option.*did you mean 'lr'"),
        (["iterations=many"], r"train\.iterations: expected a whole number"),
        (["nonsense"], "write key=value"),
        (["data.patch=100"], r"2 of 2 training photos are too small; patches of 100.*48x40 pixels"),
        (["loss=l3"], "unknown loss 'l3'"),
        (["data.degradation=noise"], "needs the option 'sigma'"),
        (["data.degradation=null"], "trains on pairs of files"),
        (["data.photos=/nowhere"], "'/nowhere' does not exist"),
        (["optimizer.lr=1e30"], r"lr is 1e\+30; it must be at most 1000"),
        (["--import", "nothing_here"], "no module 'nothing_here'"),
        (["accumulate=4"], "a batch of 2 cannot be split evenly .* multiple of 4"),
        (["initial=none.pth"], "train.initial: none.pth does not exist"),
        (["precision=fp8"], "expected one of fp32, bf16, fp16"),
        (["data.stages=[{iterations: 1, patch: 8, batch: 2}]"], "patch and stages are both given"),
        (["ema=1"], "ema is 1.0; it must be"),
        (["--budget", "soon"], "write a duration such as"),
        (["--budget", "0.01s"], "--budget is too short"),
        (["data.degraded=PHOTOS"], "also validates on pairs"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(photos, tmp_path, capsys, given, message):
    given = [word.replace("PHOTOS", str(photos)) for word in given]
    assert train(photos, tmp_path / "run", *given) == 2
    said = capsys.readouterr().err
    assert re.search(message, said), said


def test_a_folder_that_cannot_be_made_is_one_clear_error(photos, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert train(photos, tmp_path / "file" / "run") == 2
    assert "file/run: cannot write: Not a directory; choose" in capsys.readouterr().err


def test_all_faulty_photos_are_named_before_training(photos, tmp_path, capsys):
    (photos / "torn.png").write_bytes((photos / "0.png").read_bytes()[:100])
    (photos / "text.jpg").write_text("no image")
    assert train(photos, tmp_path / "run") == 2
    said = capsys.readouterr().err
    assert "2 of 4 training photos cannot be read" in said
    assert "torn.png" in said and "text.jpg" in said


def test_pairs_that_do_not_match_are_named(photos, tmp_path, capsys):
    other = make_photos(tmp_path / "other", count=1)
    write_photo(other / "1.png", Photo(np.zeros((20, 48, 3), np.float32)))
    write_photo(photos / "2.png", read_photo(photos / "1.png"))
    settings = [f"data.degraded={other}", "data.degradation=null"]
    sides = [make_photos(tmp_path / name, count=1) for name in ("sharp", "noisy")]
    settings += [f"data.validate={sides[0]}", f"data.validate_degraded={sides[1]}"]
    settings += ["network.scale=1", "network.head=residual"]
    assert train(photos, tmp_path / "run", *settings) == 2
    said = capsys.readouterr().err
    assert "1 of 3 pairs do not match" in said and "no degraded counterpart" in said
    (photos / "2.png").unlink()
    assert train(photos, tmp_path / "run", *settings) == 2
    said = capsys.readouterr().err
    assert "1 of 2 pairs do not match" in said and "which is not 1/1 of that size" in said


def test_a_recipe_without_training_says_so(tmp_path, capsys):
    (tmp_path / "bare.yaml").write_text("network: {type: single_image}")
    assert main([str(tmp_path / "bare.yaml"), "--output", str(tmp_path / "run")]) == 2
    assert "no 'train' section" in capsys.readouterr().err


def test_a_budget_shortens_the_whole_schedule(photos, tmp_path, caplog, monkeypatch):
    recipe = load_recipe("mambair_classic_x2", {"train.schedule.warmup": 1000})
    settings = train_settings(shortened(recipe, 5000))
    assert settings.iterations == 5000
    assert settings.schedule.milestones == (2500, 4000, 4500, 4750)
    assert (settings.schedule.warmup, settings.save_every) == (10, 1250)
    assert settings.optimizer.lr == 2e-4 and settings.schedule.type == "multistep"
    assert shortened(recipe, 10**6) is recipe
    assert [parse_duration(text) for text in ("90s", "1.5h", ".5m")] == [90, 5400, 30]
    stages = train_settings(shortened(load_recipe("mambair_realdn"), 3000)).data.stages
    assert [stage.iterations for stage in stages] == [920, 640, 480, 360, 360, 240]
    monkeypatch.setattr(Trainer, "measure", lambda self, allowed: (2.0, 1.0))
    with caplog.at_level(logging.INFO):
        assert train(photos, tmp_path / "run", "iterations=100000", "--budget", "1m") == 0
    done = int(re.search(r"so (\d+) of the recipe's 100000 steps", caplog.text)[1])
    assert 10 < done < 30 and max(losses(tmp_path / "run")) == done
    # The same command goes on with the schedule that was chosen, without measuring again.
    monkeypatch.setattr(Trainer, "measure", lambda self, allowed: pytest.fail("measured again"))
    assert train(photos, tmp_path / "run", "iterations=100000", "--budget", "1m") == 0


def test_stages_follow_one_another_and_the_last_goes_on():
    stages = [{"iterations": 3, "patch": 8, "batch": 4}, {"iterations": 3, "patch": 9, "batch": 2}]
    data = train_settings(
        load_recipe("mambair_realdn", {"train.data.stages": stages, "train.iterations": 10})
    ).data
    assert [(s.iterations, s.patch, s.batch) for s in data.plan(10)] == [(3, 8, 4), (7, 9, 2)]
    assert [s.iterations for s in data.plan(2)] == [2]
    assert [(s.patch, s.batch) for s in DataSettings().plan(1)] == [(64, 16)]
    with pytest.raises(RecipeError, match="at least 1"):
        DataSettings(patch=0)


@pytest.mark.slow
def test_a_compiled_network_trains_as_a_plain_one(photos, tmp_path, monkeypatch):
    # In the shared cache a killed compilation leaves libraries that are cut short.
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    assert train(photos, tmp_path / "plain") == 0
    assert train(photos, tmp_path / "compiled", "compile=true") == 0
    plain, compiled = losses(tmp_path / "plain"), losses(tmp_path / "compiled")
    # Fused kernels round differently; the differences grow over the six steps.
    assert list(compiled.values()) == pytest.approx(list(plain.values()), rel=1e-3)


def test_settings_without_a_section_are_those_of_the_training():
    words = ["iterations=3", "train.seed=1", "network.dim=8", "evaluate.crop=2", "name=a"]
    words += ["summary=b", "data.patch=4", "names=c"]
    assert overrides_of(words) == {
        "train.iterations": 3, "train.seed": 1, "network.dim": 8, "evaluate.crop": 2, "name": "a",
        "summary": "b", "train.data.patch": 4, "train.names": "c",
    }  # fmt: skip


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("command", [recipes.train, recipes.compare])
def test_processes_beside_the_first_say_only_what_is_wrong(
    command, rank, photos, tmp_path, monkeypatch
):
    seen, zoo_log = [], logging.getLogger("zoo")
    monkeypatch.setattr(command, "process_group", lambda device: nullcontext(Rank(rank, 2)))

    def noted(*_, **options):
        seen.append((zoo_log.level, options["group"].rank))
        return []

    monkeypatch.setattr(command, "train", noted)
    monkeypatch.setattr(command, "run_study", noted, raising=False)
    before = zoo_log.level
    name = "mambair_tiny_x2" if command is recipes.train else "scan_orders"
    try:
        zoo_log.setLevel(logging.INFO)
        assert command.main([name, "-o", str(tmp_path / "run"), "--device", "cpu"]) == 0
    finally:
        zoo_log.setLevel(before)
    assert seen == [(logging.ERROR if rank else logging.INFO, rank)]


@pytest.mark.parametrize("command", [recipes.train, recipes.compare])
def test_options_of_the_machine_reach_the_training(command, photos, tmp_path, monkeypatch):
    seen = {}

    def noted(recipe, folder, **options):
        seen.update(options)
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "train", noted)
    name = "mambair_tiny_x2" if command is recipes.train else "scan_orders"
    words = [name, f"data.photos={photos}", f"data.validate={photos}", "--device", "cpu"]
    words += ["-o", str(tmp_path / "run"), "--num-workers", "3", "--tf32"]
    expected = {"device": "cpu", "num_workers": 3, "tf32": True}
    if command is recipes.train:
        words += ["--budget", "10m"]
        expected["budget"] = "10m"
    assert command.main(words) == 130
    assert {name: seen[name] for name in expected} == expected


@pytest.mark.parametrize("command", [recipes.train, recipes.compare])
def test_runs_lie_in_a_folder_of_their_name(command, monkeypatch):
    seen = []
    monkeypatch.setattr(command, "train", lambda recipe, folder, **_: seen.append(folder))
    monkeypatch.setattr(
        command, "run_study", lambda study, folder, **_: seen.append(folder) or [], raising=False
    )
    name = "mambair_tiny_x2" if command is recipes.train else "scan_orders"
    assert command.main([name, "--device", "cpu"]) == 0
    assert seen == [Path("runs") / name]


def test_the_settings_of_a_run_have_no_sequence(tmp_path, monkeypatch):
    seen = []

    def noted(folder, requested):
        seen.append(requested)
        raise KeyboardInterrupt

    monkeypatch.setattr(recipes.train, "last_state", noted)
    for network in ({"type": "toy", "a": 1}, {"a": 1, "type": "toy"}):
        with pytest.raises(KeyboardInterrupt):
            recipes.train.train(Recipe(name="a", network=network), tmp_path)
    assert len(seen) == 2 and len(set(seen)) == 1


def test_an_empty_budget_is_told(tmp_path):
    with pytest.raises(RecipeError, match="--budget '': write a duration"):
        recipes.train.train(Recipe(name="a", network={"type": "toy"}), tmp_path, budget="")
