"""Routes of an exported network: the class that each router chose for each token.

A token whose two best classes are nearly equal may get the other one from rounding alone, and is
then scanned at another place. So routes are compared first, then outputs with the routes of the
file.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from onnx import ModelProto, helper
from torch import Tensor, nn

from zoo.blocks import Router, Routes

FLIPPED = {"fp32": 1e-3, "fp16": 0.2, "bf16": 1e-3}
"""Largest share of routes that may differ, by precision. A file in bf16 is compared in float32."""


def routers(network: nn.Module) -> list[Router]:
    """Return the routers of a network, in the order in which they run."""
    return [module for module in network.modules() if isinstance(module, Router)]


def route_outputs(model: ModelProto, network: nn.Module) -> tuple[ModelProto, list[str]]:
    """Copy a model and make the routes of its routers outputs; also return their names.

    A model whose routes cannot be told is returned as it is, without names.
    """
    nodes = [node for node in model.graph.node if node.op_type == "ArgMax"]
    if not nodes or len(nodes) != len(routers(network)):
        return model, []
    copied = ModelProto()
    copied.CopyFrom(model)
    names = [node.output[0] for node in nodes]
    known = {value.name: value for value in model.graph.value_info}
    for name in names:
        value = known.get(name) or helper.make_tensor_value_info(name, 7, None)  # int64
        copied.graph.output.append(value)
    return copied, names


@contextlib.contextmanager
def recorded_routes(network: nn.Module) -> Iterator[list[Tensor]]:
    """Yield a list that the routers of a network fill with their classes, (B, L) each."""
    classes: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: Any, found: Routes) -> None:
        classes.append(found.class_BL)

    with _hooked(network, keep):
        yield classes


@contextlib.contextmanager
def forced_routes(network: nn.Module, routes: Sequence[Tensor]) -> Iterator[None]:
    """Make the routers of a network choose these classes, in the order in which they run."""
    coming = iter(routes)

    def replace(_module: nn.Module, _inputs: Any, found: Routes) -> Routes:
        return found._replace(class_BL=next(coming))

    with _hooked(network, replace):
        yield


@contextlib.contextmanager
def _hooked(network: nn.Module, hook: Any) -> Iterator[None]:
    handles = [router.register_forward_hook(hook) for router in routers(network)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def flipped(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> float:
    """Return the share of routes that differ, 0 to 1."""
    differing = sum(int((a != b).sum()) for a, b in zip(ours, theirs, strict=True))
    return differing / max(sum(map(torch.numel, ours)), 1)
