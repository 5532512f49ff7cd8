"""``zoo doctor``: the versions, devices, scan backends and image formats of this installation."""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Sequence

import torch

from zoo.command import package_version, run_command
from zoo.data.formats import FORMATS
from zoo.ops import backends
from zoo.ops.scan.dispatch import ENVIRONMENT, check_environment
from zoo.shipped import list_models, shipped_weights


def main(arguments: Sequence[str] | None = None, prog: str = "zoo doctor") -> int:
    """Run the command under the name ``prog`` and return its exit code; 2 means bad input."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Check the installation, its backends and image formats.",
        allow_abbrev=False,
    )
    return run_command(parser, _run, arguments)


def _run(options: argparse.Namespace) -> None:
    print(f"zoo {package_version()}, Python {platform.python_version()}, torch {torch.__version__}")
    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    threads = torch.get_num_threads()
    print(f"{platform.system()} {platform.machine()}, {threads} threads, CUDA {cuda}")
    print(f"{len(list_models())} models; weights ship for {', '.join(shipped_weights()) or 'none'}")
    print("selective-scan backends, best first:")
    for status in backends():
        print(f"  {'yes' if status.available else 'no ':<4} {status.name:<10} {status.note}")
    print("image files:")
    width = max(len(each.name) for each in FORMATS)
    for each in FORMATS:
        work, missing = "read and written" if each.encode else "read", each.missing()
        note = f"{work}: {', '.join(each.extensions)}" + (f"; {missing}" if missing else "")
        print(f"  {'no' if missing else 'yes':<4} {each.name:<{width}} {note}")
    if requested := os.environ.get(ENVIRONMENT, ""):
        print(f"{ENVIRONMENT}={requested} requests a backend")
    check_environment()
