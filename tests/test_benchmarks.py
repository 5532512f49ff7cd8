"""What we compare with computes what we compute."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

import zoo

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
from authors_scan import authors_path


def test_the_authors_path_gives_our_result():
    network = zoo.build("mambair_light_x2", dim=36, depths=[2]).eval()
    image = torch.rand(2, 3, 6, 9)
    with torch.no_grad():
        ours = network(image)
        with authors_path():
            theirs = network(image)
        assert torch.equal(network(image), ours)
    torch.testing.assert_close(theirs, ours, atol=2e-5, rtol=1e-4)
    assert not torch.equal(theirs, ours)
