"""Scan orders: the orders in which a scan reads the tokens of an image, as lists of indices."""

from zoo.scans.base import SCANS, ScanOrder, check_directions, stack_directions
from zoo.scans.compose import Compose
from zoo.scans.cross_scale import CrossScale
from zoo.scans.diagonal import Diagonal
from zoo.scans.hilbert import Hilbert
from zoo.scans.raster import Raster
from zoo.scans.serpentine import Serpentine
from zoo.scans.shuffled import Shuffled
from zoo.scans.window import Window

__all__ = [
    "SCANS",
    "Compose",
    "CrossScale",
    "Diagonal",
    "Hilbert",
    "Raster",
    "ScanOrder",
    "Serpentine",
    "Shuffled",
    "Window",
    "check_directions",
    "stack_directions",
]
