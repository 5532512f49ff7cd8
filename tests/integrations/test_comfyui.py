"""Our nodes in ComfyUI: by its own loader where COMFYUI names its folder, and in a stand-in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import zoo
from tests.helpers.official_weights import state_dict
from tests.helpers.small_weights import small_network
from zoo.inference import RestoreSettings, restore_tensor

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["stand-in", "ComfyUI"])
def session(request, spandrel, tmp_path):
    """What the nodes gave for a batch of two photos."""
    comfyui = "stand-in" if request.param == "stand-in" else os.environ.get("COMFYUI")
    if comfyui is None:
        pytest.skip("ComfyUI itself: COMFYUI=its folder make test-integrations runs these")
    models = tmp_path / "models"
    models.mkdir()
    zoo.save(small_network(scans=["hilbert"]), models / "mine.safetensors")
    torch.save({"params": state_dict("ir_light_x3_17x23")}, models / "x3.pth")
    torch.save({"params": state_dict("csr_wo_x2_16x16")}, models / "csr.pth")
    torch.save({"params": state_dict("ir_car_gray_17x23")}, models / "gray.pth")
    (models / "bad.pth").write_text("no weights")
    torch.manual_seed(1)
    image = torch.nn.functional.interpolate(torch.rand(2, 3, 9, 11), (72, 90), mode="bicubic")
    image = image.clamp(0, 1).movedim(1, -1).contiguous()
    torch.save(image, tmp_path / "image.pt")
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "helpers" / "comfy_session.py"), comfyui,
         str(ROOT / "integrations" / "comfyui"), str(models)],
        capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads((tmp_path / "told.json").read_text())
    return models, image, told, torch.load(tmp_path / "outputs.pt")


def expected(network, image, tile):
    settings = RestoreSettings(tile=tile)
    return restore_tensor(network, image.movedim(-1, 1), settings).movedim(1, -1)


def test_nodes_restore_as_the_package_does(session):
    models, image, told, outputs = session
    assert set(told["offered"]) >= {"mambair_tiny_x2", "mambacsr_tiny_x2", "mine.safetensors"}
    assert not any("qmambabsr" in name for name in told["offered"])  # it takes bursts
    for name, output in outputs["outputs"].items():
        path = models / name
        source = path if path.is_file() else name
        network = zoo.load(source, **({"scan_size": 8} if name == "csr.pth" else {}))
        assert output.shape == (2, 72 * network.scale, 90 * network.scale, 3), name
        if network.channels == 3:
            assert (output - expected(network, image, 64)).abs().max() < 1e-5, name
        else:
            red = expected(network, image[..., :1], 64)
            assert (output[..., :1] - red).abs().max() < 1e-5, name
    assert len(outputs["outputs"]) == len(told["offered"]) - 1
    assert told["progress"][-1] == 1 and len(told["progress"]) > len(outputs["outputs"])
    assert told["errors"].keys() == {"bad.pth"}
    assert told["errors"]["bad.pth"].startswith("CheckpointError: ")
    assert "text, not weights" in told["errors"]["bad.pth"]
    # The first tile was told; the run ended before the end.
    assert told["interrupted"] and max(told["seen"]) < 1
    for name, output in outputs["stock"].items():  # ComfyUI's own nodes, in one tile of 512
        facts = {"scan_size": 8} if name == "csr.pth" else {}
        whole = expected(zoo.load(models / name, **facts), image, 0)
        assert (output - whole).abs().max() < 1e-5, name
    if os.environ.get("COMFYUI") and outputs["stock"]:
        assert outputs["stock"].keys() == {"mine.safetensors", "x3.pth", "csr.pth"}
