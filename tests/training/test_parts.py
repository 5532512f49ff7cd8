"""The parts of a training, each against numbers worked out by hand."""

from __future__ import annotations

import logging
import math
import random

import numpy as np
import pytest
import torch
from torch import nn

from tests.helpers.toy import Toy, ToyBlock, register_toy
from tests.helpers.training import Rank
from zoo.checkpoints import save
from zoo.errors import CheckpointError, RecipeError
from zoo.evaluation.settings import EvaluateSettings
from zoo.ops.precision import autocast
from zoo.recipe import build, load_recipe
from zoo.training import (
    EMA,
    affordable,
    batches,
    enable_gradient_checkpointing,
    examples_of,
    load_initial_weights,
    parse_duration,
    report,
    restore_rng_state,
    rng_state,
    seed_all,
    shortened,
)
from zoo.training.losses import L1, Charbonnier
from zoo.training.settings import (
    BurstDataSettings,
    DataSettings,
    OptimizerSettings,
    ScheduleSettings,
    Stage,
    TrainSettings,
    train_settings,
)


def stage(iterations, patch, batch):
    return Stage(iterations=iterations, patch=patch, batch=batch)


# ------------------------------------------------------------------------------- losses, precision


def test_losses_equal_their_formulas_at_small_and_large_differences():
    a = torch.tensor([[0.0, 0.3], [-2.0, 1e-4]], dtype=torch.float64)
    b = torch.tensor([[1.0, 0.0], [0.5, 0.0]], dtype=torch.float64)
    differences = [1.0, 0.3, 2.5, 1e-4]
    assert float(L1()(a, b)) == pytest.approx(sum(differences) / 4, rel=1e-12)
    for loss, epsilon in ((Charbonnier(), 1e-3), (Charbonnier(epsilon=0.2), 0.2)):
        expected = sum(math.sqrt(d * d + epsilon * epsilon) for d in differences) / 4
        assert float(loss(a, b)) == pytest.approx(expected, rel=1e-12)
    with pytest.raises(RecipeError, match="at least 1e-9 and below 1"):
        Charbonnier(epsilon=0)


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)],
)
def test_autocast_computes_in_the_precision_that_it_names(precision, dtype):
    layer = nn.Linear(2, 2)
    with autocast("cpu", precision):
        assert layer(torch.ones(1, 2)).dtype == dtype
    assert layer(torch.ones(1, 2)).dtype == layer.weight.dtype == torch.float32


# ------------------------------------------------------------------------------- schedule, stages


def test_the_default_optimiser_and_settings_are_the_documented_ones():
    chosen = OptimizerSettings()
    assert (chosen.type, chosen.lr, chosen.betas) == ("adam", 2e-4, (0.9, 0.99))
    assert chosen.weight_decay == 0
    settings = TrainSettings(data=DataSettings(), iterations=1)
    assert isinstance(settings.loss, L1) and settings.schedule.type == "constant"
    plain = ("initial", "accumulate", "precision", "gradient_checkpointing", "compile", "clip")
    assert [getattr(settings, name) for name in plain] == [None, 1, "fp32", False, False, 0]
    assert (settings.ema, settings.seed, settings.log_every) == (0, 0, 50)
    assert (settings.save_every, settings.keep) == (1000, 2)
    data = settings.data
    assert (data.photos, data.validate, data.memory, data.mixup) == ("samples", "samples", 4, 0)
    for name in ("iterations", "log_every", "save_every", "accumulate", "keep"):
        with pytest.raises(RecipeError, match=name):
            TrainSettings(**{"data": data, "iterations": 1, name: 0})
    for wrong in ({"seed": 2**32}, {"iterations": 10**12}, {"clip": math.inf}, {"ema": math.nan}):
        with pytest.raises(RecipeError, match=next(iter(wrong))):
            TrainSettings(**{"data": data, "iterations": 1, **wrong})
    for wrong in ({"clip": -1.0}, {"seed": -1}, {"ema": -0.1}, {"ema": 1.0}):
        with pytest.raises(RecipeError, match=next(iter(wrong))):
            TrainSettings(data=data, iterations=1, **wrong)


@pytest.mark.parametrize(
    ("make", "wrong", "named"),
    [
        (OptimizerSettings, {"lr": value}, "lr") for value in (-1.0, 0.0, math.nan, math.inf, 1e4)
    ] + [
        (OptimizerSettings, {"weight_decay": -1.0}, "weight_decay"),
        (OptimizerSettings, {"betas": (0.9, 1.0)}, "betas"),
        (OptimizerSettings, {"betas": (-0.1, 0.9)}, "betas"),
        (OptimizerSettings, {"betas": (math.nan, 0.9)}, "betas"),
        (OptimizerSettings, {"lr": 1e-320}, "lr"),
        (ScheduleSettings, {"gamma": -0.5}, "gamma"), (ScheduleSettings, {"gamma": 1e308}, "gamma"),
        (ScheduleSettings, {"minimum": 1e308}, "minimum"),
        (ScheduleSettings, {"milestones": (5, -1)}, "milestones"),
        (ScheduleSettings, {"type": "multistep"}, "milestones"),
        (ScheduleSettings, {"milestones": (2**60,)}, "milestones"),
        *((ScheduleSettings, {name: 2**60}, name) for name in ("hold", "cosine_steps", "warmup")),
        (DataSettings, {"mixup": 1e-320}, "mixup"), (DataSettings, {"mixup": 1e308}, "mixup"),
        (DataSettings, {"memory": 1e308}, "memory"), (Charbonnier, {"epsilon": 1e-320}, "epsilon"),
        (BurstDataSettings, {"border": 2**60}, "border"),
        (ScheduleSettings, {"minimum": math.inf}, "minimum"),
        (DataSettings, {"patch": 10**9}, "patch"), (DataSettings, {"batch": 10**9}, "batch"),
        (DataSettings, {"batch": 0}, "batch"), (DataSettings, {"memory": math.nan}, "memory"),
        (BurstDataSettings, {"patch": 0}, "patch"), (BurstDataSettings, {"batch": 0}, "batch"),
        (BurstDataSettings, {"validate_patch": 0}, "validate_patch"),
        (BurstDataSettings, {"validate_bursts": 0}, "validate_bursts"),
        (BurstDataSettings, {"border": -1}, "border"),
        (Charbonnier, {"epsilon": math.nan}, "epsilon"),
        (EvaluateSettings, {"crop": -1}, "crop"),
    ],
)  # fmt: skip
def test_numbers_out_of_range_are_refused_before_the_training(make, wrong, named):
    with pytest.raises(RecipeError, match=f"{named} (is|are) .*; (it|they|both) must be"):
        make(**wrong)


def test_every_step_of_every_schedule():
    """Warm-up reaches the full rate at step N - 1; a milestone counts from its own step on."""
    lr = 0.4
    plain = ScheduleSettings(warmup=4)
    assert [plain.factor(s, 8, lr) for s in range(8)] == [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]
    steps = ScheduleSettings(type="multistep", milestones=(2, 5), gamma=0.1, warmup=3)
    expected = [1 / 3, 2 / 3, 0.1, 0.1, 0.1, 0.01, 0.01]
    assert [steps.factor(s, 7, lr) for s in range(7)] == pytest.approx(expected, rel=1e-12)
    longer = ScheduleSettings(type="cosine", minimum=0.1, hold=2, cosine_steps=8)
    rates = [longer.factor(step, 6, 1.0) for step in (2, 6, 10, 11)]  # training may end in between
    assert rates == pytest.approx([1.0, 0.55, 0.1, 0.1])
    cosine = ScheduleSettings(type="cosine", minimum=0.1, hold=2, warmup=2)
    found = [lr * cosine.factor(s, 6, lr) for s in range(7)]
    half = [0.1 + 0.3 * (1 + math.cos(math.pi * part / 4)) / 2 for part in range(5)]
    assert found == pytest.approx([0.2, 0.4, *half], rel=1e-12)


def test_examples_are_counted_over_stage_boundaries():
    plan = [stage(3, 8, 4), stage(2, 8, 10), stage(5, 8, 1)]
    assert examples_of(plan, 0, 10) == 12 + 20 + 5
    assert examples_of(plan, 2, 4) == 4 + 10 and examples_of(plan, 5, 6) == 1
    assert examples_of(plan, 4, 4) == 0


class Numbers(torch.utils.data.Dataset):
    """Each example is its own index."""

    def __init__(self, patch):
        self.patch = patch

    def __len__(self):
        return 1000

    def __getitem__(self, index):
        return torch.tensor(index), torch.tensor(self.patch)


@pytest.mark.parametrize("step", [0, 1, 2, 3])
def test_micro_batches_come_in_one_sequence_for_every_rank_and_resume(step):
    """Each step takes the next examples of all; micro-batch by micro-batch, rank after rank."""
    plan = [stage(2, 8, 8), stage(2, 9, 4)]
    whole = {
        0: [[[0, 1], [4, 5]], [[8, 9], [12, 13]], [[16], [18]], [[20], [22]]],
        1: [[[2, 3], [6, 7]], [[10, 11], [14, 15]], [[17], [19]], [[21], [23]]],
    }
    for rank, expected in whole.items():
        before = torch.get_rng_state()
        found = list(
            batches(
                lambda stage: Numbers(stage.patch),
                plan,
                step=step,
                accumulate=2,
                group=Rank(rank, 2),
                num_workers=0,
            )
        )
        assert torch.equal(torch.get_rng_state(), before)
        assert [[part[0].tolist() for part in parts] for parts in found] == expected[step:]
        patches = [int(parts[0][1][0]) for parts in found]
        assert patches == [8, 8, 9, 9][step:]


def test_a_batch_that_ranks_and_micro_batches_do_not_divide_is_refused():
    def taken(batch, accumulate, world_size):
        return batches(
            lambda stage: Numbers(stage.patch),
            [stage(1, 8, 4), stage(1, 8, batch)],
            step=0,
            accumulate=accumulate,
            group=Rank(0, world_size),
            num_workers=0,
        )

    taken(8, 2, 2)
    for batch, accumulate, world_size in ((6, 2, 2), (2, 1, 4), (2, 4, 1)):
        with pytest.raises(RecipeError, match=f"multiple of {accumulate * world_size}"):
            taken(batch, accumulate, world_size)


# ------------------------------------------------------------------------------- budget


def test_steps_that_a_budget_affords():
    assert affordable(100, 2.0, 3.0) == math.floor((97 - 4 * 3) / 2) == 42
    assert affordable(10, 1.0, 0.0) == 9
    assert affordable(4.2, 1.0, 0.0) == 4
    with pytest.raises(RecipeError, match="too short"):
        affordable(4.1, 1.0, 0.0)
    units = {"3s": 3, "2m": 120, "2h": 7200, "1.5d": 129600, " 90s\n": 90, "11574d": 999993600}
    units[".5s"] = 0.5
    assert {text: parse_duration(text) for text in units} == units
    for wrong in ("0s", "3", "m", "-1s", "1 s", "1w", "11575d"):
        with pytest.raises(RecipeError, match="write a duration"):
            parse_duration(wrong)


def test_a_budget_says_what_becomes_of_the_schedule(caplog):
    schedules = ScheduleSettings(), ScheduleSettings(milestones=(3, 4), hold=5, warmup=6)
    asked, given = (
        TrainSettings(data=DataSettings(), iterations=steps, schedule=schedule, save_every=7)
        for steps, schedule in zip((900, 80), schedules, strict=True)
    )
    with caplog.at_level(logging.INFO):
        report("10m", 0.51234, asked, given)
    assert caplog.messages == [
        "budget 10m: 0.512 s a step, so 80 of the recipe's 900 steps; milestones [3, 4], hold 5, "
        "warm-up 6, a checkpoint every 7 steps"
    ]


def test_a_shortened_schedule_shrinks_in_proportion():
    stages = [{"iterations": steps, "patch": 8, "batch": 4} for steps in (500, 300, 1)]
    recipe = load_recipe(
        "mambair_tiny_x2",
        {
            "train.iterations": 1000,
            "train.save_every": 400,
            "train.log_every": 50,
            "train.schedule": {
                "type": "cosine",
                "hold": 200,
                "cosine_steps": 1200,
                "warmup": 40,
                "minimum": 1e-5,
                "milestones": [400, 900],  # of no use to a cosine, and shortened all the same
            },
            "train.data.patch": None,
            "train.data.batch": None,
            "train.data.stages": stages,
        },
    )
    found = train_settings(shortened(recipe, 250))
    assert (found.iterations, found.schedule.hold, found.schedule.warmup) == (250, 50, 10)
    assert (found.schedule.type, found.schedule.minimum) == ("cosine", 1e-5)
    assert found.schedule.milestones == (100, 225) and found.schedule.cosine_steps == 300
    assert [s.iterations for s in found.data.stages] == [125, 75, 1]
    assert (found.save_every, found.log_every) == (100, 12)
    assert train_settings(shortened(recipe, 10)).log_every == 1
    frequent = load_recipe(recipe, {"train.save_every": 10, "train.log_every": 1})
    found = train_settings(shortened(frequent, 250))
    assert (found.save_every, found.log_every) == (math.ceil(250 / 4), 1)
    assert shortened(recipe, 1000) is recipe


# ------------------------------------------------------------------------------- average, weights


def test_the_average_follows_weights_by_its_decay_and_takes_buffers_over():
    network = nn.BatchNorm1d(2)
    average = EMA(network, 0.9)
    with torch.no_grad():
        network.weight.fill_(3.0)
    network.running_mean.fill_(5.0)
    network.num_batches_tracked.fill_(7)
    average.update(1000)
    with average.applied():
        assert network.weight.tolist() == pytest.approx([1.2, 1.2])  # 0.9 * 1 + 0.1 * 3
        assert network.running_mean.tolist() == [5, 5] and int(network.num_batches_tracked) == 7
    with pytest.raises(RuntimeError), average.applied():
        raise RuntimeError
    assert network.weight.tolist() == [3, 3]
    off = EMA(network, 0.0)
    off.update(1)
    with off.applied():
        assert network.weight.tolist() == [3, 3] and off.state == {}
    assert not any(value.requires_grad for value in average.state.values())  # nor has it a graph


def test_the_average_forgets_the_first_weights_soon():
    """Against the sum of all weights by their shares; and 0.999 is what it is after 8,990 steps."""
    layer = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        layer.weight.fill_(1e6)  # what random weights do to an image
        average = EMA(layer, 0.999)
        shares = [1.0]
        for step in range(1, 201):
            layer.weight.fill_(float(step))
            average.update(step)
            decay = (1 + step) / (10 + step)
            shares = [share * decay for share in shares] + [1 - decay]
    expected = shares[0] * 1e6 + sum(share * step for step, share in enumerate(shares))
    [found] = average.state.values()
    assert float(found) == pytest.approx(expected, rel=1e-5) and shares[0] < 1e-13
    for step, kept in ((8989, (1 + 8989) / (10 + 8989)), (8990, 0.999), (10**6, 0.999)):
        found.fill_(1.0)
        layer.weight.data.fill_(0.0)
        average.update(step)
        assert float(found) == pytest.approx(kept, abs=1e-7)


def test_weights_that_two_parts_share_have_one_average():
    layer = nn.Linear(1, 1, bias=False)
    network = nn.ModuleDict({"first": layer, "second": layer})
    average = EMA(network, 0.5)
    before = float(layer.weight.detach())
    layer.weight.data += 1
    average.update(1000)
    found = [float(value) for value in average.state.values()]
    assert found == [pytest.approx(before + 0.5)] * 2


def test_blocks_that_are_computed_again_learn_from_images_without_a_gradient():
    block = ToyBlock(3, 0.0)
    assert enable_gradient_checkpointing(nn.Sequential(block)) == 1
    block(torch.rand(1, 2, 2, 3)).sum().backward()
    assert float(block.layer.weight.grad.abs().sum()) > 0 and block.computed == 2


def test_drop_path_drops_the_same_samples_when_a_block_is_computed_again():
    block, image = ToyBlock(3, 0.5), torch.rand(16, 2, 2, 3)
    gradients = []
    for again in (False, True):
        if again:
            enable_gradient_checkpointing(nn.Sequential(block))
        block.zero_grad()
        torch.manual_seed(0)
        block(image).square().sum().backward()
        gradients.append(block.layer.weight.grad.clone())
    torch.testing.assert_close(*gradients)


def test_initial_weights_are_those_that_fit_by_name_and_shape(tmp_path, caplog):
    register_toy()
    torch.manual_seed(1)
    recipe = load_recipe({"name": "other", "network": {"type": "toy", "dim": 4, "channels": 1}})
    other = build(recipe)
    save(other, tmp_path / "other.safetensors")
    network = Toy(dim=4, channels=3)
    first = network.enter.weight.detach().clone()
    with caplog.at_level(logging.INFO):
        load_initial_weights(network, str(tmp_path / "other.safetensors"))
    assert torch.equal(network.block.layer.weight, other.block.layer.weight)
    assert torch.equal(network.enter.weight, first)
    assert "loaded 5 of 8 tensors" in caplog.text
    assert "left at random values: enter.weight, leave.bias, leave.weight" in caplog.text
    torch.save(other.state_dict(), tmp_path / "bare.pth")  # no recipe says what it is
    bare = Toy(dim=4, channels=3)
    load_initial_weights(bare, str(tmp_path / "bare.pth"))
    assert torch.equal(bare.block.layer.weight, other.block.layer.weight)
    with pytest.raises(CheckpointError, match=r"no tensor of .* matches"):
        load_initial_weights(nn.Sequential(nn.Linear(7, 7)), str(tmp_path / "bare.pth"))


# ------------------------------------------------------------------------------- random states


def draws():
    return random.random(), np.random.randn(), float(torch.rand(()))


def test_every_random_state_goes_on_where_it_was_taken():
    np.random.randn()  # an odd number: NumPy holds a second normal number back
    state = rng_state("cpu")
    expected = [draws(), draws()]
    seed_all(99)
    restore_rng_state(state, "cpu")
    assert [draws(), draws()] == expected


def test_a_seed_decides_python_numpy_and_torch():
    seed_all(7)
    first = draws()
    seed_all(8)
    other = draws()
    seed_all(7)
    assert draws() == first and all(a != b for a, b in zip(first, other, strict=True))


def test_the_seed_of_numpy_goes_on_from_the_start_where_it_has_no_larger_ones():
    seed_all(2**32 + 2**31 + 5)
    found = np.random.randn()
    np.random.seed(2**31 + 5)
    assert np.random.randn() == found


@pytest.mark.parametrize("count", [8, 9])
def test_of_many_tensors_at_random_values_the_first_eight_are_named(count, tmp_path, caplog):
    def network_of(*sides):
        return nn.ModuleDict({f"{n}": nn.Linear(s, 1, bias=False) for n, s in enumerate(sides)})

    torch.save(network_of(2, *[3] * count).state_dict(), tmp_path / "a.pth")
    with caplog.at_level(logging.INFO):
        load_initial_weights(network_of(2, *[4] * count), str(tmp_path / "a.pth"))
    names = ", ".join(f"{n}.weight" for n in range(1, 9))
    assert caplog.messages[-2:] == [
        f"loaded 1 of {count + 1} tensors from {tmp_path / 'a.pth'}",
        f"left at random values: {names}{', ...' if count == 9 else ''}",
    ]


def test_initial_weights_that_are_missing_are_told_by_their_setting(tmp_path):
    with pytest.raises(CheckpointError, match=r"^train\.initial: .*x\.pth does not exist; train"):
        load_initial_weights(Toy(dim=4, channels=3), str(tmp_path / "x.pth"))
    with pytest.raises(CheckpointError, match=r"did you mean 'mambair_tiny_x2'"):
        load_initial_weights(Toy(dim=4, channels=3), "mambair_tny_x2")
