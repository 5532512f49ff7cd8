import shutil

import pytest

from trt_plugins.build import BuildError, build, find_nvcc
from zoo.integrations.tensorrt import EngineError, open_tensorrt


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


@pytest.fixture(scope="session")
def rtx():
    """TensorRT-RTX, which builds engines without a GPU."""
    try:
        return open_tensorrt("tensorrt-rtx")
    except EngineError as error:
        pytest.skip(f"make test-tensorrt runs these: {error}")
