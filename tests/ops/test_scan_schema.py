"""One schema of the operator: what is read from it, and what C++ has to spell again."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
import torch

import zoo.ops.scan
from tests.helpers.scan_cases import Case, make_inputs
from trt_plugins.build import SOURCES as PLUGIN_SOURCES
from zoo.ops import selective_scan
from zoo.ops.scan import native
from zoo.ops.scan.contract import (
    AXES,
    SCHEMA,
    Kind,
    ScanGradients,
    ScanInputs,
    axis_sizes,
)
from zoo.ops.scan.names import EACH, NAMESPACE, NODES, SUM, VERSION

SOURCES = Path(zoo.ops.scan.__file__).parent / "csrc"
ORT, PLUGIN = SOURCES / "ort_operator.cpp", PLUGIN_SOURCES / "plugin.cu"

TENSORS = (
    "Tensor u, Tensor delta, Tensor? delta_weight, Tensor delta_bias, Tensor A, Tensor B, "
    "Tensor C, Tensor D, Tensor order"
)


def test_pytorch_knows_the_operator_by_its_schema():
    """Saved programs of torch.export hold it: it must not change."""
    operators = torch.ops.zoo
    assert str(operators.selective_scan.default._schema) == (
        f"zoo::selective_scan({TENSORS}, bool reduce, str backend) -> Tensor"
    )
    assert str(operators.selective_scan_backward.default._schema) == (
        f"zoo::selective_scan_backward(Tensor grad_y, {TENSORS}, bool reduce, str backend) -> "
        f"({', '.join(['Tensor'] * 8)})"
    )


def test_the_public_function_takes_what_the_schema_names():
    parameters = list(inspect.signature(selective_scan).parameters)
    assert parameters == [*SCHEMA, "reduce", "backend"]


def test_all_but_the_order_has_a_gradient():
    with_gradient = [name for name, spec in SCHEMA.items() if spec.kind is not Kind.ORDER]
    assert list(ScanGradients._fields) == with_gradient == list(SCHEMA)[:-1]
    assert [name for name, spec in SCHEMA.items() if spec.optional] == ["delta_weight"]


@pytest.mark.parametrize("case", [Case(), Case(low_rank=False)], ids=str)
def test_axes_are_those_of_the_inputs(case):
    inputs = ScanInputs(*make_inputs(case, torch.float32))
    sizes = axis_sizes(inputs)
    assert list(sizes) == list(AXES)
    for tensor, spec in zip(inputs, SCHEMA.values(), strict=True):
        assert tensor is None or tensor.shape == tuple(sizes[axis] for axis in spec.axes)


def enumerated(source):
    """Names of an ``enum Input``, as those of the schema: kDeltaWeight is delta_weight."""
    (names,) = re.findall(r"enum Input \{(.*?)\};", source.read_text(), re.DOTALL)
    found = [name.strip().removeprefix("k") for name in names.split(",")]
    assert found.pop() == "Inputs"
    snake = [re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name) for name in found]
    return [name if len(name) == 1 and name != "U" else name.lower() for name in snake]


@pytest.mark.parametrize("source", [ORT, PLUGIN], ids=lambda path: path.name)
def test_enumerations_of_c_have_the_same_sequence(source):
    assert enumerated(source) == list(SCHEMA)


def strings(source, array):
    """The string literals of an array's initialiser."""
    (body,) = re.findall(rf"{array}\[\w+\] = \{{(.*?)\}};", source.read_text(), re.DOTALL)
    return re.findall(r'"(\w+)"', body)


def test_axes_in_c_are_those_of_the_schema():
    axes = [spec.axes for spec in SCHEMA.values()]
    assert strings(ORT, "kAxes") == axes
    declared = strings(PLUGIN, "kDeclared")
    pairs = dict(zip(declared[::2], declared[1::2], strict=True))
    assert pairs.pop("y") == "BLKE"
    assert pairs == dict(zip(SCHEMA, axes, strict=True))
    assert f'kLetters[] = "{"".join(AXES)}"' in PLUGIN.read_text()


def members(struct):
    """Names of the members of a structure of ``zoo_scan.h``, in sequence."""
    text = re.sub(r"/\*.*?\*/", "", (SOURCES / "zoo_scan.h").read_text(), flags=re.DOTALL)
    (body,) = re.findall(rf"typedef struct {struct} \{{(.*?)\}} {struct};", text, re.DOTALL)
    return re.findall(r"(\w+)(?:\[\d\])?(?=[,;])", body)


def test_structures_of_c_have_the_same_members():
    assert members("ZooScan") == [name for name, _ in native._Scan._fields_]
    assert members("ZooScanGradients") == [name for name, _ in native._Gradients._fields_]


def test_names_in_c_are_those_of_python():
    plugin, operator = PLUGIN.read_text(), ORT.read_text()
    assert f'kNamespace = "{NAMESPACE}"' in plugin and f'kVersion = "{VERSION}"' in plugin
    assert f'each("{EACH}", false), sum("{SUM}", true)' in plugin
    assert f'of(o).sum ? "{SUM}" : "{EACH}"' in operator
    assert f'kCreateCustomOpDomain, "{NAMESPACE}"' in operator
    assert f"get_first_version = [](const CustomOp*) {{ return {VERSION}; }}" in operator
    assert set(NODES) == {EACH, SUM}
