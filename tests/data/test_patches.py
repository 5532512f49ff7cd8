"""Training patches: every turn, place and photo is drawn, and both images are cut alike."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from zoo.data import Bicubic, Degradation, PairDataset, PatchDataset, Photo, write_photo
from zoo.data.guides import GuidePhotos, fitted, match_guides
from zoo.data.pairing import match_degraded
from zoo.data.photos import TrainingPhoto, all_faults, load_training_photos
from zoo.data.testsets import validation_images
from zoo.errors import ImageError, RecipeError
from zoo.networks import Guide


def numbered(height, width, first=0, name="a"):
    """A photo in which each pixel is its own number, and colours tell each other apart."""
    numbers = first + np.arange(height * width, dtype=np.uint16).reshape(height, width)
    return TrainingPhoto(name, np.stack([numbers, numbers + 10000, numbers + 20000], axis=-1))


def numbers_of(patch_CHW):
    return (patch_CHW[0] * 65535).round().int().numpy()


class First(Degradation):
    """Keeps the first pixel of each square."""

    def __init__(self, scale=1):
        self.scale = scale

    def __call__(self, clean_CHW, rng):
        return clean_CHW[:, :: self.scale, :: self.scale]


def patches_of(photos, **changes):
    settings = {"degradation": First(), "patch": 2, "channels": 3, "length": 800, "seed": 0}
    return PatchDataset(photos, **{**settings, **changes})


def turns(patch):
    """The eight flips and quarter turns of a patch, as bytes."""
    return [np.rot90(p, k).tobytes() for p in (patch, patch[:, ::-1]) for k in range(4)]


def test_every_turn_is_drawn_equally_often_and_none_without_augmenting():
    photo = numbered(3, 3)
    whole = numbers_of(patches_of([photo], patch=3, augment=False)[0][1])
    counts = Counter(
        turns(whole).index(numbers_of(clean).tobytes()) for clean, _ in patches_of([photo], patch=3)
    )
    assert set(counts) == set(range(8)) and 70 < min(counts.values()) <= max(counts.values()) < 135
    plain = patches_of([photo], patch=3, augment=False, length=20)
    assert all(np.array_equal(numbers_of(clean), whole) for clean, _ in plain)
    assert whole.tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]


def test_flips_alone_exchange_left_and_right_half_of_the_time():
    photo = numbered(3, 3)
    whole = numbers_of(patches_of([photo], patch=3, augment=False)[0][1])
    found = [numbers_of(clean) for clean, _ in patches_of([photo], patch=3, augment="flip")]
    turned = [np.array_equal(numbers, whole[:, ::-1]) for numbers in found]
    assert all(turned[n] or np.array_equal(found[n], whole) for n in range(len(found)))
    assert 340 < sum(turned) < 460  # of 800


def test_every_place_and_photo_is_drawn_equally_often():
    """Three photos of 3 x 4 places; the last row and column of places too."""
    photos = [numbered(4, 5, first=100 * number) for number in range(3)]
    patches = patches_of(photos, augment=False, length=1800)
    counts = Counter(int(numbers_of(clean)[0, 0]) for clean, _ in patches)
    expected = {100 * n + 5 * y + x for n in range(3) for y in range(3) for x in range(4)}
    assert set(counts) == expected
    assert 25 < min(counts.values()) <= max(counts.values()) < 85  # 50 each


@pytest.mark.parametrize("augment", [False, True])
def test_pairs_of_files_are_turned_and_cut_alike(augment):
    """The degraded photo is the corner of each 2 x 2 pixels, and its last column is cut off."""
    clean = [numbered(9, 11, first=1000 * n, name=f"{n}.png") for n in range(2)]
    degraded = [
        TrainingPhoto(f"{n}x2.png", photo.pixels_HWC[:8:2, :10:2]) for n, photo in enumerate(clean)
    ]
    pairs = PairDataset(
        clean,
        degraded[::-1],
        scale=2,
        patch=2,
        channels=3,
        augment=augment,
        length=400,
        seed=0,
    )
    places, corners = Counter(), Counter()
    for small, large in pairs:
        small, large = numbers_of(small), numbers_of(large)
        assert small.shape == (2, 2) and large.shape == (4, 4)
        fits = [(y, x) for y in (0, 1) for x in (0, 1) if np.array_equal(large[y::2, x::2], small)]
        assert len(fits) == 1
        corners[fits[0]] += 1
        places[small.min()] += 1
    assert len(corners) == (4 if augment else 1)
    assert len(places) == 2 * 3 * 4  # both photos, every place


@pytest.mark.parametrize("scale", [2, 3])
def test_a_clean_patch_is_the_one_that_was_degraded(scale):
    """A smooth photo: the degraded patch is close to the mean of each clean pixel's block."""
    y, x = np.mgrid[:70, :90] / 90
    photo = TrainingPhoto("a", np.uint16(60000 * np.stack([y, x, (y + x) / 2], axis=-1)))
    pairs = patches_of([photo], degradation=Bicubic(scale=scale), length=40)
    for degraded, clean in pairs:
        blocks = torch.nn.functional.avg_pool2d(clean, scale)
        torch.testing.assert_close(degraded, blocks, atol=4e-3, rtol=0)


def test_a_photo_is_cropped_to_the_scale_before_it_is_turned():
    """The last row and column of 5 x 7 pixels are left out, whatever the turn."""
    photo = numbered(5, 7)
    seen = {
        int(n)
        for _, clean in patches_of([photo], degradation=First(2), length=200)
        for n in numbers_of(clean).flat
    }
    assert seen == {7 * y + x for y in range(4) for x in range(6)}


def test_channels_of_patches_are_the_networks():
    gray = TrainingPhoto("gray", np.full((4, 4, 1), 51, np.uint8))
    clean, _ = patches_of([gray], length=1)[0]
    assert clean.shape == (3, 2, 2) and torch.allclose(clean, torch.tensor(0.2))
    red = TrainingPhoto("red", np.zeros((4, 4, 3), np.uint8) + np.uint8([255, 0, 0]))
    luma, _ = patches_of([red], channels=1, length=1)[0]
    assert luma.shape == (1, 2, 2) and torch.allclose(luma, luma[0, 0, 0])
    assert 0.2 < float(luma[0, 0, 0]) < 0.35  # red weighs 0.299, in studio or full range


def test_pairs_of_neighbouring_indices_and_seeds_differ():
    photo = numbered(40, 40)
    for seed in (0, 1):
        patches = patches_of([photo], seed=seed, length=60)
        found = {numbers_of(clean).tobytes() for clean, _ in patches}
        assert len(found) > 55
    first, second = (patches_of([photo], seed=seed, length=60) for seed in (0, 1))
    same = [torch.equal(first[i][0], second[i][0]) for i in range(60)]
    assert sum(same) < 5
    for index in (-1, 60):
        with pytest.raises(IndexError):
            first[index]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch": 0}, "patch must be at least 1"),
        ({"length": 0}, "length must be at least 1"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"channels": 0}, "^channels must be at least 1, not 0"),
        ({"out_channels": 0}, "^out_channels must be at least 1, not 0"),
    ],
)
def test_settings_of_patches_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(RecipeError, match=message):
        patches_of([numbered(4, 4)], **changes)
    least = {name: value + 1 for name, value in changes.items()}
    assert len(patches_of([numbered(4, 4)], **least)) == least.get("length", 800)


def test_networks_of_other_channels_out_than_in_train_on_pairs_only():
    """Of gray and RGB, a degradation makes one from the other."""
    clean = TrainingPhoto("a", np.arange(36, dtype=np.uint8).reshape(6, 6, 1))
    bands = TrainingPhoto("a", np.arange(144, dtype=np.uint8).reshape(6, 6, 4))
    common = {"scale": 1, "patch": 6, "augment": False, "length": 1, "seed": 0, "out_channels": 1}
    [(degraded, target)] = PairDataset([clean], [bands], channels=4, **common)
    assert degraded.shape == (4, 6, 6) and target.shape == (1, 6, 6)
    assert torch.equal((255 * degraded).round().flatten(1).T, torch.arange(144.0).reshape(36, 4))
    wrong = r"'a' must have shape \(H, W, 5\), not \(6, 6, 4\); .* change network.channels$"
    with pytest.raises(ImageError, match=wrong):
        PairDataset([clean], [bands], channels=5, **common)
    common["out_channels"] = 2
    wrong = r"'a' must have shape \(H, W, 2\), not \(6, 6, 1\); .* change network.out_channels$"
    with pytest.raises(ImageError, match=wrong):
        PairDataset([clean], [bands], channels=4, **common)
    with pytest.raises(RecipeError, match="takes 4 channels and returns 1, which no degradation"):
        patches_of([clean], channels=4, out_channels=1)


def test_photos_of_a_wrong_kind_are_refused():
    for pixels, message in (
        (np.zeros((4, 4, 2), np.uint8), "shape"),
        (np.zeros((4, 4), np.uint8), "shape"),
        (np.zeros((4, 4, 3), np.int32), "uint8, uint16"),
    ):
        with pytest.raises(ImageError, match=message):
            patches_of([pixels])
    clean, _ = patches_of([np.full((4, 4, 3), 0.25)], length=1)[0]
    assert torch.allclose(clean, torch.tensor(0.25), atol=1e-5)


def test_counterparts_are_found_by_name_and_size():
    clean = [numbered(9, 11, name=f"hr/{n}.png") for n in range(2)]
    degraded = [numbered(4, 5, name=f"lr/{n}{end}.png") for n, end in ((1, "x2"), (0, "_x2"))]
    assert match_degraded(clean, degraded, 2, alike=True) == degraded[::-1]
    for height, width in ((5, 5), (4, 6), (4, 4)):
        wrong = [degraded[0], numbered(height, width, name="0.png")]
        with pytest.raises(
            ImageError, match=rf"1 of 2 pairs.*'hr/0\.png' has 11x9.*{width}x{height}"
        ):
            match_degraded(clean, wrong, 2, alike=True)
    with pytest.raises(ImageError, match=r"1 of 2 pairs.*'hr/1\.png' has no degraded"):
        match_degraded(clean, degraded[1:], 2, alike=True)


def test_at_most_five_faults_are_named():
    five, seven = ([f"f{n}" for n in range(count)] for count in (5, 7))
    assert all_faults(five, 9, "wrong") == "5 of 9 wrong: f0; f1; f2; f3; f4"
    assert all_faults(seven, 9, "wrong") == "7 of 9 wrong: f0; f1; f2; f3; f4; and 2 more"


def test_validation_pairs_are_matched_by_name_and_read_before_training(tmp_path):
    clean, degraded = tmp_path / "hr", tmp_path / "lr"
    for folder in (clean, degraded):
        folder.mkdir()
    for number, level in ((1, 0.2), (2, 0.6)):
        shade = np.full((8, 8, 3), level, np.float32)
        write_photo(clean / f"{number}.png", Photo(shade))
        write_photo(degraded / f"{number}x2.png", Photo(shade[:4, :4] + np.float32(0.2)))
    for image, level in zip(
        validation_images(str(clean), str(degraded), 2), (0.2, 0.6), strict=True
    ):
        assert float(image.read_clean().mean()) == pytest.approx(level, abs=1e-6)
        assert float(image.read_degraded().mean()) == pytest.approx(level + 0.2, abs=1e-6)
    assert validation_images(str(clean))[0].read_degraded() is None
    (degraded / "2x2.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"1 of 2 test images cannot be used"):
        validation_images(str(clean), str(degraded), 2)
    (degraded / "2x2.png").unlink()
    with pytest.raises(ImageError, match=r"1 of 2 pairs do not match.*2\.png"):
        validation_images(str(clean), str(degraded), 2)


def test_memory_is_counted_in_gigabytes(tmp_path):
    for index in range(2):
        write_photo(tmp_path / f"{index}.png", Photo(np.zeros((10, 10, 3), np.float32)))
    for memory, kept in ((600e-9, 2), (599e-9, 1), (299e-9, 0)):
        photos = load_training_photos(tmp_path, memory=memory)
        assert sum(isinstance(photo, TrainingPhoto) for photo in photos) == kept


@pytest.mark.parametrize("kind", ["photos", "pairs"])
@pytest.mark.parametrize("augment", [False, True])
def test_guides_are_cut_and_turned_like_the_photo(kind, augment):
    """One guide of the clean photo's size, and one of the degraded photo's."""
    photos = [numbered(41, 57, first=3000 * n, name=f"{n}.png") for n in range(2)]
    small = [TrainingPhoto(p.name, p.pixels_HWC[:40:2, :56:2].copy()) for p in photos]
    gray = [TrainingPhoto(p.name, p.pixels_HWC[..., :1].copy()) for p in photos]
    guides = [
        GuidePhotos(gray, Guide(channels=1, scale=2)),
        GuidePhotos(small, Guide(channels=3, scale=1)),
    ]
    more = {"patch": 6, "channels": 3, "length": 40, "seed": 0, "augment": augment}
    if kind == "pairs":
        data = PairDataset(photos, small, scale=2, guides=guides, **more)
    else:
        data = PatchDataset(photos, degradation=First(2), guides=guides, **more)
    for degraded, clean, pan, other in (data[n] for n in range(40)):
        assert torch.equal(pan, clean[:1]) and other.shape == degraded.shape
        corner = [numbers_of(clean)[y::2, x::2] for y in (0, 1) for x in (0, 1)]
        assert any(np.array_equal(numbers_of(other), numbers) for numbers in corner)
        if kind == "pairs" or not augment:
            assert torch.equal(other, degraded)


def test_guides_become_gray_or_rgb_and_nothing_else():
    """At the bottom and on the right they may have the pixels that the photo lacks."""
    gray, rgb, bands = (np.full((9, 13, n), 0.5, np.float32) for n in (1, 3, 4))
    for given, channels in ((gray, 1), (gray, 3), (rgb, 1), (rgb, 3), (bands, 4)):
        found = fitted(given, Guide(channels=channels, scale=2), 4, 6, "pan")
        assert found.shape == (channels, 8, 12)
    for given, channels in ((gray, 4), (bands, 1), (bands, 3), (rgb, 4)):
        with pytest.raises(
            ImageError, match=rf"guide pan has {given.shape[2]} ch.* have {channels}$"
        ):
            fitted(given, Guide(channels=channels, scale=2), 4, 6, "pan")
    for height, width in ((5, 6), (4, 7), (3, 6), (4, 5)):
        wanted = rf"has 13x9 pixels, but must have {2 * width}x{2 * height}"
        with pytest.raises(ImageError, match=wanted):
            fitted(gray, Guide(channels=1, scale=2), height, width, "pan")
    photos = [numbered(8, 12, name=name) for name in ("1.png", "2.png")]
    others = [TrainingPhoto(p.name, p.pixels_HWC[:, :, :2]) for p in photos]
    with pytest.raises(
        ImageError, match=r"^2 of 2 photos .*: '1\.png', the pan of '1\.png', has 2 ch"
    ):
        match_guides(photos, others, Guide(channels=3, scale=2), 2, "pan")
    guide = Guide(channels=3, scale=2)
    assert match_guides(photos, photos[::-1], guide, 2, "pan") == GuidePhotos(photos, guide)
