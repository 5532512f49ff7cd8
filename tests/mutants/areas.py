"""The areas of the code, and what of it gets no faults."""

from __future__ import annotations

AREAS = {
    "ops": ["zoo/ops/**/*.py"],
    "scans": ["zoo/scans/*.py"],
    "blocks": ["zoo/blocks/*.py"],
    "heads": ["zoo/heads/*.py"],
    "networks": ["zoo/networks/*.py"],
    "checkpoints": ["zoo/checkpoints/*.py"],
    "data": ["zoo/data/**/*.py"],
    "inference": ["zoo/inference/*.py"],
    "metrics": ["zoo/metrics/*.py"],
    "evaluation": ["zoo/evaluation/*.py"],
    "training": ["zoo/training/*.py"],
    "plots": ["zoo/plots/*.py"],
    "integrations": ["zoo/integrations/*.py"],
    "core": ["zoo/*.py", "zoo/weights/*.py"],
    "export": ["export/*.py"],
    "trt_plugins": ["trt_plugins/*.py"],
    "recipes": ["recipes/*.py"],
}
"""Files of each area, as patterns; ``core`` is recipes' schema, registry, command line and such."""

_GPU = "runs on an NVIDIA GPU only; `make gpu-check` tests it"
_TENSORRT = "needs TensorRT, or TensorRT-RTX; `make test-tensorrt` tests it"
_NVCC = "needs nvcc; `make test-tensorrt` tests it"

EXCLUDED: dict[tuple[str, str], str] = {}
"""File and qualified name ("" for the whole file), with the reason."""
