"""What ``chunked`` asks of PyTorch on an Apple GPU, read in PyTorch's own list of operators.

Nobody has run it there. An operator that MPS lacks would be an error at the first scan.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from torch.utils._python_dispatch import TorchDispatchMode

from tests.helpers.scan_cases import CASES, make_inputs
from zoo.ops.scan import chunked
from zoo.ops.scan.contract import ScanInputs
from zoo.ops.scan.order import without_wrong_entries


class Noting(TorchDispatchMode):
    """Notes the operators that run."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.add(function.name().removeprefix("aten::"))
        return function(*args, **kwargs or {})


def kernels_of_mps():
    """Names of the operators that run on MPS: with kernels there, or made of others."""
    torchgen = pytest.importorskip("torchgen")
    path = Path(torchgen.__file__).parent / "packaged/ATen/native/native_functions.yaml"
    if not path.is_file():
        pytest.skip("this PyTorch comes without its list of operators")
    listed = {entry["func"].partition("(")[0]: entry for entry in yaml.safe_load(path.read_text())}
    found = set()
    for name, entry in listed.items():
        source = listed[entry["structured_delegate"]] if "structured_delegate" in entry else entry
        keys = ",".join(source.get("dispatch", {"CompositeImplicit": ""}))
        if "MPS" in keys or "Composite" in keys:
            found.add(name)
    return found


def test_mps_has_every_operator_of_chunked():
    known = kernels_of_mps()
    with Noting() as noting:
        for case in (case for case in CASES if case.B):
            given = ScanInputs(*make_inputs(case, torch.float32))
            order, bias = without_wrong_entries(given.order, case.L, given.delta_bias)
            given = given._replace(order=order, delta_bias=bias)
            y = chunked.forward(given, case.reduce)
            chunked.backward(given, torch.ones_like(y), case.reduce)
    lacking = noting.names - known
    assert len(noting.names) > 30 and not lacking
    assert "linalg_eig" not in known  # the list says what MPS lacks, too
