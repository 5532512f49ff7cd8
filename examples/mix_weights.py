"""Write a weighted mean of weights of one network.

    python examples/mix_weights.py trained.safetensors=0.6 mambair_tiny_x2=0.4 -o mixed.safetensors

The mean of a network and of another one that was trained further from it often keeps what both can
do (Wortsman et al., "Robust fine-tuning of zero-shot models", 2022). The recipe in the file is that
of the first weights.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

import zoo
from zoo.checkpoints import save
from zoo.errors import ZooError
from zoo.networks import Network


def main(arguments: Sequence[str] | None = None) -> int:
    """Mix the weights, write the file and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "weights", nargs="+", metavar="FILE=SHARE", help="a file or a model, and its share"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help=".safetensors to write")
    options = parser.parse_args(arguments)
    try:
        shares = [share_of(text) for text in options.weights]
        if not abs(sum(share for _, share in shares) - 1) < 1e-6:
            raise ZooError(f"the shares are {[share for _, share in shares]}; their sum must be 1")
        save(mixed([(zoo.load(source), share) for source, share in shares]), options.output)
    except (ZooError, OSError) as error:
        sys.stderr.write(f"mix_weights: error: {error}\n")
        return 2
    return 0


def share_of(text: str) -> tuple[str, float]:
    """Split ``FILE=SHARE`` at its last equals sign."""
    source, _, share = text.rpartition("=")
    try:
        return source, float(share)
    except ValueError:
        wanted = "write a file or a model, '=' and its share, as in x.safetensors=0.5"
        raise ZooError(f"{text}: {wanted}") from None


def mixed(networks: Sequence[tuple[Network, float]]) -> Network:
    """The first network, with the mean of all weights, computed in float64.

    Raises:
        ZooError: if a tensor of the first is missing or has another shape.
    """
    states = [(network.state_dict(), share) for network, share in networks]
    first = states[0][0]
    for number, (state, _) in enumerate(states[1:], 2):
        unlike = [n for n in first.keys() | state.keys() if _shape(first, n) != _shape(state, n)]
        if unlike:
            raise ZooError(f"weights {number} are of another network than the first: {min(unlike)}")
    with torch.no_grad():
        for name, tensor in first.items():
            if tensor.is_floating_point():
                terms = [state[name].double() * share for state, share in states]
                tensor.copy_(torch.stack(terms).sum(0))
    return networks[0][0]


def _shape(state: dict[str, torch.Tensor], name: str) -> object:
    return state[name].shape if name in state else None


if __name__ == "__main__":
    sys.exit(main())
