from pathlib import Path

import pytest
import torch

pytest.register_assert_rewrite("tests.helpers")


def pytest_addoption(parser):
    parser.addoption(
        "--import",
        dest="imports",
        action="append",
        metavar="MODULE",
        help="also test the parts that this module of yours registers, see CONTRIBUTING.md",
    )
    parser.addoption("--native-library", type=Path, help="test this build of the C++ kernel")
    parser.addoption(
        "--rehearse",
        action="store_true",
        help="run tests/gpu on the CPU, briefly and with another backend: tests these tests alone",
    )


def pytest_configure(config):
    if config.getoption("--native-library"):
        from zoo.ops.scan import native

        native.LIBRARY = config.getoption("--native-library")
    if config.getoption("imports"):
        from zoo.command import import_parts

        import_parts(config.getoption("imports"))


@pytest.fixture(autouse=True)
def seeded():
    """Every test starts from the same random state."""
    torch.manual_seed(0)
