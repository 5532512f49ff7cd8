"""``python -m export.serve``: a model repository for NVIDIA Triton Inference Server.

Two models of one network: ``NAME_onnx`` for the ONNX Runtime back end, on CPU or GPU, and
``NAME_trt`` for the TensorRT back end. Requests of one size are put together (dynamic batching).
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.model import network_of
from export.onnx import check_packages, check_writable, export
from export.precision import DTYPES
from export.profile import Profile, read_profile
from zoo.command import run_command
from zoo.errors import ZooError
from zoo.integrations.tensorrt import EngineError, read_sidecar

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto

logger = logging.getLogger(__name__)

PLUGIN = "libzoo_tensorrt.so"

PRELOAD = Path("examples") / "preload.cpp"
"""In the package ``trt_plugins``: what registers the plugin in the server."""


class ServeError(ZooError):
    """A model repository cannot be written."""


@dataclass(frozen=True)
class Serving:
    """How a model is served.

    Attributes:
        max_batch: most requests put together.
        delay_us: microseconds that a request may wait for others.
        instances: copies of the model on each device.
        kind: "auto", "gpu" or "cpu".
    """

    max_batch: int = 8
    delay_us: int = 2000
    instances: int = 1
    kind: str = "auto"


def model_config(name: str, backend: str, model: ModelProto, serving: Serving) -> str:
    """The text of a ``config.pbtxt``.

    Args:
        name: of the model, which is that of its folder.
        backend: "onnxruntime" or "tensorrt".
        model: the graph; its inputs, outputs and metadata are told.
        serving: batches, instances, device.
    """
    kinds = {"auto": "KIND_AUTO", "gpu": "KIND_GPU", "cpu": "KIND_CPU"}
    facts = {entry.key: entry.value for entry in model.metadata_props}
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
    # Clients read from the server what the model is.
    told = ("model", "scale", "input", "frames", "colour", "range", "precision", "size_multiple")
    for key in (*told, "weights", "weights_sha256"):
        if key in facts:
            value = _quoted(facts[key])
            lines.append(f'parameters {{ key: "zoo.{key}" value {{ string_value: {value} }} }}')
    return "\n".join(lines) + "\n"


def _tensor(field: str, entry: ValueInfoProto) -> str:
    """A tensor without its batch, which the server adds."""
    dims = entry.type.tensor_type.shape.dim[1:]
    sizes = ", ".join(str(d.dim_value) if d.dim_value else "-1" for d in dims)
    return f"{field} {{ name: {_quoted(entry.name)} data_type: TYPE_FP32 dims: [ {sizes} ] }}"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=True)


def write_repository(
    model: ModelProto,
    folder: Path,
    name: str,
    profile: Profile,
    *,
    serving: Serving,
    backends: Sequence[str] = ("onnx", "tensorrt"),
    engine: Path | None = None,
    plugin: Path | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Write the models of a network into a repository; each appears whole or not at all.

    Args:
        model: the graph, with a batch of any size.
        folder: of the repository; other models in it stay.
        name: of the network.
        profile: sizes that the TensorRT engine takes.
        serving: batches, instances, device.
        backends: which models, "onnx" and "tensorrt".
        engine: of TensorRT; without it a script is written that builds one where it is served.
        plugin: library of the plugin; left out where None.
        overwrite: replace models of the same name.

    Returns:
        Folders of the models.

    Raises:
        ServeError: where a model is there already or cannot be written.
        EngineError: for an engine that the server cannot run.
    """
    if engine is not None:
        serving = _of_engine(engine, serving)
    targets = {backend: folder / f"{name}_{_SHORT[backend]}" for backend in backends}
    for target in targets.values():
        if target.exists() and not overwrite:
            raise ServeError(f"{target}: is there already; replace it with --overwrite")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for backend, target in targets.items():
            # A dot keeps the server from taking what is not finished for a model.
            with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as temporary:
                made = Path(temporary) / target.name
                (made / "1").mkdir(parents=True)
                if backend == "onnx":
                    _write_onnx(made, model, serving)
                else:
                    _write_tensorrt(made, model, profile, serving, engine, plugin)
                mask = os.umask(0)
                os.umask(mask)
                made.chmod(0o777 & ~mask)
                if target.exists():
                    target.rename(Path(temporary) / "old")
                made.rename(target)
    except OSError as error:
        raise ServeError(
            f"{folder}: cannot write there ({error.strerror}); choose another place with -o"
        ) from error
    return list(targets.values())


_SHORT = {"onnx": "onnx", "tensorrt": "trt"}


def _of_engine(engine: Path, serving: Serving) -> Serving:
    sidecar = read_sidecar(engine)
    runtime = sidecar["runtime"]["name"]
    if runtime != "tensorrt":
        raise EngineError(
            f"{engine}: was built by {runtime}, but the server runs engines of TensorRT; build it "
            "with --runtime tensorrt, or leave --engine away for a script that does"
        )
    most = sidecar["profile"]["input"]["max"][0]
    if most < serving.max_batch:
        logger.info("%s takes %d images at once; so does the server", engine, most)
        return Serving(most, serving.delay_us, serving.instances, serving.kind)
    return serving


def _write_onnx(made: Path, model: ModelProto, serving: Serving) -> None:
    config = model_config(made.name, "onnxruntime", model, serving)
    (made / "config.pbtxt").write_text(config)
    (made / "1" / "model.onnx").write_bytes(model.SerializeToString())


def _write_tensorrt(
    made: Path,
    model: ModelProto,
    profile: Profile,
    serving: Serving,
    engine: Path | None,
    plugin: Path | None,
) -> None:
    import trt_plugins
    from export.onnx import save_model

    # TensorRT runs on GPUs only.
    serving = Serving(serving.max_batch, serving.delay_us, serving.instances, "gpu")
    (made / "config.pbtxt").write_text(model_config(made.name, "tensorrt", model, serving))
    shutil.copyfile(Path(trt_plugins.__file__).parent / PRELOAD, made / PRELOAD.name)
    if plugin is not None:
        shutil.copyfile(plugin, made / PLUGIN)
    if engine is not None:
        shutil.copyfile(engine, made / "1" / "model.plan")
    else:
        save_model(model, made / "model.onnx")
        script = made / "build_plan.sh"
        script.write_text(_plan_script(profile.of(model)))
        script.chmod(0o755)
    (made / "README.md").write_text(_README.format(name=made.name))


def _plan_script(dimensions: dict[str, Any]) -> str:
    spans = " ".join(
        f"--{kind}Shapes={','.join(f'{n}:{_times(d[kind])}' for n, d in dimensions.items())}"
        for kind in ("min", "opt", "max")
    )
    return f"""#!/bin/sh
# Builds 1/model.plan with the TensorRT of this machine, for its GPU: run it where the server runs.
set -eu
cd "$(dirname "$0")"
typed=
if trtexec --help 2>&1 | grep -q stronglyTyped; then typed=--stronglyTyped; fi
trtexec --onnx=model.onnx --saveEngine=1/.model.plan.part --dynamicPlugins=./{PLUGIN} \\
    $typed --noTF32 --skipInference {spans}
mv 1/.model.plan.part 1/model.plan
"""


def _times(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes))


_README = f"""# {{name}}

1. The plugin `{PLUGIN}` must lie here: `python -m trt_plugins.build -o {PLUGIN}`.
2. If `1/model.plan` is missing, run `./build_plan.sh` where the server runs: engines are bound to
   TensorRT's version and to the GPU.
3. The server opens libraries but does not register what is in them; `preload.cpp` does:

       g++ -std=c++17 -shared -fPIC preload.cpp -o libzoo_preload.so \\
           -I/usr/local/cuda/include -lnvinfer -ldl
       tritonserver --model-repository=REPO \\
           --backend-config=tensorrt,plugins="REPO/{{name}}/libzoo_preload.so"

   It takes `{PLUGIN}` from beside itself, or from where `ZOO_PLUGIN` says.

One input `input` and one output `output`, float32 in [0, 1]; `config.pbtxt` holds the rest.
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m export.serve",
        description="Write a model repository for NVIDIA Triton Inference Server.",
        allow_abbrev=False,
    )
    parser.add_argument("-n", "--model", required=True, help="model; see 'zoo list'")
    parser.add_argument("-w", "--weights", type=Path, help="weights file, .safetensors or .pth")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the repository")
    parser.add_argument(
        "--backend",
        choices=["onnx", "tensorrt", "both"],
        default="both",
        help="models to write [both]",
    )
    parser.add_argument(
        "--precision", choices=list(DTYPES), default="fp32", help="of its numbers [fp32]"
    )
    parser.add_argument(
        "--engine", type=Path, help="of export.trt --runtime tensorrt [a script builds one]"
    )
    parser.add_argument("--plugin", type=Path, help="plugin library [built where nvcc is]")
    parser.add_argument("--max-batch", type=int, default=8, help="most requests at once [8]")
    parser.add_argument(
        "--delay", type=int, default=2000, help="microseconds a request waits for others [2000]"
    )
    parser.add_argument("--instances", type=int, default=1, help="copies on each device [1]")
    parser.add_argument(
        "--kind", choices=["auto", "gpu", "cpu"], default="auto", help="device of NAME_onnx [auto]"
    )
    parser.add_argument("--min", metavar="HxW", help="smallest input of the engine, as export.trt")
    parser.add_argument("--opt", metavar="HxW", help="the usual one")
    parser.add_argument("--max", metavar="HxW", help="the largest")
    parser.add_argument("--overwrite", action="store_true", help="replace models that are there")
    return parser


def _run(options: argparse.Namespace) -> int:
    check_packages()
    numbers = {
        "--max-batch": options.max_batch,
        "--instances": options.instances,
        "--delay": options.delay + 1,
    }
    for option, number in numbers.items():
        if number < 1:
            least = 0 if option == "--delay" else 1
            raise ServeError(f"{option}: write a number from {least}")
    backends = ["onnx", "tensorrt"] if options.backend == "both" else [options.backend]
    if options.engine is not None and "tensorrt" not in backends:
        raise ServeError("--engine does not go with --backend onnx")
    source = network_of(options.model, options.weights)
    name = Path(options.model).stem
    batch = f"1,{(options.max_batch + 1) // 2},{options.max_batch}"
    burst = source.network.takes_burst
    profile = read_profile(options.min, options.opt, options.max, batch, heavy=burst)
    serving = Serving(options.max_batch, options.delay, options.instances, options.kind)
    check_writable(options.output / name)
    plugin = _plugin(options) if "tensorrt" in backends else None

    import onnx

    logger.info("tracing %s, which takes up to some minutes", options.model)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export(source.network, path, precision=options.precision, weights=source.weights)
        model = onnx.load(path)
    written = write_repository(
        model,
        options.output,
        name,
        profile,
        serving=serving,
        backends=backends,
        engine=options.engine,
        plugin=plugin,
        overwrite=options.overwrite,
    )
    for target in written:
        print(f"wrote {target}")  # noqa: T201
    if "tensorrt" in backends and options.engine is None:
        logger.info("%s has no engine yet: run build_plan.sh in it where it is served", written[-1])
    return 0


def _plugin(options: argparse.Namespace) -> Path | None:
    from trt_plugins.build import BuildError, build

    if options.plugin is not None:
        if not options.plugin.is_file():
            raise ServeError(f"{options.plugin}: the plugin's library does not exist")
        return Path(options.plugin)
    try:
        return build()
    except BuildError as error:
        logger.warning("WARNING: the repository is without %s: %s", PLUGIN, error)
        return None


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Run the command as ``prog``; returns the exit code, 2 for bad input."""
    return run_command(_parser(), _run, arguments, prog=prog)


if __name__ == "__main__":
    sys.exit(main())
