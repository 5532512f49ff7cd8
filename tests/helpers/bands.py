"""Arrays and TIFF files of bands, written and read with other libraries than ours."""

from __future__ import annotations

import cv2
import numpy as np
import scipy.io
import tifffile

import zoo
from tests.helpers.networks import Nearest
from zoo.data.multiband import is_multiband

KINDS = {"uint8": 255, "uint16": 65535, "float32": 1}
"""Types that files keep, with the value that is 1."""


def values(shape, kind, seed=0):
    """Random values of a type, over its whole range."""
    random = np.random.default_rng(seed)
    if kind == "float32":
        return random.random(shape, np.float32)
    return random.integers(0, KINDS[kind] + 1, shape).astype(kind)


def put(path, array, **options):
    """Write an array with the usual library of its format, not with ours."""
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".npz":
        np.savez(path, array)
    elif path.suffix == ".mat":
        scipy.io.savemat(path, {"found": array})
    else:
        shape = {"photometric": "minisblack", "metadata": None}
        if array.ndim == 3:
            shape["planarconfig"] = "contig"
        tifffile.imwrite(path, array, **{**shape, **options})
    return path


def get(path):
    """Read an array with the usual library of its format."""
    if path.suffix == ".npy":
        return np.load(path)
    if path.suffix == ".npz":
        return np.load(path)["image"]
    if path.suffix == ".mat":
        return scipy.io.loadmat(path)["image"]
    if not is_multiband(path.read_bytes()):  # compressed as photographs are
        return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    return tifffile.imread(path)


def marked(path, array, mark, **options):
    """Write a GeoTIFF with a mark of pixels without data, as GDAL does."""
    return put(path, array, extratags=[(42113, 2, len(mark) + 1, mark, False)], **options)


def restored(network, path, suffix=".tif"):
    output = path.with_name(f"out{suffix}")
    zoo.restore(network, path, output, progress=False, overwrite=True)
    return output


class Remembers(Nearest):
    """Keeps what it is given."""

    def forward(self, image_BIHW):
        self.seen = image_BIHW
        return super().forward(image_BIHW)
