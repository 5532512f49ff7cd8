"""Networks: the overall structures, which recipes fill with blocks, scans and heads."""

from zoo.networks.burst import BurstNetwork
from zoo.networks.contract import NETWORKS, Network
from zoo.networks.extension import Extension
from zoo.networks.guide import Guide
from zoo.networks.single_image import SingleImage
from zoo.networks.unet import UNet
from zoo.networks.wavelet import Wavelet

__all__ = [
    "NETWORKS",
    "BurstNetwork",
    "Extension",
    "Guide",
    "Network",
    "SingleImage",
    "UNet",
    "Wavelet",
]
