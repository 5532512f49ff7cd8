"""Training with a discriminator: its steps against a plain loop, its state, and what it says."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open

import zoo
from recipes.train import Trainer, main, train
from tests.helpers import toy_training
from tests.helpers.interruption import interrupted_at
from tests.helpers.toy import Toy, register_toy
from tests.helpers.toy_training import assert_equal
from tests.helpers.training import make_photos
from tests.helpers.vgg import write_vgg
from zoo.data import Bicubic, PatchDataset, load_training_photos
from zoo.data.sharpening import Sharpening
from zoo.distributed import ProcessGroup
from zoo.errors import CheckpointError, RecipeError, ZooError
from zoo.plots.training_curves import render_runs
from zoo.training.adversary import Adversary
from zoo.training.discriminators import UNetSpectral
from zoo.training.losses.adversarial import Vanilla
from zoo.training.settings import (
    AdversarialSettings,
    DataSettings,
    TrainSettings,
    train_settings,
)

STEPS = 8
DISCRIMINATOR = {"type": "unet_spectral", "dim": 2}


@pytest.fixture(autouse=True)
def _toy():
    register_toy()


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return make_photos(tmp_path_factory.mktemp("data") / "photos")


def recipe_of(photos, adversarial=(), **settings):
    adversarial = {"discriminator": DISCRIMINATOR, **dict(adversarial)}
    lengths = {"iterations": STEPS, "save_every": STEPS}
    return toy_training.recipe_of(photos, **lengths | settings, adversarial=adversarial)


def trainer_of(photos, folder, **settings):
    folder.mkdir(exist_ok=True)
    return Trainer(recipe_of(photos, **settings), folder, device="cpu", num_workers=0)


def log_of(folder):
    return [line for line in toy_training.log_of(folder) if "loss" in line]


def plain_loop(photos, *, accumulate, real):
    """Real-ESRGAN's step as one would write it first."""
    torch.manual_seed(3)
    network, discriminator = Toy(scale=2).train(), UNetSpectral(3, dim=2).train()
    update = torch.optim.Adam(network.parameters(), lr=0.01, betas=(0.9, 0.99), fused=True)
    update_d = torch.optim.Adam(discriminator.parameters(), lr=0.002, betas=(0.5, 0.9), fused=True)
    average = {key: value.clone() for key, value in network.state_dict().items()}
    pairs = PatchDataset(
        load_training_photos(photos),
        degradation=Bicubic(scale=2),
        patch=6,
        channels=3,
        length=1000,
        seed=3,
        augment="flip",
        sharpen=Sharpening(amount=0.8, reach=3),
    )
    log, size = [], 4 // accumulate
    for step in range(STEPS):
        for rate, optimizer in ((0.01, update), (0.002, update_d)):
            optimizer.param_groups[0]["lr"] = rate * (0.5 if step >= 5 else 1)
            optimizer.zero_grad()
        total, means = 0.0, [0.0] * 4
        for part in range(accumulate):
            items = [pairs[4 * step + part * size + number] for number in range(size)]
            degraded, target, clean = (torch.stack(column) for column in zip(*items, strict=True))
            assert not torch.equal(target, clean)
            real_images = {"clean": clean, "target": target}[real]
            made = network(degraded)
            for parameter in discriminator.parameters():
                parameter.requires_grad = False
            judged = F.softplus(-discriminator(made)).mean()
            for parameter in discriminator.parameters():
                parameter.requires_grad = True
            loss = (F.l1_loss(made, target) + 0.3 * judged) / accumulate
            loss.backward()
            total += loss.item()
            on_real, on_made = discriminator(real_images), discriminator(made.detach())
            learnt = F.softplus(-on_real).mean() + F.softplus(on_made).mean()
            (learnt / accumulate).backward()
            for place, value in enumerate((judged, learnt, on_real.mean(), on_made.mean())):
                means[place] += value.item() / accumulate
        update.step()
        update_d.step()
        for key, value in network.state_dict().items():
            if average[key].is_floating_point() and key != "latest":
                average[key].lerp_(value, 1 - min(0.8, (2 + step) / (11 + step)))
            else:
                average[key] = value.clone()
        log.append([total, *means])
    return log, network.state_dict(), average, discriminator.state_dict()


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("real", ["clean", "target"])
def test_steps_are_those_of_a_plain_loop(accumulate, real, photos, tmp_path):
    """Losses, weights, average, discriminator: to the last bit."""
    log, weights, average, discriminator = plain_loop(photos, accumulate=accumulate, real=real)
    trainer = trainer_of(
        photos,
        tmp_path,
        seed=3,
        ema=0.8,
        accumulate=accumulate,
        optimizer={"lr": 0.01},
        schedule={"type": "multistep", "milestones": [5]},
        data={"augment": "flip", "sharpen": {"amount": 0.8, "reach": 3}},
        adversarial={
            "weight": 0.3,
            "real": real,
            "optimizer": {"lr": 0.002, "betas": [0.5, 0.9]},
        },
    )
    trainer.run()
    names = ("loss", "adversarial", "discriminator", "real", "made")
    found = [[line[name] for name in names] for line in log_of(tmp_path)]
    assert found == [pytest.approx(line, rel=1e-6) for line in log]
    assert_equal(trainer.network.state_dict(), weights)
    assert_equal(trainer.ema.state, average)
    assert_equal(trainer.adversary.discriminator.state_dict(), discriminator)
    assert_equal(zoo.load(tmp_path / "weights.safetensors").state_dict(), average)


def test_the_discriminator_has_a_schedule_of_its_own_if_it_is_given_one(photos, tmp_path):
    rates = []
    for schedule in (None, {"type": "constant"}):
        trainer = trainer_of(
            photos,
            tmp_path / str(schedule is None),
            schedule={"type": "multistep", "milestones": [1], "gamma": 0.1},
            optimizer={"lr": 1e-2},
            adversarial={"schedule": schedule, "optimizer": {"lr": 1e-3}},
            iterations=2,
        )
        trainer.run()
        groups = trainer.adversary.optimizer.param_groups
        rates.append((trainer.optimizer.param_groups[0]["lr"], groups[0]["lr"]))
    assert rates == [(pytest.approx(1e-3), pytest.approx(1e-4)), (pytest.approx(1e-3), 1e-3)]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_thirty_steps_resume_to_the_last_bit(precision, photos, tmp_path, monkeypatch):
    """With a perceptual loss, sharpening, a pool, drop path and an average; stopped at step 17."""
    vgg = tmp_path / "vgg.pth"
    write_vgg(vgg, monkeypatch, widths=(2, 2, 2, 2, 2))
    perceptual = {"type": "perceptual", "weights": str(vgg), "layers": {"conv2_2": 1.0}}
    recipe = recipe_of(
        photos,
        network={"drop_path": 0.3, "noisy": True},
        iterations=30,
        save_every=10,
        log_every=7,
        ema=0.9,
        precision=precision,
        loss={"type": "sum", "losses": ["l1", perceptual], "weights": [1, 0.1]},
        data={"sharpen": {"reach": 3}, "pool": 10, "mixup": 0.5},
    )
    whole = train(recipe, tmp_path / "whole", num_workers=0)
    with interrupted_at(17):
        train(recipe, tmp_path / "parted", num_workers=0)
    torch.manual_seed(99)
    parted = train(recipe, tmp_path / "parted", num_workers=0)

    assert_equal(parted.network.state_dict(), whole.network.state_dict())
    assert_equal(parted.ema.state, whole.ema.state)
    ours, theirs = (run.adversary.discriminator.state_dict() for run in (parted, whole))
    assert_equal(ours, theirs)
    states = [run.adversary.optimizer.state_dict()["state"] for run in (parted, whole)]
    for number, slots in states[1].items():
        assert_equal(states[0][number], slots)
    assert parted.scaler.state_dict() == whole.scaler.state_dict()
    for name in ("weights.safetensors", "discriminator.safetensors"):
        files = [(tmp_path / run / name).read_bytes() for run in ("whole", "parted")]
        assert files[0] == files[1], name
    logs = [
        [{**line, "seconds": 0, "images_per_second": 0} for line in log_of(tmp_path / run)]
        for run in ("whole", "parted")
    ]
    assert [line["step"] for line in logs[0]] == [7, 14, 21, 28, 30]
    assert logs[1] == logs[0]


def test_gradients_are_averaged_over_the_processes_and_images_are_learnt_from_once():
    seen, group = [], ProcessGroup()
    group.average_gradients = lambda module: seen.append((module, module.last.weight.grad.clone()))
    chosen = AdversarialSettings(discriminator=partial(UNetSpectral, dim=2))
    settings = TrainSettings(data=DataSettings(), iterations=2, adversarial=chosen)
    adversary = Adversary(settings, 3, "cpu", group)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    made, target = (torch.rand(1, 3, 8, 8) for _ in range(2))
    adversary.term(made, target, target)
    adversary.learn(scaler, 1)
    before = adversary.discriminator.last.weight.grad.clone()
    with pytest.raises(AssertionError, match="the task showed no images"):
        adversary.learn(scaler, 1)
    adversary.step(scaler, 0)
    [(module, gradient)] = seen
    assert module is adversary.discriminator and torch.equal(gradient, before)
    assert module.last.weight.grad is None


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_images_are_judged_in_the_precision_of_the_training_and_compared_in_float32(
    precision, dtype
):
    """What is kept for the log has no graph, which would hold the images of all steps."""
    seen, compared = [], []

    class Noting(Vanilla):
        def of_network(self, made):
            compared.append(made.dtype)
            return super().of_network(made)

        def of_discriminator(self, real, made):
            compared.extend((real.dtype, made.dtype))
            return super().of_discriminator(real, made)

    chosen = AdversarialSettings(discriminator=partial(UNetSpectral, dim=2), loss=Noting())
    settings = TrainSettings(
        data=DataSettings(), iterations=2, precision=precision, adversarial=chosen
    )
    adversary = Adversary(settings, 3, "cpu", ProcessGroup())
    adversary.discriminator.last.register_forward_hook(lambda *given: seen.append(given[2].dtype))
    made, real = torch.rand(1, 3, 8, 8, requires_grad=True), torch.rand(1, 3, 8, 8)
    assert adversary.term(made, real, real).requires_grad
    values = adversary.learn(torch.amp.GradScaler("cpu", enabled=False), 1)
    assert seen == [dtype] * 3 and compared == [torch.float32] * 3
    assert len(values) == 4 and not any(value.requires_grad for value in values)


def test_files_of_the_loss_are_read_before_the_first_step(photos, tmp_path):
    with pytest.raises(CheckpointError, match="the perceptual loss needs the weights of VGG19"):
        trainer_of(photos, tmp_path, loss={"type": "perceptual", "weights": "nowhere.pth"})


@pytest.mark.parametrize("value", [float("-inf"), float("inf"), float("nan")])
def test_no_value_of_the_discriminator_may_be_infinite(value, photos, tmp_path):
    """The loss of Wasserstein's form has no sign of its own."""
    trainer = trainer_of(photos, tmp_path)
    trainer._unread.keep(3, [[torch.tensor(each) for each in (1.0, 0.5, value, 0.5, 0.5)]])
    with pytest.raises(ZooError, match="at step 3: training diverged"):
        trainer._read_values()


def test_a_logged_value_is_the_mean_since_the_line_before(photos, tmp_path):
    for every in (1, 5):
        trainer_of(photos, tmp_path / str(every), log_every=every).run()
    singles = [line["discriminator"] for line in log_of(tmp_path / "1")]
    found = [line["discriminator"] for line in log_of(tmp_path / "5")]
    assert found == [pytest.approx(sum(part) / len(part)) for part in (singles[:5], singles[5:])]


def test_a_training_can_start_from_the_discriminator_of_another(photos, tmp_path):
    first = trainer_of(photos, tmp_path / "first")
    first.run()
    file = str(tmp_path / "first" / "discriminator.safetensors")
    with safe_open(file, "pt") as held:
        assert held.metadata() == {"format": "pt"}
    second = trainer_of(photos, tmp_path / "second", seed=9, adversarial={"initial": file})
    assert_equal(
        second.adversary.discriminator.state_dict(), first.adversary.discriminator.state_dict()
    )
    with pytest.raises(CheckpointError, match="so it is of another discriminator"):
        wide = {"type": "unet_spectral", "dim": 3}
        trainer_of(photos, tmp_path, adversarial={"initial": file, "discriminator": wide})


def test_measuring_takes_the_discriminator_back(photos, tmp_path):
    trainer = trainer_of(photos, tmp_path, precision="fp16")
    before = {k: v.clone() for k, v in trainer.adversary.discriminator.state_dict().items()}
    trainer.measure()
    assert_equal(trainer.adversary.discriminator.state_dict(), before)
    assert trainer.adversary.optimizer.state_dict()["state"] == {}
    assert trainer.adversary.steps == []


def test_a_budget_shortens_the_schedule_of_the_discriminator(photos):
    from zoo.training.budget import shortened

    schedule = {"type": "multistep", "milestones": [400, 800], "warmup": 100}
    recipe = recipe_of(photos, iterations=1000, adversarial={"schedule": schedule})
    chosen = train_settings(shortened(recipe, 100)).adversarial
    assert (chosen.schedule.milestones, chosen.schedule.warmup) == ((40, 80), 10)
    assert train_settings(shortened(recipe_of(photos), 4)).adversarial.schedule is None


def test_a_network_of_several_scales_is_judged_by_its_largest_image(photos, tmp_path):
    class Scales(Toy):
        def forward(self, image_BIHW):
            whole = super().forward(image_BIHW)
            return self.of_scales([F.avg_pool2d(whole, 2), whole])

    zoo.register("network", "toy_of_scales")(Scales)
    trainer = trainer_of(photos, tmp_path, network={"type": "toy_of_scales"}, iterations=1)
    judged, term = [], trainer.adversary.term
    trainer.adversary.term = lambda made, *real: judged.append(made.shape) or term(made, *real)
    trainer.run()
    assert judged == [(4, 3, 12, 12)]


def test_a_discriminator_that_diverges_ends_the_training_and_nothing_is_saved(photos, tmp_path):
    trainer = trainer_of(photos, tmp_path, iterations=4)
    step = trainer._train_step

    def spoilt(parts):
        if trainer.step == 2:
            trainer.adversary.discriminator.last.bias.data.fill_(float("nan"))
        return step(parts)

    trainer._train_step = spoilt
    with pytest.raises(ZooError, match="at step 3: training diverged"):
        trainer.run()
    trainer = trainer_of(photos, tmp_path / "other", iterations=1)
    with torch.no_grad():
        trainer.adversary.discriminator.last.bias.fill_(float("inf"))
    with pytest.raises(ZooError, match=r"discriminator\.last\.bias has infinite"):
        trainer.save()
    assert not list(tmp_path.rglob("*.pt"))


def test_the_curve_of_the_discriminator_is_drawn(photos, tmp_path):
    trainer_of(photos, tmp_path / "with").run()
    picture = render_runs([tmp_path / "with"])
    lines = (tmp_path / "with" / "metrics.jsonl").read_text().replace('"discriminator"', '"d"')
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "metrics.jsonl").write_text(lines)
    assert picture.shape[1] * 2 == render_runs([tmp_path / "without"]).shape[1] * 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"discriminator": "unet"}, "unknown discriminator 'unet'; known: unet_spectral"),
        ({"loss": "vanila"}, "unknown adversarial_loss 'vanila'; did you mean 'vanilla'"),
        ({"weight": -1}, r"train\.adversarial: weight is -1\.0; it must be at least 0"),
        ({"real": "sharp"}, "expected one of clean, target"),
        ({"discriminator": {"type": "unet_spectral", "dim": 0}}, "must be from 1 to 1024"),
    ],
)
def test_wrong_settings_are_named(changes, message, photos, tmp_path):
    with pytest.raises(RecipeError, match=message):
        trainer_of(photos, tmp_path, adversarial=changes)


def test_missing_weights_of_the_perceptual_loss_are_one_sentence(
    photos, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    small = ["network.dim=30", "network.depths=[1]", "initial=null", "data.patch=8"]
    words = ["mambair_real_x4_gan", *small, f"data.photos={photos}", f"data.validate={photos}"]
    assert main([*words, "-o", str(tmp_path / "run"), "--num-workers", "0"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "needs the weights of VGG19" in error
    assert not list((tmp_path / "run").glob("*.pt"))


SMALL = {
    "mambair_real_x4_gan": ["network.dim=30", "network.depths=[1]"],
    "vmambair_x4_gan": ["network.dim=8", "network.depths=[1,1,1,1]", "network.refinement=1"],
    "vmambair_real_x4_gan": ["network.dim=8", "network.depths=[1,1,1,1]", "network.refinement=1"],
}


@pytest.mark.parametrize("name", zoo.list_models("*_gan"))
def test_one_step_of_every_adversarial_recipe_on_a_toy_folder(name, tmp_path, monkeypatch):
    """From the weights of the stage before; all else is the recipe's."""
    photos = make_photos(tmp_path / "photos")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    write_vgg(tmp_path / "checkpoints" / "vgg19-dcbb9e9d.pth", monkeypatch, widths=(2,) * 5)
    data = [f"data.photos={photos}", f"data.validate={photos}", "data.patch=10", "data.batch=2"]
    run = [*data, "data.pool=0", "iterations=1", *SMALL[name], "--num-workers", "0"]
    first = name.removesuffix("_gan")
    assert main([first, "initial=null", *run, "-o", str(tmp_path / "first")]) == 0
    weights = tmp_path / "first" / "weights.safetensors"
    own = ["adversarial.discriminator.dim=2", f"initial={weights}"]
    assert main([name, *own, *run, "-o", str(tmp_path / "second")]) == 0
    [line] = log_of(tmp_path / "second")
    assert line["loss"] > 0 and line["discriminator"] == pytest.approx(2 * 0.6931, rel=0.2)
    before, after = (
        zoo.load(tmp_path / stage / "weights.safetensors").state_dict()
        for stage in ("first", "second")
    )
    moved = [float((after[key] - value).abs().max()) for key, value in before.items()]
    assert 0 < max(moved) < 1e-3  # it went on from there
