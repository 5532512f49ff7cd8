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
    "analysis": ["zoo/analysis/*.py"],
    "evaluation": ["zoo/evaluation/*.py"],
    "training": ["zoo/training/**/*.py"],
    "plots": ["zoo/plots/*.py"],
    "integrations": ["zoo/integrations/*.py"],
    "app": ["zoo/app/*.py"],
    "core": ["zoo/*.py", "zoo/commands/*.py", "zoo/files/*.py", "zoo/weights/*.py"],
    "export": ["export/*.py"],
    "trt_plugins": ["trt_plugins/*.py"],
    "recipes": ["recipes/*.py"],
}
"""Files of each area, as patterns; ``core`` is recipes' schema, registry, command line and such."""

_GPU = "runs on NVIDIA GPUs only; `make gpu-check` tests it"
_TENSORRT = "calls TensorRT itself; `make test-tensorrt` and `make gpu-check` test it"
_BROWSER = "needs Gradio, and shows in a browser only; `make test-app` tests it"

EXCLUDED: dict[tuple[str, str], str] = {
    ("zoo/ops/scan/mamba_ssm.py", "unavailable"): _GPU,
    ("zoo/ops/scan/mamba_ssm.py", "declines"): _GPU,
    ("zoo/ops/scan/mamba_ssm.py", "kernel"): _GPU,
    ("zoo/ops/scan/triton/plan.py", "processors"): _GPU,
    ("zoo/ops/passes/on_gpu.py", "_may_run"): _GPU,
    ("zoo/ops/passes/on_gpu.py", "_Normalised"): _GPU,
    ("zoo/ops/passes/on_gpu.py", "normalised"): _GPU,
    ("zoo/inference/device_memory.py", "CudaMemory"): _GPU,
    ("zoo/inference/graph_recording.py", "CudaRecording"): _GPU,
    ("zoo/commands/gpu_probes.py", "captured"): _GPU,
    ("zoo/distributed.py", "_TorchrunGroup.device"): "chooses among several NVIDIA GPUs",
    ("zoo/app/page.py", ""): _BROWSER,
    ("zoo/integrations/tensorrt_runtime.py", "_mend_library_name"): _TENSORRT,
    ("zoo/integrations/tensorrt.py", "EngineSession.__init__"): _TENSORRT,
    ("zoo/integrations/tensorrt.py", "EngineSession.run"): _TENSORRT,
    ("zoo/integrations/tensorrt.py", "EngineSession._placed"): _TENSORRT,
    ("zoo/integrations/tensorrt.py", "EngineSession._dtype"): _TENSORRT,
    ("export/engine.py", "_use_timing_cache"): _TENSORRT,
}
"""File and qualified name ("" for the whole file), with the reason.

:func:`tests.mutants.source.open_nodes` tells what is left out everywhere.
"""
