"""What every installation must do, in a minute: run it with the Python that has the package.

    python tests/smoke.py

It needs the core dependencies only, and tests the installed package, not the checkout. ``make
test-oldest`` runs it with the oldest versions that are promised.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

import zoo
from zoo.data.images import Photo, read_photo, write_photo
from zoo.ops.scan import native, request


def command(*words: str | Path) -> str:
    """Run ``zoo`` and return what it prints."""
    line = [sys.executable, "-m", "zoo", *map(str, words)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{line}: {done.stderr}"
    return done.stdout


def check_backends() -> None:
    """The kernel, where there is one, and the portable backend give the same."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, 20, 28, generator=generator)
    network = zoo.load("mambair_tiny_x2").eval()
    found = {}
    for status in zoo.backends():
        if status.available and status.name in ("native", "chunked", "reference"):
            with torch.no_grad(), zoo.use_backend(status.name):
                found[status.name] = network(image)
    expected = found["reference"]
    assert expected.shape == (1, 3, 40, 56) and expected.isfinite().all()
    for name, output in found.items():
        # Sums of some hundred terms in another sequence, through a whole network.
        assert (output - expected).abs().max() < 1e-4, name
    assert ("native" in found) == native.LIBRARY.exists()


def check_references() -> None:
    """What PyTorch hands on to backward passes is not freed while it is used."""
    for number in range(1000, 1100):
        value = (number, "chunked")
        before = sys.getrefcount(value)
        with request.request("chunked"):
            request._hand_on(value)
            request._hand_on(None)
        assert sys.getrefcount(value) == before


def check_training() -> None:
    """Some networks learn a step, and their weights are the same after a file."""
    for name in ("mambair_tiny_x2", "mambairv2_tiny_x2", "mambacsr_tiny_x2"):
        network = zoo.build(name)
        output = network(torch.rand(1, 3, 16, 16))
        output.square().mean().backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters()), name
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.safetensors"
        zoo.save(network, path)
        again = zoo.load(path)
    for mine, theirs in zip(network.parameters(), again.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def check_commands(folder: Path) -> None:
    """The commands of the README that need no weights of others."""
    assert "mambair_tiny_x2" in command("list")
    assert "selective-scan backends" in command("doctor")
    assert zoo.__version__ in command("--version")
    ramp = np.linspace(0, 1, 40 * 30 * 3, dtype=np.float32).reshape(40, 30, 3)
    write_photo(folder / "photo.png", Photo(ramp))
    output = folder / "restored.png"
    command("restore", folder / "photo.png", "-o", output, "-n", "mambair_tiny_x2", "-t", "24",
            "--overlap", "8")  # fmt: skip
    assert read_photo(output).color_HWC.shape == (80, 60, 3)
    command("scans", "plot", "hilbert", "--size", "8x8", "-o", folder / "hilbert.png")


def main() -> None:
    check_backends()
    check_references()
    check_training()
    with tempfile.TemporaryDirectory() as folder:
        check_commands(Path(folder))
    kernel = native.level() if native.LIBRARY.exists() else "none"
    sys.stdout.write(
        f"passed: Python {sys.version.split()[0]}, torch {torch.__version__}, numpy "
        f"{np.__version__}, kernel {kernel}, {zoo.__file__}\n"
    )


if __name__ == "__main__":
    main()
