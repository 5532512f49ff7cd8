"""Images: files, resizing, degradations, sample photographs and training pairs."""

from __future__ import annotations

from zoo.data.bicubic import resize_bicubic
from zoo.data.blind import Blind
from zoo.data.compressed import BicubicJpeg
from zoo.data.degradations import DEGRADATIONS, Bicubic, Degradation, GaussianNoise, Jpeg
from zoo.data.images import EXTENSIONS, Photo, list_photos, read_photo, write_photo
from zoo.data.one_pass import OnePass
from zoo.data.patches import PairDataset, PatchDataset
from zoo.data.photos import StoredPhoto, TrainingPhoto, load_training_photos
from zoo.data.samples import SAMPLE_PHOTOS, Sample, load_sample, sample_names

__all__ = [
    "DEGRADATIONS",
    "EXTENSIONS",
    "SAMPLE_PHOTOS",
    "Bicubic",
    "BicubicJpeg",
    "Blind",
    "Degradation",
    "GaussianNoise",
    "Jpeg",
    "OnePass",
    "PairDataset",
    "PatchDataset",
    "Photo",
    "Sample",
    "StoredPhoto",
    "TrainingPhoto",
    "list_photos",
    "load_sample",
    "load_training_photos",
    "read_photo",
    "resize_bicubic",
    "sample_names",
    "write_photo",
]
