"""The ablation of QMambaBSR at a small scale: equal steps, three seeds, the same bursts.

    python benchmarks/burst_ablation.py [--steps 300] [-o runs/burst_ablation]

Prints a table of linear PSNR on held-out bursts, and how much of it comes from the other frames.
Runs are stored in the folder; the same command continues an interrupted benchmark. The networks are
small and trained briefly, so their ranking can differ from the paper's.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
from pathlib import Path

from recipes.train import train
from zoo.recipe import load_recipe

if __package__ is None:
    sys.path.insert(0, str(Path(__file__).parent))
from measure import machine, table

ROWS = {
    "base": "qmambabsr_abl_base",
    "+ MSFM": "qmambabsr_abl_msfm",
    "+ MSFM + QSSM": "qmambabsr_abl_msfm_qssm",
    "full (+ AdaUp)": "qmambabsr_abl_full",
}
SEEDS = (0, 1, 2)
TOY = {
    "network.burst": 4,
    "network.dim": 16,
    "network.align": {"type": "gflow", "groups": 4, "blocks": 1},
    "network.flow_prior": "registration",
    "network.skip": "corner",
    "network.stages": [1],
    "train.data.patch": 16,
    "train.data.batch": 2,
    "train.data.validate_patch": 24,
    "train.data.validate_bursts": 2,
    "train.data.border": 16,
    "train.optimizer.lr": 2e-3,
    "train.log_every": 50,
}


def score(name: str, seed: int, steps: int, folder: Path) -> dict[str, float]:
    """Train a run if it is not finished, and return the metrics of its last validation."""
    changes = {"train.iterations": steps, "train.save_every": steps, "train.seed": seed}
    run = folder / f"{name}-{seed}"
    train(load_recipe(name, {**TOY, **changes}), run, num_workers=0)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    found: dict[str, float] = next(line for line in reversed(lines) if "psnr" in line)
    return found


def main() -> int:
    """Train the missing runs and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=300, help="steps of each run [300]")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/burst_ablation"))
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    rows = []
    for label, name in ROWS.items():
        found = [score(name, seed, options.steps, options.output) for seed in SEEDS]
        scores = [line["psnr"] for line in found]
        gains = [line["psnr"] - line["all_reference"] for line in found]
        rows.append(
            [
                label,
                *(f"{value:.2f}" for value in scores),
                f"{statistics.mean(scores):.2f} ± {statistics.stdev(scores):.2f}",
                f"{statistics.mean(gains):+.3f}",
                f"{found[0]['baseline']:.2f}",
            ]
        )
    print(f"{machine()}; {options.steps} steps\n")
    head = ["row", *(f"seed {seed}" for seed in SEEDS), "mean", "from the burst", "enlarged"]
    print(table(head, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
