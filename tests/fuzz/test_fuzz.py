"""A short slice of every area, and the proof that each notices a planted fault."""

from __future__ import annotations

import pytest

from tests.fuzz.areas import AREAS, SLOW, load
from tests.fuzz.frame import FaultError, check_message, refusal, run, time_limit
from tests.fuzz.worker import CHUNK, run_area
from zoo.errors import RecipeError

pytestmark = pytest.mark.long


@pytest.mark.parametrize("name", AREAS)
def test_hostile_input_is_refused_in_one_sentence(name):
    area = load(name)
    tally = run(area, 0, area.SLICE)
    assert len(tally.outcomes) > 1, f"all cases ended alike: {tally.outcomes}"


@pytest.mark.parametrize("name", [*AREAS, *(pytest.param(x, marks=pytest.mark.slow) for x in SLOW)])
def test_a_planted_fault_is_found(name):
    area = load(name)
    with area.planted(), pytest.raises(Exception):  # noqa: B017 - any exception is a finding
        run(area, 0, 10 * area.SLICE, shrink=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*AREAS, *SLOW])
def test_a_long_run_finds_nothing(name):
    found = [fault for _, fault in run_area(name, 0, load(name).COUNT // 10) if fault]
    assert not found, found[0].what


@pytest.mark.parametrize("message", ["", "two\nlines", "x" * 501])
def test_a_message_that_is_no_sentence_is_a_finding(message):
    with pytest.raises(FaultError):
        check_message(message)


def test_only_allowed_errors_are_a_refusal():
    def broken():
        raise KeyError("width")

    def refused():
        raise RecipeError("network.widht: unknown option")

    assert refusal(refused) == "network.widht: unknown option"
    assert refusal(lambda: None) is None
    with pytest.raises(KeyError):
        refusal(broken)


def test_a_case_that_takes_too_long_is_a_finding():
    with pytest.raises(FaultError, match="longer than"), time_limit(0.01):
        while True:
            pass


@pytest.mark.parametrize(
    ("fault", "what"), [("crash", "code -11"), ("hang", "longer than"), ("raise", "KeyError")]
)
def test_a_fault_is_found_and_the_run_goes_on(fault, what, monkeypatch):
    monkeypatch.setenv("FAULTY", fault)
    found = [found for _, found in run_area("faulty", 7, 2 * CHUNK)]
    assert [one.seed for one in found] == [7, 8]
    assert all(one.case == repr(fault) and what in one.what for one in found)
