"""Plots of an order that depends on the image: which tokens of a photo are walked together.

Beside the photo are the classes of its tokens, one colour for each class, and the path: each token
has the colour of its step, from dark (start) to bright (end). In small photos the path is drawn
token by token, as in :mod:`zoo.plots.scan_order`.

Shape suffixes: B batch, I image channels, H height, W width in tokens, L tokens, C 3 colours.
"""

from __future__ import annotations

import colorsys
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from zoo.blocks import Attentive, Routes
from zoo.data.images import Photo, write_photo
from zoo.data.pixels import to_array
from zoo.errors import ZooError
from zoo.networks import Network
from zoo.plots.scan_order import (
    CELLS,
    LARGEST,
    MARGIN,
    PANEL,
    TITLE,
    WHITE,
    Panel,
    shade,
    text_width,
    write_text,
)
from zoo.scans import ByClass

GOLDEN = 0.6180339887
"""Steps of this on the colour circle give neighbouring numbers colours that differ most."""


class Walk(NamedTuple):
    """How one mixer walks an image.

    Attributes:
        place: name of the mixer in the network.
        class_HW: class of each token.
        step_HW: step of each token in the first direction.
        classes: number of classes.
    """

    place: str
    class_HW: np.ndarray
    step_HW: np.ndarray
    classes: int


def plot_classes(
    network: Network, image_IHW: Tensor, path: str | Path, *, block: int | None = None
) -> None:
    """Draw how a network walks an image by class, and write it as an image file.

    Args:
        network: a network with mixers that scan by class, such as MambaIRv2.
        image_IHW: the image, float32 in [0, 1].
        path: image file to write.
        block: number of the mixer, counted from 0; None for the last one.

    Raises:
        ZooError: if the network has no such mixer, or the file cannot be written.
    """
    walk = walk_of(network, image_IHW, block)
    picture = render_walk(walk, to_array(image_IHW)).astype(np.float32) / 255
    write_photo(Path(path), Photo(color_HWC=picture, alpha_HW=None, bit_depth=8))


def walk_of(network: Network, image_IHW: Tensor, block: int | None = None) -> Walk:
    """Run a network on an image and return how one of its mixers walks it."""
    mixers = [
        (name, module)
        for name, module in network.named_modules()
        if isinstance(module, Attentive) and isinstance(module.scan, ByClass)
    ]
    if not mixers:
        raise ZooError("this network has no mixer that scans by class; MambaIRv2 has some")
    number = len(mixers) - 1 if block is None else block
    if not 0 <= number < len(mixers):
        raise ZooError(f"--block {block}: the network has the blocks 0 to {len(mixers) - 1}")
    place, mixer = mixers[number]
    sizes: list[torch.Size] = []
    routes: list[Routes] = []

    def keep_size(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        sizes.append(inputs[0].shape)

    def keep_routes(_module: nn.Module, _inputs: tuple[Tensor, ...], found: Routes) -> None:
        routes.append(found)

    handles = [
        mixer.register_forward_pre_hook(keep_size),
        mixer.router.register_forward_hook(keep_routes),
    ]
    try:
        with torch.inference_mode():
            network.eval()(image_IHW[None])
    finally:
        for handle in handles:
            handle.remove()
    assert isinstance(mixer.scan, ByClass)
    grid = sizes[0][1:3]
    class_BL = routes[0].class_BL
    rank_BKL = mixer.scan.of_classes(class_BL, mixer.classes).rank_BKL
    height, width = image_IHW.shape[-2:]  # without what the network added at the border
    tokens = (class_BL[0], rank_BKL[0, 0])
    class_HW, step_HW = (t.reshape(grid)[:height, :width].numpy() for t in tokens)
    return Walk(place, class_HW, step_HW, mixer.classes)


def render_walk(walk: Walk, image_HWC: np.ndarray) -> np.ndarray:
    """Draw the photo, the classes and the path, and return them as RGB, (H, W, 3) uint8."""
    height, width = walk.class_HW.shape
    cell = int(np.clip(PANEL // max(height, width), 1, CELLS[1]))
    used = len(np.unique(walk.class_HW))
    photo = np.broadcast_to(image_HWC, (height, width, 3))
    panels = {
        "photo": (np.clip(photo, 0, 1) * 255).round().astype(np.uint8),
        f"{used} of {walk.classes} classes": _palette(walk.classes)[walk.class_HW],
        "path, from dark to bright": _steps(walk.step_HW),
    }
    inner = max(width * cell, *(text_width(title) for title in panels))
    small = max(height, width) <= LARGEST and cell >= CELLS[0]
    drawn = []
    for number, (title, pixels_HWC) in enumerate(panels.items()):
        canvas = np.full((TITLE + height * cell + MARGIN, inner + 2 * MARGIN, 3), WHITE, np.uint8)
        write_text(canvas, title, MARGIN, TITLE - 16)
        if number == 2 and small:
            grid = {"left": MARGIN, "top": TITLE, "cell": cell, "height": height, "width": width}
            Panel(canvas, **grid, coarse=0).draw(walk.step_HW.reshape(-1).argsort().tolist())
        else:
            size = (width * cell, height * cell)
            large = cv2.resize(pixels_HWC, size, interpolation=cv2.INTER_NEAREST)
            canvas[TITLE : TITLE + size[1], MARGIN : MARGIN + size[0]] = large
        drawn.append(canvas)
    return np.hstack(drawn)


def _palette(classes: int) -> np.ndarray:
    """Return one colour for each class, (classes, 3) uint8."""
    saturation, value = (0.55, 0.9), (0.95, 0.7, 0.45)
    colours = [
        colorsys.hsv_to_rgb(number * GOLDEN % 1, saturation[number % 2], value[number % 3])
        for number in range(classes)
    ]
    return (np.array(colours) * 255).round().astype(np.uint8)


def _steps(step_HW: np.ndarray) -> np.ndarray:
    """Return the colour of each step, (H, W, 3) uint8."""
    colours = np.array([shade(i / 255) for i in range(256)], np.uint8)
    return colours[(step_HW * 255 // max(int(step_HW.max()), 1)).astype(int)]
