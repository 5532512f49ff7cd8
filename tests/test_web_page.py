"""The web page of examples/web in headless Chromium: a dropped photo has the pixels of Python.

``make test-runtimes`` runs it where chromium is installed (Debian: apt install chromium).
"""

from __future__ import annotations

import functools
import http.server
import importlib.util
import queue
import shutil
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from runtimes import Runtime, make_environment

import zoo
from zoo.data import Photo, load_sample, read_photo, write_photo
from zoo.data.pixels import quantise, to_array, to_tensor
from zoo.inference.tiling import in_tiles

pytestmark = pytest.mark.slow

WEB = Path(__file__).parents[1] / "examples/web"
TILE, OVERLAP = 128, 16
"""As in app.js."""

# Drops the photo on the page, moves the slider, and sends what the page shows back.
DRIVER = """
const find = (id) => document.getElementById(id);
const until = async (state) => {
  while (document.body.dataset.state !== state) {
    const error = find("error").textContent;
    if (error) throw new Error(error);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
};
async function drive() {
  await until("ready");
  const bytes = await (await fetch("photo.png")).blob();
  const carried = new DataTransfer();
  carried.items.add(new File([bytes], "photo.png", { type: "image/png" }));
  find("drop").dispatchEvent(new DragEvent("drop", { dataTransfer: carried, bubbles: true }));
  await until("working");
  await until("done");
  find("slider").value = 25;
  find("slider").dispatchEvent(new Event("input"));
  if (!find("after").style.clipPath.includes("25%")) throw new Error("the slider does nothing");
  const { width, height } = find("after");
  const saved = await (await fetch(find("save").href)).arrayBuffer();
  await fetch(`/found?${width}x${height}x${find("before").width}`, { method: "POST", body: saved });
}
drive().catch((error) => fetch("/failed", { method: "POST", body: String(error) }));
"""


class Handler(http.server.SimpleHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.posted.put((self.path, body))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def site(tmp_path):
    spec = importlib.util.spec_from_file_location("build_web", WEB / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    packages = make_environment(Runtime("onnxruntime-web", ("onnxruntime-web",)))
    module.build(tmp_path / "site", packages / "node_modules/onnxruntime-web/dist")
    return tmp_path / "site"


@pytest.fixture
def server(site):
    handler = functools.partial(Handler, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as found:
        found.posted = queue.Queue()
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield found
        found.shutdown()


def test_a_dropped_photo_has_the_pixels_of_python(site, server, tmp_path):
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium is installed")
    # A cut of a real photo, larger than a tile in one direction.
    photo = load_sample("coffee").color_HWC[100:201, 150:317]
    write_photo(site / "photo.png", Photo(photo))
    page = (site / "index.html").read_text()
    (site / "test.html").write_text(page.replace("</body>", '<script src="drive.js"></script>'))
    (site / "drive.js").write_text(DRIVER)
    command = [chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--disable-dev-shm-usage"]
    address = f"http://127.0.0.1:{server.server_port}/test.html"
    browser = subprocess.Popen([*command, address], stderr=subprocess.DEVNULL)
    try:
        path, body = server.posted.get(timeout=300)
    finally:
        browser.terminate()
        browser.wait(30)
    assert path == "/found?334x202x334", body.decode(errors="replace")[:300]
    (tmp_path / "found.png").write_bytes(body)
    found = read_photo(tmp_path / "found.png").color_HWC

    network = zoo.load("mambair_tiny_x2").eval()
    image = to_tensor(read_photo(site / "photo.png").color_HWC)[None]
    with torch.inference_mode():
        whole = in_tiles(network, image, scale=2, channels=3, tile=TILE, overlap=OVERLAP)
    expected = to_array(whole[0].clamp(0, 1))
    assert found.shape == expected.shape == (202, 334, 3)
    # 8-bit values: those halfway between two levels may go either way.
    levels = np.abs(quantise(found, 8).astype(int) - quantise(expected, 8).astype(int))
    assert levels.max() <= 1 and (levels > 0).mean() < 1e-3
