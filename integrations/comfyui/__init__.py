"""ComfyUI: Mamba networks in "Load Upscale Model", and a node of their own, "Mamba Restore".

Copy or link this folder into ``ComfyUI/custom_nodes``, and install the package in the Python that
runs ComfyUI; see docs/integrations.md.

Shape suffixes: B batch, H height, W width, C channels of a picture, s scale.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
import folder_paths
import torch
from torch import Tensor

import zoo
from zoo.errors import CheckpointError
from zoo.inference import graphs
from zoo.integrations.spandrel import install
from zoo.networks import Network
from zoo.recipe import load_recipe
from zoo.shipped import shipped_weights

FOLDER = "upscale_models"
"""Name of ComfyUI's folder of models that enlarge or repair images."""

STEPS = 1000
"""Steps of the progress bar."""

install()


def choices() -> list[str]:
    """Return the models that the node offers: those that ship, and the files in the folder."""
    shipped = [name for name in shipped_weights() if not load_recipe(name).takes_burst]
    return [*shipped, *folder_paths.get_filename_list(FOLDER)]


def load(name: str) -> Network:
    """Load a model that ships, or a file in the folder; it is read again after it has changed."""
    if name in shipped_weights():
        return _loaded(name, 0)
    path = folder_paths.get_full_path(FOLDER, name)
    if path is None:
        raise FileNotFoundError(f"{name} is not in the folder {FOLDER}; refresh the list of models")
    return _loaded(path, Path(path).stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _loaded(source: str, changed: int) -> Network:
    try:
        return zoo.load(source)
    except (
        CheckpointError
    ):  # its tensors do not show all: as the stock loader reads it, or an error
        return zoo.load(source, recipe=zoo.detect(source, as_published=True))


class MambaRestore:
    """Restores images with a network of the Mamba Restoration Zoo, in tiles of any size."""

    CATEGORY = "image/upscaling"
    DESCRIPTION = "Restore or enlarge images with a Mamba network; any size, in tiles."
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "restore"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802  # ComfyUI's name
        """Return the inputs, in ComfyUI's terms."""
        tile = {
            "default": 0,
            "min": 0,
            "max": 4096,
            "step": 16,
            "tooltip": "side of a tile in pixels; 0 for as large as memory allows",
        }
        return {
            "required": {
                "image": ("IMAGE",),
                "model": (choices(),),
                "tile": ("INT", tile),
                "precision": (["fp32", "bf16", "fp16"],),
            }
        }

    def restore(self, image: Tensor, model: str, tile: int, precision: str) -> tuple[Tensor]:
        """Restore a batch of images.

        Args:
            image: (B, H, W, C) in [0, 1].
            model: name of a model that ships, or of a file.
            tile: side of a tile in pixels; 0 for the largest that memory allows.
            precision: "fp32", "bf16" or "fp16".

        Returns:
            (B, s*H, s*W, C) in [0, 1], on the CPU.
        """
        network = load(model)
        home = comfy.model_management.get_torch_device()
        bar = comfy.utils.ProgressBar(STEPS)
        restored = []
        try:
            network.to(home)
            for number, image_HWC in enumerate(image.cpu().float()):

                def told(done: float, number: int = number) -> None:
                    comfy.model_management.throw_exception_if_processing_interrupted()
                    bar.update_absolute(round(STEPS * (number + done) / len(image)))

                comfy.model_management.throw_exception_if_processing_interrupted()
                one_HWC = zoo.restore(
                    network,
                    image_HWC.numpy(),
                    tile=tile or None,
                    precision=precision,
                    progress=told,
                )
                restored.append(torch.from_numpy(one_HWC))
        finally:
            graphs.forget()
            network.to("cpu")
        return (torch.stack(restored),)


NODE_CLASS_MAPPINGS = {"MambaRestore": MambaRestore}
NODE_DISPLAY_NAME_MAPPINGS = {"MambaRestore": "Mamba Restore"}
