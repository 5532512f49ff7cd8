import shutil

import pytest

from trt_plugins.build import BuildError, build, find_nvcc


@pytest.fixture(scope="session")
def shim():
    """The plugin built for this CPU."""
    if not any(map(shutil.which, ("c++", "g++", "clang++"))):
        pytest.skip("no C++ compiler: the plugin's kernels cannot be built for this CPU")
    return build(shim=True)


@pytest.fixture(scope="session")
def nvcc():
    try:
        return find_nvcc()
    except BuildError as error:
        pytest.skip(f"the plugin is not compiled: {error}")
