"""What is traced and how: the inputs of a network, the passes over its graph, what is said."""

from __future__ import annotations

import logging
import warnings
from contextlib import nullcontext
from itertools import pairwise
from types import SimpleNamespace

import onnx_ir
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import export.graph
import export.tracing
from export.graph import FOLDED, _may_fold, _tidy, _traced_whole, traced_graph
from export.precision import Exported
from export.shape import InputShape
from export.tracing import _plain, quiet
from zoo.errors import ZooError
from zoo.networks import Guide, Network


class Some(Network):
    """A network of any inputs."""

    def __init__(self, **facts):
        super().__init__()
        self.scale, self.channels = 1, 3
        for name, value in facts.items():
            setattr(self, name, value)


FLOW = {"burst": 4, "flow_prior": "registration", "channels": 2}
GUIDES = {"guides": {"pan": Guide(channels=1, scale=2), "map": Guide(channels=5)}}


@pytest.fixture
def traced(monkeypatch):
    """What is given to the exporter."""
    seen = []
    monkeypatch.setattr(export.graph, "traced", lambda *given: seen.append(given))
    return seen


@pytest.mark.parametrize("border", [torch.float32, torch.float16])
def test_guides_have_the_dtype_of_the_border_and_sizes_of_their_own(border, traced):
    shape = InputShape("N", None, 3, "H", "W")
    exported = Exported(Some(**GUIDES), shape, dtype=torch.float16, border=border)
    _traced_whole(exported, 21)
    [(module, (image, guides), names, sizes, outputs, opset)] = traced
    assert module is exported and names == ["input", "pan", "map"]
    assert (outputs, opset) == (["output"], 21)
    assert [tuple(x.shape) for x in (image, *guides)] == [
        *((2, 3, 19, 13), (2, 1, 38, 26), (2, 5, 19, 13)),
    ]
    assert {x.dtype for x in (image, *guides)} == {border}
    assert sizes == [
        {0: "N", 2: "H", 3: "W"},
        [{0: "N", 2: "pan_H", 3: "pan_W"}, {0: "N", 2: "H", 3: "W"}],
    ]


@pytest.mark.parametrize("border", [torch.float32, torch.bfloat16])
def test_the_flow_is_float32_whatever_the_border_is(border, traced):
    """Displacements of many pixels have no place in 8 bits of mantissa."""
    shape = InputShape(1, 4, 2, "H", 40)
    network = Some(**FLOW)
    network.capabilities = SimpleNamespace(input="burst")
    assert network.takes_flow
    _traced_whole(Exported(network, shape, dtype=border, border=border), 20)
    [(_, (burst, [flow]), names, sizes, *_)] = traced
    assert names == ["input", "flow"] and (burst.dtype, flow.dtype) == (border, torch.float32)
    assert (tuple(burst.shape), tuple(flow.shape)) == ((1, 4, 2, 19, 40), (1, 4, 2, 19, 40))
    assert sizes == [{3: "H"}, [{3: "H"}]]


def test_a_network_without_other_inputs_has_one(traced):
    shape = InputShape(1, None, 3, "H", "W")
    _traced_whole(Exported(Some(), shape, dtype=torch.float32, border=torch.float32), 20)
    [(_, [image], names, sizes, *_)] = traced
    assert names == ["input"] and image.dtype == torch.float32 and len(sizes) == 1
    assert 0 <= image.min() < image.max() <= 1


def test_constants_are_folded_up_to_the_size_of_the_weights_and_tables_are_kept(monkeypatch):
    asked = []
    model = SimpleNamespace(graph=onnx_ir.Graph([], [], nodes=[]), functions={})
    monkeypatch.setattr(export.graph, "write_out", lambda given: asked.append("written out"))
    for name in ("optimize_ir", "fold_constants_ir"):
        monkeypatch.setattr(
            export.graph.optimizer,
            name,
            lambda given, name=name, **options: asked.append((name, options)),
        )

    def made(name, **options):
        asked.append((name, options))
        return lambda given: None

    for name in dir(export.graph.passes):
        if name.endswith("Pass"):
            monkeypatch.setattr(
                export.graph.passes, name, lambda name=name, **options: made(name, **options)
            )
    _tidy(model)
    limits = {"input_size_limit": FOLDED, "output_size_limit": FOLDED, "should_fold": _may_fold}
    assert asked == [
        ("optimize_ir", {"num_iterations": 2, "inline": False, **limits}),
        "written out",
        ("fold_constants_ir", {"onnx_shape_inference": False, **limits}),
        ("RemoveUnusedNodesPass", {}),
        ("LiftConstantsToInitializersPass", {"lift_all_constants": True, "size_limit": 0}),
        ("DeduplicateInitializersPass", {"size_limit": 2**18}),
        ("CommonSubexpressionEliminationPass", {}),
        ("IdentityEliminationPass", {}),
        ("RemoveUnusedNodesPass", {}),
        ("RemoveUnusedOpsetsPass", {}),
        ("ClearMetadataAndDocStringPass", {}),
        ("NameFixPass", {}),
    ]


NAMES = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")


def test_messages_of_the_exporter_are_silent_within_and_as_before_after():
    loggers = [logging.getLogger(name) for name in NAMES]
    before = [logger.level for logger in loggers]
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        with pytest.raises(ArithmeticError), quiet():
            assert {logger.level for logger in loggers} == {logging.ERROR}
            warnings.warn("internal", stacklevel=1)
            raise ArithmeticError
        assert not heard
        warnings.warn("ours", stacklevel=1)
    assert len(heard) == 1 and [logger.level for logger in loggers] == before


def raised(*errors):
    """The last error, raised from the one before it, and so on."""
    for inner, outer in pairwise(errors):
        outer.__cause__ = inner
    return errors[-1]


def test_an_error_of_tracing_is_our_own_sentence_or_that_of_its_root():
    own = ZooError("use a low-rank step")
    assert _plain(raised(ValueError("root"), own, RuntimeError("outer"))) is own
    found = _plain(raised(ValueError("the\n  root"), RuntimeError("outer")))
    assert str(found) == "the network cannot be traced: the root"
    try:
        try:
            raise KeyError("first")
        except KeyError:
            raise RuntimeError("second") from None
    except RuntimeError as error:
        assert str(_plain(error)) == "the network cannot be traced: 'first'"
    text = "H: specialized it to be a constant (7) " + "x" * 400
    for told in (text, "y" * 400):
        said = str(_plain(RuntimeError(told)))
        assert said.endswith(": " + told[:300])
        assert ("use x.shape there, not len(x) or int()" in said) == (told is text)


def test_the_exporter_is_asked_for_the_graph_as_it_is_and_says_nothing(monkeypatch):
    asked = []
    monkeypatch.setattr(
        torch.export, "export", lambda *words, **more: asked.append((words, more)) or "captured"
    )
    monkeypatch.setattr(
        torch.onnx,
        "export",
        lambda *words, **more: asked.append((words, more)) or SimpleNamespace(model="graph"),
    )
    image = torch.zeros(1)
    given = "module", [image, [image]], ["x", "y"], [{0: "N"}, [{1: "H"}]], ["z"], 21
    assert export.tracing.traced(*given) == "graph"
    (words, capturing), (captured, exporting) = asked
    assert words == ("module", (image, [image])) and captured == ("captured",)
    varies = torch.export.Dim.DYNAMIC
    assert capturing == {"dynamic_shapes": ({0: varies}, [{1: varies}]), "strict": False}
    assert set(exporting.pop("custom_translation_table")) == {
        torch.ops.zoo.selective_scan.default,
        torch.ops.zoo_export.block.default,
        torch.ops.aten.remainder.Scalar,
    }
    assert exporting == {
        "input_names": ["x", "y"], "dynamic_shapes": ({0: "N"}, [{1: "H"}]), "output_names": ["z"],
        "opset_version": 21, "optimize": False, "verbose": False,
    }  # fmt: skip


def test_sizes_of_one_are_traced_as_any_other():
    from torch.fx.experimental import _config

    before = _config.backed_size_oblivious
    with export.tracing._any_size():
        assert _config.backed_size_oblivious and not before
    assert _config.backed_size_oblivious is before


def test_the_tokens_of_a_block_that_stands_for_one_lie_in_their_usual_sequence():
    with FakeTensorMode():
        x_BHWC = torch.empty(2, 3, 4, 5).permute(0, 2, 3, 1)
        y_BHWC = torch.ops.zoo_export.block(x_BHWC, 2, 4, 5, 0)
    assert y_BHWC.shape == x_BHWC.shape and y_BHWC.is_contiguous() and not x_BHWC.is_contiguous()


@pytest.mark.parametrize("fails", [False, True])
def test_blocks_are_traced_apart_or_else_with_the_network_and_rewriting_is_silent(
    fails, monkeypatch
):
    asked = []

    def add_functions(*given):
        asked.append(given)
        if fails:
            raise ZooError("it needs the network")

    def traced_whole(exported, opset):
        asked.append((exported, opset))
        return f"graph {len(asked)}"

    monkeypatch.setattr(export.graph, "blocks_stood_for", lambda exported: nullcontext("calls"))
    monkeypatch.setattr(export.graph, "_traced_whole", traced_whole)
    monkeypatch.setattr(export.graph, "add_functions", add_functions)
    monkeypatch.setattr(
        export.graph,
        "_tidy",
        lambda model: asked.append((model, {logging.getLogger(name).level for name in NAMES})),
    )
    monkeypatch.setattr(export.graph.onnx_ir, "to_proto", lambda model: model)
    found = "graph 3" if fails else "graph 1"
    assert traced_graph("network", 21) == found
    again = [("network", 21)] if fails else []
    assert asked == [
        ("network", 21), ("graph 1", "calls", 21), *again, (found, {logging.ERROR})
    ]  # fmt: skip
