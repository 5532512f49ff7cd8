"""``zoo app`` in headless Chromium: what is dropped, restored, cancelled, refused and served.

``make test-app`` runs it, in an environment with Gradio, where chromium and chromedriver are
installed.
"""

from __future__ import annotations

import base64
import contextlib
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.browser import Driver, free_port, wait_for
from zoo.cli import main
from zoo.data import Photo, load_sample, write_photo

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("gradio") is None, reason="Gradio is not installed: make test-app"
    ),
]

ROOT = Path(__file__).parents[2]
MODEL = "mambair_tiny_photo_x2"

DROP = """
const [selector, name, data] = arguments;
const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
const carried = new DataTransfer();
carried.items.add(new File([bytes], name, { type: "image/png" }));
document.querySelector(selector).dispatchEvent(
  new DragEvent("drop", { dataTransfer: carried, bubbles: true, cancelable: true }));
"""

UPLOADED = "return document.querySelectorAll('#photos td.filename').length"


class Server:
    """``zoo app`` in a process of its own."""

    def __init__(self, folder, *words, host="127.0.0.1", **variables):
        self.folder, self.log = folder / "server", folder / "log.txt"
        self.folder.mkdir()
        self.address = f"http://{host}:{free_port()}"
        command = [sys.executable, "-m", "zoo", "app", "--port", self.address.rpartition(":")[2]]
        environment = {**os.environ, "TMPDIR": str(self.folder), "PYTHONPATH": str(ROOT)}
        environment |= variables
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*command, *words], stdout=log, stderr=log, env=environment, cwd=folder
            )
        wait_for(lambda: "the page is at" in self.said() or self.process.poll(), "the app")
        assert self.process.poll() is None, self.said()

    def said(self):
        return self.log.read_text()

    def jobs(self):
        """Everything of jobs that lies in the server's folder."""
        return [*self.folder.glob("zoo-app-*/job-*")]

    def ask(self, path, body=None, **headers):
        """The status and the body of an answer."""
        request = urllib.request.Request(self.address + path, data=body, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def stop(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        return self.process.wait(60)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("app")
    server = Server(folder, "--max-upload", "1")
    yield server
    server.stop()


@pytest.fixture
def driver(tmp_path):
    with contextlib.closing(Driver(tmp_path)) as driver:
        yield driver


@pytest.fixture
def page(server, driver):
    window = driver.open(server.address)
    window.until("#restore")
    yield window
    assert [line for line in window.logged("browser") if line["level"] == "SEVERE"] == []
    assert [url for url in window.requested() if not url.startswith(server.address)] == []


def photo(path, height=60, width=80, x=100):
    """A cut of a real photo."""
    write_photo(path, Photo(load_sample("coffee").color_HWC[60 : 60 + height, x : x + width]))
    return path


def choose(window, *paths):
    window.type("#photos input[type=file]", "\n".join(map(str, paths)))
    for path in paths:
        window.until(f"#photos [aria-label='{path.name}']")


def pick(window, where, label):
    """Choose an entry of one of Gradio's lists."""
    window.click(f"{where} input")
    window.until(f"[aria-label='{label}'][role=option]")
    window.run(
        "document.querySelector(arguments[0]).dispatchEvent("
        "new MouseEvent('mousedown', { bubbles: true }))",
        f"[aria-label='{label}'][role=option]",
    )


def restored(window, server, count=1):
    """Restore, and return the files that are offered, by name."""
    window.click("#restore")
    links = "return [...document.querySelectorAll('#restored a')].map((a) => [a.download, a.href])"
    wait_for(lambda: len(window.run(links)) >= count, "results")
    found = {}
    for name, address in window.run(links):
        status, found[name] = server.ask(urllib.parse.urlsplit(address).path)
        assert status == 200
    return found


def by_command(source, target, *options):
    assert main(["restore", str(source), "-o", str(target), "-n", MODEL, *options]) == 0
    return target.read_bytes()


def test_a_dropped_photo_equals_zoo_restore(page, server, tmp_path):
    source = photo(tmp_path / "photo.png", 101, 167)
    page.run(DROP, "#photos button", "photo.png", base64.b64encode(source.read_bytes()).decode())
    page.until("#photos [aria-label='photo.png']")
    [(name, data)] = restored(page, server).items()
    assert name == "photo_x2.png"
    assert data == by_command(source, tmp_path / "expected.png")  # pixels, and the rest of the file

    page.until("#view .after")
    wait_for(lambda: page.run("return document.querySelector('#view .after').complete"), "picture")
    size = (
        "const i = document.querySelector(arguments[0]); return [i.naturalWidth, i.naturalHeight, "
    )
    size += "i.getBoundingClientRect().width * devicePixelRatio]"
    assert page.run(size, "#view .after") == [334, 202, 334]  # 100 %
    assert page.run(size, "#view .before") == [167, 101, 334]
    page.run(
        "const i = document.querySelector('#view input'); i.value = 25;"
        "i.dispatchEvent(new Event('input', { bubbles: true }))"
    )
    clip = "return getComputedStyle(document.querySelector('#view .after')).clipPath"
    assert "25%" in page.run(clip)
    page.run(
        "const i = document.querySelector('#view .both'), r = i.getBoundingClientRect();"
        "i.dispatchEvent(new PointerEvent('pointerdown', { bubbles: true, buttons: 1,"
        "clientX: r.left + 0.75 * r.width, clientY: r.top + 9 }))"
    )
    assert "75%" in page.run(clip)


def test_settings_are_those_of_the_command(page, server, tmp_path):
    source = photo(tmp_path / "wide.png", 40, 300)
    choose(page, source)
    page.click("#settings button")
    page.until("#tile input")
    pick(page, "#tile", "128 pixels")
    pick(page, "#format", "JPEG")
    page.click("#precision input[value=bf16]")
    [(name, data)] = restored(page, server).items()
    options = ["-t", "128", "--precision", "bf16"]
    assert name == "wide_x2.jpg"
    assert data == by_command(source, tmp_path / "expected.jpg", *options)
    assert data != by_command(source, tmp_path / "other.jpg", "-t", "128")


def test_several_photos_one_of_them_damaged(page, server, tmp_path):
    first, last = photo(tmp_path / "a.png"), photo(tmp_path / "c.png", x=200)
    (tmp_path / "b.png").write_bytes(first.read_bytes()[:500])
    choose(page, first, tmp_path / "b.png", last)
    found = restored(page, server, 3)
    assert list(found) == ["a_x2.png", "c_x2.png", "restored.zip"]
    assert found["c_x2.png"] == by_command(last, tmp_path / "expected.png")
    report = page.text("#report")
    assert "b.png" in report and "damaged" in report and str(server.folder) not in report
    pick(page, "#which", "3. c.png")
    shown = "return document.querySelector('#view .after')?.getAttribute('src')"
    wait_for(lambda: "/3/" in page.run(shown), "the other photo")


def test_a_hidden_file_and_one_with_a_warning(page, server, tmp_path):
    """Hidden names are those that Gradio serves from no folder below the current one."""
    hidden = photo(tmp_path / ".hidden.png")
    Image.new("CMYK", (80, 60)).save(tmp_path / "print.jpg")
    page.type("#photos input[type=file]", f"{hidden}\n{tmp_path / 'print.jpg'}")
    wait_for(lambda: page.run(UPLOADED) == 2, "uploads")
    found = restored(page, server, 3)
    assert list(found) == [".hidden_x2.png", "print_x2.jpg", "restored.zip"]
    assert found[".hidden_x2.png"] == by_command(hidden, tmp_path / "expected.png")
    assert "print.jpg: CMYK became RGB" in page.text("#report .warning")


def test_who_leaves_while_a_photo_is_restored(server, driver, tmp_path):
    window = driver.open(server.address)
    window.until("#restore")
    first, long = photo(tmp_path / "a.png"), photo(tmp_path / "long.png", 300, 400, 0)
    before, said = set(server.jobs()), server.said()
    choose(window, first, long)
    window.click("#restore")
    wait_for(lambda: any(job.glob("1/*.png") for job in set(server.jobs()) - before), "a photo")
    window.close()
    wait_for(lambda: set(server.jobs()) <= before, "the visitor to be forgotten", 120)
    photo_of_another = driver.open(server.address)
    photo_of_another.until("#restore")
    choose(photo_of_another, first)
    restored(photo_of_another, server)  # once the work of the one who left has ended
    # Other tests let the same server refuse what is hostile, with a traceback in its log.
    assert "Traceback" not in server.said().removeprefix(said)
    assert len(set(server.jobs()) - before) <= 1


HOSTILE = '"><img src=x onerror="window.hacked=1">{{7*7}}${7*7}.png'


def test_a_hostile_file_name_is_only_text(page, server, tmp_path):
    source = photo(tmp_path / HOSTILE)
    page.type("#photos input[type=file]", source)
    page.until("#photos td.filename")
    [data] = restored(page, server).values()
    assert data == by_command(source, tmp_path / "expected.png")
    assert page.run("return window.hacked ?? 0") == 0 and "49" not in page.text("#report")
    assert not page.has("#report img")


def test_names_and_errors_are_text_in_the_report():
    """Gradio cleans names of uploads, so that none of them shows this."""
    from zoo.app.page import _report
    from zoo.app.work import Result

    report = _report([Result(name=HOSTILE, error=HOSTILE)], HOSTILE)
    assert "<img" not in report and "{{" not in report and "${" not in report
    assert report.count("&quot;&gt;&lt;img") == 3


def test_uploads_stay_in_the_folder(server):
    body = (
        b'--xx\r\nContent-Disposition: form-data; name="files"; filename="../../../evil.png"\r\n'
        b"Content-Type: image/png\r\n\r\nabc\r\n--xx--\r\n"
    )
    kind = "multipart/form-data; boundary=xx"
    status, answer = server.ask("/gradio_api/upload", body, **{"Content-Type": kind})
    assert status == 200
    [path] = json.loads(answer)
    assert Path(path).resolve().is_relative_to(server.folder) and Path(path).read_bytes() == b"abc"
    assert not [*server.folder.glob("*evil*")] and not [*server.folder.parent.glob("*evil*")]


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", str(ROOT / "zoo/cli.py"), str(ROOT / "README.md"), "zoo/cli.py", "file:///etc/passwd",
     "{folder}/../../log.txt", "{folder}/../log.txt", "{folder}%2F..%2F..%2Flog.txt"],
)  # fmt: skip
def test_nothing_outside_the_folder_is_served(server, path):
    [folder] = server.folder.glob("zoo-app-*")
    for prefix in ("/gradio_api/file=", "/file=", "/static/", "/assets/"):
        status, _ = server.ask(prefix + path.replace("{folder}", str(folder)))
        assert status in (403, 404), prefix


def test_a_path_in_place_of_an_upload_is_refused(server, tmp_path):
    """The page's own interface, called by hand with a file that nobody uploaded."""
    source = photo(tmp_path / "private.png")
    config = json.loads(server.ask("/config")[1])
    [number] = [i for i, d in enumerate(config["dependencies"]) if len(d["outputs"]) == 5]
    file = {"path": str(source), "meta": {"_type": "gradio.FileData"}, "orig_name": "private.png"}
    body = {
        "data": [[file], MODEL, -1, "fp32", False, ""],
        "fn_index": config["dependencies"][number]["id"],
        "session_hash": "byhand",
    }
    kind = {"Content-Type": "application/json"}
    status, _ = server.ask("/gradio_api/queue/join", json.dumps(body).encode(), **kind)
    assert status == 200
    _, events = server.ask("/gradio_api/queue/data?session_hash=byhand")
    [last] = [line for line in events.decode().splitlines() if "process_completed" in line]
    assert json.loads(last[5:])["success"] is False
    assert "_x2.png" not in events.decode()


def test_only_this_machines_names_are_answered(server):
    assert server.ask("/", Host="evil.example")[0] == 400
    status, _ = server.ask("/", Host="localhost:1")
    assert status == 200


def test_a_file_beyond_the_limit_is_refused(page, server, tmp_path):
    noise = np.random.default_rng(0).random((700, 700, 3), np.float32)
    write_photo(tmp_path / "large.png", Photo(noise))
    assert (tmp_path / "large.png").stat().st_size > 2**20
    page.type("#photos input[type=file]", tmp_path / "large.png")
    wait_for(
        lambda: "exceed" in page.text("body").lower() or "maximum" in page.text("body").lower(),
        "a message",
    )
    assert not page.has("#photos [aria-label='large.png']")
    page.logged("browser")  # the refusal is logged, too


def test_cancelling_and_going_on(page, server, tmp_path):
    long, short = photo(tmp_path / "long.png", 300, 400, 0), photo(tmp_path / "short.png")
    choose(page, long)
    page.click("#settings button")
    page.until("#tile input")
    pick(page, "#tile", "128 pixels")
    page.click("#ensemble input")
    page.click("#restore")
    wait_for(lambda: "Restoring" in page.text("body"), "progress")
    page.click("#cancel")
    wait_for(lambda: "Restoring" not in page.text("body"), "the end")
    assert page.run("return document.querySelectorAll('#restored a').length") == 0
    page.click("#ensemble input")
    page.click("#photos [aria-label='Clear']")
    choose(page, short)
    [data] = restored(page, server).values()
    assert data == by_command(short, tmp_path / "expected.png")
    assert len(server.jobs()) == 1


def test_two_visitors_at_once(page, server, driver, tmp_path):
    other = driver.open(server.address)
    other.until("#restore")
    mine, theirs = photo(tmp_path / "photo.png", 200, 300), tmp_path / "other/photo.png"
    photo(theirs, 200, 300, x=250)
    choose(page, mine)
    choose(other, theirs)
    page.click("#restore")
    [data] = restored(other, server).values()
    assert data == by_command(theirs, tmp_path / "theirs.png")
    link = page.run("return document.querySelector('#restored a').href")
    data = server.ask(urllib.parse.urlsplit(link).path)[1]
    assert data == by_command(mine, tmp_path / "mine.png")
    # Who waits can cancel, and who leaves is forgotten.
    assert len(server.jobs()) == 2
    other.close()
    wait_for(lambda: len(server.jobs()) == 1, "the visitor to be forgotten")


def test_who_waits_can_cancel(page, server, driver, tmp_path):
    other = driver.open(server.address)
    other.until("#restore")
    source = photo(tmp_path / "photo.png", 300, 400, 0)
    for window in (page, other):
        choose(window, source)
    page.click("#settings button")
    page.until("#ensemble input")
    page.click("#ensemble input")
    page.click("#restore")
    wait_for(lambda: "Restoring" in page.text("body"), "progress")
    other.click("#restore")
    wait_for(lambda: "queue" in other.text("body"), "waiting")
    other.click("#cancel")
    wait_for(lambda: "queue" not in other.text("body"), "the end")
    page.click("#cancel")
    wait_for(lambda: "Restoring" not in page.text("body"), "the end")
    assert not other.run("return document.querySelectorAll('#restored a').length")


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_all_is_removed_at_the_end(tmp_path, how):
    server = Server(tmp_path)
    assert [*server.folder.glob("zoo-app-*")]
    assert server.stop(how) == 0
    assert [*server.folder.iterdir()] == [] and "stopped" in server.said()
    assert "Traceback" not in server.said()


@pytest.mark.skipif(not socket.has_ipv6, reason="this system has no IPv6")
@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_an_address_of_ipv6_where_a_proxy_is_set(tmp_path, host):
    proxy = dict.fromkeys(("http_proxy", "HTTP_PROXY", "ALL_PROXY"), "http://127.0.0.1:9")
    server = Server(tmp_path, "--host", host, host="[::1]", **proxy)
    try:
        assert server.ask("/")[0] == 200
        assert server.ask("/", Host="evil.example")[0] == 400
        assert "everybody" not in server.said()
    finally:
        server.stop()


def test_a_port_that_is_taken(server):
    port = server.address.rpartition(":")[2]
    done = subprocess.run(
        [sys.executable, "-m", "zoo", "app", "--port", port],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 2 and done.stderr.strip().startswith("zoo app: error: ")
    assert port in done.stderr and done.stderr.count("\n") == 1, done.stderr
