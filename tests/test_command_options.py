"""Options of all commands: the help tells the default that an option has."""

from __future__ import annotations

import argparse
import importlib
import re

import pytest

from zoo.cli import COMMANDS
from zoo.errors import ZooError

MODULES = [
    *(module for module, _ in COMMANDS.values()),
    *("zoo.data.pairs", "zoo.data.burst.__main__", "trt_plugins.build"),
]

IN_WORDS = {
    (module, "--device"): "cuda if there is a GPU, otherwise cpu"
    for module in (
        *("recipes.train", "recipes.evaluate", "recipes.compare"),
        *("zoo.commands.app", "zoo.commands.submit"),
        *(f"zoo.commands.analyse_{what}" for what in ("erf", "lam", "activations", "scans")),
    )
}
"""Defaults that depend on the machine."""


def parsers(name, monkeypatch):
    """The parser of a command with all options, those of subcommands apart."""
    module, found = importlib.import_module(name), []
    monkeypatch.setattr(module, "run_command", lambda parser, *_, **__: found.append(parser) or 0)
    module.main(["scan"])
    [parser] = found
    waiting = [parser]
    while waiting:
        parser = waiting.pop()
        yield parser
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                waiting += action.choices.values()


def mistold(parser, name=""):
    """Options whose help does not tell the default that they have."""
    found = []
    for action in parser._actions:
        if not action.option_strings or action.default is argparse.SUPPRESS:
            continue
        option, default = action.option_strings[-1], action.default
        told = re.findall(r"\[([^\[]*)\]$", (action.help or "") % vars(action))
        told = told[0].partition(": ")[0] if told else None  # "auto: what that means"
        if isinstance(action, argparse._StoreTrueAction):
            right = default is False
        elif default is None:  # if a default is told, in words
            right = told is None or not re.fullmatch(r"[\d.x]+", told)
        else:
            right = told == IN_WORDS.get((name, option), str(default))
        if not right:
            found.append(f"{option}: {default!r}, told is {told!r}")
    return found


@pytest.mark.parametrize("name", ["zoo.cli", *dict.fromkeys(MODULES)])
def test_the_help_of_every_option_tells_its_default(name, monkeypatch):
    for parser in parsers(name, monkeypatch):
        assert mistold(parser, name) == []


def test_the_check_sees_what_is_told_wrongly():
    parser = argparse.ArgumentParser()
    parser.add_argument("--right", type=int, default=3, help="number [3]")
    parser.add_argument("--other", type=int, default=4, help="number [3]")
    parser.add_argument("--none", type=int, help="number [3]")
    parser.add_argument("--silent", type=int, default=3, help="number")
    parser.add_argument("--on", action="store_true", default=True, help="a switch")
    parser.add_argument("--words", help="name [that of the model]")
    wrong = [text.partition(":")[0] for text in mistold(parser)]
    assert wrong == ["--other", "--none", "--silent", "--on"]


NEEDED = {
    "zoo app": [],
    "zoo doctor": [],
    "zoo list": [],
    "zoo restore": ["input", "--output"],
    "zoo show": ["name"],
    "zoo submit": ["benchmark", "input", "--output"],
    "zoo convert": ["input", "--output"],
    "zoo analyse activations": ["name", "photos", "--output"],
    "zoo analyse erf": ["name", "photos", "--output"],
    "zoo analyse lam": ["name", "photo", "--output"],
    "zoo analyse scans": ["name", "photo", "--output"],
    "zoo download": [],
    "zoo data frames": ["input", "--output"],
    "zoo data prepare": ["input", "--output"],
    "zoo runs plot": ["folders", "--output"],
    "zoo scans plot": ["name", "--output"],
    "python recipes/train.py": ["name"],
    "python recipes/compare.py": ["study"],
    "python recipes/evaluate.py": ["name"],
    "python -m export.onnx": ["--model"],
    "python -m export.serve": ["--model", "--output"],
    "python -m export.trt": [],
    "python -m trt_plugins.build": [],
    "python -m zoo.data.burst": ["photo", "--output"],
    "python -m zoo.data.pairs": ["input", "degradation", "--output"],
}
"""What each command cannot do without; words that may be many or none are among them."""

ABBREVIATED = {
    *("python recipes/train.py", "python recipes/evaluate.py"),
    *("python -m zoo.data.burst", "python -m zoo.data.pairs"),
}
"""Commands that take the beginning of an option for it; the others refuse it."""


def test_what_commands_need_and_which_take_abbreviations(monkeypatch):
    found = {
        parser.prog: parser
        for name in ["zoo.cli", *dict.fromkeys(MODULES)]
        for parser in parsers(name, monkeypatch)
        if parser.add_help and not parser._subparsers
    }
    for command, needed in NEEDED.items():
        parser = found.pop(command)
        actions = [action for action in parser._actions if action.required]
        names = [(*action.option_strings, action.dest)[-2:][0] for action in actions]
        assert sorted(names) == sorted(needed), command
        assert parser.allow_abbrev == (command in ABBREVIATED), command
    assert not found


def test_examples_of_several_lines_are_shown_as_they_are_written(monkeypatch):
    several = set()
    for name in ["zoo.cli", *dict.fromkeys(MODULES)]:
        for parser in parsers(name, monkeypatch):
            if "\n" in (parser.epilog or "") + (parser.description or ""):
                several.add(parser.prog)
                assert parser.formatter_class is argparse.RawDescriptionHelpFormatter, parser.prog
    assert {"zoo restore", "zoo download", "zoo app"} <= several


TAKEN = {
    "zoo show": {"--count": "flops, macs"},
    "zoo restore": {
        "--format": "png, jpg, webp, tif",
        "--compat": "official",
        "--runtime": "onnxruntime, openvino",
        "--scale": "from 1 to 64",
        "--tile": "of at least 0",
        "--overlap": "of at least 0",
        "--precision": "fp32, bf16, fp16, auto",
        "--quality": "from 1 to 100",
        "--look": "auto, camera, plain, linear",
    },
    "zoo app": {
        "--port": "from 1 to 65535",
        "--max-upload": "from 1 to 1048576",
        "--at-once": "from 1 to 1000",
    },
    "python recipes/train.py": {"--num-workers": "from 0 to 256"},
    "python recipes/evaluate.py": {
        "--tile": "of at least 0",
        "--compat": "official",
        "--precision": "fp32, bf16, fp16",
    },
    "python recipes/compare.py": {"--seeds": "from 1 to 1000", "--num-workers": "from 0 to 256"},
    "zoo submit": {"benchmark": "sidd, dnd", "--precision": "fp32, bf16, fp16"},
    "python -m export.onnx": {
        "--precision": "fp32, bf16, fp16, int8",
        "--opset": "from 18 to 23",
        "--for": "ort, ort-web, openvino, tensorrt, directml, coreml",
    },
    "python -m export.trt": {
        "--precision": "fp32, bf16, fp16",
        "--runtime": "auto, tensorrt, tensorrt-rtx",
    },
    "python -m export.serve": {
        "--backend": "onnx, tensorrt, both",
        "--precision": "fp32, bf16, fp16",
        "--max-batch": "from 1 to 9999",
        "--delay": "of at least 0",
        "--instances": "from 1 to 1000",
        "--kind": "auto, gpu, cpu",
    },
    "zoo convert": {"--compat": "official"},
    "zoo data prepare": {"--size": "of at least 1", "--step": "of at least 1"},
    "zoo analyse erf": {"--compat": "official"},
    "zoo analyse lam": {
        "--compat": "official",
        "--side": "from 1 to 4096",
        "--steps": "from 1 to 10000",
    },
    "zoo analyse activations": {
        "--compat": "official",
        "--of": "mixer, block",
        "--layer": "of at least 0",
    },
    "zoo analyse scans": {"--compat": "official", "--block": "of at least 0"},
    "python -m zoo.data.burst": {
        "--frames": "from 1 to 1000",
        "--crop": "from 1 to 16384",
        "--count": "from 1 to 1000000",
        "--seed": "from 0 to 4294967295",
    },
}
"""The words that options take, and the whole numbers."""


def taken(action):
    """What an option takes, in words; None if it is a path, a text or a switch."""
    if action.choices:
        return ", ".join(action.choices)
    try:
        (action.type or str)("x")
    except ZooError as error:
        return str(error).partition("give a whole number ")[2] or None
    except ValueError:
        return None
    return None


def test_options_take_the_words_and_numbers_of_the_table(monkeypatch):
    found = {}
    for name in ["zoo.cli", *dict.fromkeys(MODULES)]:
        for parser in parsers(name, monkeypatch):
            for action in [] if parser._subparsers else parser._actions:
                if (words := taken(action)) is not None:
                    option = (*action.option_strings, action.dest)[-2:][0]
                    found.setdefault(parser.prog, {})[option] = words
    assert found == TAKEN
