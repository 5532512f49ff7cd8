"""Classes of values: none changes once it is made, and options are given by name."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from pathlib import Path

import pytest

from zoo.registry import kinds

CHANGING = {"Registry"}
"""What is filled bit by bit."""

BY_NAME = {
    *("Capabilities", "Coarse", "Paper", "Protocol", "Recipe", "RestoreSettings", "Stage"),
    *("BurstDataSettings", "BurstTrainSettings", "DataSettings", "EvaluateSettings"),
    *("OptimizerSettings", "ScheduleSettings", "TilingSettings", "TrainSettings"),
}
"""Options that users or recipes give; registered parts are added."""


ROOT = Path(__file__).parents[1]


def modules():
    """The modules that define dataclasses."""
    for package in ("zoo", "export", "recipes", "trt_plugins"):
        for path in (ROOT / package).rglob("*.py"):
            if "@dataclass" in path.read_text(encoding="utf-8"):
                words = path.relative_to(ROOT).with_suffix("").parts
                yield importlib.import_module(".".join(words).removesuffix(".__init__"))


@pytest.fixture(scope="module")
def classes():
    """All dataclasses of the packages by name."""
    return {
        item.__name__: item
        for module in modules()
        for item in vars(module).values()
        if inspect.isclass(item) and dataclasses.is_dataclass(item)
        if item.__module__ == module.__name__
    }


def test_values_do_not_change(classes):
    changing = {name for name, item in classes.items() if not item.__dataclass_params__.frozen}
    assert changing == CHANGING and len(classes) > 40


def test_what_holds_pixels_is_not_compared_by_them(classes):
    """``==`` of two arrays is an array, which is neither true nor false."""
    apart = {name for name, item in classes.items() if not item.__dataclass_params__.eq}
    of_files = {"BurstFiles", "Camera", "Photo", "StoredPhoto", "TrainingPhoto"}
    of_analysis = {"Attribution", "ChannelActivations", "ReceptiveField", "ScanDecay"}
    assert apart == of_files | of_analysis


def test_a_registry_is_printed_without_all_its_parts():
    for registry in kinds().values():
        assert len(repr(registry)) < 200 and repr(registry.kind) in repr(registry)


BY_PLACE = {
    *("Attribution", "Body", "BurstFiles", "Call", "Camera", "Case", "ChannelActivations", "Check"),
    *("CleanImage", "Comparison", "Configuration", "Engine", "EngineSettings", "Entry"),
    *("ExtraInput", "InputShape", "KernelReport", "Loss", "Metadata", "ModelDescription", "Noise"),
    *(
        "NormCheck",
        "Operations",
        "Panel",
        "PartDescription",
        "Photo",
        "Plan",
        "Profile",
        "Published",
        "Range",
    ),
    *("ReceptiveField", "Registry", "Released", "Report", "Sample", "ScanDecay", "Serving"),
    *("Source", "StoredPhoto", "Subject", "TensorRT", "TensorSpec", "TestImage", "TrainingPhoto"),
    *("Verdict", "Weights", "_Source", "_Task"),
}
"""Values whose fields may be given by their place; some of the names are of several classes."""


def test_the_rest_is_given_by_name_too():
    found = {
        (item.__module__, item.__name__)
        for module in modules()
        for item in vars(module).values()
        if inspect.isclass(item) and dataclasses.is_dataclass(item)
        if item.__module__ == module.__name__
        if not all(field.kw_only for field in dataclasses.fields(item))
    }
    assert {name for _, name in found} == BY_PLACE
    assert not {name for module, name in found if module.startswith("zoo.inference")}


def test_options_are_given_by_name(classes):
    parts = {entry.target for registry in kinds().values() for entry in registry.entries()}
    own = {name for name, item in classes.items() if item in parts}
    assert {"Raster", "Compose", "Jpeg"} <= own
    for name in BY_NAME | own:
        assert all(field.kw_only for field in dataclasses.fields(classes[name])), name
