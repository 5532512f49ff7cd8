"""Writes a model repository for NVIDIA Triton Inference Server: folders, configurations, scripts.

A network becomes two models: ``NAME_onnx`` for the ONNX Runtime back end, on CPU or GPU, and
``NAME_trt`` for the TensorRT back end.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trt_plugins
from export.model import facts_in
from export.onnx import save_model
from export.profile import Profile
from export.scan_function import without_functions
from export.trtexec import USUAL, find_in_shell
from zoo.errors import ZooError
from zoo.files import check_writable, partial_folder
from zoo.integrations.tensorrt import EngineError, read_sidecar

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto

logger = logging.getLogger(__name__)

PLUGIN = "libzoo_tensorrt.so"

PRELOAD = Path("examples") / "preload.cpp"
"""Source file in the package ``trt_plugins`` that registers the plugin in the server."""


class ServeError(ZooError):
    """The options of a model repository are wrong, or a model already exists."""


@dataclass(frozen=True)
class Serving:
    """How a model is served.

    Attributes:
        max_batch: largest number of requests in a batch.
        delay_us: longest time in microseconds that a request waits for others.
        instances: number of copies of the model on each device.
        kind: type of device: "auto", "gpu" or "cpu".
    """

    max_batch: int = 8
    delay_us: int = 2000
    instances: int = 1
    kind: str = "auto"


def model_config(name: str, backend: str, model: ModelProto, serving: Serving) -> str:
    """Make the text of a ``config.pbtxt``.

    Args:
        name: name of the model and of its folder.
        backend: "onnxruntime" or "tensorrt".
        model: the graph, whose inputs, outputs and metadata go into the text.
        serving: batches, instances and device.
    """
    kinds = {"auto": "KIND_AUTO", "gpu": "KIND_GPU", "cpu": "KIND_CPU"}
    facts = facts_in(model)
    lines = [
        f"name: {_quoted(name)}",
        f"backend: {_quoted(backend)}",
        f"max_batch_size: {serving.max_batch}",
    ]
    for field, entries in (("input", model.graph.input), ("output", model.graph.output)):
        lines += [_tensor(field, entry) for entry in entries]
    lines.append(f"instance_group {{ count: {serving.instances} kind: {kinds[serving.kind]} }}")
    if serving.max_batch > 1:
        lines.append(f"dynamic_batching {{ max_queue_delay_microseconds: {serving.delay_us} }}")
    # Clients can read these facts about the model from the server.
    told = ("model", "scale", "input", "frames", "colour", "range", "precision", "size_multiple")
    for key in (*told, "weights", "weights_sha256"):
        if key in facts:
            value = _quoted(facts[key])
            lines.append(f'parameters {{ key: "zoo.{key}" value {{ string_value: {value} }} }}')
    return "\n".join(lines) + "\n"


def _tensor(field: str, entry: ValueInfoProto) -> str:
    """Describe a tensor without its batch dimension, which the server adds."""
    dims = entry.type.tensor_type.shape.dim[1:]
    sizes = ", ".join(str(d.dim_value) if d.dim_value else "-1" for d in dims)
    return f"{field} {{ name: {_quoted(entry.name)} data_type: TYPE_FP32 dims: [ {sizes} ] }}"


def _quoted(text: str) -> str:
    return json.dumps(text)


@dataclass(frozen=True)
class Plan:
    """Contents of the model for the TensorRT back end. Triton calls an engine a plan.

    Attributes:
        profile: input sizes that the engine accepts.
        engine: engine file for TensorRT; None to write a script that builds one on the server.
        plugin: the plugin library; None to omit it.
    """

    profile: Profile
    engine: Path | None = None
    plugin: Path | None = None


def write_repository(
    model: ModelProto,
    folder: Path,
    name: str,
    *,
    serving: Serving,
    onnx: bool = True,
    plan: Plan | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Write the models of a network to a repository. Each is written completely or not at all.

    Args:
        model: the graph, with a batch of any size.
        folder: folder of the repository; other models in it are not changed.
        name: name of the network.
        serving: batches, instances and device.
        onnx: whether to write ``NAME_onnx``, for the ONNX Runtime back end.
        plan: contents of ``NAME_trt``, for the TensorRT back end; None to omit it.
        overwrite: whether to replace models of the same name.

    Returns:
        The folders of the models.

    Raises:
        ServeError: if a model already exists and ``overwrite`` is False.
        WriteError: if a model cannot be written.
        EngineError: if the server cannot run the engine.
    """
    if plan is not None and plan.engine is not None:
        serving = _limited(serving, plan.engine)
    writers: dict[Path, Callable[[Path, str], None]] = {}
    onnx_folder, plan_folder = model_folders(folder, name)
    if onnx:
        writers[onnx_folder] = lambda to, own: _write_onnx(to, own, model, serving)
    if plan is not None:
        writers[plan_folder] = lambda to, own: _write_plan(to, own, model, serving, plan)
    check_models(writers, overwrite=overwrite)
    for target, write in writers.items():
        # The dot at the start of its name keeps the server from reading an unfinished folder.
        with partial_folder(target) as temporary:
            (temporary / "1").mkdir()
            write(temporary, target.name)
    return list(writers)


def model_folders(folder: Path, name: str) -> tuple[Path, Path]:
    """Return the folders of both models of a network: for ONNX Runtime and for TensorRT."""
    return folder / f"{name}_onnx", folder / f"{name}_trt"


def check_models(targets: Iterable[Path], *, overwrite: bool) -> None:
    """Check, before long work, that the folders of models can be written.

    Raises:
        ServeError: if a model already exists and ``overwrite`` is False.
        WriteError: if a model cannot be written.
    """
    for target in targets:
        if not target.exists():
            check_writable(target)
        elif not overwrite:
            raise ServeError(f"{target} already exists; replace it with --overwrite")


def _limited(serving: Serving, engine: Path) -> Serving:
    """Limit the batch to the largest that the engine accepts."""
    sidecar = read_sidecar(engine)
    runtime = sidecar["runtime"]["name"]
    if runtime != "tensorrt":
        raise EngineError(
            f"{engine} was built by {runtime}, but the server runs engines of TensorRT; build it "
            "with --runtime tensorrt, or omit --engine to get a script that builds one"
        )
    most = sidecar["profile"]["input"]["max"][0]
    if most < serving.max_batch:
        logger.info("%s accepts at most %d images, which limits the batch", engine, most)
        return dataclasses.replace(serving, max_batch=most)
    return serving


def _write_onnx(folder: Path, name: str, model: ModelProto, serving: Serving) -> None:
    config = model_config(name, "onnxruntime", model, serving)
    (folder / "config.pbtxt").write_text(config)
    (folder / "1" / "model.onnx").write_bytes(model.SerializeToString())


def _write_plan(folder: Path, name: str, model: ModelProto, serving: Serving, plan: Plan) -> None:
    # TensorRT runs on GPUs only.
    config = model_config(name, "tensorrt", model, dataclasses.replace(serving, kind="gpu"))
    (folder / "config.pbtxt").write_text(config)
    shutil.copyfile(Path(trt_plugins.__file__).parent / PRELOAD, folder / PRELOAD.name)
    if plan.plugin is not None:
        shutil.copyfile(plan.plugin, folder / PLUGIN)
    if plan.engine is not None:
        shutil.copyfile(plan.engine, folder / "1" / "model.plan")
    else:
        # TensorRT up to 10.6 would prefer the functions to the plugin, without a word; later ones
        # would, too, if the plugin did not load.
        save_model(without_functions(model), folder / "model.onnx")
        script = folder / "build_plan.sh"
        script.write_text(_plan_script(plan.profile.of(model)))
        script.chmod(0o755)
    (folder / "README.md").write_text(_README.format(name=name))


def _plan_script(dimensions: dict[str, Any]) -> str:
    spans = " ".join(
        f"--{kind}Shapes={','.join(f'{n}:{_times(d[kind])}' for n, d in dimensions.items())}"
        for kind in ("min", "opt", "max")
    )
    return f"""#!/bin/sh
# Builds 1/model.plan with TensorRT for the GPU of this machine. Run it on the server's machine.
set -eu
cd "$(dirname "$0")"
{find_in_shell()}typed=
if "$trtexec" --help 2>&1 | grep -q stronglyTyped; then typed=--stronglyTyped; fi
if ! [ -f {PLUGIN} ]; then
    echo "$PWD/{PLUGIN}: the plugin's library does not exist; see README.md" >&2
    exit 2
fi
"$trtexec" --onnx=model.onnx --saveEngine=1/.model.plan.part --dynamicPlugins=./{PLUGIN} \\
    $typed --noTF32 --skipInference {spans}
mv 1/.model.plan.part 1/model.plan
"""


def _times(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes))


_README = f"""# {{name}}

1. The plugin `{PLUGIN}` must be in this folder: `python -m trt_plugins.build -o {PLUGIN}`.
2. If `1/model.plan` is missing, run `./build_plan.sh` on the server's machine: engines work only
   with the TensorRT version and the GPU that they were built with. It looks for `trtexec` on the
   PATH and in `{USUAL.parent}`; the environment variable `TRTEXEC` names another one.
3. The server opens libraries but does not register the plugins in them; `preload.cpp` does:

       g++ -std=c++17 -shared -fPIC preload.cpp -o libzoo_preload.so \\
           -I/usr/local/cuda/include -lnvinfer -ldl
       tritonserver --model-repository=REPO \\
           --backend-config=tensorrt,plugins="REPO/{{name}}/libzoo_preload.so"

   It loads `{PLUGIN}` from its own folder, or from the path in the environment variable
   `ZOO_PLUGIN`.

The model has an input `input` and an output `output`, float32 in [0, 1]. For their dimensions and
other facts, see `config.pbtxt`.
"""
