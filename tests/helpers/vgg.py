"""A file of VGG19 with random weights, as wide as wanted."""

from __future__ import annotations

import torch

from zoo.training.losses import vgg


def write_vgg(path, monkeypatch, widths=(4, 4, 8, 8, 8)):
    """Write a file with torchvision's names, and make the package expect these widths."""
    monkeypatch.setattr(vgg, "WIDTHS", widths)
    generator = torch.Generator().manual_seed(0)
    state, number, inputs = {}, 0, 3
    for width, count in zip(widths, (2, 2, 4, 4, 4), strict=True):
        for _ in range(count):
            weight = torch.randn(width, inputs, 3, 3, generator=generator) * (2 / 9 / inputs) ** 0.5
            state[f"features.{number}.weight"] = weight
            state[f"features.{number}.bias"] = torch.randn(width, generator=generator) / 10
            number, inputs = number + 2, width
        number += 1
    state["classifier.0.weight"] = torch.zeros(2, 2)  # the file has these, too
    torch.save(state, path)
    return state
