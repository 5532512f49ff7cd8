"""Restoring photographs of any size and mode: one file, or a folder.

Shape suffixes: B batch, I image channels, H height, W width in pixels, s scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from zoo.data.bicubic import resize_bicubic
from zoo.data.formats import WRITE_EXTENSIONS, check_saving
from zoo.data.images import list_photos, read_photo, write_photo
from zoo.data.photo import AS_USUAL, Photo, Saving
from zoo.data.pixels import bleed_colors, to_array, to_tensor, with_channels
from zoo.distributed import ProcessGroup
from zoo.errors import ImageError
from zoo.files import is_same_file
from zoo.inference.jobs import is_file_target, restore_each, without_existing
from zoo.inference.runner import RestoreSettings, restore_tensor
from zoo.networks import Network


def restore_images(
    network: Network,
    source: Path,
    target: str | Path,
    settings: RestoreSettings,
    *,
    overwrite: bool,
    progress: bool,
    group: ProcessGroup,
    saving: Saving = AS_USUAL,
) -> list[Path]:
    """Restore an image file or all images in a folder; see :func:`zoo.restore`."""
    many = source.is_dir()

    def one(image: Path, output: Path) -> None:
        photo = read_photo(image)
        write_photo(output, restore_photo(network, photo, settings, progress and not many), saving)

    # Only the first process looks: the others might already see outputs of this run.
    waiting = group.from_first(lambda: without_existing(_jobs(source, target, saving), overwrite))
    return restore_each(waiting, one, "image", many=many, progress=progress, group=group)


def restore_photo(
    network: Network, photo: Photo, settings: RestoreSettings | None = None, progress: bool = False
) -> Photo:
    """Restore one photo in memory and return the result; see :func:`zoo.restore`.

    Args:
        network: the network.
        photo: the photo.
        settings: tiles, ensemble and precision; None for the defaults.
        progress: whether to show a progress bar over tiles.
    """
    settings = settings or RestoreSettings()
    color_HWC, alpha_HW = photo.color_HWC, photo.alpha_HW
    channels = color_HWC.shape[2]
    if alpha_HW is not None:
        color_HWC = bleed_colors(color_HWC, alpha_HW)
    if network.channels == 1:
        color_BIHW = to_tensor(color_HWC)[:, None]  # channels as a batch
    else:
        color_BIHW = to_tensor(with_channels(color_HWC, network.channels))[None]
    restored_BIHW = restore_tensor(network, color_BIHW, settings, progress)
    if network.channels == 1:
        restored_BIHW = restored_BIHW.transpose(0, 1)
    color_HWC = to_array(restored_BIHW[0])
    if network.channels != 1:
        color_HWC = with_channels(color_HWC, channels)
    if alpha_HW is not None and network.scale > 1:
        enlarged = resize_bicubic(to_tensor(alpha_HW[..., None])[None], network.scale)
        alpha_HW = to_array(enlarged[0])[..., 0]
    return Photo(color_HWC, alpha_HW, photo.bit_depth, photo.metadata.enlarged(network.scale))


def _jobs(source: Path, target: str | Path, saving: Saving) -> list[tuple[Path, Path]]:
    """Return pairs of input and output file."""
    folder = Path(target)
    if source.is_dir():
        if folder.is_file():
            raise ImageError(f"{target}: the input is a folder, so the output must be a folder")
        images = list_photos(source)
        pairs = list(zip(images, (folder / name for name in _names(images)), strict=True))
    elif is_file_target(target):
        pairs = [(source, folder)]
    else:
        pairs = [(source, folder / _names([source])[0])]
    check_saving([output for _, output in pairs], saving)
    for image, output in pairs:
        if is_same_file(image, output):
            raise ImageError(f"{output}: the output would replace the input; choose another path")
    return pairs


def _names(images: Sequence[Path]) -> list[str]:
    """Return names of outputs in a folder: those of the inputs, but PNG for what is only read.

    No two are equal: next to ``a.png``, ``a.heic`` becomes ``a.heic.png``.
    """
    found: list[str] = []
    taken = {image.name for image in images}
    for image in images:
        name = image.name
        if image.suffix.lower() not in WRITE_EXTENSIONS:
            name = f"{image.stem}.png"
            name = f"{image.name}.png" if name in taken else name
            taken.add(name)
        found.append(name)
    return found
