"""Sample photos that need no download: they are part of scikit-image and scikit-learn.

They are for tests, examples and small training runs. Both packages are development extras; they are
never imported, only their files are read. The list contains photos that are sharp, large enough for
patches, and have a stated licence: in the docstrings of ``skimage.data`` for scikit-image, in
``datasets/images/README.txt`` for scikit-learn.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from zoo.data.images import Photo, read_photo
from zoo.errors import ZooError, nearest


@dataclass(frozen=True)
class Sample:
    """One photograph inside an installed package.

    Attributes:
        name: short name of the photo.
        package: import name of the package that contains the photo.
        file: path inside the package.
        licence: licence, as the package states it.
        credit: creator of the photo.
        held_out: whether the photo is for validation and never for training.
        channels: 1 (gray) or 3 (RGB).
    """

    name: str
    package: Literal["skimage", "sklearn"]
    file: str
    licence: str
    credit: str
    held_out: bool
    channels: Literal[1, 3]


def _skimage(
    file: str, channels: Literal[1, 3], licence: str, credit: str, *, held_out: bool = False
) -> Sample:
    name = Path(file).stem
    return Sample(name, "skimage", f"data/{file}", licence, credit, held_out, channels)


def _sklearn(file: str, credit: str) -> Sample:
    path = f"datasets/images/{file}"
    return Sample(Path(file).stem, "sklearn", path, "CC BY 2.0", credit, False, 3)


PACKAGES = {"skimage": "scikit-image", "sklearn": "scikit-learn"}
"""What pip calls the packages."""

SAMPLE_PHOTOS = (
    _skimage("astronaut.png", 3, "public domain", "NASA"),
    _skimage("brick.png", 1, "CC0", "CC0Textures, Bricks25"),
    _skimage("camera.png", 1, "CC0", "Lav Varshney", held_out=True),
    _skimage("chelsea.png", 3, "CC0", "Stefan van der Walt", held_out=True),
    _skimage("coffee.png", 3, "CC0", "Rachel Michetti, Pikolo Espresso Bar", held_out=True),
    _skimage("coins.png", 1, "no known copyright restrictions", "Brooklyn Museum"),
    _skimage("grass.png", 1, "CC0", "linolafett, DeviantArt"),
    _skimage("gravel.png", 1, "CC0", "CC0Textures, Gravel04"),
    _skimage("hubble_deep_field.jpg", 3, "public domain", "NASA, HubbleSite"),
    _skimage(
        "ihc.png",
        3,
        "no known copyright restrictions",
        "Center for Microscopy And Molecular Imaging (CMMI)",
    ),
    _skimage("retina.jpg", 3, "CC0", "Mikael Häggström"),
    _skimage("rocket.jpg", 3, "public domain", "SpaceX", held_out=True),
    _sklearn("china.jpg", "danielbuechele, flickr.com/photos/danielbuechele/6061409035"),
    _sklearn("flower.jpg", "vultilion, flickr.com/photos/vultilion/6056698931"),
)
"""All samples, sorted by package and name."""


def sample_names(held_out: bool | None = None) -> list[str]:
    """Names of all samples (None), the held-out ones (True) or those for training (False)."""
    return [sample.name for sample in SAMPLE_PHOTOS if held_out in (None, sample.held_out)]


def load_sample(name: str) -> Photo:
    """Read one sample.

    Raises:
        ZooError: for an unknown name, or if the package is not installed or lacks the file.
    """
    known = {sample.name: sample for sample in SAMPLE_PHOTOS}
    if name not in known:
        raise ZooError(f"unknown sample photo {name!r}{nearest(name, known)}")
    sample = known[name]
    spec = find_spec(sample.package)
    if spec is None or spec.origin is None:
        raise ZooError(
            f"sample photo {name!r} is part of the package {sample.package!r}, which is not "
            f"installed; run: pip install {PACKAGES[sample.package]}, or name a folder of photos"
        )
    path = Path(spec.origin).parent / sample.file
    if not path.is_file():
        raise ZooError(
            f"sample photo {name!r} is missing from the installed package {sample.package!r} "
            f"({sample.file}); run: pip install --force-reinstall {PACKAGES[sample.package]}"
        )
    return read_photo(path)
