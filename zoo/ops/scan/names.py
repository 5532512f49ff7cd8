"""Under which names the operator is known outside of Python: in ONNX files and to TensorRT.

C++ spells them too (``csrc/ort_operator.cpp`` and the plugin of ``trt_plugins``); a test compares.
"""

NAMESPACE = "zoo"
"""Of PyTorch's operator and of TensorRT's plugins, and the domain of ONNX nodes."""

VERSION = 1
"""Of the ONNX nodes and of the plugins."""

EACH = "SelectiveScan"
"""The node that returns y of each direction, (B, L, K, E)."""

SUM = "SelectiveScanSum"
"""The node that returns the sum over directions, (B, L, E)."""

NODES = (EACH, SUM)

PLUGIN_ATTRIBUTES = {"plugin_namespace": NAMESPACE, "plugin_version": str(VERSION)}
"""Attributes of every node, by which TensorRT finds our plugin before the node's function."""
