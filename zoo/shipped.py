"""What ships with the package: the recipes of published models, and weights of a few.

PyTorch is not imported, so that commands which only list things are fast.
"""

from __future__ import annotations

import base64
import fnmatch
import hashlib
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

from zoo.errors import CheckpointError, ZooError, nearest

RECIPES = Path(__file__).resolve().parent.parent / "recipes"
"""Folder of the published recipes, beside this package."""

WEIGHTS = Path(__file__).parent / "weights"
"""Folder of the weights that ship with the package."""

EVERYDAY = "mambair_tiny_photo"
"""The model, less its scale, for users who name none: for photos of unknown history."""


def list_models(pattern: str = "*") -> list[str]:
    """Return the sorted names of the published models that match a shell-style pattern."""
    return sorted(fnmatch.filter((path.stem for path in RECIPES.glob("*.yaml")), pattern))


def shipped_weights() -> list[str]:
    """Return the sorted names of the models with weights in the package."""
    return sorted(path.stem for path in WEIGHTS.glob("*.safetensors"))


PACKAGES = ("zoo", "export", "recipes", "trt_plugins")
"""The packages of this distribution. Their names are plain, so another one may have them too."""


def altered_files(pattern: str = "*") -> list[str]:
    """Return the installed files that are not what pip installed: overwritten, damaged or gone.

    pip keeps a list of them with their checksums. A checkout, and an installation without that
    list, has none to tell of.

    Args:
        pattern: of the files to look at, such as ``export/__init__.py``.
    """
    try:
        files = distribution("mamba-restoration-zoo").files or []
    except PackageNotFoundError:
        return []
    home = Path(__file__).resolve().parents[1]
    ours = {
        file.as_posix(): (Path(str(file.locate())), file.hash.value)
        for file in files
        if file.hash and file.hash.mode == "sha256" and file.parts[0] in PACKAGES
    }
    if not any(path.resolve() == home / "zoo/shipped.py" for path, _ in ours.values()):
        return []  # the running package is another one than the installed one
    wanted = fnmatch.filter(ours, pattern)
    return [name for name in wanted if _checksum(ours[name][0]) != ours[name][1]]


def _checksum(path: Path) -> str:
    """The checksum as pip writes it, or an empty string if the file cannot be read."""
    try:
        digest = hashlib.sha256(path.read_bytes()).digest()
    except OSError:
        return ""
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def check_not_hidden(package: str) -> None:
    """Check that one of our packages is what Python imports by its name.

    Raises:
        ZooError: if it is a package of somebody else, beside ours or in the same folder; the
            message says where that lies.
    """
    spec = find_spec(package)
    home = Path(__file__).resolve().parents[1]
    found = None if spec is None or spec.origin is None else Path(spec.origin).resolve()
    if found is None or found.parents[1] != home:
        where = f"{found} is imported by that name" if found else "it is not beside the package zoo"
        raise ZooError(
            f"our package {package!r} is hidden: {where}; install mamba-restoration-zoo in an "
            "environment without that package"
        )
    if altered_files(f"{package}/__init__.py"):
        raise ZooError(
            f"our package {package!r} was overwritten: {found} is not the file that was installed; "
            "install mamba-restoration-zoo again, in an environment without the other package"
        )


def located(source: str | Path) -> Path:
    """Return the file of a source: a path, or the name of a model whose weights ship.

    Raises:
        CheckpointError: if it is neither; the message says which names there are.
    """
    path = Path(source)
    name = str(source)
    if path.suffix or path.is_file():
        return path
    if name in shipped_weights():
        return WEIGHTS / f"{name}.safetensors"
    if name in list_models():
        raise CheckpointError(
            f"no weights ship for {name!r}: pass a weights file, or use zoo.build({name!r}) for a "
            f"randomly initialised network; shipped: {', '.join(shipped_weights()) or 'none'}"
        )
    if name and path.is_dir():
        raise CheckpointError(f"{name} is a folder; name a file of weights in it")
    raise CheckpointError(f"unknown model or file {name!r}{nearest(name, list_models(), 3)}")
