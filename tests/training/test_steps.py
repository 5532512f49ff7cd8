"""The trainer's steps against loops written plainly, on a toy network: equal to the last bit."""

from __future__ import annotations

import math
from contextlib import contextmanager, nullcontext
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import zoo
from recipes.train import Trainer
from tests.helpers.toy import Toy, ToyBlock, register_toy
from tests.helpers.toy_training import (
    ADAMW,
    STEPS,
    Several,
    assert_equal,
    log_of,
    trainer_of,
)
from tests.helpers.training import make_photos
from zoo.data import Bicubic, PatchDataset, load_training_photos
from zoo.data.testsets import validation_images
from zoo.errors import ZooError
from zoo.evaluation import Protocol, evaluate, mean_score
from zoo.training.settings import BurstDataSettings


@pytest.fixture(autouse=True)
def _toy():
    register_toy()


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return make_photos(tmp_path_factory.mktemp("data") / "photos")


def cosine_20(step):
    """Full rate for 4 steps, then a cosine that would end at 1e-4 after step 20."""
    return 1e-4 + (0.01 - 1e-4) * (1 + math.cos(math.pi * max(0, step - 4) / 16)) / 2


def two_milestones(step):
    """A rise over the first 3 steps; halved at 5 and 12."""
    return 0.01 * min(1, (step + 1) / 3) * (1 if step < 5 else 0.5 if step < 12 else 0.25)


def l1(output, clean):
    return (output - clean).abs().mean()


def charbonnier(output, clean):
    return ((output - clean) ** 2 + 0.05**2).sqrt().mean()


MULTISTEP = {"type": "multistep", "milestones": [5, 12], "gamma": 0.5, "warmup": 3}
COSINE = {"type": "cosine", "hold": 4, "minimum": 1e-4}
ADAM = {"type": "adam", "lr": 0.01, "betas": [0.6, 0.95], "weight_decay": 0.02, "decay": "all"}
ADAMW_HERE = partial(torch.optim.AdamW, betas=(0.7, 0.9), weight_decay=0.5, fused=True)
ADAM_HERE = partial(torch.optim.Adam, betas=(0.6, 0.95), weight_decay=0.02, fused=True)

CASES = {
    "adamw-milestones-clip-ema-accumulate-mixup-stages-drop_path": (
        {
            "optimizer": ADAMW,
            "schedule": MULTISTEP,
            "clip": 0.05,
            "ema": 0.8,
            "accumulate": 2,
            "seed": 3,
            "loss": {"type": "charbonnier", "epsilon": 0.05},
            "data": {
                "mixup": 0.7,
                "stages": [
                    {"iterations": 7, "patch": 6, "batch": 4},
                    {"iterations": 4, "patch": 4, "batch": 6},
                    {"iterations": 1, "patch": 8, "batch": 2},
                ],
            },
            "network": {"drop_path": 0.4},
        },
        {
            "optimizer": ADAMW_HERE,
            "rate": two_milestones,
            "clip": 0.05,
            "ema": 0.8,
            "accumulate": 2,
            "seed": 3,
            "loss": charbonnier,
            "mixup": 0.7,
            "stages": [(7, 6, 4), (4, 4, 6), (9, 8, 2)],
            "drop_path": 0.4,
        },
    ),
    "adam-cosine-bf16": (
        {"optimizer": ADAM, "schedule": COSINE, "precision": "bf16"},
        {"optimizer": ADAM_HERE, "rate": cosine_20, "dtype": torch.bfloat16},
    ),
    "adamw-constant-fp16-clip": (
        {"optimizer": ADAMW, "precision": "fp16", "clip": 0.05, "ema": 0.5},
        {
            "optimizer": ADAMW_HERE,
            "rate": lambda step: 0.01,
            "dtype": torch.float16,
            "clip": 0.05,
            "ema": 0.5,
        },
    ),
}


def plain_loop(
    photos,
    *,
    optimizer,
    rate,
    loss=l1,
    clip=0.0,
    ema=0.0,
    accumulate=1,
    seed=0,
    mixup=0.0,
    stages=((STEPS, 6, 4),),
    drop_path=0.0,
    dtype=None,
):
    """Training as one would write it first: losses, weights and averaged weights."""
    torch.manual_seed(seed)
    network = Toy(scale=2, drop_path=drop_path).train()
    weights = list(network.parameters())
    update = optimizer(weights, lr=1.0)
    average = {key: value.clone() for key, value in network.state_dict().items()}
    names = {name for name, _ in network.named_parameters()}
    scaler = torch.amp.GradScaler("cpu", enabled=dtype == torch.float16)
    plan = [(patch, batch) for steps, patch, batch in stages for _ in range(steps)]
    images = load_training_photos(photos)
    found, scales, first = [], [], 0
    for step, (patch, batch) in enumerate(plan):
        pairs = PatchDataset(
            images,
            degradation=Bicubic(scale=2),
            patch=patch,
            channels=3,
            length=1000,
            seed=seed,
        )
        items = [pairs[first + number] for number in range(batch)]
        first += batch
        update.param_groups[0]["lr"] = rate(step)
        network.zero_grad()
        total = 0.0
        size = batch // accumulate
        for part in range(accumulate):
            degraded, clean = (
                torch.stack([item[k] for item in items[part * size : (part + 1) * size]])
                for k in (0, 1)
            )
            if mixup and torch.rand(()) >= 0.5:
                kept = torch.distributions.Beta(mixup, mixup).sample().item()
                other = torch.randperm(size)
                degraded = degraded.lerp(degraded[other], 1 - kept)
                clean = clean.lerp(clean[other], 1 - kept)
            with torch.autocast("cpu", dtype) if dtype else nullcontext():
                output = network(degraded)
            value = loss(output.float(), clean) / accumulate
            scaler.scale(value).backward()
            total += value.item()
        scale = scaler.get_scale()
        scaler.unscale_(update)
        if clip:
            nn.utils.clip_grad_norm_(weights, clip)
        scaler.step(update)
        scaler.update()
        scales.append(scaler.get_scale() / scale)
        for key, value in network.state_dict().items():
            if key in names:
                average[key].lerp_(value, 1 - min(ema, (2 + step) / (11 + step)))
            else:
                average[key] = value.clone()
        found.append(total)
    if dtype == torch.float16:
        assert {0.5, 1.0, 2.0} <= set(scales)  # the case sees a step skipped, and the scale grow
    return found, network.state_dict(), average


@pytest.mark.parametrize("name", CASES)
def test_twenty_steps_are_those_of_a_plain_loop(name, photos, tmp_path, lively_scale):
    """Losses, rates, weights and averages: optimiser, schedule, clip, accumulation, scaling."""
    settings, plainly = CASES[name]
    losses, weights, average = plain_loop(photos, **plainly)
    trainer = trainer_of(photos, tmp_path, **settings)
    trainer.run()
    log = [line for line in log_of(tmp_path) if "loss" in line]
    assert [line["loss"] for line in log] == losses
    assert [line["lr"] for line in log] == pytest.approx(
        [plainly["rate"](step) for step in range(STEPS)]
    )
    assert_equal(trainer.network.state_dict(), weights)
    saved = zoo.load(tmp_path / "weights.safetensors").state_dict()
    assert_equal(saved, average if plainly.get("ema") else weights)


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_validation_scores_the_weights_that_are_saved(ema, photos, tmp_path):
    """The average where there is one, by the protocol of the recipe; training then goes on."""
    evaluation = {"channel": "all", "crop": 5}
    trainer = trainer_of(photos, tmp_path, ema=ema, optimizer={"lr": 0.02}, evaluation=evaluation)
    trainer.run()
    assert trainer.network.training
    [line] = [line for line in log_of(tmp_path) if "psnr" in line]
    saved = zoo.load(tmp_path / "weights.safetensors")
    protocol = Protocol(channel="all", crop=5)
    expected = evaluate(saved, validation_images(str(photos)), Bicubic(scale=2), protocol=protocol)
    mean = mean_score(expected)
    assert (line["psnr"], line["ssim"], line["baseline"]) == (
        mean.psnr,
        mean.ssim,
        mean.baseline_psnr,
    )


def test_a_logged_loss_is_the_mean_since_the_line_before(photos, tmp_path):
    found = {}
    for every in (1, 8):
        run = tmp_path / str(every)
        trainer_of(photos, run, log_every=every).run()
        found[every] = {line["step"]: line["loss"] for line in log_of(run) if "loss" in line}
    singles = [found[1][step + 1] for step in range(STEPS)]
    expected = {8: singles[:8], 16: singles[8:16], 20: singles[16:]}
    assert found[8] == {step: pytest.approx(np.mean(part)) for step, part in expected.items()}


def test_the_last_step_is_validated_and_saved_whatever_the_interval(photos, tmp_path):
    trainer_of(photos, tmp_path, save_every=8, keep=1, iterations=10).run()
    assert [line["step"] for line in log_of(tmp_path) if "psnr" in line] == [8, 10]
    assert [path.name for path in tmp_path.glob("*.pt")] == ["checkpoint-00000010.pt"]


class Exchanging(nn.parallel.DistributedDataParallel):
    """Notes which calls would exchange gradients."""

    def __init__(self, network):
        nn.Module.__init__(self)
        self.inner, self.calls, self.exchanges = network, [], True

    def forward(self, *inputs):
        self.calls.append(self.exchanges)
        return self.inner(*inputs)

    @contextmanager
    def no_sync(self):
        self.exchanges = False
        yield
        self.exchanges = True


def test_gradients_are_exchanged_with_the_last_micro_batch_only(photos, tmp_path):
    group = Several(0, 1, wrap=Exchanging)
    trainer = trainer_of(photos, tmp_path, group=group, accumulate=4, iterations=2)
    trainer.run()
    assert trainer.model.calls == [False, False, False, True] * 2


def test_the_logged_loss_is_the_mean_over_the_processes(photos, tmp_path):
    """Each has the loss of its share: two of the same loss have that loss."""
    for world_size in (1, 2):
        trainer = trainer_of(
            photos, tmp_path / str(world_size), group=Several(0, world_size), iterations=1
        )
        share = next(trainer._batches())
        alone = trainer_of(photos, tmp_path / "alone", iterations=1)
        [[loss]] = alone._train_step(share)
        assert not loss.requires_grad  # it is kept, without the graph
        trainer.run()
        assert log_of(tmp_path / str(world_size))[0]["loss"] == pytest.approx(float(loss))


@pytest.mark.parametrize(("wanted", "times"), [(False, 1), (True, 2)])
def test_gradient_checkpointing_computes_blocks_twice_in_training_only(
    wanted, times, photos, tmp_path
):
    trainer = trainer_of(photos, tmp_path, gradient_checkpointing=wanted, accumulate=2)
    block = trainer.network.block
    assert isinstance(block, ToyBlock)
    trainer._train_step(next(trainer._batches()))
    assert block.computed == 2 * times  # two micro-batches
    trainer.network.eval()(torch.rand(1, 3, 4, 4)).sum().backward()
    assert block.computed == 2 * times + 1


def test_the_network_runs_under_autocast_and_the_loss_does_not(photos, tmp_path):
    trainer = trainer_of(photos, tmp_path, precision="bf16")
    seen = []
    for module in (trainer.network, trainer.loss):
        module.register_forward_pre_hook(lambda *_: seen.append(torch.is_autocast_enabled("cpu")))
    trainer._train_step(next(trainer._batches()))
    assert seen == [True, False]


def test_a_loss_that_is_no_number_or_a_vanished_scale_ends_the_training(
    photos, tmp_path, monkeypatch
):
    trainer = trainer_of(photos, tmp_path, precision="fp16")

    def read(*losses):
        for step, loss in enumerate(losses, 7):
            trainer._unread.keep(step, [[torch.tensor(loss)]])
        trainer._read_values()

    read(1.0)
    for loss in (float("nan"), float("inf")):
        with pytest.raises(ZooError, match=r"the loss is .* at step 8: training diverged"):
            read(1.0, loss, 1.0)
    monkeypatch.setattr(trainer.scaler, "get_scale", lambda: 2.0**-10)
    read(1.0)
    monkeypatch.setattr(trainer.scaler, "get_scale", lambda: 2.0**-11)
    with pytest.raises(ZooError, match="overflows at every step"):
        read(1.0)
    assert trainer_of(photos, tmp_path, precision="bf16").scaler.is_enabled() is False


def test_initial_weights_are_taken_over(photos, tmp_path):
    other = trainer_of(photos, tmp_path, seed=77).network
    zoo.save(other, tmp_path / "other.safetensors")
    trainer = trainer_of(photos, tmp_path, initial=str(tmp_path / "other.safetensors"))
    assert_equal(trainer.network.state_dict(), other.state_dict())


def test_what_the_recipe_says_reaches_the_batches(photos, tmp_path, monkeypatch):
    given = {}

    def noted(examples, plan, **options):
        given.update(options, plan=plan)
        return iter(())

    monkeypatch.setattr("recipes.train.batches", noted)
    trainer = trainer_of(photos, tmp_path, accumulate=2, seed=9, data={"pool": 8})
    trainer.step = 3
    trainer._batches()
    expected = {"step": 3, "accumulate": 2, "num_workers": 0, "pool": 8, "seed": 9}
    assert {name: given[name] for name in expected} == expected
    assert given["group"] is trainer.group and given["plan"] == trainer.task.plan
    assert given["pinned"] is False


def test_bursts_have_no_pool(monkeypatch):
    given = {}
    monkeypatch.setattr("recipes.train.batches", lambda *_, **options: given.update(options))
    settings = SimpleNamespace(accumulate=1, seed=0, data=BurstDataSettings())
    trainer = SimpleNamespace(
        task=SimpleNamespace(examples=None, plan=None), settings=settings, step=0, group=None,
        num_workers=0, on_cuda=False,
    )  # fmt: skip
    Trainer._batches(trainer)
    assert given["pool"] == 0


@pytest.mark.parametrize("spoilt", ["score", "picture"])
def test_a_validation_of_no_number_ends_the_training_before_it_is_saved(spoilt, photos, tmp_path):
    """The loss does not show it: it was computed before the last update."""
    trainer = trainer_of(photos, tmp_path, iterations=3)
    values, pictures = trainer.task.validate(trainer.network, trainer.group)
    if spoilt == "score":
        values = {**values, "psnr": float("nan")}
    else:
        pictures = {name: np.full_like(picture, np.inf) for name, picture in pictures.items()}
    trainer.task.validate = lambda *_: (values, pictures)
    message = "the network's output is infinite or undefined at step 3: training diverged"
    with pytest.raises(ZooError, match=message):
        trainer.run()
    assert not list(tmp_path.glob("*.pt"))
