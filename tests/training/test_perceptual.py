"""The perceptual loss against layers written one by one, and what it says of wrong files."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tests.helpers.vgg import write_vgg
from zoo.errors import CheckpointError, RecipeError, ZooError
from zoo.schema import resolve
from zoo.training.losses import Loss, Perceptual, WeightedSum
from zoo.training.losses.vgg import COUNTS, DEVIATION, LAYERS, MEAN, VGG19

# Simonyan and Zisserman, Table 1, column E, as torchvision numbers its layers: P is a pooling.
COLUMN_E = "0 2 P 5 7 P 10 12 14 16 P 19 21 23 25 P 28 30 32 34"
REAL_ESRGAN = {"conv1_2": 0.1, "conv2_2": 0.1, "conv3_4": 1.0, "conv4_4": 1.0, "conv5_4": 1.0}
PLACES = {"conv1_2": "2", "conv2_2": "7", "conv3_4": "16", "conv4_4": "25", "conv5_4": "34"}


@pytest.fixture
def file(tmp_path, monkeypatch):
    path = tmp_path / "vgg.pth"
    write_vgg(path, monkeypatch)
    return path


def features(state, image):
    """What each convolution returns before its ReLU, by the number of its layer."""
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    deviation = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    x, found = (image - mean) / deviation, {}
    for number in COLUMN_E.split():
        if number == "P":
            x = F.max_pool2d(x, 2)
            continue
        x = F.conv2d(x, state[f"features.{number}.weight"], state[f"features.{number}.bias"], 1, 1)
        found[number] = x
        x = x.relu()
    return found


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(32, 32), (17, 45)])
def test_the_loss_is_the_weighted_sum_over_layers_before_their_relu(channels, size, file):
    torch.manual_seed(1)
    output, clean = (torch.rand(2, channels, *size) for _ in range(2))
    loss = Perceptual(weights=str(file))
    loss.prepare(channels)
    state = torch.load(file, weights_only=True)
    ours, theirs = (features(state, image.expand(-1, 3, -1, -1)) for image in (output, clean))
    expected = sum(
        weight * (ours[PLACES[name]] - theirs[PLACES[name]]).abs().mean()
        for name, weight in REAL_ESRGAN.items()
    )
    torch.testing.assert_close(loss(output, clean), expected, rtol=1e-5, atol=1e-7)
    assert float(loss(clean, clean)) == 0
    assert float((ours["34"] < 0).float().mean()) > 0.1  # with the ReLU, another number


def test_the_layers_are_those_of_the_paper():
    assert [name for name in LAYERS if name.endswith("_4")] == ["conv3_4", "conv4_4", "conv5_4"]
    assert COUNTS == (2, 2, 4, 4, 4) and len(LAYERS) == 16
    network = VGG19(["conv5_4"])
    assert [conv.out_channels for conv in network.convs.values()] == (
        [64] * 2 + [128] * 2 + [256] * 4 + [512] * 8
    )
    # torchvision's VGG19 has 143,667,240 parameters, 123,642,856 of them in its classifier.
    assert sum(p.numel() for p in network.parameters()) == 143_667_240 - 123_642_856
    assert list(VGG19(["conv1_2", "conv2_1"]).convs) == ["conv1_1", "conv1_2", "conv2_1"]
    assert (MEAN, DEVIATION) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_the_network_of_the_loss_never_learns_and_the_image_gets_a_gradient(file):
    loss = Perceptual(weights=str(file))
    loss.prepare(3)
    output = torch.rand(1, 3, 16, 16, requires_grad=True)
    loss(output, torch.rand(1, 3, 16, 16)).backward()
    assert float(output.grad.abs().max()) > 0
    assert not any(p.requires_grad for p in loss.parameters())


def test_low_precision_is_widened_and_layers_can_be_chosen(file):
    loss = Perceptual(weights=str(file), layers={"conv2_1": 2.0})
    output, clean = torch.rand(1, 3, 4, 4).bfloat16(), torch.rand(1, 3, 4, 4)
    state = torch.load(file, weights_only=True)
    ours, theirs = features_of_two(state, output.float(), clean)
    expected = 2 * (ours - theirs).abs().mean()
    found = loss(output, clean)  # it reads its file by itself
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


def features_of_two(state, *images):
    """The third convolution alone: images of four pixels are too small for all."""
    mean, deviation = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, DEVIATION))
    for image in images:
        x = (image - mean) / deviation
        for number in ("0", "2", "P", "5"):
            if number == "P":
                x = F.max_pool2d(x.relu(), 2)
            else:
                x = F.conv2d(
                    x if number in "05" else x.relu(),
                    *(state[f"features.{number}.{part}"] for part in ("weight", "bias")),
                    padding=1,
                )
        yield x


def test_a_sum_prepares_its_parts(file):
    loss = resolve(
        Loss,
        {"type": "sum", "losses": ["l1", {"type": "perceptual", "weights": str(file)}]},
        "loss",
    )
    assert isinstance(loss, WeightedSum) and not list(loss.parameters())
    loss.prepare(3)
    assert len(list(loss.parameters())) == 32
    assert float(loss(torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 16))) > 0


def test_missing_and_foreign_files_are_named(file, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    with pytest.raises(CheckpointError) as error:
        Perceptual(weights="nowhere/vgg19.pth").prepare(3)
    for part in ("VGG19", "nowhere/vgg19.pth", "hub", "download.pytorch.org", "'weights'"):
        assert part in str(error.value)
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    file.rename(tmp_path / "hub" / "checkpoints" / "vgg.pth")
    Perceptual(weights="elsewhere/vgg.pth").prepare(3)  # it was downloaded before

    other = tmp_path / "other.pth"
    for junk in (b"\x80junk\n" * 99, b"\x00", b"\xff<html>"):
        other.write_bytes(junk)
        with pytest.raises(CheckpointError) as error:
            Perceptual(weights=str(other)).prepare(3)
        assert str(error.value) == (
            f"{other}: not a readable PyTorch weights file; it may be truncated, or no weights at "
            "all: copy or download it again"
        )
    torch.save({"features.0.weight": torch.zeros(4, 3, 3, 3)}, other)
    with pytest.raises(CheckpointError, match=r"has no features\.0\.bias, so it is not VGG19"):
        Perceptual(weights=str(other)).prepare(3)
    torch.save({"features.0.weight": torch.zeros(4, 3, 5, 5)}, other)
    with pytest.raises(CheckpointError, match=r"shape \(4, 3, 5, 5\) in place of \(4, 3, 3, 3\)"):
        Perceptual(weights=str(other)).prepare(3)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({"conv1_3": 1.0}, "no 'conv1_3'; did you mean 'conv1_"),
        ({}, "at least one layer"),
        ({"conv1_1": 0.0}, "one above 0"),
        ({"conv1_1": 1.0, "conv1_2": -1.0}, "at least 0"),
        ({"conv1_1": float("inf")}, "one above 0"),
        ({"conv1_1": float("nan")}, "one above 0"),
    ],
)
def test_wrong_layers_are_refused(layers, message):
    with pytest.raises(RecipeError, match=message):
        Perceptual(layers=layers)


def test_weights_of_layers_are_below_a_million():
    Perceptual(layers={"conv1_1": 999_999.0})
    with pytest.raises(RecipeError, match="one above 0"):
        Perceptual(layers={"conv1_1": 1e6})


def test_a_loss_that_reads_its_file_by_itself_is_on_the_device_of_the_images(file):
    loss = Perceptual(weights=str(file), layers={"conv1_2": 1.0})
    images = torch.empty(2, 1, 3, 4, 4, device="meta")
    assert loss(*images).device.type == "meta"


def test_each_pooling_above_a_layer_halves_the_image():
    found = [VGG19([name]).smallest for name in ("conv1_1", "conv1_2", "conv2_1", "conv3_1")]
    assert found == [1, 1, 2, 4]


def test_images_that_it_cannot_see_are_refused(file):
    with pytest.raises(RecipeError, match="gray and RGB images, not 5 channels"):
        Perceptual(weights=str(file)).prepare(5)
    loss = Perceptual(weights=str(file))
    loss.prepare(3)
    with pytest.raises(ZooError, match=r"conv5_4 needs patches of at least 16 .* not \(15, 40\)"):
        loss(torch.rand(1, 3, 15, 40), torch.rand(1, 3, 15, 40))
