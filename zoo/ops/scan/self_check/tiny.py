"""A kernel of three lines, to see whether Triton works at all. Importing it needs Triton."""

# Triton reads annotations as its own types.
# ruff: noqa: ANN001, ANN201
# mypy: ignore-errors
from __future__ import annotations

import json
import sys

import torch
import triton
import triton.language as tl

from zoo.ops.scan.self_check.comparison import in_one_line


@triton.jit
def add_one(x_ptr, y_ptr, count, BLOCK: tl.constexpr):
    """y = x + 1."""
    at = tl.arange(0, BLOCK)
    tl.store(y_ptr + at, tl.load(x_ptr + at, at < count) + 1.0, at < count)


def main():
    """Run the kernel on the device that standard input names, and print what is wrong."""
    device = torch.device(json.loads(sys.stdin.readline())["device"])
    try:
        x = torch.arange(20.0, device=device)
        y = torch.zeros_like(x)
        add_one[(1,)](x, y, 20, BLOCK=32)
        wrong = None if torch.equal(y.cpu(), x.cpu() + 1) else "it adds wrongly"
    except Exception as error:
        wrong = in_one_line(error)
    sys.stdout.write(json.dumps({"wrong": wrong}) + "\n")
