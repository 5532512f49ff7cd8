"""The schema of options: values become what their types say, and wrong ones are refused."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from zoo.errors import RecipeError
from zoo.schema import at_least, resolve
from zoo.training.settings import ScheduleSettings


def test_settings_of_several_values_say_what_they_are():
    message = (
        r"train\.schedule: .* of type, milestones, .*; did you mean train\.schedule\.type=flat"
    )
    with pytest.raises(RecipeError, match=message):
        resolve(ScheduleSettings, "flat", "train.schedule")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of every type that recipes have."""

    pair: tuple[int, float] = (1, 2.0)
    many: tuple[int, ...] = ()
    listed: list[str] = field(default_factory=list)
    table: dict[str, float] = field(default_factory=dict)
    flag: bool = False
    number: float = 1.0
    either: int | str | None = None


def test_values_become_what_their_annotations_say():
    given = {"pair": [1, 2], "many": [1, 2], "listed": ["a"], "table": {"a": 1}, "number": 3}
    found = resolve(Options, given, "")
    assert found == Options(pair=(1, 2.0), many=(1, 2), listed=["a"], table={"a": 1.0}, number=3.0)
    assert [type(v) for v in (found.pair[1], found.table["a"], found.number)] == [float] * 3
    assert type(found.listed) is list and type(found.many) is tuple
    assert resolve(Options, {"either": "x"}, "").either == "x"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pair": [1, 2, 3]}, r"^pair: expected 2 values, got 3"),
        ({"many": [1, True]}, r"^many\[1\]: expected a whole number, got True"),
        ({"table": {"a": "x"}}, r"^table\.a: expected a number"),
        ({"table": [1]}, r"^table: expected a mapping"),
        ({"number": True}, r"^number: expected a number, got True"),
        ({"flag": 1}, r"^flag: expected true or false"),
        ({"either": 1.5}, r"^either: expected"),
    ],
)
def test_values_of_another_type_are_refused(options, message):
    with pytest.raises(RecipeError, match=message):
        resolve(Options, options, "")


def test_the_smallest_number_allowed_is_allowed():
    at_least(SimpleNamespace(a=1, b=2), 1, "a", "b")
    with pytest.raises(RecipeError, match=r"^b is 0\.5; it must be at least 1$"):
        at_least(SimpleNamespace(a=1, b=0.5), 1, "a", "b")
    at_least(SimpleNamespace(a=None, b=9), 1, "a", "b", most=9)
    cases = {10: "most 9", math.inf: "most 9", math.nan: "least 1", -math.inf: "least 1"}
    for value, wanted in cases.items():
        with pytest.raises(RecipeError, match=f"^a is {value}; it must be at {wanted}"):
            at_least(SimpleNamespace(a=value), 1, "a", most=9)
    with pytest.raises(RecipeError, match="a is inf; it must be"):
        at_least(SimpleNamespace(a=math.inf), 1, "a")
