"""Libraries that need another build of PyTorch than the other tests: ``make test-integrations``."""

from __future__ import annotations

import importlib
import os

import pytest


def imported(name):
    try:
        return importlib.import_module(name)
    except (ImportError, RuntimeError) as error:
        # There it is a failure: a skip would hide that nothing was tested.
        if os.environ.get("TEST_INTEGRATIONS"):
            raise
        pytest.skip(f"make test-integrations runs these: {error}")


@pytest.fixture
def spandrel():
    return imported("spandrel")


@pytest.fixture
def spandrel_extra():
    return imported("spandrel_extra_arches")


@pytest.fixture
def timm():
    return imported("timm")


@pytest.fixture
def hub():
    return imported("huggingface_hub")
