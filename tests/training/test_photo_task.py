"""Training on photos: examples, loss and validation, against numbers worked out by hand."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import zoo.training.photo_task as photo_task
from tests.helpers.training import Rank, make_photos
from zoo.data import Bicubic, GaussianNoise, Photo, read_photo, write_photo
from zoo.data.photos import StoredPhoto
from zoo.data.pixels import to_array, to_tensor
from zoo.data.samples import sample_names
from zoo.errors import ImageError, ZooError
from zoo.evaluation import Protocol, Restored, Score
from zoo.networks import Guide
from zoo.recipe import load_recipe
from zoo.training import (
    make_task,
)
from zoo.training.losses import L1, loss_of_scales
from zoo.training.photo_task import PhotoTask
from zoo.training.settings import (
    DataSettings,
    Stage,
    train_settings,
)


def stage(iterations, patch, batch):
    return Stage(iterations=iterations, patch=patch, batch=batch)


def photo_task_of(
    photos,
    *,
    scale=2,
    channels=3,
    out_channels=None,
    network_guides=None,
    protocol=None,
    iterations=10,
    seed=4,
    **data,
):
    if "stages" not in data:
        data["patch"] = 6
    settings = DataSettings(**{"photos": str(photos), "validate": str(photos), **data})
    network = SimpleNamespace(
        scale=scale,
        channels=channels,
        out_channels=out_channels or channels,
        guides=network_guides or {},
    )
    return PhotoTask(
        settings,
        network,
        protocol=protocol or Protocol(),
        iterations=iterations,
        seed=seed,
    )


STAGES = (stage(3, 6, 4), stage(5, 8, 2))


@pytest.mark.parametrize(
    ("channels", "stated", "rounds"),
    [(3, None, True), (1, None, True), (3, (0.0, 255.0), False), (8, None, False)],
)
def test_only_photographs_are_rounded_to_8_bits(photos, tmp_path, channels, stated, rounds):
    """Rounding took most levels of 16 bits and of floating-point bands away in silence."""
    source = photos
    if channels == 8:
        source = tmp_path / "bands"
        source.mkdir()
        np.save(source / "a.npy", np.random.default_rng(0).random((40, 40, 8), np.float32))
    task = photo_task_of(source, degradation=Bicubic, channels=channels, range=stated)
    clean_CHW = torch.rand(channels, 8, 8, generator=torch.Generator().manual_seed(0))
    levels = task.degradation.for_test(clean_CHW, 0) * 255
    assert torch.allclose(levels, levels.round(), atol=1e-3) == rounds


def test_examples_follow_stage_seed_channels_and_are_enough(photos):
    task = photo_task_of(photos, degradation=Bicubic, stages=STAGES, channels=1)
    assert [s.iterations for s in task.plan] == [3, 7]
    for part, patch in zip(task.plan, (6, 8), strict=True):
        examples = task.examples(part)
        assert len(examples) == 3 * 4 + 7 * 2 and examples.seed == 4
        degraded, clean = examples[25]
        assert degraded.shape == (1, patch, patch) and clean.shape == (1, 2 * patch, 2 * patch)


def test_pairs_of_files_come_in_the_right_roles(photos, tmp_path):
    """Degraded first, for learning and for validation."""
    noisy = make_photos(tmp_path / "noisy", count=3, noise=0.3)
    task = photo_task_of(
        photos,
        scale=1,
        degraded=str(noisy),
        validate_degraded=str(noisy),
        stages=STAGES,
        memory=0.0,
    )
    assert task.degradation is None
    assert all(isinstance(photo, StoredPhoto) for photo in [*task.photos, *task.degraded])
    for part, patch in zip(task.plan, (6, 8), strict=True):
        examples = task.examples(part)
        assert len(examples) == 26 and examples.seed == 4
        degraded, clean = examples[25]
        assert clean.shape == degraded.shape == (3, patch, patch)
        assert clean.min() > 0.24 and clean.max() < 0.76  # the clean photos' range
        assert degraded.max() > 0.9 or degraded.min() < 0.1
    [first, *_] = task.validation
    assert first.read_clean().max() < 0.76 < first.read_degraded().max()


def test_options_of_data_that_have_no_effect_are_said(photos, tmp_path, caplog):
    noisy = str(make_photos(tmp_path / "noisy", count=3, noise=0.3))
    made = {"scale": 1, "degradation": partial(GaussianNoise, sigma=1.0)}
    with caplog.at_level(logging.INFO):
        task = photo_task_of(photos, **made, degraded=noisy, validate_degraded=noisy)
    assert task.degradation is None
    assert "data.degraded replaces data.degradation" in caplog.text
    with pytest.raises(ZooError, match="validate_degraded has no effect on the bundled photos"):
        photo_task_of(photos, **made, validate="samples", validate_degraded=noisy)
    # Files that are there are used to validate a training on degraded photos.
    task = photo_task_of(photos, **made, validate_degraded=noisy)
    assert task.validation[0].read_degraded().max() > 0.9


def test_photos_too_small_for_a_later_stage_are_told_before_the_first_step(photos):
    with pytest.raises(Exception, match="too small"):
        photo_task_of(photos, degradation=Bicubic, stages=(stage(1, 6, 4), stage(5, 30, 2)))


def test_the_loss_compares_the_output_in_float32_with_the_clean_image(photos):
    task = photo_task_of(photos, degradation=Bicubic, scale=1)
    degraded, clean, seen = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4), []

    def forward(image):
        seen.append(image)
        return image.bfloat16() * 2

    value = task.loss(forward, L1(), (degraded, clean), 0.0)
    assert torch.equal(seen[0], degraded) and value.dtype == torch.float32
    assert torch.equal(value, ((degraded.bfloat16() * 2).float() - clean).abs().mean())


def test_the_loss_sees_every_scale_that_a_network_returns(photos):
    task = photo_task_of(photos, degradation=Bicubic, scale=1)
    degraded, clean = torch.rand(2, 3, 4, 6), torch.rand(2, 3, 4, 6)
    small, whole = torch.rand(2, 3, 2, 3), torch.rand(2, 3, 4, 6)
    value = task.loss(lambda _: (small.bfloat16(), whole), L1(), (degraded, clean), 0.0)
    cells = clean.unflatten(3, (3, 2)).unflatten(2, (2, 2)).mean((3, 5))
    expected = (small.bfloat16().float() - cells).abs().mean() + (whole - clean).abs().mean()
    torch.testing.assert_close(value, expected)


def sized(*shape):
    return torch.rand(shape)


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        ((), "no image"),
        (None, "NoneType"),
        ({"image": sized(2, 3, 8, 8)}, "dict"),
        ((sized(2, 3, 8, 8), {}), "tuple of Tensor, dict"),
        (sized(2, 1, 8, 8), r"an image of shape \(2, 1, 8, 8\)"),
        (sized(1, 3, 8, 8), r"an image of shape \(1, 3, 8, 8\)"),
        (sized(3, 8, 8), r"an image of shape \(3, 8, 8\)"),
        (sized(2, 3, 4, 4), r"an image of shape \(2, 3, 4, 4\)"),
        ((sized(2, 3, 9, 9),), r"an image of shape \(2, 3, 9, 9\)"),
        ((sized(2, 3, 8, 8), sized(2, 3, 4, 4)), r"an image of shape \(2, 3, 4, 4\)"),
        ((sized(2, 1, 4, 4), sized(2, 3, 8, 8)), r"an image of shape \(2, 1, 4, 4\)"),
        ((sized(2, 3, 4, 8), sized(2, 3, 8, 8)), r"an image of shape \(2, 3, 4, 8\)"),
        ((sized(2, 3, 16, 16), sized(2, 3, 8, 8)), r"an image of shape \(2, 3, 16, 16\)"),
    ],
    ids=range(13),
)
def test_what_a_network_may_not_return_in_training_is_one_sentence(returned, told):
    with pytest.raises(ZooError, match=f"^the network returned {told} in training mode; return "):
        loss_of_scales(L1(), returned, sized(2, 3, 8, 8))


def test_smaller_images_of_odd_patches_have_the_aspect_but_for_rounding():
    for side in (7, 8):
        images = (sized(1, 3, side // 2, side // 2), sized(1, 3, side, 15))
        with pytest.raises(ZooError):
            loss_of_scales(L1(), images, sized(1, 3, side, 15))
        images = (sized(1, 3, 4, 8), sized(1, 3, side, 15))
        assert loss_of_scales(L1(), images, sized(1, 3, side, 15)) > 0


def test_examples_have_the_channels_of_input_and_output(photos):
    """A network that colours gray photos; the gray is the luma of the clean photo."""
    for data in (
        {"degradation": partial(GaussianNoise, sigma=1.0)},
        {"degraded": str(photos), "validate_degraded": str(photos)},
    ):
        task = photo_task_of(photos, scale=1, channels=1, out_channels=3, **data)
        degraded, clean = task.examples(task.plan[0])[3]
        assert degraded.shape == (1, 6, 6) and clean.shape == (3, 6, 6)
        luma = clean.permute(1, 2, 0) @ torch.tensor([0.299, 0.587, 0.114])
        assert (degraded[0] - luma).abs().max() < (0.05 if "degradation" in data else 1e-6)


def test_examples_have_the_patch_of_each_guide(photos, tmp_path):
    """The guides are the clean photos themselves, so their patch must be the clean one."""
    from_files = {"degraded": str(tmp_path / "small"), "validate_degraded": str(tmp_path / "small")}
    (tmp_path / "small").mkdir()
    for path in photos.iterdir():
        clean = to_tensor(read_photo(path).color_HWC)
        small = to_array(Bicubic(scale=2)(clean, np.random.default_rng()).clamp(0, 1))
        write_photo(tmp_path / "small" / path.name, Photo(small))
    guides = {"pan": Guide(channels=1, scale=2), "low": Guide(channels=3)}
    for data in ({"degradation": Bicubic}, from_files):
        folders = {"pan": str(photos), "low": str(tmp_path / "small")}
        task = photo_task_of(
            photos, network_guides=guides, guides=folders, validate_guides=folders, **data
        )
        examples = task.examples(task.plan[0])
        for index in range(8):
            degraded, clean, pan, low = examples[index]
            luma = clean.permute(1, 2, 0) @ torch.tensor([0.299, 0.587, 0.114])
            torch.testing.assert_close(pan[0], luma)
            assert (low - degraded).abs().max() < 1.01 / 255  # the files are rounded
        assert [path.parent.name for path in task.validation[0].guides] == ["photos", "small"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, r"needs the guide pan \(1 channel, 2 times the size\); .* data\.guides\.pan=PATH"),
        ({"pan": "PHOTOS", "depth": "PHOTOS"}, r"data\.guides\.depth: the network takes pan"),
        ({"pan": "OTHER"}, r"2 of 3 pairs.* has no pan counterpart with the same name"),
        ({"pan": "LARGE"}, r"the pan of .* has 96x80 pixels, but must have 48x40"),
    ],
    ids=["missing", "unknown", "unnamed", "size"],
)
def test_guides_that_do_not_fit_are_told_before_the_first_step(photos, given, message, tmp_path):
    first = read_photo(photos / "0.png").color_HWC
    for folder, image in (("other", first), ("large", np.kron(first, np.ones((2, 2, 1))))):
        for name in ("0", "1", "2") if folder == "large" else ("0",):
            write_photo(tmp_path / folder / f"{name}.png", Photo(image.astype(np.float32)))
    places = {"PHOTOS": photos, "OTHER": tmp_path / "other", "LARGE": tmp_path / "large"}
    folders = {name: str(places[place]) for name, place in given.items()}
    with pytest.raises(ZooError, match=message):
        photo_task_of(
            photos,
            network_guides={"pan": Guide(channels=1, scale=2)},
            guides=folders,
            validate_guides=folders,
            degradation=Bicubic,
        )


def test_mixup_blends_half_of_the_steps_and_both_images_alike(photos):
    """Weights as drawn from Beta(0.4, 0.4): far from even; the same partner for all images."""
    task = photo_task_of(photos, degradation=Bicubic, mixup=0.4)
    degraded = torch.arange(4.0).reshape(4, 1, 1, 1)
    blended, shares = 0, []
    for _ in range(400):
        small, large, guide = task._mixed([degraded, 10 * degraded, -degraded])
        torch.testing.assert_close(large, 10 * small)
        torch.testing.assert_close(guide, -small)
        moved = (small - degraded).flatten()
        if moved.any():
            blended += 1
            partner = moved.abs().argmax()
            shares.append(float(moved[partner].abs()) % 1)
        else:
            assert torch.equal(small, degraded)
    assert 150 < blended < 235  # half, less the steps in which each got itself for a partner
    off = photo_task_of(photos, degradation=Bicubic, mixup=0.0)
    for _ in range(9):
        assert off._mixed([degraded, degraded])[0] is degraded


def test_the_partners_of_mixup_reach_a_gpu_without_a_wait(photos, monkeypatch):
    task, seen = photo_task_of(photos, degradation=Bicubic, mixup=0.4), []
    partners = SimpleNamespace(
        to=lambda *words, **options: seen.append((words, options)) or torch.tensor([1, 0])
    )
    monkeypatch.setattr(torch, "randperm", lambda count: partners)
    monkeypatch.setattr(torch, "rand", lambda size: torch.tensor(0.5))
    task._mixed([torch.zeros(2, 1, 1, 1)])
    assert seen == [((torch.device("cpu"),), {"non_blocking": True})]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"photos": "samples"}, r"^train\.data\.degraded needs data\.photos, the folder of clean"),
        ({"validate": "samples"}, "training on pairs also validates on pairs"),
        ({"validate_degraded": None}, "training on pairs also validates on pairs"),
    ],
)
def test_pairs_are_files_in_training_and_in_validation(photos, given, message):
    files = {"degraded": str(photos), "validate_degraded": str(photos), **given}
    source = files.pop("photos", photos)
    with pytest.raises(ZooError, match=message):
        photo_task_of(source, scale=1, **{"validate": str(photos), **files})


@pytest.mark.parametrize(
    ("crop", "told"),
    [
        (None, r"1 of 4 .*tiny\.png of 5x4 is too small for x2, without a border of 2 pixels"),
        (0, None),
        (1, None),
        (2, r"1 of 4 .*tiny\.png of 5x4 is too small for x2, without a border of 2 pixels"),
        (20, r"4 of 4 .*0\.png of 48x40 is too small for x2, without a border of 20 pixels"),
    ],
)
def test_photos_that_leave_nothing_to_measure_are_named_before_the_training(
    crop, told, photos, tmp_path
):
    shutil.copytree(photos, tmp_path / "photos")
    write_photo(tmp_path / "photos" / "tiny.png", Photo(np.full((4, 5, 3), 0.5, np.float32)))
    given = {"validate": str(tmp_path / "photos"), "degradation": Bicubic}
    wrong = nullcontext() if told is None else pytest.raises(ImageError, match=told)
    with wrong:
        photo_task_of(photos, protocol=Protocol(crop=crop), **given)


def test_photos_are_validated_once_over_the_processes_by_the_protocol(photos, monkeypatch):
    protocol = Protocol(channel="all", crop=3)
    task = photo_task_of(photos, degradation=Bicubic, protocol=protocol)
    calls = []

    def evaluate(network, images, degradation, *, protocol, seen):
        calls.append(([image.name for image in images], degradation, protocol))
        picture = np.zeros((8, 8, 3), np.float32)
        scores = []
        for image in images:
            seen(image.name, Restored(picture, picture, picture, picture))
            scores.append(Score(image.name, 30.0, 0.75, 20.0, 0.25))
        return scores

    monkeypatch.setattr(photo_task, "evaluate", evaluate)
    others = [Score("1", 36.0, 0.5, 26.0, 0.5)], {"1": np.ones((2, 2, 3), np.float32)}
    values, pictures = task.validate(None, Rank(0, 2, others))
    assert calls == [(["0", "2"], task.degradation, protocol)]
    assert (values["psnr"], values["ssim"], values["baseline"]) == pytest.approx(
        (32.0, 2.0 / 3, 22.0)
    )
    assert [photo["name"] for photo in values["photos"]] == ["0", "2", "1"]
    assert pictures.keys() == {"0", "1", "2"} and pictures["1"].shape == (2, 2, 3)


def test_a_recipes_task_has_its_seed_and_its_protocol(photos):
    changes = {
        "train.data.photos": str(photos),
        "train.data.validate": str(photos),
        "train.data.patch": 8,
        "train.seed": 9,
        "evaluate.channel": "all",
        "evaluate.crop": 7,
    }
    recipe = load_recipe("mambair_tiny_x2", changes)
    network = SimpleNamespace(scale=2, channels=3, out_channels=3, guides={}, takes_burst=False)
    task = make_task(recipe, train_settings(recipe), network)
    assert (task.seed, task.protocol) == (9, Protocol(channel="all", crop=7))
    assert task.plan[0].iterations == 2400


@pytest.mark.parametrize("paper", [True, False])
def test_the_papers_photos_are_named_only_if_the_recipe_has_a_paper(paper, caplog):
    recipe = load_recipe("mambair_light_x2", {"train.data.patch": 8})
    if not paper:
        recipe = dataclasses.replace(recipe, paper=None)
    network = SimpleNamespace(scale=2, channels=3, out_channels=3, guides={}, takes_burst=False)
    with caplog.at_level("INFO", logger="zoo.train"):
        make_task(recipe, train_settings(recipe), network)
    assert ("the paper uses" in caplog.text) == paper


def test_held_out_photographs_are_validated_on_and_never_trained_on():
    """The division is fixed, because published numbers rest on it."""
    held_out = ["camera", "chelsea", "coffee", "rocket"]
    assert sample_names(held_out=True) == held_out
    assert sample_names(held_out=False) == [
        *("astronaut", "brick", "coins", "grass", "gravel", "hubble_deep_field", "ihc"),
        *("retina", "china", "flower"),
    ]
    settings = DataSettings(degradation=Bicubic, patch=8)
    task = PhotoTask(
        settings,
        SimpleNamespace(scale=2, channels=3, out_channels=3, guides={}),
        protocol=Protocol(),
        iterations=1,
        seed=0,
    )
    assert [image.name for image in task.validation] == held_out
    assert not {photo.name for photo in task.photos} & set(held_out)
