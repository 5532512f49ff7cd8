"""Loads the plugin into TensorRT's lean runtime, in a process of its own.

    python -m tests.helpers.lean_runtime PACKAGES LIBRARY

PACKAGES holds tensorrt_lean_bindings. Prints one JSON object: TensorRT's version, and for each
name, version and namespace asked for whether a creator is found and creates. A ``Runtime`` is never
made: without a GPU that ends the process.
"""

from __future__ import annotations

import json
import sys

packages, library = sys.argv[1:]
sys.path.insert(0, packages)

import tensorrt_lean_bindings as trt  # noqa: E402


def creates(registry: trt.IPluginRegistry, name: str, version: str, namespace: str) -> bool:
    creator = registry.get_creator(name, version, namespace)
    if creator is None:
        return False
    said = (creator.name, creator.plugin_version, creator.plugin_namespace)
    assert said == (name, version, namespace), said
    fields = trt.PluginFieldCollection([])
    plugin = creator.create_plugin("scan", fields, trt.TensorRTPhase.RUNTIME)
    # Its capabilities are reached through the interface, by TensorRT's own code.
    core = plugin.get_capability_interface(trt.PluginCapabilityType.CORE)
    assert (core.plugin_name, core.plugin_version) == (name, version)
    return True


def main() -> None:
    logger = trt.Logger(trt.Logger.ERROR)  # noqa: F841, which must outlive the registry's use
    registry = trt.get_plugin_registry()
    assert registry.get_creator("SelectiveScan", "1", "zoo") is None, "it is there before"
    handle = registry.load_library(library)
    assert handle is not None, "the library does not load"
    found = {
        f"{namespace}::{name} {version}": creates(registry, name, version, namespace)
        for name in ("SelectiveScan", "SelectiveScanSum", "SelectiveScanMean")
        for version in ("1", "2")
        for namespace in ("zoo", "")
    }
    registry.deregister_library(handle)
    json.dump({"version": trt.__version__, "found": found}, sys.stdout)


if __name__ == "__main__":
    main()
