"""``zoo restore``: restore an image, a burst, or a folder of them."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from zoo.checkpoints.choose import check_scale, choose_network
from zoo.command import COMPAT, named_paths, run_command, whole
from zoo.data.photo import Saving
from zoo.distributed import DEVICE, ProcessGroup, default_device, process_group
from zoo.errors import ZooError
from zoo.inference import RestoreSettings, restore_files
from zoo.networks import Network
from zoo.ops.precision import SLOW_BFLOAT16, TF32, bfloat16_is_slow
from zoo.shipped import EVERYDAY, shipped_weights

logger = logging.getLogger(__name__)

EXAMPLES = """examples:
  zoo restore photo.jpg -o restored.png
  zoo restore photo.png -o restored.png -n mambair_tiny_x2
  zoo restore photos -o restored -n mambair_light_x4 -w light_x4.pth -t 256
  zoo restore photos -o restored -n mambair_tiny_x2 -r --suffix x2 --format jpg

bursts (models qmambabsr*): INPUT is one burst, or a folder of bursts
  A burst is a folder of frames in natural order, with the reference first, or an npz file:
    im_raw_00.png ...   RAW frames: 16-bit PNGs with four channels (the planes R, Gr, Gb, B) and
                        14-bit values, as in the public sets (also BurstSR's samsung_00/im_raw.png)
    *.dng               RAW photos, as phones and HDR+ store them; needs the extra [raw]
    NAME.npz            frames (T, 4 or 3, h, w): floating point in [0, 1], linear for RAW, or
                        integers with white_level
    other images        RGB frames, for qmambabsr_rgb
  Gains and colour matrix are read from meta.json or meta_info.pkl beside the frames (rgb_gain,
  red_gain, blue_gain, rgb2cam). Pickles are read as plain data only; no code in them runs.
  --look selects how a RAW burst becomes a picture:
    camera   gains, matrix to linear sRGB, gamma 2.2, tone curve 3x^2-2x^3; 8 bits
    plain    channels scaled to the same mean, 99th percentile scaled to 0.9, gamma 2.2; 8 bits
    linear   the network's linear camera colours, unchanged; 16 bits
    auto     camera if gains and matrix are known, otherwise plain
  RGB bursts keep their colours and bit depth. To make a burst from any photo, run
  python -m zoo.data.burst PHOTO -o DIR"""


def main(arguments: Sequence[str] | None = None, prog: str = "zoo restore") -> int:
    """Run the command under the name ``prog`` and return its exit code; 2 means bad input."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Restore an image, a burst, or a folder of them.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    # Path would drop a "/" at the end, and turn an empty path into the current folder.
    parser.add_argument("input", help="image file, burst, or a folder of them")
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        help="file or folder to write; a folder if it exists as one, has no suffix, or ends in /",
    )
    parser.add_argument(
        "-r", "--recursive", action="store_true", help="restore the folders in a folder, too"
    )
    parser.add_argument(
        "--suffix",
        metavar="TEXT",
        help="in a folder, name the output of photo.png photo_TEXT.png [the name of the input]",
    )
    parser.add_argument(
        "--format",
        choices=["png", "jpg", "webp", "tif"],
        help="format of outputs in a folder [that of the input, or png]",
    )
    parser.add_argument(
        "-n", "--model", help=f"model; see 'zoo list' [{EVERYDAY}_x2, or _x4 with -s 4]"
    )
    parser.add_argument(
        "-w",
        "--weights",
        type=Path,
        help="weights file, .safetensors or .pth, or hf:OWNER/REPO/FILE on the Hugging Face Hub",
    )
    parser.add_argument("--compat", choices=["official"], help=COMPAT)
    parser.add_argument(
        "--guide",
        action="append",
        metavar="NAME=PATH",
        help="guide that the model needs: a file, or for a folder, a folder of files with the same "
        "names; may be repeated",
    )
    parser.add_argument(
        "--onnx", type=Path, metavar="FILE", help="run this file of zoo export onnx"
    )
    parser.add_argument(
        "--runtime",
        choices=["onnxruntime", "openvino"],
        help="with --onnx: what runs the file [onnxruntime]; for openvino, export it with "
        "--for openvino",
    )
    parser.add_argument(
        "--engine", type=Path, metavar="FILE", help="run this engine of zoo export trt, on a GPU"
    )
    parser.add_argument(
        "--plugin", type=Path, help="library of the plugin, for --engine [built if needed]"
    )
    parser.add_argument(
        "--trust-engine",
        action="store_true",
        help="with --engine: run the code embedded in the engine",
    )
    parser.add_argument(
        "-s",
        "--scale",
        type=whole("--scale", 1, 64),
        help="scale, if -n omits it: -n mambair_light -s 2, or without -n, 2 or 4",
    )
    parser.add_argument(
        "-t",
        "--tile",
        type=whole("--tile", 0),
        help="largest side of a tile in pixels, 0 for no tiles [as large as free memory allows; "
        "where that is unknown, 512, or 128 for bursts]",
    )
    parser.add_argument(
        "--overlap",
        type=whole("--overlap", 0),
        help="least overlap of tiles in pixels [what the network needs, 16 to 32]",
    )
    parser.add_argument(
        "--ensemble",
        action="store_true",
        help="average over 8 flips and quarter turns; takes 8 times as long",
    )
    parser.add_argument(
        "--precision",
        choices=["fp32", "bf16", "fp16", "auto"],
        default="fp32",
        help="precision of the layers; the scan's state is always fp32; auto measures once whether "
        "bf16 is faster here, and keeps the answer [fp32]",
    )
    parser.add_argument("--tf32", action="store_true", help=TF32)
    parser.add_argument("--device", **DEVICE)
    parser.add_argument(
        "--overwrite", action="store_true", help="overwrite existing outputs [they are skipped]"
    )
    parser.add_argument(
        "--quality",
        type=whole("--quality", 1, 100),
        help="quality of JPEG and WebP outputs, 1 to 100 [JPEG: 95; WebP: lossless]",
    )
    parser.add_argument(
        "--lossless",
        action="store_true",
        help="refuse outputs that would lose colours; WebP is lossless unless --quality is given",
    )
    parser.add_argument(
        "--strip-metadata",
        action="store_true",
        help="write pixels only, without colour profile, EXIF, XMP and resolution",
    )
    parser.add_argument(
        "--range",
        nargs=2,
        type=float,
        metavar=("LOW", "HIGH"),
        help="values of the files that are black and white, for data that is no photograph [those "
        "of the training; levels: 0 and the largest; floating point: 0 and 1]",
    )
    parser.add_argument(
        "--random-weights", action="store_true", help="use an untrained network, for tests"
    )
    parser.add_argument(
        "--look",
        choices=["auto", "camera", "plain", "linear"],
        default="auto",
        help="how a RAW burst becomes a picture; see below [auto]",
    )
    return run_command(parser, _run, arguments)


def _run(options: argparse.Namespace) -> None:
    """Restore an image, a burst or a folder; processes started by torchrun share the work."""
    with process_group() as group:
        network = _network(options, group)
        device = group.device(options.device or default_device())
        network = network.to(device)
        if options.precision == "bf16" and bfloat16_is_slow(device):
            logger.warning("--precision bf16: %s", SLOW_BFLOAT16)
        if options.tile == 0 and options.overlap is not None:
            logger.warning("--overlap has no effect: with -t 0 there are no tiles")
        report = restore_files(
            network,
            options.input,
            options.output,
            RestoreSettings(
                tile=options.tile,
                overlap=options.overlap,
                ensemble=options.ensemble,
                precision=options.precision,
                tf32=options.tf32,
            ),
            suffix=options.suffix or "",
            format=options.format or "",
            recursive=options.recursive,
            overwrite=options.overwrite,
            look=options.look,
            guides=named_paths("--guide", options.guide),
            saving=Saving(
                quality=options.quality,
                lossless=options.lossless,
                metadata=not options.strip_metadata,
            ),
            value_range=options.range and tuple(options.range),
            group=group,
        )
        if group.is_first:
            print(report)


def _network(options: argparse.Namespace, group: ProcessGroup) -> Network:
    for option, given in (("--plugin", options.plugin), ("--trust-engine", options.trust_engine)):
        if given and options.engine is None:
            raise ZooError(f"{option} is for engines: give the file with --engine")
    if options.onnx is not None or options.engine is not None:
        return _exported_network(options, group)
    if options.runtime is not None:
        raise ZooError("--runtime chooses what runs an ONNX file: give the file with --onnx")
    return choose_network(
        _model(options, group),
        options.weights,
        scale=options.scale,
        random_weights=options.random_weights,
        overrides={} if options.compat is None else {"compat": options.compat},
    )


def _model(options: argparse.Namespace, group: ProcessGroup) -> str | None:
    """Return the model that is named; where no weights are either, the one for photos."""
    if options.model is not None or options.weights is not None or options.random_weights:
        return options.model
    model = f"{EVERYDAY}_x{options.scale or 2}"
    if model not in shipped_weights():
        raise ZooError(f"-s {options.scale}: without -n, the scale is 2 or 4; name a model with -n")
    if group.is_first:
        logger.info("no model is named: %s restores, which is for photos; -n names another", model)
    return model


def _exported_network(options: argparse.Namespace, group: ProcessGroup) -> Network:
    option, path = ("--engine", options.engine) if options.engine else ("--onnx", options.onnx)
    given = {
        "--onnx": option == "--engine" and options.onnx is not None,
        "-n": options.model is not None,
        "-w": options.weights is not None,
        "--random-weights": options.random_weights,
        "--compat": options.compat is not None,
        "--precision": options.precision != "fp32",
        "--tf32": options.tf32,
        "--device": options.device is not None,
        "--runtime": option == "--engine" and options.runtime is not None,
    }
    for other, there in given.items():
        if there:
            raise ZooError(f"{other} does not go with {option}: the file sets it; leave it out")
    if options.engine:
        from trt_plugins.build import build
        from zoo.integrations.tensorrt import load_engine

        if torch.cuda.is_available():
            group.device("cuda")  # an engine runs on the current device: one for each process
        plugin = options.plugin or build
        engine = load_engine(path, plugin=plugin, trusted=options.trust_engine)
        engine.check()
        if options.tile is None:
            options.tile = engine.largest_side
        network: Network = engine
    elif options.runtime == "openvino":
        from zoo.integrations.openvino import load_openvino

        network = load_openvino(path)
    else:
        from zoo.integrations.onnxruntime import load_onnx

        network = load_onnx(path)
    check_scale(network, options.scale, str(path))
    options.device = "cpu"  # the runtime places the tensors itself
    return network
