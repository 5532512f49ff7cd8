"""Options of the suite, and what every test starts from."""

from __future__ import annotations

import os
import random
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from zoo.registry import temporary_registrations

pytest.register_assert_rewrite("tests.helpers")

# No test checks or keeps what is known of this machine, unless it asks for that.
os.environ["ZOO_SELF_CHECK"] = "0"


def pytest_addoption(parser):
    parser.addoption(
        "--import",
        dest="imports",
        action="append",
        metavar="MODULE",
        help="also test the parts that this module of yours registers, see CONTRIBUTING.md",
    )
    parser.addoption("--native-library", type=Path, help="test this build of the C++ kernel")
    parser.addoption("--wheels", type=Path, help="test what `make wheels` has built in this folder")
    parser.addoption(
        "--rehearse",
        action="store_true",
        help="run tests/gpu on the CPU, briefly and with another backend: tests these tests alone",
    )


def pytest_configure(config):
    # pytest-randomly shuffles the tests; random numbers are the same in every run: see ``seeded``.
    config.option.randomly_reset_seed = False
    if config.getoption("--native-library"):
        from zoo.ops.scan import native

        native.LIBRARY = config.getoption("--native-library")
    if config.getoption("imports"):
        from zoo.command import import_parts

        import_parts(config.getoption("imports"))


def pytest_collection_modifyitems(items):
    # pytest-randomly has shuffled them before.
    items.sort(key=lambda item: item.get_closest_marker("long") is None)
    for item in items:
        if re.search(r" at 0x|<function|<bound", item.nodeid):
            raise pytest.UsageError(
                f"{item.nodeid}: its name has an address, so it differs in every process; "
                "give the cases ids, such as ids=case_name"
            )


def pytest_terminal_summary(terminalreporter, config):
    if config.pluginmanager.hasplugin("randomly") and config.option.randomly_reorganize:
        seed = config.option.randomly_seed
        terminalreporter.write_line(f"Random order; --randomly-seed={seed} repeats it.")


@pytest.fixture(autouse=True)
def seeded():
    """Every test starts from the same random state."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def isolated():
    """No test sees the parts that another one registered, nor the folders it imported from."""
    folders = list(sys.path)
    with temporary_registrations():
        yield
    sys.path[:] = folders
