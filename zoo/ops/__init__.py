"""The ground floor: tensors in, tensors out. Imports nothing else of the package."""

from zoo.ops.scan import backends, selective_scan, use_backend

__all__ = ["backends", "selective_scan", "use_backend"]
