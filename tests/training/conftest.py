"""The photos that the tests of training share."""

from __future__ import annotations

import pytest

from tests.helpers.training import make_photos


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return make_photos(tmp_path_factory.mktemp("data") / "photos", count=3)
