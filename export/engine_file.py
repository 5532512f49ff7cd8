"""Writes an engine file with its JSON file, and makes the ONNX graph for the engine."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
import shlex
import tempfile
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import ModelProto

from export.engine import Engine, EngineSettings, build_engine
from export.graph import written_out
from export.model import facts_in
from export.onnx import export
from export.profile import Profile
from export.scan_function import attach_functions, scan_nodes
from export.shape import input_shape
from export.trtexec import trtexec
from zoo.command import package_version
from zoo.files import write_bytes, write_text
from zoo.integrations.tensorrt import sidecar_path
from zoo.networks import Network
from zoo.ops.precision import Precision
from zoo.ops.scan.names import NAMESPACE, VERSION


def graph_for_engine(
    network: Network,
    profile: Profile,
    *,
    precision: Precision = "fp32",
    plugin_free: bool = False,
    weights: str = "given in memory",
) -> ModelProto:
    """Make the ONNX graph that an engine is built from.

    Args:
        network: the network to export.
        profile: input sizes; sizes that do not vary are fixed in the graph.
        precision: "fp32"; "fp16" or "bf16" for weights and activations.
        plugin_free: whether scans become standard operators, in the form that suits TensorRT.
        weights: description of the weights' origin, for the metadata.
    """
    batch, height, width = profile.shape
    shape = dataclasses.replace(input_shape(network), batch=batch, height=height, width=width)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        export(network, path, shape=str(shape), precision=precision, weights=weights)
        model = onnx.load(path)
    if plugin_free:
        model = without_plugin(model)
        onnx.checker.check_model(model, full_check=True)
    return model


def without_plugin(model: ModelProto) -> ModelProto:
    """Replace the scans of a graph by standard operators, in the form that suits TensorRT."""
    attach_functions(model, tensorrt=True)
    return written_out(model)


def export_engine(
    model: ModelProto,
    path: Path,
    settings: EngineSettings,
    sample: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Build an engine from a graph and write it with its JSON file.

    Each file is written completely or not at all.

    Args:
        model: graph from :func:`graph_for_engine`, or from a file of ``export.onnx``.
        path: path of the engine file.
        settings: settings of the build.
        sample: a tile and PyTorch's result, see :mod:`zoo.integrations.engine_sample`.

    Returns:
        The content of the JSON file.

    Raises:
        EngineError: if the engine cannot be built, or a scan does not run on the plugin.
        WriteError: if a file cannot be written.
    """
    engine = build_engine(model, settings)
    facts = _sidecar(model, engine, settings) | {"sample": sample}
    write_bytes(path, engine.content)
    write_text(sidecar_path(path), json.dumps(facts, indent=2) + "\n")
    return facts


def _sidecar(model: ModelProto, engine: Engine, settings: EngineSettings) -> dict[str, Any]:
    facts = facts_in(model)
    recipe = json.loads(facts.pop("recipe", "null"))
    plugin = settings.plugin if scan_nodes(model) else None
    digests = {"engine": _digest(engine.content), "onnx": _digest(model.SerializeToString())}
    described = None
    if plugin is not None:
        digests["plugin"] = _digest(plugin.read_bytes())
        described = {
            "namespace": NAMESPACE,
            "version": str(VERSION),
            "layers": engine.plugin_layers,
            "named_in_engine": engine.serialized,
            "embedded": settings.embed,
        }
    return {
        "format": 1,
        "model": facts["model"],
        "precision": facts["precision"],
        "runtime": {"name": settings.tensorrt.name, "version": settings.tensorrt.version},
        "profile": settings.profile.of(model),
        "outputs": engine.outputs,
        "plugin": described,
        "scans": len(scan_nodes(model)),
        "layers": engine.layers,
        "tf32": settings.tf32,
        "build": {"seconds": round(engine.seconds, 1), "peak_memory_mib": engine.peak_mib},
        "gpu_memory_bytes": engine.gpu_bytes,
        "versions": {
            "zoo": package_version(),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "machine": f"{platform.system()} {platform.machine()}",
        },
        "sha256": digests,
        "facts": facts,
        "recipe": recipe,
    }


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def command_line(
    onnx_path: Path, engine: Path, dimensions: dict[str, Any], settings: EngineSettings
) -> str:
    """The shell command that builds the same engine without Python."""
    tool = "tensorrt_rtx" if settings.tensorrt.name == "tensorrt-rtx" else trtexec()
    words = [tool, f"--onnx={onnx_path}", f"--saveEngine={engine}"]
    for kind in ("min", "opt", "max"):
        sizes = (f"{name}:{'x'.join(map(str, d[kind]))}" for name, d in dimensions.items())
        words.append(f"--{kind}Shapes={','.join(sizes)}")
    if settings.tensorrt.name == "tensorrt" and settings.tensorrt.release[0] == 10:
        words.append("--stronglyTyped")
    if settings.plugin is not None:
        option = "--setPluginsToSerialize" if settings.embed else "--dynamicPlugins"
        words.append(f"{option}={settings.plugin}")
    if settings.timing_cache is not None:
        words.append(f"--timingCacheFile={settings.timing_cache}")
    if not settings.tf32:
        words.append("--noTF32")
    return shlex.join(words)
