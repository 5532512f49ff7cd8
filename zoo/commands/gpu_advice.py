"""What to do where there is an NVIDIA GPU and PyTorch does not find it: other build, newer driver.

The machine is asked without PyTorch, and without running a program: a Jetson has no nvidia-smi.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import torch

ROOT = Path("/")

DRIVERS = {12: 525, 13: 580}
"""The oldest driver for each major version of CUDA; see NVIDIA's page on CUDA compatibility."""

INDEX = "https://download.pytorch.org/whl"
JETSON_INDEX = "https://pypi.jetson-ai-lab.io/jp6/cu126"
"""Where builds of PyTorch are: for computers, below this address, and for JetPack 6."""


def on_jetson() -> bool:
    """Whether this machine is a Jetson."""
    return (ROOT / "etc/nv_tegra_release").is_file()


def nvidia_driver() -> str | None:
    """Return the version of NVIDIA's driver: "" if there is one of unknown version, or None."""
    try:
        text = (ROOT / "proc/driver/nvidia/version").read_text()
    except OSError:
        return "" if on_jetson() or shutil.which("nvidia-smi") else None
    found = re.search(r"\b\d{3}\.\d+(\.\d+)?\b", text)
    return found[0] if found else ""


def gpu_that_pytorch_misses() -> str | None:
    """Return a sentence with the fix if the machine has NVIDIA's driver and PyTorch no GPU."""
    driver = nvidia_driver()
    if torch.cuda.is_available() or torch.version.hip or driver is None:
        return None
    if torch.version.cuda is None:
        place, machine = (
            f"{INDEX}/cu130, or {INDEX}/cu126 for drivers before 580",
            "NVIDIA's driver",
        )
        if on_jetson():
            place, machine = f"{JETSON_INDEX} for JetPack 6", "the GPU of a Jetson"
        return (
            f"this machine has {machine}, but this PyTorch is the build for CPUs; for the GPU, "
            f"install another one in a new environment: pip install torch --index-url {place}"
        )
    oldest = DRIVERS.get(int(torch.version.cuda.partition(".")[0]))
    if driver and oldest and int(driver.partition(".")[0]) < oldest:
        return (
            f"this PyTorch is built for CUDA {torch.version.cuda}, which needs NVIDIA's driver "
            f"{oldest} or later, and this machine has {driver}, so PyTorch finds no GPU; update "
            f"the driver, or install an older build: pip install torch --index-url {INDEX}/cu126"
        )
    return None
