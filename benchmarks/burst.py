"""QMambaBSR on a CPU: seconds, memory, and multiply-adds of each stage, for one burst.

    python benchmarks/burst.py [MODEL] [SIDE] [ROUNDS]

Multiply-adds are half of the counted operations, which include the scan but not bilinear sampling.
"""

from __future__ import annotations

import statistics
import sys
import time

import torch
from measure import peak_mebibytes
from torch.utils.flop_counter import FlopCounterMode

import zoo

STAGES = ("shallow", "align", "fusions", "bodies", "head")


def main(model: str, side: int, rounds: int) -> None:
    torch.manual_seed(0)
    network = zoo.build(model).eval()
    burst = network.example(side, side)
    idle = peak_mebibytes()
    with torch.inference_mode():
        network(burst[..., :8, :8])
        seconds = []
        for _ in range(rounds):
            begun = time.perf_counter()
            network(burst)
            seconds.append(time.perf_counter() - begun)
    peak = peak_mebibytes()
    with torch.device("meta"):
        counted = zoo.build(model).eval()
        example = counted.example(side, side)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        counted(example)
    print(f"{model} {tuple(burst.shape)}, {torch.get_num_threads()} threads, ", end="")
    print(f"backend {next(b.name for b in zoo.backends() if b.available)}")
    print(f"median {statistics.median(seconds):.1f} s of {[round(s, 1) for s in seconds]}")
    print(f"peak {peak:.0f} MiB, {peak - idle:.0f} above the idle network")
    found = counter.get_flop_counts()
    total = counter.get_total_flops()
    for stage in STAGES:
        part = sum(sum(v.values()) for k, v in found.items() if _is(k, stage))
        parameters = sum(p.numel() for p in getattr(network, stage).parameters())
        print(f"{stage:<8} {part / 2e9:8.2f} G multiply-adds  {parameters:>9,} parameters")
    print(f"{'all':<8} {total / 2e9:8.2f}")


def _is(name: str, stage: str) -> bool:
    words = name.split(".")
    # Modules of a list are counted separately.
    return len(words) > 1 and words[1] == stage and (len(words) == 2 or words[2].isdigit()) and (
        len(words) == (3 if stage in ("fusions", "bodies") else 2)
    )  # fmt: skip


if __name__ == "__main__":
    words = sys.argv[1:]
    main(
        words[0] if words else "qmambabsr",
        int(words[1]) if len(words) > 1 else 48,
        int(words[2]) if len(words) > 2 else 3,
    )
