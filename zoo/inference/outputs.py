"""Where restored pictures are written: the names of outputs, which are checked before the work."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from zoo.data.formats import WRITE_EXTENSIONS, check_saving, format_for
from zoo.data.photo import AS_USUAL, Saving
from zoo.errors import ImageError, shown
from zoo.files import is_same_file, write_error


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """Where and how restored pictures are written.

    Attributes:
        target: file or folder. For one input, it is a folder if it exists as a folder, has no
            suffix, or ends in a separator; ``Path`` drops separators at the end, so only a string
            can have one. For several inputs it is always a folder.
        suffix: text that files in a folder get: ``photo.png`` becomes ``photo_TEXT.png``.
        format: the format of files in a folder, as an extension without its dot; "" for that of
            the input, or PNG where that is not written.
        keeps_format: whether inputs are pictures, so that outputs have their format; the outputs of
            others, such as bursts, are PNG.
        overwrite: whether existing outputs are overwritten; otherwise they are skipped.
        saving: how pictures are written.

    Raises:
        ImageError: if the target is empty or no path, the suffix cannot be in a name, or the format
            is not known.
        WriteError: if the target cannot exist, for example because its name is too long.
    """

    target: str | Path
    suffix: str = ""
    format: str = ""
    keeps_format: bool = True
    overwrite: bool = False
    saving: Saving = AS_USUAL

    def __post_init__(self) -> None:
        if not isinstance(self.target, (str, Path)):
            raise ImageError(f"the output is {shown(self.target)}; it must be a path")
        for name, text in (("suffix", self.suffix), ("format", self.format)):
            if not isinstance(text, str):
                raise ImageError(f"{name} is {shown(text)}; it must be a text, '' for none")
        if not str(self.target):
            raise ImageError("the path of the output is empty; give a file or a folder")
        if {"/", "\\", os.sep, "\0"} & set(self.suffix):
            raise ImageError(f"the suffix {self.suffix!r} is not a part of a name: leave out '/'")
        if self.format and f".{self.format}" not in WRITE_EXTENSIONS:
            known = ", ".join(extension[1:] for extension in WRITE_EXTENSIONS)
            raise ImageError(f"images are not written as {self.format!r}; use one of {known}")
        exists(self.folder)

    @property
    def folder(self) -> Path:
        """The target as a folder."""
        return Path(self.target)

    def of_one(self, name: Path) -> Path:
        """Return the output of the only input.

        Args:
            name: name of the input, which the output in a folder keeps.

        Raises:
            ImageError: if the target's suffix is not that of an image, or the format is another.
        """
        if not self._is_file():
            return self.of_several([name])[0]
        if self.suffix:
            raise ImageError(
                f"{self.target}: the output has a name already; leave out the suffix, or put a / "
                "at the end to write to a folder"
            )
        if self.format and f".{self.format}" not in format_for(self.folder).extensions:
            raise ImageError(
                f"{self.target}: the output is not a .{self.format} file; leave out the format, or "
                "put a / at the end to write to a folder"
            )
        return self.folder

    def of_several(self, names: Sequence[Path]) -> list[Path]:
        """Return the outputs of inputs in the target.

        Next to that of ``a.png``, the output of ``a.heic`` in PNG is ``a.heic.png``.

        Args:
            names: names of the inputs, with the folders that they are in.
        """
        found = [self._named(name, name.stem) for name in names]
        counts = Counter(found)
        return [
            self._named(name, name.name)
            if counts[output] > 1 and output.suffix != name.suffix
            else output
            for name, output in zip(names, found, strict=True)
        ]

    def _named(self, name: Path, stem: str) -> Path:
        extension = name.suffix
        if self.format:
            extension = f".{self.format}"
        elif not self.keeps_format or extension.lower() not in WRITE_EXTENSIONS:
            extension = ".png"
        if suffix := self.suffix.lstrip("_"):
            stem = f"{stem}_{suffix}"
        return self.folder / name.parent / f"{stem}{extension}"

    def without_own(self, images: Sequence[Path]) -> list[Path]:
        """Return the images of the target that are no outputs of an earlier run.

        By its name, ``a_TEXT.png`` is one where ``a.png`` or another ``a`` is; and without a
        suffix, ``a.jpg`` beside ``a.png``, for the format "jpg". The latter stay if outputs are
        overwritten: they could be inputs.
        """
        ending = f"_{self.suffix.lstrip('_')}" if self.suffix.lstrip("_") else ""
        names = Counter((image.parent, name) for image in images for name in _stems(image))

        def own(image: Path) -> bool:
            base = (image.parent, image.stem.removesuffix(ending))
            if ending:
                return image.stem.endswith(ending) and base in names
            return image.suffix == f".{self.format}" and not self.overwrite and names[base] > 1

        return [image for image in images if not own(image)]

    def check_folder(self, what: str) -> None:
        """Check that several pictures can go into the target.

        Args:
            what: what the input is, for the error message.

        Raises:
            ImageError: if the target is a file, or is named like one.
        """
        named = self.folder.suffix and not self._ends_as_folder()
        if self.folder.is_file() or named:
            raise ImageError(
                f"{self.target}: {what}, so the output must be a folder; to write to a folder of "
                "this name, put a / at the end"
            )

    def check(self, jobs: list[tuple[Path, Path]]) -> None:
        """Check the outputs of all jobs (input, output).

        Raises:
            ImageError: if two inputs have one output, an output would replace an input, or it
                cannot be written as asked for.
        """
        if self.overwrite:
            _check_inputs_stay(jobs)
        counts = Counter(output for _, output in jobs)
        for output, count in counts.items():
            if count > 1:
                names = " and ".join(sorted(source.name for source, out in jobs if out == output))
                raise ImageError(
                    f"{output}: {names} would be written to this one file; rename one of them"
                )
        check_saving(list(counts), self.saving)

    def _ends_as_folder(self) -> bool:
        return str(self.target).endswith(("/", os.sep)) or self.folder.is_dir()

    def _is_file(self) -> bool:
        suffix = self.folder.suffix
        if self._ends_as_folder() or not suffix:
            return False
        if suffix.lower() not in WRITE_EXTENSIONS:
            raise ImageError(
                f"{self.target}: images are not written as {suffix!r}; use one of "
                f"{', '.join(WRITE_EXTENSIONS)}, or put a / at the end to write to a folder"
            )
        return True


def _check_inputs_stay(jobs: list[tuple[Path, Path]]) -> None:
    """Check that no output would replace an input, its own or another one."""
    inputs = {os.path.realpath(source): source for source, _ in jobs}
    # Where the case of letters makes no difference, other names are names of an input, too.
    alike = {path.casefold(): source for path, source in inputs.items()}
    for source, output in jobs:
        place = os.path.realpath(output)
        other = inputs.get(place) or alike.get(place.casefold())
        if other is not None and is_same_file(output, other):
            raise ImageError(
                f"{output}: the output of {source} would replace the input {other}; choose another "
                "folder, or a suffix"
            )


def _stems(image: Path) -> tuple[str, str]:
    """The names that an output of the image may start with; see :meth:`Outputs.of_several`."""
    return image.stem, image.name


def exists(output: Path) -> bool:
    """Return whether an output exists.

    Raises:
        WriteError: if it cannot exist, for example because its name is too long.
    """
    try:
        return output.exists()
    except OSError as error:
        raise write_error(output, error) from error
