"""Networks: the skeletons that recipes fill with parts."""

from zoo.networks.burst import BurstNetwork
from zoo.networks.contract import NETWORKS, Network
from zoo.networks.single_image import SingleImage
from zoo.networks.unet import UNet

__all__ = ["NETWORKS", "BurstNetwork", "Network", "SingleImage", "UNet"]
