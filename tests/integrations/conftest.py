"""Libraries that need another build of PyTorch than the other tests: ``make test-integrations``."""

from __future__ import annotations

import importlib
import os

import pytest

from tests.helpers.hub_server import HubServer

if os.environ.get("TEST_INTEGRATIONS"):
    # Libraries read these when they are first imported, so nothing here asks the real Hub.
    SERVER = HubServer()
    os.environ |= {"HF_ENDPOINT": SERVER.url, "HF_HUB_DISABLE_XET": "1", "DO_NOT_TRACK": "1"}
    os.environ |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}


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


@pytest.fixture(scope="session")
def server():
    return SERVER if os.environ.get("TEST_INTEGRATIONS") else HubServer()


@pytest.fixture
def web(server):
    """A loopback server of plain files; no library is needed for them."""
    server.reset()
    return server


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A loopback server, with an empty cache and without a login."""
    constants = imported("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    assert SERVER.url == constants.ENDPOINT
    SERVER.reset()
    return SERVER
