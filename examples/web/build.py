"""Makes the folder of a web page that enlarges photos in the browser, without a server program.

    python examples/web/build.py site
    python -m http.server -d site        # then open http://localhost:8000

The folder holds this page, an exported network, and onnxruntime-web, which npm downloads. Any web
host of plain files can serve it. Browsers do not run it from a file path.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import zoo
from export.onnx import export
from zoo.errors import ZooError

MODEL = "mambair_tiny_x2"
HERE = Path(__file__).parent
PAGE = ("index.html", "app.js", "worker.js", "tiles.js")
RUNTIME = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")


def build(folder: Path, dist: Path | None = None) -> None:
    """Write the page to a folder.

    Args:
        folder: where to write.
        dist: the folder ``dist`` of an installed onnxruntime-web; None to install it by npm.

    Raises:
        ZooError: if npm is missing or fails, or the network cannot be exported.
    """
    (folder / "ort").mkdir(parents=True, exist_ok=True)
    for name in PAGE:
        shutil.copy(HERE / name, folder)
    with tempfile.TemporaryDirectory() as made:
        dist = dist or _installed(Path(made))
        for name in RUNTIME:
            shutil.copy(dist / name, folder / "ort")
    export(zoo.load(MODEL), folder / "model.onnx", weights="shipped")


def _installed(folder: Path) -> Path:
    command = ["npm", "install", "--silent", "--ignore-scripts", "--prefix", str(folder)]
    try:
        subprocess.run([*command, "onnxruntime-web"], check=True)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        raise ZooError(f"npm cannot install onnxruntime-web: {error}") from error
    return folder / "node_modules/onnxruntime-web/dist"


def main() -> int:
    """Run the command and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="folder to write")
    folder = parser.parse_args().folder
    try:
        build(folder)
    except (ZooError, OSError) as error:
        sys.stderr.write(f"build: error: {error}\n")
        return 2
    print(f"wrote {folder}; to try it: {sys.executable} -m http.server -d {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
