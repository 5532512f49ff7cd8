"""Looking inside networks: which pixels a result depends on, which channels work, how scans forget.

Shape suffixes are in each module. All functions take networks of single images without guides, in
any mode, and leave them as they were.
"""

from zoo.analysis.activations import ChannelActivations, channel_activations
from zoo.analysis.attribution import Attribution, diffusion_index, local_attribution
from zoo.analysis.decay import ScanDecay, scan_decays
from zoo.analysis.receptive_field import (
    FRACTIONS,
    Extent,
    ReceptiveField,
    effective_receptive_field,
    extents,
)

__all__ = [
    "FRACTIONS",
    "Attribution",
    "ChannelActivations",
    "Extent",
    "ReceptiveField",
    "ScanDecay",
    "channel_activations",
    "diffusion_index",
    "effective_receptive_field",
    "extents",
    "local_attribution",
    "scan_decays",
]
