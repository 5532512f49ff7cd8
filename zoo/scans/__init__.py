"""Scan orders: ways to walk the tokens of an image, each an index list."""

from zoo.scans.base import SCANS, ScanOrder
from zoo.scans.raster import Raster

__all__ = ["SCANS", "Raster", "ScanOrder"]
