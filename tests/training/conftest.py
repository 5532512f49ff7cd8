"""What the tests of training share: photos, and a loss scale that changes."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from tests.helpers.training import make_photos


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return make_photos(tmp_path_factory.mktemp("data") / "photos", count=3)


@pytest.fixture
def lively_scale(monkeypatch):
    """A loss scale that grows every third step, until a step overflows and it halves."""
    lively = partial(torch.amp.GradScaler, init_scale=2.0**22, growth_interval=3)
    monkeypatch.setattr(torch.amp, "GradScaler", lively)
