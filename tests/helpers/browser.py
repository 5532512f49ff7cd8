"""Headless Chromium, driven through chromedriver by the WebDriver protocol.

Debian: ``apt install chromium chromium-driver``.
"""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request

import pytest

FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
"""The key of an element's identifier, set by the protocol."""


class BrowserError(Exception):
    """The browser could not do what was asked for."""


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Driver:
    """chromedriver; each of its windows is a browser with a profile of its own."""

    def __init__(self, folder):
        program, chromium = shutil.which("chromedriver"), shutil.which("chromium")
        if program is None or chromium is None:
            pytest.skip("chromium and chromedriver are not installed")
        self.folder, self.chromium = folder, chromium
        self.address = f"http://127.0.0.1:{free_port()}"
        self.process = subprocess.Popen(
            [program, f"--port={self.address.rpartition(':')[2]}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.windows = []
        wait_for(lambda: self._is_up(), "chromedriver")

    def _is_up(self):
        try:
            return self.call("GET", "/status")["ready"]
        except OSError:
            return False

    def call(self, method, path, body=None):
        request = urllib.request.Request(
            self.address + path,
            method=method,
            data=None if method != "POST" else json.dumps(body or {}).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise BrowserError(json.load(error)["value"]["message"]) from None

    def open(self, address, size=(1200, 900)):
        window = Window(self, address, size)
        self.windows.append(window)
        return window

    def close(self):
        for window in self.windows:
            window.close()
        self.process.terminate()
        self.process.wait(30)


class Window:
    """A browser that shows a page."""

    def __init__(self, driver, address, size):
        self.driver = driver
        profile = driver.folder / f"profile{len(driver.windows)}"
        options = {
            "binary": driver.chromium,
            "args": [
                *FLAGS,
                f"--user-data-dir={profile}",
                f"--window-size={size[0]},{size[1]}",
            ],
        }
        wanted = {
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        answer = driver.call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self.path = f"/session/{answer['sessionId']}"
        self.go(address)

    def go(self, address):
        self.driver.call("POST", f"{self.path}/url", {"url": address})

    def run(self, script, *arguments):
        """Run the body of a JavaScript function and return what it returns."""
        body = {"script": script, "args": list(arguments)}
        return self.driver.call("POST", f"{self.path}/execute/sync", body)

    def find(self, selector):
        body = {"using": "css selector", "value": selector}
        return self.driver.call("POST", f"{self.path}/element", body)[ELEMENT]

    def has(self, selector):
        return self.run("return document.querySelector(arguments[0]) !== null", selector)

    def text(self, selector):
        """The text of an element; "" if there is none."""
        return self.run(
            "const found = document.querySelector(arguments[0]);"
            "return found === null ? '' : found.innerText",
            selector,
        )

    def click(self, selector):
        self.driver.call("POST", f"{self.path}/element/{self.find(selector)}/click")

    def type(self, selector, text):
        """Type into a field; into one for files, a path a line."""
        body = {"text": str(text)}
        self.driver.call("POST", f"{self.path}/element/{self.find(selector)}/value", body)

    def until(self, selector, seconds=180):
        wait_for(lambda: self.has(selector), selector, seconds)

    def picture(self, path):
        path.write_bytes(base64.b64decode(self.driver.call("GET", f"{self.path}/screenshot")))

    def logged(self, kind):
        return self.driver.call("POST", f"{self.path}/se/log", {"type": kind})

    def requested(self):
        """The addresses in the network that were asked for since the last call."""
        events = [json.loads(entry["message"])["message"] for entry in self.logged("performance")]
        return [
            event["params"]["request"]["url"]
            for event in events
            if event["method"] == "Network.requestWillBeSent"
            and event["params"]["request"]["url"].startswith(("http", "ws"))
        ]

    def close(self):
        with contextlib.suppress(OSError, BrowserError):  # it is closed
            self.driver.call("DELETE", self.path)


def wait_for(condition, what, seconds=180):
    """Wait until a condition holds; fail with what was waited for."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.1)
