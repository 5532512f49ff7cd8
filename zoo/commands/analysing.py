"""What the commands ``zoo analyse ...`` share: options, network, parts of photos, files.

Shape suffixes: I image channels, H height, W width in pixels, C 3 colours.
"""

from __future__ import annotations

import argparse
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from zoo.analysis.probing import check_network
from zoo.checkpoints.choose import choose_network
from zoo.command import COMPAT, parse_size
from zoo.data.images import Photo, list_photos, read_photo, write_photo
from zoo.data.inputs import read_input
from zoo.data.npy import arrays_of
from zoo.data.pixels import to_tensor, with_channels
from zoo.distributed import DEVICE, checked_device, default_device
from zoo.errors import ImageError, ZooError
from zoo.files import check_writable, is_same_file, write_bytes
from zoo.networks import Network

T = TypeVar("T")


def add_options(parser: argparse.ArgumentParser, *, side: int, several: bool) -> None:
    """Add the options that all analyses share.

    Args:
        parser: parser of the command.
        side: largest side in pixels of the part of a photo that is used by default.
        several: whether the command takes several photos.
    """
    parser.add_argument("name", help="a model, a recipe file (.yaml) or a file of weights")
    what = "photo, or folder of photos" if several else "photo"
    parser.add_argument(
        "photos" if several else "photo",
        nargs="+" if several else None,
        type=Path,
        metavar="PHOTO",
        help=f"{what}: what the network restores, so a small one for super-resolution",
    )
    parser.add_argument(
        "-w", "--weights", type=Path, metavar="FILE", help="weights [those in the package]"
    )
    parser.add_argument(
        "--random-weights", action="store_true", help="use an untrained network, for tests"
    )
    parser.add_argument("--compat", choices=["official"], help=COMPAT)
    parser.add_argument(
        "--size",
        metavar="HxW",
        help=f"height x width in pixels of the part that is used [{side}x{side}, or what fits]",
    )
    parser.add_argument("--device", default=default_device(), **DEVICE)
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        help="picture to write, such as a.png; its numbers are written to a.npz",
    )


def check_outputs(output: Path, inputs: Sequence[Path | None]) -> None:
    """Check, before long work, that the picture and its numbers can be written.

    Args:
        output: the picture; its numbers have the same name with the suffix ``.npz``.
        inputs: what the command reads, which is never replaced.

    Raises:
        ZooError: if they cannot, the picture has no name of an image file, or another file than
            an analysis wrote would be replaced.
    """
    if not output.name:
        raise ZooError(f"-o {output}: it is a folder; name a picture in it, such as analysis.png")
    numbers = output.with_suffix(".npz")
    if output.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"):
        raise ZooError(f"-o {output}: name a picture, such as {output.with_suffix('.png').name}")
    for path in (output, numbers):
        if any(given is not None and is_same_file(path, given) for given in inputs):
            raise ZooError(f"-o {output}: {path} is an input and would be lost; give another name")
        check_writable(path)
    if any(p is not None and p.is_dir() and is_same_file(output.parent, p) for p in inputs):
        raise ZooError(
            f"-o {output}: {output.parent} is a folder of photos, and the picture would count as "
            "one of them in the next run; write it elsewhere"
        )
    if numbers.exists() and not output.exists():
        raise ZooError(
            f"-o {output}: {numbers}, where its numbers would go, is a file of something else; "
            "give another name"
        )
    if output.exists() and not numbers.exists():
        raise ZooError(
            f"-o {output}: it is there without {numbers.name}, so it may be no picture of an "
            "analysis; give another name, or delete it"
        )


def chosen_network(options: argparse.Namespace) -> Network:
    """Return the network that the options choose, on its device.

    Raises:
        ZooError: if there is no such network, or it takes bursts or guides.
    """
    device = checked_device(options.device)
    name = Path(options.name)
    is_weights = options.weights is None and name.suffix not in (".yaml", ".yml") and name.is_file()
    network = choose_network(
        None if is_weights else options.name,
        name if is_weights else options.weights,
        random_weights=options.random_weights,
        overrides={} if options.compat is None else {"compat": options.compat},
    )
    check_network(network)
    return network.to(device)


class Part(NamedTuple):
    """A part of a photo.

    Attributes:
        image_IHW: its pixels, float32 in [0, 1], with the channels of the network.
        row: row in the part of the place that it was cut around.
        column: column in the part of that place.
    """

    image_IHW: Tensor
    row: int
    column: int


def parse_place(option: str, text: str) -> tuple[int, int]:
    """Parse ``--at ROW,COLUMN``.

    Raises:
        ZooError: if the text is not two whole numbers of at least 0.
    """
    found = re.fullmatch(r"([0-9]{1,9}),([0-9]{1,9})", text)
    if found is None:
        raise ZooError(f"{option} {text[:30]}: write ROW,COLUMN in pixels from 0, such as 40,64")
    return int(found[1]), int(found[2])


def photo_paths(given: Iterable[Path]) -> list[Path]:
    """Return the photos that are given, and those in folders that are given."""
    found: list[Path] = []
    for path in given:
        found += list_photos(path) if path.is_dir() else [path]
    return found


def parts_of(
    network: Network,
    paths: Sequence[Path],
    *,
    size: str | None,
    side: int,
    at: tuple[int, int] | None = None,
    covers: int = 1,
) -> list[Part]:
    """Read photos, and cut the same size out of each, around a place.

    Args:
        network: the network; it sets the channels.
        paths: the photos.
        size: value of ``--size``; None for the largest part that all photos have, up to ``side``.
        side: largest side of a part if no size is given.
        at: row and column of the place in each photo; None for the middle.
        covers: side in pixels of the place, which is to be inside.

    Raises:
        ImageError: if a photo cannot be read, is smaller than the size, or has no such place.
        ZooError: if the size is not HxW.
    """
    if size is not None:
        height, width = parse_size(size, "pixels")
    else:  # read twice, so that never more than one photo is in memory
        shapes = [read_photo(path).color_HWC.shape for path in paths]
        height, width = (min(side, *(shape[axis] for shape in shapes)) for axis in (0, 1))
    found = []
    for path in paths:
        image_HWC = with_channels(read_photo(path).color_HWC, network.channels)
        found.append(_part(path, image_HWC, height, width, at, covers))
    return found


def _part(
    path: Path,
    image_HWC: np.ndarray,
    height: int,
    width: int,
    at: tuple[int, int] | None,
    covers: int,
) -> Part:
    tall, wide = image_HWC.shape[:2]
    if height > tall or width > wide:
        raise ImageError(
            f"{path} has {tall} x {wide} pixels, fewer than --size {height}x{width}; give a "
            "smaller size"
        )
    if height < covers or width < covers:
        raise ImageError(
            f"{path}: a target of {covers} x {covers} pixels does not fit into the part of "
            f"{height} x {width}; give a larger --size or a smaller --side"
        )
    row, column = (tall // 2 - covers // 2, wide // 2 - covers // 2) if at is None else at
    if row + covers > tall or column + covers > wide:
        raise ImageError(
            f"--at {row},{column}: outside {path}, which has {tall} x {wide} pixels, or too near "
            "to its lower or right border"
        )
    top = min(max(row + covers // 2 - height // 2, 0), tall - height)
    left = min(max(column + covers // 2 - width // 2, 0), wide - width)
    part_IHW = to_tensor(image_HWC[top : top + height, left : left + width])
    return Part(part_IHW, row - top, column - left)


def read_beside(path: Path, names: Iterable[str]) -> dict[str, Any]:
    """Read the numbers of an earlier analysis.

    Args:
        path: the npz file that the command wrote.
        names: the arrays that it must have.

    Raises:
        ImageError: if it cannot be read.
        ZooError: if an array is missing.
    """
    found = arrays_of(path, read_input(path, "npz file"), lambda _name: None)
    missing = [name for name in names if name not in found]
    if missing:
        raise ZooError(
            f"--beside {path}: it has no array {missing[0]!r}, so this command has not written it; "
            "give the .npz file beside an earlier picture"
        )
    return found


def write_outputs(output: Path, pixels_HWC: np.ndarray, arrays: Mapping[str, Any]) -> None:
    """Write the picture and its numbers, and say so."""
    held = io.BytesIO()
    plain = {name: _plain(value) for name, value in arrays.items()}
    np.savez_compressed(held, **plain)  # type: ignore[arg-type]  # no array is a flag
    numbers = output.with_suffix(".npz")
    write_photo(output, Photo(pixels_HWC.astype(np.float32) / 255))
    write_bytes(numbers, held.getvalue())
    print(f"wrote {output} and {numbers}")


def _plain(value: Any) -> np.ndarray:
    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)


def shown_progress(what: str, total: int) -> tqdm[Any]:
    """Return a progress bar; it is shown on a terminal only."""
    return tqdm(desc=what, total=total, disable=None, leave=False)
