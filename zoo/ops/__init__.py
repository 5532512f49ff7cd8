"""Operators on tensors: the lowest layer. It imports no other layer of the package."""

from zoo.ops.scan import backends, selective_scan, use_backend
from zoo.ops.scan.native import ort_library
from zoo.ops.scan.order import check_order

__all__ = ["backends", "check_order", "ort_library", "selective_scan", "use_backend"]
