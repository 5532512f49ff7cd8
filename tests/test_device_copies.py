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
from zoo.blocks.layers import DropPath
from zoo.blocks.window_attention import WindowAttention
from zoo.scans import SCANS, Window
from zoo.scans.by_class import _counting_sort, sort_by_class
from zoo.scans.official import official_column_sources

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


META = torch.device("meta")


def made_there(make):
    """What ``make`` returns, if all of it is made on the device."""
    with FromTheCPU() as read:
        found = make()
    assert read.found == []
    tensors = [value for value in tree_leaves(found) if isinstance(value, torch.Tensor)]
    assert tensors and {tensor.device.type for tensor in tensors} == {"meta"}
    return found


ORDERS = {
    entry.name: entry.target
    for entry in SCANS.entries()
    if entry.name not in ("hilbert", "shuffled", "window", "compose", "by_class")
    and entry.target.__module__.startswith("zoo.")
}


@pytest.mark.parametrize("name", ORDERS)
def test_a_scan_order_is_made_on_the_device(name):
    made_there(lambda: ORDERS[name]().build(16, 32, META))


def test_windows_that_are_shifted_are_made_on_the_device():
    made_there(lambda: Window(size=(3, 4), shift=1, serpentine=True).build(5, 6, META))


@pytest.mark.parametrize("name", ["hilbert", "shuffled"])
def test_an_order_that_is_computed_on_the_cpu_goes_to_the_device(name):
    assert SCANS.get(name).target().build(4, 6, META).device == META


def test_orders_by_class_and_of_the_authors_are_made_on_the_device():
    class_BL = torch.zeros(2, 9, dtype=torch.int64, device=META)
    for sort in (sort_by_class, _counting_sort):
        made_there(lambda sort=sort: sort(class_BL, 4))
    made_there(lambda: official_column_sources(8, 12, 4, META))


def test_windows_of_attention_are_found_on_the_device():
    part = WindowAttention(8, window=4, heads=2, shift=1).to(META)
    qkv_BLX = torch.zeros(1, 30, 24, device=META)
    for attend in (part._attended, part._traced):
        made_there(lambda attend=attend: attend(qkv_BLX, 5, 6))


def test_paths_are_dropped_on_the_device():
    made_there(lambda: DropPath(0.5).train()(torch.zeros(3, 2, 2, 4, device=META)))
