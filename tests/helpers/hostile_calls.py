"""A call of the selective scan to spoil, and every path to the operator."""

from __future__ import annotations

from functools import partial

import torch

from tests.helpers.scan_cases import Case
from zoo.ops import selective_scan
from zoo.ops.scan.contract import SCHEMA

CASE = Case(B=2, L=9, K=3, E=4, N=3, order="padded")


def changed(inputs, name, value):
    """The inputs with another one in a place; a function is given the one that is there."""
    index = list(SCHEMA).index(name)
    value = value(inputs[index]) if callable(value) else value
    return [*inputs[:index], value, *inputs[index + 1 :]]


def directly(*inputs):
    return torch.ops.zoo.selective_scan(*inputs, True, "")


def compiled(*inputs):
    function = torch.compile(partial(selective_scan, reduce=True), backend="aot_eager")
    return function(*inputs)


class Scan(torch.nn.Module):
    def forward(self, *inputs):
        return selective_scan(*inputs, reduce=True)


def exported(*inputs):
    return torch.export.export(Scan(), inputs).module()(*inputs)


def gradient(*inputs):
    """The gradient as an operator of its own."""
    grad_y = torch.ones(CASE.B, CASE.L, CASE.E)
    return torch.ops.zoo.selective_scan_backward(grad_y, *inputs, True, "")


PATHS = [selective_scan, directly, gradient]
TRACED = [compiled, exported]
