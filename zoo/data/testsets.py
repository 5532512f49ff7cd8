"""Finds test sets on disk: Set5, Set14, B100, Urban100, Manga109, DIV2K and others.

A set is a folder of images, or a folder with subfolders of clean and degraded images in any of the
common layouts. Upper and lower case are the same in folder names. If there are degraded files, they
are used, because published scores were measured on such files; otherwise degraded images are made
on the fly.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from zoo.data.arrays import blocks_of
from zoo.data.compressed import BicubicJpeg
from zoo.data.degradations import Bicubic, Degradation, Jpeg
from zoo.data.images import holds_photos, list_photos, read_photo
from zoo.data.pairing import counterparts, misfit
from zoo.data.photos import SAMPLES_SOURCE, all_faults
from zoo.data.pixels import to_tensor
from zoo.data.samples import load_sample, sample_names
from zoo.data.value_range import ValueRange, image_of, in_range, refuse_no_data
from zoo.errors import ImageError

logger = logging.getLogger(__name__)

ALIASES = {
    "b100": ("bsd100", "bsds100"),
    "cbsd68": ("bsd68", "cbsd68hq"),
    "kodak24": ("kodak", "kodak24hq"),
    "mcmaster": ("mcmasterhq", "mcm"),
    "urban100": ("urban100hq",),
    "div2k": ("div2k_valid", "div2k100", "div2kvalid", "div2k_test"),
    "sidd": ("sidd_val",),
}
"""Other names of test sets, in lower case."""

CLEAN = ("hr", "gtmod12", "gtmod24", "gt", "target", "target_crops", "hq", "original", "clean")
"""Names of the folder of clean images. The set's name may come before, as in Classic5_HQ."""

DEGRADED = ("input", "input_crops", "noisy", "lq", "lr", "degraded")
"""Names of the folder of degraded images for networks without a known degradation."""


BLOCKS = ("gtblocks", "noisyblocks")
"""What the names of SIDD's MATLAB files of clean and of noisy images contain, in lower case."""


@dataclass(frozen=True)
class TestImage:
    """One image of a test set: a file, or a bundled sample.

    Attributes:
        name: stem of the file, or name of the sample.
        clean: file of the clean image; None for a sample.
        degraded: file of the degraded image; None if it is made from the clean image.
        value_range: the values of the files that are 0 and 1; see :func:`zoo.data.read_photo`.
        block: number of the image in files that hold many, as those of SIDD; None for other files.
        guides: files of the guides, in the sequence of the network's.
    """

    __test__ = False  # tells pytest that this is not a test class

    name: str
    clean: Path | None = None
    degraded: Path | None = None
    value_range: ValueRange | None = None
    block: int | None = None
    guides: tuple[Path, ...] = ()

    def read_clean(self) -> Tensor:
        """Read the clean image, (C, H, W) float32 in [0, 1]."""
        if self.clean is None:
            return to_tensor(load_sample(self.name).color_HWC)
        return self._read(self.clean)

    def read_degraded(self) -> Tensor | None:
        """Read the degraded image, (C, H, W) float32 in [0, 1]; None if there is no file."""
        return None if self.degraded is None else self._read(self.degraded)

    def _read(self, path: Path) -> Tensor:
        if self.block is None:
            return to_tensor(self._pixels(path))
        blocks = image_of(path, blocks_of(path)[self.block])
        return to_tensor(in_range(path, blocks, self.value_range).color_HWC)

    def _pixels(self, path: Path, *, floats_only: bool = False) -> np.ndarray:
        photo = read_photo(path, self.value_range, floats_only=floats_only)
        refuse_no_data(path, photo)
        return photo.color_HWC

    def read_guides(self) -> tuple[np.ndarray, ...]:
        """Read the guides, each (H, W, C) float32 in [0, 1]."""
        return tuple(self._pixels(path, floats_only=True) for path in self.guides)


def validation_images(
    source: str,
    degraded: str | None = None,
    scale: int = 1,
    value_range: ValueRange | None = None,
    guides: Sequence[str] = (),
    alike: bool = True,
    crop: int = 0,
) -> list[TestImage]:
    """List the validation images of a folder, or the held-out samples.

    Every file is read once, and sizes and channels of pairs are compared, so that faults are found
    early.

    Args:
        source: folder of clean images, or ``"samples"``.
        degraded: folder of the degraded images; None to make them from the clean ones.
        scale: clean size divided by degraded size.
        value_range: the values of the files that are 0 and 1.
        guides: a folder for each guide of the network.
        alike: whether the images of a pair must have the same number of channels.
        crop: number of border pixels of a clean image that are not measured, at each side.

    Raises:
        ImageError: if files cannot be read, pairs do not match, or images are too small; the
            message names them.
    """
    if source == SAMPLES_SOURCE:
        if guides:
            raise ImageError(
                "the bundled photos have no guides; give a folder of clean images to validate on"
            )
        images = [TestImage(name) for name in sample_names(held_out=True)]
    else:
        images = _paired(list_photos(source), degraded, scale, guides, value_range)
    check_images(images, scale, alike=alike, crop=crop)
    return images


def check_images(images: Sequence[TestImage], scale: int, *, alike: bool, crop: int = 0) -> None:
    """Check that all files can be read, and have sizes and channels that fit.

    Args:
        images: the images.
        scale: clean size divided by degraded size.
        alike: whether the images of a pair must have the same number of channels.
        crop: number of border pixels of a clean image that are not measured, at each side.

    Raises:
        ImageError: if there is a fault; the message names the files.
    """
    faults = [fault for image in images if (fault := _fault(image, scale, alike, crop))]
    if faults:
        raise ImageError(all_faults(faults, len(images), "test images cannot be used"))


def _fault(image: TestImage, scale: int, alike: bool, crop: int) -> str | None:
    try:
        clean_CHW, degraded_CHW = image.read_clean(), image.read_degraded()
        image.read_guides()
    except ImageError as error:
        return str(error)
    height, width = clean_CHW.shape[1:]
    if min(height, width) // scale * scale <= 2 * crop:
        border = f", without a border of {crop} pixels" if crop else ""
        return f"{image.clean or image.name} of {width}x{height} is too small for x{scale}{border}"
    if degraded_CHW is None:
        return None
    shapes = [tensor.permute(1, 2, 0).shape for tensor in (clean_CHW, degraded_CHW)]
    return misfit(str(image.clean), shapes[0], str(image.degraded), shapes[1], scale, alike)


def find_test_set(
    root: str | Path,
    name: str,
    degradation: Degradation | None,
    scale: int,
    *,
    made: bool = False,
    guides: Iterable[str] = (),
    value_range: ValueRange | None = None,
) -> list[TestImage] | None:
    """Find the images of a test set in a root folder.

    Args:
        root: folder that contains the sets, or the folder of the set itself.
        name: name of the set, such as "Set5", or one of its :data:`ALIASES`.
        degradation: the degradation that the network restores; None if it is unknown and the set
            must have degraded files.
        scale: clean size divided by degraded size.
        made: whether to make degraded images on the fly even if there are files.
        guides: names of the network's guides; each has a folder of its name in the set.
        value_range: the values of the files that are 0 and 1.

    Returns:
        The images, or None if the set is not found.

    Raises:
        ImageError: if the set is empty, or its pairs do not match.
    """
    folder = _set_folder(Path(root), name)
    if folder is None:
        return None
    if blocks := _block_images(folder, value_range):
        return blocks
    names = spellings(name)
    clean = _subfolder(folder, [*_with_name(names), *CLEAN]) or folder
    degraded = None
    if degradation is None or not made:
        degraded = _subfolder(folder, _degraded_names(degradation, scale, names))
    if degradation is None and degraded is None:
        raise ImageError(
            f"test set {str(folder)!r} needs a folder of degraded images, such as 'input', next to "
            f"the folder of clean images, such as 'target'{_lone_blocks(folder)}"
        )
    folders = [_guide_folder(folder, guide) for guide in guides]
    if degradation is not None and degraded is None and not made:
        _tell_unused(folder, [clean, *folders], _degraded_names(degradation, scale, names))
    return _paired(list_photos(clean), degraded, scale, folders, value_range)


def spellings(name: str) -> list[str]:
    """Return all names of a test set in lower case, the given one first; see :data:`ALIASES`."""
    given = name.lower()
    for known, others in ALIASES.items():
        if given in (known, *others):
            return [given, *(other for other in (known, *others) if other != given)]
    return [given]


def is_test_set(folder: Path) -> bool:
    """Whether a folder holds images, or a folder of clean images, so that it may be a test set."""
    clean = [*_with_name(spellings(folder.absolute().name)), *CLEAN]
    return holds_photos(folder) or _subfolder(folder, clean) is not None


def _with_name(names: Iterable[str]) -> list[str]:
    """Names of the folder of clean images that begin with a name of the set."""
    return [f"{name}{join}{clean}" for name in names for join in ("", "_") for clean in CLEAN]


def _tell_unused(folder: Path, used: Sequence[Path], wanted: Sequence[str]) -> None:
    """Log which folders of a set are not its degraded images, if such images are looked for."""
    others = [path for path in folder.iterdir() if path.is_dir() and path not in used]
    left = sorted(path.name for path in others if not path.name.startswith("."))
    if wanted and left and used[0] != folder:
        logger.warning(
            "%s: none of %s is a folder of its degraded images, such as %s; they are made from the "
            "clean ones",
            *(folder, ", ".join(left), wanted[0]),
        )


def _lone_blocks(folder: Path) -> str:
    """What to do with SIDD's MATLAB files if they are not a pair; empty if there is none."""
    found = sorted(path.name for path in folder.glob("*.mat"))
    if not found:
        return ""
    return (
        "; or ValidationNoisyBlocksSrgb.mat and ValidationGtBlocksSrgb.mat, but its MATLAB files "
        f"are {', '.join(found)}"
    )


def _guide_folder(folder: Path, guide: str) -> Path:
    found = _subfolder(folder, [guide.lower()])
    if found is None:
        above = Path(folder).resolve().parent
        beside = _subfolder(above, [guide.lower()]) is not None
        hint = f"; name {str(above)!r}, the folder above it" if beside else ""
        raise ImageError(
            f"test set {str(folder)!r} needs the folder {guide!r} of guides, next to the folder of "
            f"clean images{hint}"
        )
    return found


def _block_images(folder: Path, value_range: ValueRange | None) -> list[TestImage]:
    """The images of a folder with SIDD's two MATLAB files; none if they are not there."""
    files = sorted(folder.glob("*.mat"))
    pair = [[file for file in files if mark in file.name.lower()] for mark in BLOCKS]
    if len(pair[0]) != 1 or not pair[1]:
        return []
    # The noisy blocks of the benchmark, which have no clean ones, may lie in the same folder.
    [clean] = pair[0]
    wanted = clean.name.lower().replace(*BLOCKS)
    named = [file for file in pair[1] if file.name.lower() == wanted]
    if len(named or pair[1]) != 1:
        return []
    [degraded] = named or pair[1]
    counts = [len(blocks_of(file)) for file in (clean, degraded)]
    if counts[0] != counts[1]:
        raise ImageError(
            f"{clean} holds {counts[0]} images and {degraded} {counts[1]}; give files that belong "
            "together"
        )
    return [
        TestImage(f"{number:04d}", clean, degraded, value_range, number)
        for number in range(counts[0])
    ]


def set_names(root: str | Path) -> list[str]:
    """Names of all folders in a root folder; each may be a test set."""
    folder = Path(root)
    if not folder.is_dir():
        raise ImageError(f"folder of test sets {str(folder)!r} does not exist; check the path")
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def _set_folder(root: Path, name: str) -> Path | None:
    names = spellings(name)
    # "." has no name of its own.
    folder = root if root.absolute().name.lower() in names else _subfolder(root, names)
    if folder is None:
        # DIV2K_valid_HR and DIV2K_valid_LR_bicubic, as they are downloaded.
        return root if _subfolder(root, _with_name(names)) is not None else None
    # A set may be unpacked into a folder of its name: Set5/Set5.
    inside = _subfolder(folder, names)
    return folder if inside is None or is_test_set(folder) else inside


def _degraded_names(degradation: Degradation | None, scale: int, names: Iterable[str]) -> list[str]:
    if degradation is None:
        return list(DEGRADED)
    if isinstance(degradation, Bicubic) and scale > 1:
        ends = [f"lr_bicubic/x{scale}", f"lrbicx{scale}", f"lr_bicubic_x{scale}", f"lr/x{scale}"]
        return ends + [f"{name}{join}{end}" for name in names for join in ("", "_") for end in ends]
    if isinstance(degradation, BicubicJpeg):
        quality = degradation.quality
        ends = [f"lr{join}{mark}{quality}" for mark in ("q", "jpeg", "") for join in ("_", "/", "")]
        return ends + [f"{name}{join}{end}" for name in names for join in ("", "_") for end in ends]
    if isinstance(degradation, Jpeg):
        quality = degradation.quality
        ends = [f"lq/{quality}", f"jpeg{quality}", f"q{quality}"]
        return ends + [f"{name}{join}{end}" for name in names for join in ("", "_") for end in ends]
    return []


def _subfolder(folder: Path, names: Iterable[str]) -> Path | None:
    """Find the first existing folder of ``names``, paths in lower case; case does not matter."""
    if not folder.is_dir():
        return None
    for name in names:
        found: Path | None = folder
        for part in name.split("/"):
            inside = [] if found is None else sorted(found.iterdir())
            found = next((p for p in inside if p.is_dir() and p.name.lower() == part), None)
        if found is not None:
            return found
    return None


def _paired(
    clean: list[Path],
    degraded: str | Path | None,
    scale: int,
    guides: Sequence[str | Path] = (),
    value_range: ValueRange | None = None,
) -> list[TestImage]:
    inputs = None if degraded is None else _beside(clean, degraded, scale, "degraded")
    beside = [_beside(clean, folder, scale, Path(folder).name) for folder in guides]
    return [
        TestImage(
            path.stem,
            path,
            None if inputs is None else inputs[number],
            value_range,
            guides=tuple(files[number] for files in beside),
        )
        for number, path in enumerate(clean)
    ]


def _beside(clean: list[Path], folder: str | Path, scale: int, what: str) -> list[Path]:
    """Return the file of another folder that belongs to each clean image."""
    files = list_photos(folder)
    return [files[number] for number in counterparts(clean, files, scale, what)]
