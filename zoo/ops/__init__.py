"""Operators on tensors: a low layer, which imports only errors and files of the package."""

from zoo.ops.scan import backends, selective_scan, use_backend
from zoo.ops.scan.native import ort_library
from zoo.ops.scan.order import check_order

__all__ = ["backends", "check_order", "ort_library", "selective_scan", "use_backend"]
