"""Operators on tensors: the lowest layer. It imports no other layer of the package."""

from zoo.ops.scan import backends, selective_scan, use_backend
from zoo.ops.scan.native import ort_library

__all__ = ["backends", "ort_library", "selective_scan", "use_backend"]
