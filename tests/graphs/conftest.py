"""A network that is recorded, and a log of what is made and replayed."""

from __future__ import annotations

import pytest
from torch import nn

from tests.helpers.recorder import Stand, image, recorder_of
from zoo.inference import recordable


@pytest.fixture(autouse=True)
def switched_on(monkeypatch):
    monkeypatch.setenv(recordable.ENVIRONMENT, "1")


@pytest.fixture
def network():
    return nn.Conv2d(3, 3, 3, padding=1).eval().requires_grad_(False)


@pytest.fixture
def log():
    return []


@pytest.fixture
def run(log, network):
    """A recorder that is trusted, and a function that runs it some times on new images."""
    recorded = recorder_of(lambda *given: Stand(log, *given))

    def some(count, side=8, precision="fp32"):
        for _ in range(count):
            given = image(side)
            found = recorded(network, network, [given], precision)
        return given, found

    some.recorder = recorded
    return some
