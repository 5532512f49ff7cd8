"""The operator's names outside Python: in ONNX files and in TensorRT.

The C++ sources repeat them (``csrc/ort_operator.cpp`` and the plugin of ``trt_plugins``); a test
compares the two.
"""

NAMESPACE = "zoo"
"""Namespace of the PyTorch operator and of the TensorRT plugins, and domain of the ONNX nodes."""

VERSION = 1
"""Version of the ONNX nodes and of the plugins."""

EACH = "SelectiveScan"
"""Node that returns y for each direction, (B, L, K, E)."""

SUM = "SelectiveScanSum"
"""Node that returns the sum of y over directions, (B, L, E)."""

NODES = (EACH, SUM)

PLUGIN_ATTRIBUTES = {"plugin_namespace": NAMESPACE, "plugin_version": str(VERSION)}
"""Attributes of every node. With them, TensorRT uses our plugin and not the node's function."""
