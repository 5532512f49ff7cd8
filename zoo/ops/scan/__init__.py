"""The selective scan: one operator, several backends, one conformance suite."""

from zoo.ops.scan.dispatch import BackendError, BackendStatus, backends, use_backend
from zoo.ops.scan.operator import selective_scan

__all__ = ["BackendError", "BackendStatus", "backends", "selective_scan", "use_backend"]
