"""The Triton kernels as the compiler makes them for NVIDIA GPUs, where there need be none.

``launch.py`` runs as it would on a GPU of a compute capability, but its launches only compile: what
they ask for (dtypes, alignment, blocks, warps) is what a GPU would be given. Each kernel is printed
as a line of JSON with the registers, stack and shared memory of its machine code; registers that
are spilled lie on the stack.

Run by tests/ops/test_triton.py in a process of its own, and by hand::

    python -m tests.helpers.triton_compiled 80 90       # the one call of the default suite
    python -m tests.helpers.triton_compiled --full 90   # every kind of call, some minutes
"""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia import compiler

from benchmarks.exponentials import burn
from tests.helpers.scan_cases import Case, make_inputs
from zoo.ops.scan.contract import ScanInputs
from zoo.ops.scan.triton import configurations, launch, plan

FLOAT, BRAIN, HALF = torch.float32, torch.bfloat16, torch.float16
CUOBJDUMP = Path(compiler.__file__).parent / "bin" / "cuobjdump"
FEW = [(Case(B=1, L=3000, K=4, E=40, R=2, N=4), BRAIN, False)]
"""Case, dtype, and whether sums must be made in a fixed sequence. Tokens are many, so that there
are several chunks and all kernels take part."""

FULL = [
    (Case(1, 3000, 4, width, rank, states, "full", low_rank, reduce), dtype, fixed)
    for width, rank, states in [(72, 5, 16), (360, 12, 16), (96, 5, 7), (64, 16, 32), (5, 1, 1)]
    for low_rank, dtype, reduce, fixed in [
        *itertools.product((True, False), (FLOAT, BRAIN, HALF), (True,), (False,)),
        (True, FLOAT, True, True),
        (True, HALF, False, False),
    ]
]


class Driver:
    """What Triton asks of a GPU before it compiles."""

    def __init__(self, architecture: int) -> None:
        self.target = GPUTarget("cuda", architecture, 32)

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return self.target.arch

    def get_current_stream(self, device: int) -> int:
        return 0


def usage(binary: bytes) -> dict[str, int]:
    """Registers a thread, bytes of stack a thread and bytes of shared memory of machine code."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        command = [str(CUOBJDUMP), "--dump-resource-usage", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = dict(re.findall(r"(REG|STACK|SHARED|LOCAL):(\d+)", text))
    return {
        "registers": int(found["REG"]),
        "stack": int(found["STACK"]) + int(found["LOCAL"]),
        "shared": int(found["SHARED"]),
    }


def main(words: list[str]) -> int:
    seen, sizes = set(), {}

    class Compiled(plan.Launch):
        """A launch that only compiles, and prints what the compiler made."""

        def __call__(self, tensors):
            arguments = [tensors.get(n, v) for n, v in zip(self.names, self.arguments, strict=True)]
            show(self.compiled(arguments))

    def show(made):
        if made.hash in seen:
            return
        seen.add(made.hash)
        line = {"kernel": made.name, "warps": made.metadata.num_warps, **usage(made.kernel)}
        sys.stdout.write(json.dumps({**sizes, **line}) + "\n")
        sys.stdout.flush()

    plan.Launch = Compiled
    plan.processors = lambda device: 132
    for architecture in (int(word) for word in words if word.isdigit()):
        triton.runtime.driver.set_active(Driver(architecture))
        table = configurations.CONFIGURATIONS.get(divmod(architecture, 10), configurations.DEFAULT)
        plan.configuration = lambda device, table=table: table
        plan.forget_plans()
        for case, dtype, fixed in FULL if "--full" in words else FEW:
            torch.use_deterministic_algorithms(fixed)
            sizes.update(
                architecture=architecture, E=case.E, R=case.R if case.low_rank else 0, N=case.N,
                dtype=str(dtype).removeprefix("torch."), reduce=case.reduce, fixed=fixed,
            )  # fmt: skip
            inputs = ScanInputs(*make_inputs(case, dtype))
            y = launch.forward(inputs, case.reduce)
            launch.backward(inputs, torch.zeros_like(y), case.reduce)
        sizes = {"architecture": architecture}
        show(burn.warmup(torch.zeros(1024), 512, BLOCK=1024, grid=(1,), num_warps=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
