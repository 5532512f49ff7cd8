"""Figures of the analyses of :mod:`zoo.analysis`, as in papers.

Shape suffixes: I image channels, H height, W width in pixels, C 3 colours or channels of a layer,
K directions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from torch import Tensor

from zoo.analysis import (
    Attribution,
    ChannelActivations,
    ReceptiveField,
    ScanDecay,
    diffusion_index,
    extents,
)
from zoo.data.pixels import quantise, to_array, with_channels
from zoo.plots.figure import (
    PANEL,
    Bar,
    curves,
    enlarged,
    fitted,
    framed,
    heat,
    in_rows,
    marked,
    small_width,
    write_small,
)

DECADES = 4
"""Powers of ten that the colours of receptive fields and decays cover."""

LAM_DECADES = 2
"""Powers of ten that the colours of attribution maps cover."""

ROW, MOST_LAYERS = 4, 64
"""Panels in a row, and largest number of layers whose names are written."""


def figure_of_fields(fields: Mapping[str, ReceptiveField]) -> np.ndarray:
    """Draw effective receptive fields side by side, (H, W, 3) uint8.

    Each is relative to its own largest value, as in papers; colours are logarithmic.

    Args:
        fields: the fields by title.
    """
    panels = []
    for title, field in fields.items():
        pixels = enlarged(heat(field.field_HW.numpy(), decades=DECADES))
        found = {extent.fraction: extent for extent in extents(field)}
        half, most = found[0.5], found[0.99]
        below = [
            f"50 % within {half.side} px ({half.area:.1%})",
            f"99 % within {most.side} px ({most.area:.1%})",
        ]
        panels.append(framed(pixels, title, below, beside=Bar(decades=DECADES)))
    return in_rows(panels, ROW)


def figure_of_attribution(
    image_IHW: Tensor, maps: Mapping[str, Attribution], *, smooth: float = 2.0
) -> np.ndarray:
    """Draw local attribution maps, (H, W, 3) uint8: a row for each network.

    A row shows the photo with the target, the map, the area that contributes, and the target in the
    network's result.

    Args:
        image_IHW: the photo that all networks got, in [0, 1].
        maps: the maps by title.
        smooth: standard deviation in pixels of the blur of the third panel.
    """
    photo = _rgb(image_IHW)
    height = photo.shape[0]
    rows = []
    for title, found in maps.items():
        place = found.row, found.column, found.side, height
        magnitude_HW = found.magnitude.numpy()
        spread_HW = cv2.GaussianBlur(magnitude_HW, (0, 0), smooth)
        share_HW1 = (spread_HW / max(float(spread_HW.max()), 1e-300))[..., None] ** 0.5
        mixed = (1 - 0.55 * share_HW1) * photo + 0.55 * share_HW1 * heat(spread_HW)
        shown = marked(enlarged(photo), *place)
        lightly = heat(magnitude_HW, decades=LAM_DECADES, colors="light")
        rows += [
            framed(shown, title, ["photo and target"]),
            framed(
                marked(enlarged(lightly), *place),
                "attribution",
                [f"diffusion index {diffusion_index(found.magnitude):.2f}"],
                beside=Bar(decades=LAM_DECADES, colors="light"),
            ),
            framed(
                enlarged(mixed.round().astype(np.uint8)), "contribution", ["smoothed, on the photo"]
            ),
            framed(
                marked(fitted(_rgb(found.output_IHW), shown), *place), "result", ["with the target"]
            ),
        ]
    return in_rows(rows, ROW)


def _rgb(image_IHW: Tensor) -> np.ndarray:
    """Return an image of any channels as RGB, (H, W, 3) uint8; of bands, the first three."""
    image_HWC = to_array(image_IHW.float())
    image_HWC = image_HWC[..., :3] if image_HWC.shape[2] > 3 else image_HWC
    if image_HWC.shape[2] == 2:
        image_HWC = image_HWC[..., :1]
    return quantise(with_channels(image_HWC, 3))


def figure_of_activations(layers: Sequence[ChannelActivations], layer: int) -> np.ndarray:
    """Draw channel activations, (H, W, 3) uint8: bars of one layer, and all layers as a heat map.

    Args:
        layers: the layers.
        layer: number of the layer with bars.
    """
    chosen = layers[layer]
    panels = [
        framed(
            _bars(chosen.value_C.numpy()),
            f"activations of {chosen.place}",
            [f"{chosen.active:.0%} of {len(chosen.value_C)} channels have a tenth of the largest"],
        )
    ]
    if len(layers) > 1:
        panels.append(_of_layers(layers))
    return in_rows(panels, 1)


def _bars(value_C: np.ndarray, width: int = 2 * PANEL, height: int = PANEL // 2) -> np.ndarray:
    """Draw one bar for each channel, in the sequence of the channels."""
    canvas = np.full((height, width, 3), 255, np.uint8)
    largest = max(float(value_C.max()), 1e-300)
    for number, value in enumerate(value_C / largest):
        left, right = (width * edge // len(value_C) for edge in (number, number + 1))
        top = height - round(float(value) * (height - 4))
        canvas[top:, left : max(right - (right - left > 2), left + 1)] = (31, 119, 180)
    return canvas


def _of_layers(layers: Sequence[ChannelActivations], width: int = 2 * PANEL) -> np.ndarray:
    """Draw the channels of all layers, the largest first, with the share of active channels."""
    tall = max(4, min(22, 1200 // len(layers)))
    lines = []
    for found in layers:
        sorted_C = np.sort(found.value_C.numpy())[::-1]
        place = np.arange(width) * len(sorted_C) // width
        lines.append(np.repeat(heat(sorted_C[None], colors="light")[:, place], tall, 0))
    pixels = np.vstack(lines)
    room = max(small_width(_told(found)) for found in layers) + 16
    text = np.full((len(pixels), room, 3), 255, np.uint8)
    if tall >= 14 and len(layers) <= MOST_LAYERS:
        for number, found in enumerate(layers):
            write_small(text, _told(found), 8, number * tall + tall // 2 + 5)
    title = "all layers: channels from the most to the least active"
    below = [
        "white to red: 0 to the largest activation of the layer; right: share of active channels"
    ]
    return framed(np.hstack([pixels, text]), title, below)


def _told(found: ChannelActivations) -> str:
    return f"{found.place}: {found.active:.0%}"


def figure_of_decay(decay: ScanDecay) -> np.ndarray:
    """Draw how the directions of a scan forget, (H, W, 3) uint8: curves, and maps of the image.

    Args:
        decay: the scan.
    """
    distance_D = decay.distance_D.numpy()
    lines = {}
    for k, name in enumerate(decay.directions):
        half = decay.half_life(k)
        told = f"{name}: half after {half}" if half else f"{name}: more than half"
        lines[told] = (distance_D, decay.kept_KD[k].numpy())
    title = f"state that is left, {decay.place}"
    figure = [curves(title, lines, x_title="distance along the path in tokens")]
    if decay.kept_KHW is not None and decay.weight_KHW is not None:
        size = PANEL * 3 // 4
        for maps_KHW, what in ((decay.kept_KHW, "left of"), (decay.weight_KHW, "weight of")):
            panels = [
                framed(
                    enlarged(heat(map_HW.numpy(), decades=DECADES), size),
                    name,
                    [f"{what} each token at the middle"],
                    beside=Bar(decades=DECADES),
                )
                for name, map_HW in zip(decay.directions, maps_KHW, strict=True)
            ]
            figure.append(in_rows(panels, ROW))
    return in_rows(figure, 1)
