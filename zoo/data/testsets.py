"""Test sets as people have them on disk: Set5, Set14, B100, Urban100, Manga109, DIV2K and others.

A set is a folder of images, or one with folders of clean and degraded images in any of the layouts
that are passed around; the spelling of names does not matter. Degraded files are used where they
are found, because published numbers were made with such files; otherwise they are made on the fly.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from zoo.data.degradations import Bicubic, Degradation, Jpeg
from zoo.data.images import list_photos, read_photo
from zoo.data.photos import SAMPLES_SOURCE, all_faults, pair_name
from zoo.data.pixels import to_tensor
from zoo.data.samples import load_sample, sample_names
from zoo.errors import ImageError

ALIASES = {
    "b100": ("bsd100", "bsds100"),
    "cbsd68": ("bsd68", "cbsd68hq"),
    "kodak24": ("kodak", "kodak24hq"),
    "mcmaster": ("mcmasterhq", "mcm"),
    "urban100": ("urban100hq",),
    "div2k": ("div2k_valid", "div2k100", "div2kvalid"),
    "sidd": ("sidd_val",),
}
"""Other names of test sets, in lower case."""

CLEAN = ("hr", "gtmod12", "gtmod24", "gt", "target", "target_crops", "hq", "original", "clean")
"""Names of the folder of clean images; also after the set's own name, as in Classic5_HQ."""

DEGRADED = ("input", "input_crops", "noisy", "lq", "lr", "degraded")
"""Names of the folder of degraded images where no degradation is known."""


@dataclass(frozen=True)
class TestImage:
    """One image of a test set: a file, or a bundled sample.

    Attributes:
        name: the file's stem, or the sample's name.
        clean: file of the clean image; None for a sample.
        degraded: file of the degraded one; None where it is made from the clean one.
    """

    __test__ = False  # for pytest: no test class, whatever its name

    name: str
    clean: Path | None = None
    degraded: Path | None = None

    def read_clean(self) -> Tensor:
        """The clean image, (I, H, W) float32 in [0, 1]."""
        photo = load_sample(self.name) if self.clean is None else read_photo(self.clean)
        return to_tensor(photo.color_HWC)

    def read_degraded(self) -> Tensor | None:
        """The degraded image, as above; None where it is made from the clean one."""
        return None if self.degraded is None else to_tensor(read_photo(self.degraded).color_HWC)


def validation_images(source: str, degraded: str | None = None, scale: int = 1) -> list[TestImage]:
    """Images of a folder, or the held-out "samples"; all are read once, so that faults show early.

    Args:
        source: a folder, or ``"samples"``.
        degraded: folder of their degraded counterparts.
        scale: clean size over degraded size.

    Raises:
        ImageError: naming all files that cannot be read or have no counterpart.
    """
    if source == SAMPLES_SOURCE:
        return [TestImage(name) for name in sample_names(held_out=True)]
    images = _paired(list_photos(source), list_photos(degraded) if degraded else None, scale)
    check_images(images)
    return images


def check_images(images: Sequence[TestImage]) -> None:
    """Read all files.

    Raises:
        ImageError: naming all that cannot be read.
    """
    faults = []
    for image in images:
        try:
            image.read_clean()
            image.read_degraded()
        except ImageError as error:
            faults.append(str(error))
    if faults:
        raise ImageError(all_faults(faults, len(images), "test images cannot be read"))


def find_test_set(
    root: str | Path, name: str, degradation: Degradation | None, scale: int, *, made: bool = False
) -> list[TestImage] | None:
    """The images of a test set below a root folder, or None where it is not there.

    Args:
        root: folder that holds the sets, or is one itself.
        name: such as "Set5"; :data:`ALIASES` hold too.
        degradation: what the network mends; None for sets of pairs alone.
        scale: clean size over degraded size.
        made: make degraded images on the fly even where there are files.

    Raises:
        ImageError: if the set is there but is empty, or its pairs do not match.
    """
    folder = _set_folder(Path(root), name)
    if folder is None:
        return None
    names = [name.lower(), *ALIASES.get(name.lower(), ())]
    wanted = [*CLEAN, *(f"{n}{join}{c}" for n in names for join in ("", "_") for c in CLEAN)]
    clean = _subfolder(folder, wanted) or folder
    degraded = None
    if degradation is None or not made:
        degraded = _subfolder(folder, _degraded_names(degradation, scale, names))
    if degradation is None and degraded is None:
        raise ImageError(
            f"test set {str(folder)!r} needs a folder of degraded images, such as 'input', beside "
            "that of clean ones, such as 'target'"
        )
    return _paired(list_photos(clean), list_photos(degraded) if degraded else None, scale)


def set_names(root: str | Path) -> list[str]:
    """Names of the folders in a root that may be test sets."""
    folder = Path(root)
    if not folder.is_dir():
        raise ImageError(f"folder of test sets {str(folder)!r} does not exist; check the path")
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def _set_folder(root: Path, name: str) -> Path | None:
    names = [name.lower(), *ALIASES.get(name.lower(), ())]
    if root.name.lower() in names:
        return root
    return _subfolder(root, names)


def _degraded_names(degradation: Degradation | None, scale: int, names: Iterable[str]) -> list[str]:
    if degradation is None:
        return list(DEGRADED)
    if isinstance(degradation, Bicubic) and scale > 1:
        ends = [f"lr_bicubic/x{scale}", f"lrbicx{scale}", f"lr_bicubic_x{scale}", f"lr/x{scale}"]
        return ends + [f"{name}{join}{end}" for name in names for join in ("", "_") for end in ends]
    if isinstance(degradation, Jpeg):
        quality = degradation.quality
        ends = [f"lq/{quality}", f"jpeg{quality}", f"q{quality}"]
        return ends + [f"{name}{join}{end}" for name in names for join in ("", "_") for end in ends]
    return []


def _subfolder(folder: Path, names: Iterable[str]) -> Path | None:
    """The first of the wanted folders, each a path in lower case, whatever its real case."""
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


def _paired(clean: list[Path], degraded: list[Path] | None, scale: int) -> list[TestImage]:
    if degraded is None:
        return [TestImage(path.stem, path) for path in clean]
    known = {pair_name(path, scale): path for path in degraded}
    missing = [
        f"{str(path)!r} has no degraded counterpart of its name"
        for path in clean
        if pair_name(path, scale) not in known
    ]
    if missing:
        raise ImageError(all_faults(missing, len(clean), "test images lack their pair"))
    return [TestImage(path.stem, path, known[pair_name(path, scale)]) for path in clean]
