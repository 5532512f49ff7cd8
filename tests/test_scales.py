"""Networks that return several scales in training: one from outside the package, to a file."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import zoo
from recipes.train import main as train
from zoo.data import Photo, write_photo
from zoo.inference import restore_tensor
from zoo.networks import Network


class Pyramid(Network):
    """The image, cleaned at half size and at full size, each by a convolution of its own."""

    scale, channels = 1, 3

    def __init__(self):
        super().__init__()
        self.small, self.whole = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(2))
        for convolution in (self.small, self.whole):
            nn.init.constant_(convolution.weight, 0.01)

    def forward(self, image_BIHW):
        self.check_image(image_BIHW)
        sides = [max(1, side // 2) for side in image_BIHW.shape[-2:]]
        half = self.small(F.adaptive_avg_pool2d(image_BIHW, sides))
        return self.of_scales([half, self.whole(image_BIHW)])


def test_a_network_of_several_scales_learns_at_each_and_restores_at_the_last(tmp_path):
    zoo.register("network", "pyramid")(Pyramid)
    for number in range(2):
        pixels = np.random.default_rng(number).random((24, 24, 3), dtype=np.float32)
        write_photo(tmp_path / "photos" / f"{number}.png", Photo(pixels))
    (tmp_path / "pyramid.yaml").write_text(
        "network: {type: pyramid}\n"
        "train: {iterations: 3, data: {patch: 8, batch: 2, degradation: {type: noise, sigma: 25}}}"
    )
    photos, run = f"data.photos={tmp_path / 'photos'}", tmp_path / "run"
    words = [str(tmp_path / "pyramid.yaml"), photos, "-o", str(run), "--num-workers", "0"]
    assert train(words) == 0
    trained = zoo.load(run / "weights.safetensors").eval()
    # Only the loss at half size reaches the one, and that at full size the other.
    assert all(
        float((w - 0.01).detach().abs().max()) > 1e-5
        for w in (trained.small.weight, trained.whole.weight)
    )

    image = torch.rand(1, 3, 7, 9)
    with torch.no_grad():
        whole = trained(image)
        scales = trained.train()(image)
    assert [tuple(x.shape[-2:]) for x in scales] == [(3, 4), (7, 9)]
    torch.testing.assert_close(scales[-1], whole)
    torch.testing.assert_close(restore_tensor(trained, image), whole.clamp(0, 1))
