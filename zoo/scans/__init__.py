"""Scan orders: the orders in which a scan reads the tokens of an image, as lists of indices."""

from zoo.scans.base import SCANS, ScanOrder, check_directions, path_through, stack_directions
from zoo.scans.by_class import ByClass, ClassOrder
from zoo.scans.compose import Compose
from zoo.scans.cross_scale import CrossScale
from zoo.scans.curves import HilbertCropped, ZOrder
from zoo.scans.diagonal import Diagonal, Zigzag
from zoo.scans.dilated import Dilated
from zoo.scans.hilbert import Hilbert
from zoo.scans.raster import Raster
from zoo.scans.serpentine import Serpentine
from zoo.scans.shuffled import Shuffled
from zoo.scans.spiral import Spiral
from zoo.scans.stripes import Stripes
from zoo.scans.window import Window

__all__ = [
    "SCANS",
    "ByClass",
    "ClassOrder",
    "Compose",
    "CrossScale",
    "Diagonal",
    "Dilated",
    "Hilbert",
    "HilbertCropped",
    "Raster",
    "ScanOrder",
    "Serpentine",
    "Shuffled",
    "Spiral",
    "Stripes",
    "Window",
    "ZOrder",
    "Zigzag",
    "check_directions",
    "path_through",
    "stack_directions",
]
