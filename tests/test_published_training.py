"""What every published recipe trains with at five steps: rate, patch, batch, average, loss, data.

The facts are written here by hand: from the papers and the option files of the authors' code; for
real-world super-resolution from those of HAT. ``tests/facts`` compares the fields; this compares
what the trainer makes of them.
"""

from __future__ import annotations

import fnmatch
import math
from typing import NamedTuple

import pytest
import torch

import zoo
from zoo.recipe import load_recipe
from zoo.training.losses import L1, CharbonnierBasicSR, Fourier, Perceptual, WeightedSum
from zoo.training.settings import train_settings


class Facts(NamedTuple):
    """Facts of one training.

    Attributes:
        names: patterns of the recipes.
        rates: the learning rate at five steps, counted from 0.
        stages: patch and batch from a step on.
        data: the degradation's name and settings; "pairs" for pairs of files.
        loss: a function that computes it from output and clean image.
        ema: decay of the moving average.
    """

    names: str
    rates: dict[int, float]
    stages: dict[int, tuple[int, int]]
    data: str
    loss: str = "l1"
    ema: float = 0.0


def halved(rate, *milestones, last):
    """Five steps around milestones of a rate that each halves."""
    lowest = rate / 2 ** len(milestones)
    return {
        0: rate,
        milestones[0] - 1: rate,
        milestones[0]: rate / 2,
        milestones[-1] + 1: lowest,
        last - 1: lowest,
    }


def cosine(rate, start, length, last):
    """Five steps of a cosine from a rate to 1e-6 that begins at ``start``."""

    def at(step):
        return 1e-6 + (rate - 1e-6) * (1 + math.cos(math.pi * (step - start) / length)) / 2

    half = start + length // 2
    return {
        0: rate,
        start: rate,
        half: (rate + 1e-6) / 2,
        half + length // 8: at(half + length // 8),
        last - 1: at(last - 1),
    }


K = 1000
FULL = halved(2e-4, 250 * K, 400 * K, 450 * K, 475 * K, last=500 * K)
FASTER = halved(1e-3, 250 * K, 400 * K, 450 * K, 475 * K, last=500 * K)
HALF = halved(1e-4, 125 * K, 200 * K, 225 * K, 237500, last=250 * K)
LONG = halved(2e-4, 800 * K, 1200 * K, 1400 * K, 1500 * K, last=1600 * K)
SHORTER = halved(1e-4, 400 * K, 600 * K, 700 * K, 750 * K, last=800 * K)
CSR = halved(2e-4, 150 * K, 250 * K, 275 * K, last=300 * K)
CHARBONNIER = "charbonnier 1e-3"

# 8, 5, 4, 2, 1, 1 patches on each of 8 GPUs.
STAGES = {0: (128, 64), 92 * K: (160, 40), 156 * K: (192, 32), 204 * K: (256, 16)}
STAGES |= {240 * K: (320, 8), 276 * K: (384, 8)}
EAMAMBA = {0: (128, 64), 138 * K: (160, 40), 234 * K: (192, 32), 306 * K: (256, 16)}
EAMAMBA_384 = EAMAMBA | {360 * K: (320, 8), 414 * K: (384, 8)}
RAIN = {0: (128, 64), 92 * K: (160, 40), 156 * K: (192, 24), 220 * K: (256, 16)}
RAIN |= {284 * K: (320, 8), 348 * K: (384, 8)}

TABLE = [
    # MambaIR: options of the authors' code.
    Facts("mambair_classic_x2*", FULL, {0: (64, 32)}, "bicubic"),
    Facts("mambair_classic_x3", HALF, {0: (64, 64)}, "bicubic"),
    Facts("mambair_classic_x4", HALF, {0: (48, 32)}, "bicubic"),
    Facts("mambair_light_x[23]*", FULL, {0: (64, 32)}, "bicubic"),
    Facts("mambair_light_x4*", FULL, {0: (48, 32)}, "bicubic"),
    Facts("mambair_dn15", LONG, {0: (128, 16)}, "noise 15", CHARBONNIER),
    Facts("mambair_dn25", SHORTER, {0: (128, 16)}, "noise 25", CHARBONNIER),
    Facts("mambair_dn50", SHORTER, {0: (128, 16)}, "noise 50", CHARBONNIER),
    Facts("mambair_car40", LONG, {0: (126, 16)}, "jpeg 40", CHARBONNIER),
    Facts("mambair_car30", SHORTER, {0: (126, 16)}, "jpeg 30", CHARBONNIER),
    Facts("mambair_car10", SHORTER, {0: (126, 16)}, "jpeg 10", CHARBONNIER),
    Facts("mambair_realdn", cosine(3e-4, 92 * K, 208 * K, 300 * K), STAGES, "pairs"),
    # HAT, both stages of its real models.
    Facts(
        "mambair_real_x4",
        dict.fromkeys((0, 1, 500 * K, 999 * K, 1000 * K - 1), 1e-4),
        {0: (64, 32)},
        "blind",
        ema=0.999,
    ),
    Facts(
        "mambair_real_x4_gan",
        dict.fromkeys((0, 1, 200 * K, 399 * K, 400 * K - 1), 1e-4),
        {0: (64, 32)},
        "blind",
        "perceptual",
        0.999,
    ),
    # MambaIRv2.
    Facts("mambairv2_light_x[23]", FULL, {0: (64, 32)}, "bicubic"),
    Facts("mambairv2_light_x4", FULL, {0: (48, 32)}, "bicubic"),
    Facts("mambairv2_x2 mambairv2_[ls][am]*_x2", FASTER, {0: (64, 32)}, "bicubic"),
    Facts("mambairv2_x3 mambairv2_[ls][am]*_x3", HALF, {0: (64, 32)}, "bicubic"),
    Facts("mambairv2_x4 mambairv2_[ls][am]*_x4", HALF, {0: (48, 32)}, "bicubic"),
    Facts("mambairv2_dn15", LONG, {0: (128, 16)}, "noise 15", CHARBONNIER),
    Facts("mambairv2_dn25", SHORTER, {0: (128, 16)}, "noise 25", CHARBONNIER),
    Facts("mambairv2_dn50", SHORTER, {0: (128, 16)}, "noise 50", CHARBONNIER),
    Facts("mambairv2_car40", LONG, {0: (126, 16)}, "jpeg 40", CHARBONNIER),
    Facts("mambairv2_car30", SHORTER, {0: (126, 16)}, "jpeg 30", CHARBONNIER),
    Facts("mambairv2_car10", SHORTER, {0: (126, 16)}, "jpeg 10", CHARBONNIER),
    # MambaCSR: its options and ablations; Tables 5 and 6 for the other qualities.
    Facts("mambacsr_wo* mambacsr_final", CSR, {0: (64, 32)}, "bicubic_jpeg 10", ema=0.999),
    Facts("mambacsr_final_[rs]*", CSR, {0: (64, 32)}, "bicubic_jpeg 10", ema=0.999),
    Facts("mambacsr_final_q20", CSR, {0: (64, 32)}, "bicubic_jpeg 20", ema=0.999),
    Facts("mambacsr_final_q30", CSR, {0: (64, 32)}, "bicubic_jpeg 30", ema=0.999),
    Facts("mambacsr_final_q40", CSR, {0: (64, 32)}, "bicubic_jpeg 40", ema=0.999),
    # MaIR.
    Facts("mair_light_t_x2 mair_light_s_x? mair_classic_x2", FULL, {0: (64, 32)}, "bicubic"),
    Facts(
        "mair_light_t_x[34] mair_classic_x[34]",
        halved(2e-4, 125 * K, 200 * K, 225 * K, 237500, last=250 * K),
        {0: (64, 32)},
        "bicubic",
    ),
    Facts(
        "mair_dn15",
        halved(2e-4, 1600 * K, 2100 * K, 2500 * K, 2800 * K, 3000 * K, last=3200 * K),
        {0: (128, 8)},
        "noise 15",
        "charbonnier 1e-12",
    ),
    *(
        Facts(
            f"mair_dn{sigma}",
            halved(2e-4, 200 * K, 800 * K, 1200 * K, 1400 * K, 1500 * K, last=1600 * K),
            {0: (128, 8)},
            f"noise {sigma}",
            "charbonnier 1e-12",
        )
        for sigma in (25, 50)
    ),
    # EAMamba.
    *(
        Facts(
            f"eamamba_dn{sigma}",
            cosine(3e-4, 138 * K, 312 * K, 450 * K),
            EAMAMBA_384,
            f"noise {sigma}",
            ema=0.999,
        )
        for sigma in (15, 25, 50)
    ),
    Facts("eamamba_realdn", cosine(3e-4, 138 * K, 312 * K, 450 * K), EAMAMBA, "pairs", ema=0.999),
    Facts(
        "eamamba_de*",
        cosine(3e-4, 138 * K, 312 * K, 450 * K),
        EAMAMBA_384,
        "pairs",
        ema=0.999,
    ),
    Facts(
        "eamamba_real_x?",
        dict.fromkeys((0, 1, 15 * K, 29 * K, 30 * K - 1), 3e-4),
        {0: (128, 64)},
        "pairs",
        ema=0.999,
    ),
    # srx*-eamambasr-light.yaml: 64 pixels of the small image, 8 patches on each of 8 GPUs.
    Facts("eamamba_light_x?", FULL, {0: (64, 64)}, "bicubic", ema=0.999),
    # VmambaIR; the cosine of deraining is cut off.
    Facts("vmambair_derain", cosine(3e-4, 144 * K, 288 * K, 396 * K), RAIN, "pairs"),
    Facts(
        "vmambair_x4",
        halved(2e-4, 50 * K, 70 * K, last=100 * K),
        {0: (64, 32)},
        "bicubic",
        ema=0.999,
    ),
    Facts(
        "vmambair_x4_gan",
        halved(2e-4, 150 * K, last=300 * K),
        {0: (64, 32)},
        "bicubic",
        "perceptual",
        0.999,
    ),
    Facts(
        "vmambair_real_x4",
        halved(2e-4, 250 * K, 350 * K, last=500 * K),
        {0: (64, 36)},
        "blind",
        ema=0.999,
    ),
    Facts(
        "vmambair_real_x4_gan",
        halved(1e-4, 300 * K, last=400 * K),
        {0: (64, 36)},
        "blind",
        "perceptual",
        0.999,
    ),
    # Wave-Mamba: 100 steps at one rate, then a cosine to 1e-7.
    Facts(
        "wavemamba_uhdll",
        {0: 5e-4, 100: 5e-4, 50_100: (5e-4 + 1e-7) / 2, 100_100: 1e-7, 100_999: 1e-7},
        {0: (512, 8)},
        "pairs",
        "fourier",
    ),
    Facts(
        "wavemamba_lol",
        {0: 1e-4, 100: 1e-4, 50_100: (1e-4 + 1e-7) / 2, 100_100: 1e-7, 100_999: 1e-7},
        {0: (512, 8)},
        "pairs",
        "fourier",
    ),
]

OURS = {
    # No published training: DVMSR (its paper distils it), and the small networks of the package.
    *("dvmsr_x4", "mambairv2_tiny_x2", "mambacsr_tiny_x2", "mambacsr_tiny_x4"),
    *("mambair_tiny_x2", "mambair_tiny_x4", "mambair_tiny_photo_x2", "mambair_tiny_photo_x4"),
    *("mambair_tiny_denoise", "mambair_tiny_jpeg"),
}

BURSTS = zoo.list_models("qmambabsr*")
"""QMambaBSR: test_bursts_follow_the_cosine_of_the_paper."""


def names_of(facts):
    return sorted({name for p in facts.names.split() for name in zoo.list_models(p)})


ROWS = [(name, facts) for facts in TABLE for name in names_of(facts)]


def test_every_recipe_has_one_row():
    names = [name for name, _ in ROWS]
    assert len(names) == len(set(names)), sorted(n for n in names if names.count(n) > 1)
    assert sorted([*names, *OURS, *BURSTS]) == zoo.list_models()
    for facts in TABLE:
        assert all(fnmatch.filter(zoo.list_models(), p) for p in facts.names.split()), facts.names
        assert len(facts.rates) == 5, facts.names


@pytest.mark.parametrize(("name", "facts"), ROWS, ids=[name for name, _ in ROWS])
def test_rate_patch_batch_average_loss_and_data_are_the_published_ones(name, facts):
    settings = train_settings(load_recipe(name))
    schedule, lr = settings.schedule, settings.optimizer.lr
    assert max(facts.rates) == settings.iterations - 1
    found = {step: lr * schedule.factor(step, settings.iterations, lr) for step in facts.rates}
    assert found == {step: pytest.approx(rate, rel=1e-9) for step, rate in facts.rates.items()}

    first, stages = 0, {}
    for stage in settings.data.plan(settings.iterations):
        stages[first] = (stage.patch, stage.batch)
        first += stage.iterations
    assert stages == facts.stages and first == settings.iterations

    assert settings.ema == facts.ema
    assert told(settings.data.degradation, load_recipe(name).network.get("scale", 1)) == facts.data
    check_loss(settings.loss, facts.loss)


def told(degradation, scale):
    """A degradation in words: its name, and its quality or sigma if that is one number."""
    if degradation is None:
        return "pairs"
    made = degradation(scale=scale)
    level = getattr(made, "sigma", getattr(made, "quality", None))
    name = degradation.entry.name
    if isinstance(level, tuple):
        assert level == (30, 95), "Real-ESRGAN's range"
        level = None
    return name if level is None else f"{name} {level:g}"


def check_loss(loss, name):
    """Compute the loss of one difference, and compare with the formula."""
    output = torch.full((1, 3, 1, 1), 0.02, dtype=torch.float64)
    clean = torch.zeros_like(output)
    if name == "perceptual":
        assert isinstance(loss, WeightedSum) and loss.weights == (1.0, 1.0)
        pixel, perceptual = loss.losses
        assert isinstance(pixel, L1) and isinstance(perceptual, Perceptual)
        weights = {"conv1_2": 0.1, "conv2_2": 0.1, "conv3_4": 1, "conv4_4": 1, "conv5_4": 1}
        assert perceptual.layers == weights
        return
    expected = 0.02
    if name == "fourier":
        assert isinstance(loss, WeightedSum) and isinstance(loss.losses[1], Fourier)
        expected = 0.02 + 0.1 * 0.02 / 2  # of one pixel: real part 0.02, imaginary part 0
    elif name != "l1":
        assert isinstance(loss, CharbonnierBasicSR)
        expected = math.sqrt(0.02**2 + float(name.split()[1]))
    assert float(loss(output, clean)) == pytest.approx(expected, rel=1e-9)


ADVERSARIAL = {
    # weight of the network's loss; the discriminator's rate at the first and the last step
    "mambair_real_x4_gan": (0.1, 1e-4, 1e-4),
    "vmambair_x4_gan": (1.0, 1e-4, 5e-5),
    "vmambair_real_x4_gan": (1.0, 1e-4, 1e-4),
}


@pytest.mark.parametrize("name", zoo.list_models("*_gan"))
def test_the_discriminators_are_the_published_ones(name):
    settings = train_settings(load_recipe(name))
    chosen = settings.adversarial
    schedule, lr = chosen.schedule or settings.schedule, chosen.optimizer.lr
    rates = [
        lr * schedule.factor(step, settings.iterations, lr) for step in (0, settings.iterations - 1)
    ]
    assert (chosen.weight, *rates) == pytest.approx(ADVERSARIAL[name])
    assert chosen.real == "clean" and type(chosen.loss).__name__ == "Vanilla"
    assert sum(p.numel() for p in chosen.discriminator(3).parameters()) == 4_376_897
    assert chosen.optimizer.betas == (0.9, 0.99)
    assert settings.initial == f"runs/{name.removesuffix('_gan')}/weights.safetensors"


@pytest.mark.parametrize("name", ["mambair_real_x4", "mambair_real_x4_gan", "vmambair_real_x4",
                                  "vmambair_real_x4_gan"])  # fmt: skip
def test_blind_recipes_flip_only_and_hat_alone_sharpens(name):
    data = train_settings(load_recipe(name)).data
    assert data.augment == "flip"
    assert (data.sharpen is not None) == name.startswith("mambair")
    if data.sharpen is not None:  # weight 0.5, radius 50 made odd, threshold 10
        assert (data.sharpen.amount, 2 * data.sharpen.reach + 1) == (0.5, 51)
        assert data.sharpen.threshold == 10
    assert data.pool == 180 * (8 if name.startswith("mambair") else 4)  # on each GPU


@pytest.mark.parametrize("name", ["qmambabsr", "qmambabsr_l", "qmambabsr_abl_full"])
def test_bursts_follow_the_cosine_of_the_paper(name):
    """AdamW, 3e-4 to 1e-6 in 300 epochs, of whatever length; patch 48, batch 8, 14 frames."""
    recipe = load_recipe(name)
    settings = train_settings(recipe)
    assert settings.epochs == 300
    steps, lr = 1000, settings.optimizer.lr
    for part in (0, 0.25, 0.5, 0.75, 1):
        rate = lr * settings.schedule.factor(round(part * steps), steps, lr)
        expected = 1e-6 + (3e-4 - 1e-6) * (1 + math.cos(math.pi * part)) / 2
        assert rate == pytest.approx(expected, rel=1e-9)
    assert (settings.data.patch, settings.data.batch, recipe.network["burst"]) == (48, 8, 14)
    assert settings.optimizer.type == "adamw" and settings.optimizer.betas == (0.9, 0.999)
    assert settings.optimizer.weight_decay == 0
