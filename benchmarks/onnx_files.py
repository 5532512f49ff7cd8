"""Exports every published recipe to ONNX: number of nodes, file size, error and export time.

    python benchmarks/onnx_files.py                  # all, a process each; continues a stopped run
    python benchmarks/onnx_files.py mambair_tiny_x2  # one, in this process

Prints rows for the table in docs/onnx.md, and appends each result to ``onnx_files.jsonl``. Seconds
are CPU time of one thread, from the network in memory to the checked file.
"""

from __future__ import annotations

import argparse
import collections
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import onnx
import torch

import zoo
from export.onnx import export
from export.scan_function import scan_nodes
from export.verify import verify
from zoo.networks import Network

ROWS = Path("onnx_files.jsonl")
SIZES = ((1, 13, 21), (2, 17, 11))
"""Batch, height and width of the test images; the sides are odd and not multiples of a window."""


def with_realistic_weights(name: str, **changes: Any) -> Network:
    """Build a network with noise added to all weights, so that no part is inactive."""
    torch.manual_seed(0)
    network = zoo.build(name, **changes).eval()
    for parameter in network.parameters():
        parameter.data += 0.01 * torch.randn_like(parameter)
    return network


def measure(name: str) -> dict[str, Any]:
    """Export one recipe, compare its file with PyTorch, and return the row of the table."""
    network = with_realistic_weights(name)
    with tempfile.TemporaryDirectory() as folder:
        begun = time.process_time()
        path = export(network, Path(folder) / "network.onnx")
        seconds = time.process_time() - begun
        report = verify(network, path, sizes=SIZES)
        model = onnx.load(path)
        kinds = collections.Counter(node.op_type for node in model.graph.node)
        return {
            "name": name,
            "nodes": len(model.graph.node),
            "scans": len(scan_nodes(model)),
            "mib": round(path.stat().st_size / 2**20, 2),
            "error": report.worst,
            "passed": report.passed,
            "runs": len(report.comparisons),
            "seconds": round(seconds, 1),
            "kinds": dict(kinds.most_common()),
        }


def table_row(row: dict[str, Any]) -> str:
    """Format a row of the table in docs/onnx.md."""
    cells = [f"`{row['name']}`", row["nodes"], row["scans"], row["mib"]]
    return "| " + " | ".join(map(str, [*cells, f"{row['error']:.1e}", row["seconds"]])) + " |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="recipes [all, each in a process]")
    names = parser.parse_args().names
    if len(names) == 1:
        torch.set_num_threads(1)
        row = measure(names[0])
        with ROWS.open("a") as rows:
            rows.write(json.dumps(row) + "\n")
        print(table_row(row), flush=True)
        return 0 if row["passed"] else 1
    done = {json.loads(line)["name"] for line in ROWS.open()} if ROWS.exists() else set()
    failed = [
        name
        for name in names or zoo.list_models()
        if name not in done and subprocess.run([sys.executable, __file__, name]).returncode
    ]
    print(f"failed: {', '.join(failed) or 'none'}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
