"""Runs ONNX files in one runtime, for onnx_runtimes.py and tests. It needs NumPy and that runtime.

    python run_files.py RUNTIME CASES.json

RUNTIME is a key of ``RUNTIMES``. CASES.json lists the cases: ``model`` is the path of a file,
``inputs`` has for each input its ``file`` (raw numbers), ``shape`` and ``type`` (of NumPy), and
``output`` is the path for the raw float32 output. Prints the version of the runtime, and then a
JSON object for each case: ``shape`` and ``seconds``, or ``error``.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

Run = Callable[[dict[str, Any]], Any]
"""Computes the output from the inputs by name."""


def in_onnxruntime(model: str | bytes) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(["output"], inputs)[0]


def in_openvino(path: str) -> Run:
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    model = core.compile_model(path, "CPU", settings)
    return lambda inputs: model(inputs)["output"]


def in_reference(path: str) -> Run:
    from onnx.reference import ReferenceEvaluator

    evaluator: Any = ReferenceEvaluator(path)
    return lambda inputs: evaluator.run(["output"], inputs)[0]


def after(tool: Callable[[Any], Any]) -> Callable[[str], Run]:
    """ONNX Runtime, with the file that a tool makes of the file."""

    def opened(path: str) -> Run:
        import onnx

        return in_onnxruntime(tool(onnx.load(path)).SerializeToString())

    return opened


def slimmed(model: Any) -> Any:
    import onnxslim

    return onnxslim.slim(model)


def simplified(model: Any) -> Any:
    import onnxsim

    found, right = onnxsim.simplify(model)
    if not right:
        raise ValueError("onnxsim says that its own file differs")
    return found


def inlined(model: Any) -> Any:
    import onnx.inliner

    return onnx.inliner.inline_local_functions(model)


def converted(model: Any) -> Any:
    import onnx.version_converter

    return onnx.version_converter.convert_version(model, 21)


def halved(model: Any) -> Any:
    from onnxconverter_common import float16

    return float16.convert_float_to_float16(model, keep_io_types=True)


RUNTIMES: dict[str, tuple[str, Callable[[str], Run]]] = {
    "onnxruntime": ("onnxruntime", in_onnxruntime),
    "openvino": ("openvino", in_openvino),
    "onnx.reference": ("onnx", in_reference),
    "onnxslim": ("onnxslim", after(slimmed)),
    "onnxsim": ("onnxsim", after(simplified)),
    "onnx.inliner": ("onnx", after(inlined)),
    "onnx.version_converter": ("onnx", after(converted)),
    "onnxconverter-common float16": ("onnxconverter-common", after(halved)),
}
"""The package of each runtime or tool, and what opens a file in it."""


def run_case(opened: Callable[[str], Run], case: dict[str, Any]) -> dict[str, Any]:
    inputs = {
        name: np.fromfile(value["file"], value["type"]).reshape(value["shape"])
        for name, value in case["inputs"].items()
    }
    try:
        run = opened(case["model"])
        begun = time.process_time()
        output = np.ascontiguousarray(run(inputs), np.float32)
        seconds = time.process_time() - begun
    except Exception as error:  # each runtime has errors of its own
        return {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"}
    output.tofile(case["output"])
    return {"shape": output.shape, "seconds": seconds}


def main() -> None:
    name, cases = sys.argv[1:]
    package, opened = RUNTIMES[name]
    print(json.dumps({"version": version(package)}), flush=True)
    for case in json.loads(Path(cases).read_text()):
        print(json.dumps(run_case(opened, case)), flush=True)


if __name__ == "__main__":
    main()
