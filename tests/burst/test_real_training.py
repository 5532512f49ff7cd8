"""Training on public sets of bursts: patches, epochs, validation, and the loss that aligns."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import zoo
from recipes.train import main as train
from tests.helpers import author_layouts
from tests.helpers.author_layouts import burst
from tests.helpers.small_bursts import small
from zoo.data.burst import pairs
from zoo.data.burst.clean import CleanImage
from zoo.data.burst.dataset import generator
from zoo.data.burst.pairs import RealBurst, RealBurstDataset, RealValidation, real_bursts
from zoo.errors import ImageError, RecipeError
from zoo.metrics.burst import aligned, as_rgb
from zoo.recipe import load_recipe
from zoo.training.burst_task import BurstTask
from zoo.training.epochs import in_steps
from zoo.training.losses import L1
from zoo.training.settings import BurstTrainSettings, train_settings

# ------------------------------------------------------------------ patches and whole bursts


def test_a_burst_to_validate_with_is_whole_and_has_no_motion(monkeypatch):
    frames, clean = torch.rand(3, 4, 6, 7), torch.rand(3, 48, 56)
    monkeypatch.setattr(RealBurst, "read", lambda *_: (frames, clean))
    held = [RealBurst(Path("7"), CleanImage(None))]
    found = RealValidation(held, frames=3, scale=8)[0]
    assert torch.equal(found.frames, frames) and torch.equal(found.clean, clean)
    assert torch.equal(found.flow, torch.zeros(3, 2, 6, 7))


PLANES = (0, 0, 0), (1, 0, 1), (1, 1, 0), (2, 1, 1)
"""Colour, row and column of the planes R, Gr, Gb, B in a mosaic."""


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("turned", range(8))
@pytest.mark.parametrize("raw", [True, False])
def test_flips_and_turns_keep_frames_and_clean_image_together(monkeypatch, raw, turned, whole):
    """The clean image repeats every value of the mosaic, or of the frame, as a block."""
    scale, side, patch = (8, 6, 6 if whole else 4) if raw else (4, 6, 6 if whole else 4)
    cells = 2 * side if raw else side
    block = scale * side // cells
    colours = torch.rand(3, cells, cells, generator=generator(1))
    clean = colours.repeat_interleave(block, 1).repeat_interleave(block, 2)
    frame = colours
    if raw:
        frame = torch.stack([colours[c, row::2, column::2] for c, row, column in PLANES])
    monkeypatch.setattr(RealBurst, "read", lambda *_: (frame[None].repeat(2, 1, 1, 1), clean))
    monkeypatch.setattr(pairs, "below", lambda n, rng: turned if n == 8 else min(1, n - 1))
    held = [RealBurst(None, CleanImage(None))]
    data = RealBurstDataset(held, frames=2, scale=scale, patch=patch, length=1, seed=0)
    found, target, flow = data[0]
    assert found.shape == (2, frame.shape[0], patch, patch) and flow.shape == (2, 2, patch, patch)
    assert target.shape == (3, scale * patch, scale * patch)
    middles = target[:, block // 2 :: block, block // 2 :: block]
    if not raw:
        assert torch.equal(found[0], middles)
        return
    for plane, (colour, row, column) in enumerate(PLANES):
        assert torch.equal(found[0, plane], middles[colour, row::2, column::2]), plane


def test_all_eight_flips_and_turns_of_a_burst_differ(monkeypatch):
    frame, clean = torch.rand(3, 4, 4), torch.rand(3, 16, 16)
    monkeypatch.setattr(RealBurst, "read", lambda *_: (frame[None], clean))
    data = RealBurstDataset(
        [RealBurst(None, CleanImage(None))], frames=1, scale=4, patch=4, length=1, seed=0
    )
    found = set()
    for turned in range(8):
        monkeypatch.setattr(pairs, "below", lambda n, rng, turned=turned: turned if n == 8 else 0)
        found.add(str(data[0].frames))
    assert len(found) == 8


@pytest.mark.parametrize("turned", range(8))
def test_a_patch_lies_anywhere_in_frames_that_are_not_square(monkeypatch, turned):
    frame, clean = torch.rand(3, 5, 9), torch.rand(3, 20, 36)
    monkeypatch.setattr(RealBurst, "read", lambda *_: (frame[None], clean))
    asked = []

    def last(n, rng):
        asked.append(n)
        return turned if n == 8 else n - 1

    monkeypatch.setattr(pairs, "below", last)
    held = [RealBurst(None, CleanImage(None))]
    found = RealBurstDataset(held, frames=1, scale=4, patch=4, length=1, seed=0)[0]
    assert asked == [1, 8, 2, 6]  # burst, turn, row and column
    for image, whole, side in ((found.frames[0], frame, 4), (found.clean, clean, 16)):
        flips = [axis for bit, axis in ((1, -2), (2, -1)) if turned & bit]
        expected = whole[:, -side:, -side:].flip(flips)
        assert torch.equal(image, expected.mT if turned & 4 else expected)


def test_frames_are_not_turned_unless_asked_to(monkeypatch):
    frame = torch.rand(3, 4, 4)
    monkeypatch.setattr(RealBurst, "read", lambda *_: (frame[None], torch.rand(3, 16, 16)))
    monkeypatch.setattr(pairs, "below", lambda n, rng: n - 1)
    data = RealBurstDataset(
        [RealBurst(None, CleanImage(None))], frames=1, scale=4, patch=4, length=1, seed=0,
        augment=False,
    )  # fmt: skip
    assert torch.equal(data[0].frames[0], frame)


def test_patches_depend_on_seed_and_number_only(tmp_path):
    author_layouts.burstsr(tmp_path, 2)
    held = real_bursts(tmp_path / "burstsr_dataset" / "val", 3, 8, 4)

    def data(seed):
        return RealBurstDataset(held, frames=3, scale=8, patch=4, length=40, seed=seed)

    first, again, other = data(0), data(0), data(1)
    assert torch.equal(first[7].frames, again[7].frames)
    assert torch.equal(first[7].clean, again[7].clean)
    assert any(not torch.equal(first[n].frames, other[n].frames) for n in range(4))
    assert len({str(first[n].frames) for n in range(40)}) > 10
    with pytest.raises(IndexError):
        first[40]
    wide = RealBurstDataset(held, frames=3, scale=8, patch=9, length=1, seed=0)
    with pytest.raises(ImageError, match=r"frames of 8x8; data\.patch is 9"):
        wide[0]


# ------------------------------------------------------------------ training


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("qmambabsr_burstsr", author_layouts.burstsr),
        ("qmambabsr_realbsr_raw", author_layouts.realbsr_raw),
        ("qmambabsr_realbsr_rgb", author_layouts.realbsr_rgb),
    ],
)
def test_recipes_of_real_bursts_train_an_epoch_and_resume(name, make, tmp_path, capsys):
    """Three bursts in batches of two: an epoch is two steps."""
    make(tmp_path, 3, half="train")
    make(tmp_path, 1)
    folders = {
        "qmambabsr_burstsr": "burstsr_dataset/{}", "qmambabsr_realbsr_raw": "RealBSR/RAW/{}patch",
        "qmambabsr_realbsr_rgb": "RealBSR/RGB/{}",
    }  # fmt: skip
    real = tmp_path / folders[name].format("train")
    tested = tmp_path / folders[name].format("val" if name[10:] == "burstsr" else "test")
    file = small(name, tmp_path)
    words = [str(file), "-o", str(tmp_path / "run"), "--num-workers", "0", f"data.real={real}"]
    words += [f"data.validate_real={tested}", "data.batch=2", "data.patch=8", "epochs=2"]
    assert train(words) == 0, capsys.readouterr().err
    state = torch.load(max(tmp_path.glob("run/**/*.pt")), weights_only=True)
    assert state["step"] == 4
    assert train(words) == 0  # nothing is left to do


def test_an_epoch_is_a_pass_over_the_photos(tmp_path):
    for number in range(5):
        author_layouts.picture(tmp_path / f"{number}.png", 64)
    recipe = load_recipe("qmambabsr", {"train.data.photos": str(tmp_path)})
    assert train_settings(recipe).epochs == 300
    assert train_settings(in_steps(recipe)).iterations == 300  # 5 photos are one batch of 8
    recipe = load_recipe("qmambabsr", {"train.data.photos": str(tmp_path), "train.data.batch": 2})
    found = in_steps(recipe)
    assert train_settings(found).iterations == 900 and "epochs" not in found.train
    assert in_steps(found) is found
    plain = load_recipe("mambair_light_x2")
    assert in_steps(plain) is plain
    photo = load_recipe(
        "mambair_light_x2",
        {"train.epochs": 3, "train.data.photos": str(tmp_path), "train.data.batch": 4},
    )
    assert train_settings(in_steps(photo)).iterations == 6
    bundled = load_recipe("mambair_light_x2", {"train.epochs": 3, "train.data.batch": 3})
    assert train_settings(in_steps(bundled)).iterations == 3 * 4  # ten photos
    staged = load_recipe("mambair_realdn", {"train.epochs": 3})
    with pytest.raises(RecipeError, match="epochs are for batches of one size"):
        in_steps(staged)


def test_steps_and_epochs_on_one_line_are_an_error(capsys):
    for words in (["epochs=1", "iterations=3"], ["train.iterations=3", "epochs=1"]):
        assert train(["qmambabsr", *words]) == 2
        said = "train.iterations and train.epochs are both given; omit one"
        assert said in capsys.readouterr().err
    found = load_recipe("qmambabsr", {"train.epochs": 0, "train.iterations": 3})
    assert train_settings(found).iterations == 3


def test_steps_and_epochs_replace_each_other(tmp_path):
    assert train_settings(load_recipe("qmambabsr", {"train.iterations": 7})).epochs == 0
    found = train_settings(load_recipe("qmambabsr_tiny", {"train.epochs": 2}))
    assert (found.iterations, found.epochs) == (0, 2)
    assert train_settings(load_recipe("qmambabsr_tiny")).iterations == 400
    (tmp_path / "a.yaml").write_text(
        "extends: qmambabsr\ntrain: {iterations: 5, epochs: 5}\nnetwork: {dim: 16}\n"
    )
    with pytest.raises(RecipeError, match="iterations and epochs are both given"):
        train_settings(load_recipe(tmp_path / "a.yaml"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train.flow_loss": 0.1}, "set flow_loss to 0"),
        ({"network.flow_prior": "given"}, "the motion of real bursts is not known"),
    ],
)
def test_what_real_bursts_do_not_have_is_refused(tmp_path, changes, message):
    author_layouts.burstsr(tmp_path, 1)
    folder = str(tmp_path / "burstsr_dataset" / "val")
    recipe = load_recipe(
        "qmambabsr_burstsr",
        {
            "network.burst": 3,
            "train.data.real": folder,
            "train.data.validate_real": folder,
            **changes,
        },
    )
    with pytest.raises(RecipeError, match=message):
        BurstTask(train_settings(in_steps(recipe)), zoo.build(recipe))


def test_the_aligned_loss_forgives_place_and_colour_and_its_gradient_reaches_the_image():
    made = burst(0, side=24)
    colours = torch.tensor([[0.8, 0.1, 0.0], [0.0, 0.7, 0.1], [0.1, 0.0, 0.6]])
    other = torch.einsum("ij,jhw->ihw", colours, made.clean)
    clean = torch.roll(other, (1, 2), (1, 2))
    image = made.clean.clone().requires_grad_()
    settings = BurstTrainSettings(iterations=1, align_loss=True)
    task = object.__new__(BurstTask)
    task.align_loss, task.border, task.flow_loss, task.needs_flow = True, 16, 0.0, False
    batch = made.frames[None], clean[None], made.flow[None]
    assert settings.align_loss
    loss = task.loss(lambda *_: (image[None], ()), L1(), batch, 0.0)
    plain = float((made.clean - clean)[:, 16:-16, 16:-16].abs().mean())
    loss.backward()
    loss = float(loss.detach())
    assert loss < 0.25 * plain
    inside = image.grad[:, 20:-20, 20:-20]
    assert torch.isfinite(image.grad).all() and float((inside != 0).float().mean()) > 0.7
    # By hand, from what is aligned.
    found = aligned(made.clean, clean, as_rgb(made.frames[0]), border=16)
    used = found.valid_1HW.expand(3, -1, -1).bool()
    expected = (found.restored_3HW - found.clean_3HW).abs()[used].mean()
    assert loss == pytest.approx(float(expected), rel=1e-4)
    # Of two images it is the mean, in float32 whatever the precision of the network.
    two = [part.expand(2, *part.shape[1:]) for part in batch]
    rough = image.detach().bfloat16().expand(2, -1, -1, -1)
    both = task.loss(lambda *_: (rough, ()), L1(), two, 0.0)
    assert both.dtype == torch.float32 and float(both) == pytest.approx(loss, rel=0.2)
