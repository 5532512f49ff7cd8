"""The scan in ONNX Runtime: our operator compared with the standard operators of the file.

Prints the median time of each path, measured in turns in one process, and the increase in peak
memory, measured in a separate process for each path.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from measure import added_mebibytes
from onnx import TensorProto, helper

from export.scan_function import attach_functions
from zoo.integrations.onnxruntime import open_session
from zoo.ops import selective_scan
from zoo.ops.scan.contract import SCHEMA
from zoo.ops.scan.names import NAMESPACE, PLUGIN_ATTRIBUTES, SUM, VERSION

TOKENS, DIRECTIONS, CHANNELS, RANK, STATES = 4096, 4, 360, 12, 16
ROUNDS = 5
THREADS = 1


def make_inputs() -> list[torch.Tensor]:
    """Make inputs with step sizes as in an untrained network and four random scan orders."""
    generator = torch.Generator().manual_seed(0)
    L, K, E, R, N = TOKENS, DIRECTIONS, CHANNELS, RANK, STATES

    def normal(*sizes: int) -> torch.Tensor:
        return torch.randn(*sizes, generator=generator)

    walks = [torch.randperm(L, generator=generator) for _ in range(K)]
    A_KEN = -torch.arange(1.0, N + 1).expand(K, E, N).contiguous()
    tokens = [normal(1, L, E), normal(1, L, K, R)]
    step = [normal(K, E, R) * R**-0.5, normal(K, E) - 4.0]
    order = torch.stack(walks).int()
    return [*tokens, *step, A_KEN, normal(1, L, K, N), normal(1, L, K, N), normal(K, E), order]


def path(name: str, inputs: list[torch.Tensor]) -> Callable[[], np.ndarray]:
    """Make a function that computes the scan by "operator", "function" or "torch"."""
    if name == "torch":
        return lambda: selective_scan(*inputs, reduce=True, backend="native").numpy()
    kinds = {torch.float32: TensorProto.FLOAT, torch.int32: TensorProto.INT32}
    values = [
        helper.make_tensor_value_info(i, kinds[t.dtype], list(t.shape))
        for i, t in zip(SCHEMA, inputs, strict=True)
    ]
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, list(inputs[0].shape))
    node = helper.make_node(SUM, list(SCHEMA), ["y"], domain=NAMESPACE, **PLUGIN_ATTRIBUTES)
    model = helper.make_model(
        helper.make_graph([node], "scan", values, [y]),
        opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid(NAMESPACE, VERSION)],
        ir_version=10,
    )
    attach_functions(model)
    content = model.SerializeToString()
    session = open_session(content, operator=name == "operator", threads=THREADS)
    feeds = {i: t.numpy() for i, t in zip(SCHEMA, inputs, strict=True)}
    return lambda: session.run(None, feeds)[0]


def added_memory(name: str) -> float:
    """MiB that the first run of a path adds to the peak memory of this process."""
    return added_mebibytes(path(name, make_inputs()))


def main() -> None:
    torch.set_num_threads(THREADS)
    if len(sys.argv) > 1:
        print(added_memory(sys.argv[1]))
        return
    inputs = make_inputs()
    runs = {name: path(name, inputs) for name in ("operator", "torch", "function")}
    outputs = {name: run() for name, run in runs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            begun = time.process_time()
            run()
            seconds[name].append(time.process_time() - begun)
    slowest = statistics.median(seconds["function"])
    print(f"L={TOKENS}, K*E={DIRECTIONS * CHANNELS}, N={STATES}, {THREADS} thread")
    for name in runs:
        median = statistics.median(seconds[name])
        memory = subprocess.run(
            [sys.executable, __file__, name], capture_output=True, text=True, check=True
        ).stdout
        error = np.abs(outputs[name] - outputs["torch"]).max() / np.abs(outputs["torch"]).max()
        print(
            f"{name:<9} {median * 1e3:8.1f} ms CPU, {slowest / median:5.1f} times the function's "
            f"speed, {float(memory):6.1f} MiB more, {error:.0e} from torch"
        )


if __name__ == "__main__":
    main()
