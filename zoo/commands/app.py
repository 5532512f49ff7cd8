"""``zoo app``: a page in the browser that restores photos."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from zoo.app.models import Models
from zoo.app.server import serve
from zoo.command import run_command, whole
from zoo.distributed import DEVICE, checked_device, default_device

EXAMPLES = """examples:
  zoo app
  zoo app --open -w MambaIR_classicSR_x4.pth -w mambacsr_final=MambaCSR_Q10_Final.pth
  ssh -L 7860:127.0.0.1:7860 server zoo app --port 7860     (the page of another machine)"""


def main(arguments: Sequence[str] | None = None, prog: str = "zoo app") -> int:
    """Run the command under the name ``prog`` and return its exit code; 2 means bad input."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Restore photos on a page in the browser; needs the extra [app].",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "-w",
        "--weights",
        action="append",
        metavar="[MODEL=]FILE",
        help="offer this file of weights, too; may be repeated",
    )
    parser.add_argument("--device", default=default_device(), **DEVICE)
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen at; 0.0.0.0 lets other machines in, without a password [127.0.0.1]",
    )
    parser.add_argument(
        "--port", type=whole("--port", 1, 65535), help="port [the first free one from 7860 on]"
    )
    parser.add_argument(
        "--max-upload",
        type=whole("--max-upload", 1, 2**20),
        default=100,
        metavar="MB",
        help="largest size of a photo's file in megabytes [100]",
    )
    parser.add_argument(
        "--at-once",
        type=whole("--at-once", 1, 1000),
        default=1,
        metavar="N",
        help="visitors whose photos are restored at the same time; the others wait [1]",
    )
    parser.add_argument("--open", action="store_true", help="open the page in a browser")
    return run_command(parser, _run, arguments)


def _run(options: argparse.Namespace) -> None:
    serve(
        Models(options.weights or (), checked_device(options.device)),
        host=options.host,
        port=options.port,
        most_megabytes=options.max_upload,
        at_once=options.at_once,
        open_browser=options.open,
        ready=lambda address: print(f"the page is at {address} (Ctrl-C ends it)", flush=True),
    )
