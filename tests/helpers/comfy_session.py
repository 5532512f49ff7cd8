"""A session of ComfyUI without its page: loads and runs our nodes, and writes what came.

    python comfy_session.py COMFYUI OURS MODELS

The current ComfyUI is in the folder COMFYUI, our nodes in OURS. With ``stand-in`` for COMFYUI, a
minimal stand-in of the few functions that our nodes call takes its place.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import sys
import types
from pathlib import Path

import torch


def stand_in(models):
    """The modules ``comfy`` and ``folder_paths``, as far as our nodes call them, and a loader."""

    class Interrupt(BaseException):
        pass

    management = types.ModuleType("comfy.model_management")
    management.InterruptProcessingException, management.wanted = Interrupt, False

    def check():
        if management.wanted:
            management.wanted = False
            raise Interrupt

    management.throw_exception_if_processing_interrupted = check
    management.interrupt_current_processing = lambda v=True: setattr(management, "wanted", v)
    management.get_torch_device = lambda: torch.device("cpu")
    utils = types.ModuleType("comfy.utils")
    utils.hook = None

    class ProgressBar:
        def __init__(self, total):
            self.total = total

        def update_absolute(self, value):
            if utils.hook:
                utils.hook(value, self.total, None)

    utils.ProgressBar = ProgressBar
    utils.set_progress_bar_global_hook = lambda hook: setattr(utils, "hook", hook)
    comfy, paths = types.ModuleType("comfy"), types.ModuleType("folder_paths")
    comfy.model_management, comfy.utils = management, utils
    paths.get_filename_list = lambda folder: sorted(p.name for p in models.iterdir())
    paths.get_full_path = lambda folder, name: (
        str(models / name) if (models / name).is_file() else None
    )
    sys.modules |= {"comfy": comfy, "comfy.model_management": management, "comfy.utils": utils}
    sys.modules["folder_paths"] = paths

    def load(folder):
        spec = importlib.util.spec_from_file_location("ours", folder / "__init__.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.NODE_CLASS_MAPPINGS

    return load


def real(root, models):
    """ComfyUI's own loader."""
    sys.argv = [sys.argv[0], "--cpu"]
    sys.path.insert(0, str(root))
    os.chdir(root)
    import comfy.options

    comfy.options.enable_args_parsing()
    import folder_paths
    import nodes

    folder_paths.add_model_folder_path("upscale_models", str(models))

    def load(folder):
        assert asyncio.run(nodes.load_custom_node(str(folder)))
        assert asyncio.run(
            nodes.load_custom_node(str(root / "comfy_extras" / "nodes_upscale_model.py"))
        )
        return nodes.NODE_CLASS_MAPPINGS

    return load


def run(node, **inputs):
    """Call a node as ComfyUI does."""
    method = getattr(node, "execute", None) or getattr(node(), node.FUNCTION)
    return method(**inputs)[0]


def main(comfyui, ours, models):
    models = Path(models)
    load = stand_in(models) if comfyui == "stand-in" else real(Path(comfyui), models)
    found = load(Path(ours))
    import comfy.model_management as management
    import comfy.utils

    node = found["MambaRestore"]
    image = torch.load(models.parent / "image.pt")
    offered = node.INPUT_TYPES()["required"]["model"][0]
    seen = []
    comfy.utils.set_progress_bar_global_hook(
        lambda done, total, *_, **__: seen.append(done / total)
    )
    settings = {"image": image, "tile": 64, "precision": "fp32"}
    outputs = {
        name: run(node, model=name, **settings) for name in offered if not name.startswith("bad")
    }
    progress, seen[:] = list(seen), []
    errors = {}
    for name in offered:
        if name.startswith("bad"):
            try:
                run(node, model=name, **settings)
            except Exception as error:
                errors[name] = f"{type(error).__name__}: {error}"
    stock = {}
    if comfyui != "stand-in":
        for name in offered:
            if (models / name).is_file() and not name.startswith("bad") and "gray" not in name:
                model = run(found["UpscaleModelLoader"], model_name=name)
                stock[name] = run(found["ImageUpscaleWithModel"], upscale_model=model, image=image)
    # The button that stops a run, pressed at its first sign of life.
    seen[:] = []

    def press(done, total, *_, **__):
        seen.append(done / total)
        management.interrupt_current_processing(True)

    comfy.utils.set_progress_bar_global_hook(press)
    try:
        run(node, model=offered[0], **settings)
        interrupted = False
    except management.InterruptProcessingException:
        interrupted = True
    torch.save({"outputs": outputs, "stock": stock}, models.parent / "outputs.pt")
    told = {"offered": offered, "progress": progress, "errors": errors, "seen": seen}
    told["interrupted"] = interrupted
    (models.parent / "told.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
