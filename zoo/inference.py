"""Restoring photographs: any size and mode, whole or in tiles, one file or a folder.

Shape suffixes: B batch, I image channels, H height, W width in pixels, s scale.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from zoo.data.bicubic import resize_bicubic
from zoo.data.images import EXTENSIONS, Photo, list_photos, read_photo, with_channels, write_photo
from zoo.distributed import Workers
from zoo.errors import ImageError, ZooError
from zoo.networks import Network
from zoo.registry import capabilities_of
from zoo.tiling import (
    OVERLAP,
    SMALLEST_TILE,
    Run,
    default_tile,
    fitting_tile,
    in_tiles,
    is_out_of_memory,
    memory_of,
)

logger = logging.getLogger(__name__)

Precision: TypeAlias = Literal["fp32", "bf16", "fp16"]

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class RestoreSettings:
    """How an image is put through a network.

    Attributes:
        tile: side of a tile in input pixels, or 0 for the whole image at once. None: on a GPU as
            large as its free memory holds, elsewhere 512, and for bursts 128.
        overlap: pixels that neighbouring tiles share; they are blended there.
        ensemble: average over the eight flips and quarter turns ("+" in the papers): eight times
            the work for about 0.1 dB.
        precision: "fp32", or "bf16" or "fp16" for layers that bear it; the scan's state stays
            float32.

    Raises:
        ZooError: for values that make no sense together.
    """

    tile: int | None = None
    overlap: int = OVERLAP
    ensemble: bool = False
    precision: Precision = "fp32"

    def __post_init__(self) -> None:
        if (self.tile or 0) < 0 or self.overlap < 0:
            raise ZooError(
                f"tile is {self.tile} and overlap {self.overlap}; both are pixels, 0 or more"
            )
        if self.tile and self.tile < 2 * self.overlap:
            raise ZooError(
                f"tile {self.tile} is less than twice the overlap {self.overlap}; "
                "use larger tiles or a smaller overlap"
            )
        if self.precision not in ("fp32", *_DTYPES):
            raise ZooError(f"precision {self.precision!r} is none of fp32, bf16, fp16")


def restore(
    network: Network,
    source: str | Path,
    target: str | Path,
    *,
    tile: int | None = None,
    overlap: int = OVERLAP,
    ensemble: bool = False,
    precision: Precision = "fp32",
    overwrite: bool = False,
    progress: bool = True,
    look: str = "auto",
    members: Workers | None = None,
) -> list[Path]:
    """Restore an image file or all images of a folder; with a burst network, bursts.

    Gray, colour, alpha, 8 and 16 bits are kept. A colour photo goes through a gray network channel
    by channel; alpha is enlarged by bicubic interpolation.

    Args:
        network: what restores.
        source: an image file or a folder of them.
        target: file or folder to write; a folder is made where it is missing.
        tile: see :class:`RestoreSettings`, as for the next three.
        overlap: likewise.
        ensemble: likewise.
        precision: likewise.
        overwrite: write over outputs that exist; otherwise they are skipped.
        progress: show a progress bar.
        look: of RAW bursts, see :func:`zoo.burst_inference.developed`.
        members: processes that share the files, each taking the next when it is free; this one
            alone, if None.

    Returns:
        The files that were written, by all processes.

    Raises:
        ImageError: for images that cannot be read or written. In a folder the others are still
            restored, and the error comes at the end.
        ZooError: for settings that make no sense.
    """
    members = members or Workers()
    settings = RestoreSettings(tile=tile, overlap=overlap, ensemble=ensemble, precision=precision)
    if capabilities_of(network).input == "burst":
        from zoo import burst_inference  # it builds on this module

        return burst_inference.restore_bursts(
            network,  # type: ignore[arg-type]
            source,
            target,
            settings,
            look=look,  # type: ignore[arg-type]
            overwrite=overwrite,
            progress=progress,
            members=members,
        )
    many = Path(source).is_dir()

    def one(image: Path, output: Path) -> None:
        result = restore_photo(network, read_photo(image), settings, progress and not many)
        output.parent.mkdir(parents=True, exist_ok=True)
        write_photo(output, result)

    # One process looks: the others could already see outputs of this run.
    waiting = members.from_first(
        lambda: without_existing(_jobs(Path(source), Path(target)), overwrite)
    )
    return restore_each(waiting, one, "image", many=many, progress=progress, members=members)


def without_existing(jobs: list[tuple[Path, Path]], overwrite: bool) -> list[tuple[Path, Path]]:
    """The jobs, input and output, whose output is missing; all of them to overwrite."""
    waiting = [job for job in jobs if overwrite or not job[1].exists()]
    if len(waiting) < len(jobs):
        logger.info("%d existing outputs are kept; overwrite to redo", len(jobs) - len(waiting))
    return waiting


def restore_each(
    jobs: list[tuple[Path, Path]],
    one: Callable[[Path, Path], None],
    unit: str,
    *,
    many: bool,
    progress: bool,
    members: Workers,
) -> list[Path]:
    """Do jobs, shared among processes; one that fails does not stop the others.

    Args:
        jobs: input and output of each.
        one: does one.
        unit: what a job is called.
        many: whether several were asked for, so that an error counts them.
        progress: show a progress bar where there are several.
        members: the processes; each takes the next job when it is free.

    Returns:
        The outputs that were written, by all processes.

    Raises:
        ImageError: at the end, if any failed.
    """
    written: list[Path] = []
    failures: list[ImageError] = []
    hidden = not (progress and many and members.first) or None
    task = f"restore/{jobs[0][1]}" if jobs else "restore"
    with tqdm(total=len(jobs), unit=unit, disable=hidden) as bar:
        for number in members.claim(len(jobs), task):
            bar.update(number - bar.n)
            source, output = jobs[number]
            try:
                one(source, output)
                written.append(output)
            except (ImageError, OSError) as error:
                failures.append(_as_image_error(error, output))
        everyone = members.gather((written, failures))
        bar.update(len(jobs) - bar.n)
    failures = [failure for _, failed in everyone for failure in failed]
    if failures and not many:
        raise failures[0]
    if failures:
        raise ImageError(
            f"{len(failures)} of {len(jobs)} {unit}s failed, the others are done; "
            f"the first: {failures[0]}"
        )
    return [path for done, _ in everyone for path in done]


def restore_photo(
    network: Network, photo: Photo, settings: RestoreSettings | None = None, progress: bool = False
) -> Photo:
    """Restore one photo in memory; see :func:`restore`."""
    settings = settings or RestoreSettings()
    channels = photo.color_HWC.shape[2]
    if network.channels == 1:
        color_BIHW = _to_tensor(photo.color_HWC).transpose(0, 1)  # channels as a batch
    else:
        color_BIHW = _to_tensor(with_channels(photo.color_HWC, network.channels))
    restored_BIHW = restore_tensor(network, color_BIHW, settings, progress)
    if network.channels == 1:
        restored_BIHW = restored_BIHW.transpose(0, 1)
    color_HWC = _to_array(restored_BIHW)
    if network.channels != 1:
        color_HWC = with_channels(color_HWC, channels)
    alpha_HW = photo.alpha_HW
    if alpha_HW is not None and network.scale > 1:
        enlarged = resize_bicubic(_to_tensor(alpha_HW[..., None]), network.scale)
        alpha_HW = _to_array(enlarged)[..., 0]
    return Photo(color_HWC, alpha_HW, photo.bit_depth)


@torch.inference_mode()
def restore_tensor(
    network: Network,
    image_BIHW: Tensor,
    settings: RestoreSettings | None = None,
    progress: bool = False,
) -> Tensor:
    """Restore images in memory.

    Args:
        network: what restores; it is used in evaluation mode, on its own device.
        image_BIHW: float32 in [0, 1]; a burst has its frames before the channels.
        settings: tiles, ensemble, precision.
        progress: show a progress bar over tiles.

    Returns:
        (B, I, s*H, s*W) float32 in [0, 1], on the CPU.
    """
    settings = settings or RestoreSettings()
    device = next(network.parameters()).device
    run, memory = _runner(network, settings), memory_of(device)
    was_training = network.training
    network.eval()
    tile, sized = settings.tile, settings.tile is not None
    try:
        while True:
            try:
                if not sized:
                    tile, sized = default_tile(image_BIHW), True
                    tile = fitting_tile(run, image_BIHW, settings.overlap, memory)
                return _restored(network, run, image_BIHW, tile or 0, settings.overlap, progress)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                tile = _smaller(tile or max(image_BIHW.shape[-2:]), settings.overlap, error)
            # Behind the handler: the error holds on to what was computed until it failed.
            logger.warning("memory ran out; trying tiles of %d pixels", tile)
            if memory is not None:
                memory.release()
    finally:
        network.train(was_training)


def _smaller(tile: int, overlap: int, error: Exception) -> int:
    if tile // 2 < max(SMALLEST_TILE, 2 * overlap):
        raise ZooError(
            f"memory ran out even with tiles of {tile} pixels; close other programs, "
            "use a smaller model or a smaller overlap"
        ) from error
    return tile // 2


def _restored(
    network: Network, run: Run, image_BIHW: Tensor, tile: int, overlap: int, progress: bool
) -> Tensor:
    grid = capabilities_of(network).size_multiple
    if tile:
        tile = max(grid, tile // grid * grid)
    return in_tiles(
        run,
        image_BIHW,
        scale=network.scale,
        # A burst of RAW planes has four channels, its image three.
        channels=3 if image_BIHW.dim() == 5 else network.channels,
        tile=tile,
        overlap=overlap,
        progress=progress,
    ).clamp(0, 1)


def _runner(network: Network, settings: RestoreSettings) -> Run:
    parameter = next(network.parameters())

    def once(image_BIHW: Tensor) -> Tensor:
        image_BIHW = image_BIHW.to(parameter.device, parameter.dtype)
        if parameter.device.type == "cuda":
            image_BIHW = channels_last(image_BIHW)
        with _autocast(parameter.device, settings.precision):
            return network(image_BIHW).float().cpu()

    def ensemble(image_BIHW: Tensor) -> Tensor:
        total = None
        for turn in range(8):
            turned = _turn(once(_turn(image_BIHW, turn)), turn, back=True)
            total = turned if total is None else total + turned
        assert total is not None
        return total / 8

    return ensemble if settings.ensemble else once


def channels_last(image_BIHW: Tensor) -> Tensor:
    """The same images with the channels of a pixel side by side in memory.

    Convolutions on a GPU are faster so and pass it on, and tokens are stored so anyway. It works
    for bursts too, for which PyTorch has no memory format.
    """
    return image_BIHW.movedim(-3, -1).contiguous().movedim(-1, -3)


def _turn(image_BIHW: Tensor, turn: int, *, back: bool = False) -> Tensor:
    """One of the eight flips and quarter turns, or its inverse."""
    quarters, flipped = turn % 4, turn >= 4
    if back:
        turned = image_BIHW.rot90(-quarters, (2, 3))
        return turned.flip(3) if flipped else turned
    turned = image_BIHW.flip(3) if flipped else image_BIHW
    return turned.rot90(quarters, (2, 3))


def _autocast(device: torch.device, precision: Precision) -> AbstractContextManager[None]:
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, _DTYPES[precision])


def _jobs(source: Path, target: Path) -> list[tuple[Path, Path]]:
    """Pairs of input and output file."""
    if source.is_dir():
        if target.is_file():
            raise ImageError(f"{target}: the input is a folder, so the output must be one")
        pairs = [(image, target / image.name) for image in list_photos(source)]
    elif target.is_dir() or target.suffix.lower() not in EXTENSIONS:
        pairs = [(source, target / source.name)]
    else:
        pairs = [(source, target)]
    for image, output in pairs:
        if image.resolve() == output.resolve():
            raise ImageError(f"{output}: the output would replace the input; choose another place")
    return pairs


def _as_image_error(error: Exception, output: Path) -> ImageError:
    if isinstance(error, ImageError):
        return error
    reason = error.strerror if isinstance(error, OSError) else error
    return ImageError(f"{output}: cannot write: {reason}; check the folder and its permissions")


def _to_tensor(image_HWI: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image_HWI.transpose(2, 0, 1)))[None]


def _to_array(image_BIHW: Tensor) -> np.ndarray:
    return np.ascontiguousarray(image_BIHW[0].permute(1, 2, 0).numpy())


__all__ = [
    "RestoreSettings",
    "restore",
    "restore_photo",
    "restore_tensor",
]
