"""The plugin in TensorRT's own lean runtimes 10 and 11, which need no GPU to load a plugin.

Slow: they are two packages of 45 MB, which pip puts into the cache folder once. One library must
serve both. TensorRT-RTX, which builds engines too, is in test_parser.py and test_real_engines.py.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.plugin_checks import broken
from trt_plugins.build import BuildError, build
from zoo.files import cache_folder
from zoo.ops.scan.names import NAMESPACE, NODES, VERSION

ROOT = Path(__file__).parents[2]
VERSIONS = ["10.16.1.11", "11.4.0.106"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=VERSIONS)
def lean(request):
    """A folder with one version of the lean runtime and its Python bindings."""
    folder = cache_folder() / "tests" / f"tensorrt-lean-{request.param}"
    if not (folder / "whole").exists():
        shutil.rmtree(folder, ignore_errors=True)
        names = [f"tensorrt-lean-cu13-{part}=={request.param}" for part in ("libs", "bindings")]
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
        done = subprocess.run([*pip, str(folder), *names], capture_output=True, text=True)
        if done.returncode:
            why = done.stderr.strip().splitlines()[-1:]
            pytest.skip(f"pip cannot install the lean runtime {request.param}: {why}")
        (folder / "whole").touch()
    return request.param, folder


@pytest.fixture(scope="module", params=["nvcc", "shim"])
def plugin(request):
    try:
        return build(shim=request.param == "shim")
    except BuildError as error:
        pytest.skip(f"the plugin is not compiled: {error}")


def loaded(folder, library):
    words = [sys.executable, "-m", "tests.helpers.lean_runtime", str(folder), str(library)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def check(lean, library):
    version, folder = lean
    told = loaded(folder, library)
    assert told["version"] == version
    made = {name for name, created in told["found"].items() if created}
    assert made == {f"{NAMESPACE}::{name} {VERSION}" for name in NODES}


def test_creators_are_found_and_create(lean, plugin):
    check(lean, plugin)


@pytest.mark.parametrize(
    "wrong",
    [('kVersion = "1"', 'kVersion = "2"'), ('kNamespace = "zoo"', 'kNamespace = ""')],
    ids=["version", "namespace"],
)
def test_a_wrong_plugin_is_found(wrong, lean, tmp_path, monkeypatch):
    library = broken("plugin", wrong, tmp_path, monkeypatch)
    with pytest.raises(AssertionError):
        check(lean, library)


def test_a_plugin_that_registers_nothing_is_found(lean, tmp_path):
    (tmp_path / "empty.c").write_text("int nothing;")
    library = tmp_path / "empty.so"
    words = ["c++", "-shared", "-fPIC", "-o", str(library), str(tmp_path / "empty.c")]
    subprocess.run(words, check=True)
    with pytest.raises(AssertionError):
        check(lean, library)
