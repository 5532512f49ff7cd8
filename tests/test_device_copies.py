"""A forward pass makes no tensor from numbers: a GPU would wait for the copy.

Nor could a CUDA graph capture it. The networks run on PyTorch's meta device, so that what is made
on the CPU is seen.
"""

from __future__ import annotations

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import zoo

MODELS = [
    *("mambair_tiny_x2", "mambacsr_tiny_x2", "mambairv2_tiny_x2", "qmambabsr_tiny", "dvmsr_x4"),
    *("qmambabsr_fusion_pbff", "qmambabsr_rgb", "mair_light_t_x2", "vmambair_x4"),
    *("eamamba_light_x2", "wavemamba_lol"),
]


class FromTheCPU(TorchDispatchMode):
    """Notes the operators that read a tensor on the CPU."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        for value in tree_leaves((args, kwargs)):
            if isinstance(value, torch.Tensor) and value.device.type == "cpu":
                self.found.append(str(func))
        return func(*args, **(kwargs or {}))


class FromNumbers(TorchFunctionMode):
    """Notes where tensors are made from numbers, also on the device, and lists that are indices."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (torch.tensor, torch.as_tensor, torch.asarray, torch.from_numpy):
            self.found.append(func.__name__)
        if func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__):
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            self.found += [f"index {part}" for part in index if isinstance(part, list)]
        return func(*args, **(kwargs or {}))


def copies(network):
    network = network.to("meta").train()
    inputs = [image.to("meta") for image in network.example_inputs(32, 32)]
    with FromTheCPU() as read, FromNumbers() as made:
        network(*inputs)
    return read.found + made.found


@pytest.mark.parametrize("model", MODELS)
def test_a_forward_pass_copies_nothing_to_the_device(model):
    assert copies(zoo.build(model)) == []


def test_nor_does_one_that_finds_the_motion_of_frames():
    network = zoo.build("qmambabsr_tiny", flow_prior="registration")
    assert network.takes_flow and copies(network) == []


@pytest.mark.parametrize(
    "copy",
    [
        lambda x_BIHW: x_BIHW * torch.tensor([1.0, 2.0]).to(x_BIHW.device)[0],
        lambda x_BIHW: x_BIHW + torch.tensor(0.5, device=x_BIHW.device),
        lambda x_BIHW: x_BIHW[:, torch.arange(3)],
        lambda x_BIHW: x_BIHW[:, [2, 1, 0]],
        lambda x_BIHW: x_BIHW + torch.zeros(32, device="cpu").to(x_BIHW.device),
    ],
    ids=["numbers", "there", "index", "list", "zeros"],
)
def test_a_copy_would_be_seen(copy, monkeypatch):
    network = zoo.build("mambair_tiny_x2")
    assert copies(network) == []
    monkeypatch.setattr(network, "forward", copy)
    assert copies(network)
