"""What the app asks of Gradio, with a stand-in for it; the page itself is in test_page.py."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from zoo.app import server
from zoo.app.server import POLICY, Guard, serve
from zoo.errors import ZooError

OPTIONS = {"port": None, "most_megabytes": 7, "at_once": 3, "open_browser": False}


class HTTPError(Exception): ...


class Page:
    """What ``build`` returns: each call is kept."""

    def __init__(self):
        self.calls, self.error = [], None

    def queue(self):
        self.calls.append("queue")

    def launch(self, **options):
        self.calls.append("launch")
        self.options = options
        self.folder = Path(os.environ["GRADIO_TEMP_DIR"])
        assert self.folder.is_dir()
        if self.error is not None:
            raise self.error
        return None, "http://here/", None

    def close(self, *, verbose):
        self.calls.append(f"close, verbose={verbose}")


@pytest.fixture
def page(monkeypatch):
    made = Page()

    def build(models, visitors):
        made.models, made.visitors = models, visitors
        return made

    def module(name, **held):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(**held))

    module("gradio", themes=SimpleNamespace(Default=lambda **fonts: fonts))
    module("httpx", HTTPError=HTTPError)
    module("starlette.middleware", Middleware=lambda kind, **options: (kind, options))
    module("starlette.middleware.trustedhost", TrustedHostMiddleware="trusted hosts")
    module("zoo.app.page", STYLE="a style", build=build)
    for name in ("GRADIO_ANALYTICS_ENABLED", "GRADIO_TEMP_DIR", "no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(server.signal, "signal", lambda *given: made.calls.append(given))
    return made


def served(page, host="127.0.0.1", **options):
    """Serve until the page has answered, as if Ctrl-C came then; return what was told."""
    told = []

    def ready(address):
        told.append(address)
        page.calls.append("ready")
        raise KeyboardInterrupt

    serve("models", host=host, ready=ready, **{**OPTIONS, **options})
    return told


def test_the_page_is_served_from_a_folder_that_is_removed_at_the_end(page, caplog):
    with caplog.at_level(logging.INFO):
        assert served(page) == ["http://here/"]
    assert page.calls == [
        *("queue", "launch", (signal.SIGTERM, signal.default_int_handler), "ready"),
        "close, verbose=False",
    ]
    assert caplog.messages == ["stopped"]
    assert page.models == "models" and page.visitors.at_once == 3
    assert page.visitors.folder == page.folder and page.folder.name.startswith("zoo-app-")
    assert not page.folder.exists() and page.folder == page.folder.resolve()


def test_the_page_is_served_until_it_is_interrupted(page, monkeypatch, tmp_path):
    def wait():
        page.calls.append("waited")
        raise KeyboardInterrupt

    monkeypatch.setattr(server.threading, "Event", lambda: SimpleNamespace(wait=wait))
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    monkeypatch.setattr(server.tempfile, "tempdir", str(tmp_path / "link"))
    serve("models", host="127.0.0.1", ready=page.calls.append, **OPTIONS)
    assert page.calls[-3:] == ["http://here/", "waited", "close, verbose=False"]
    # Gradio compares paths as they are behind links.
    assert page.folder.parent == tmp_path / "folder"


def test_nothing_is_sent_to_or_fetched_from_other_hosts(page):
    served(page, port=9, open_browser=True)
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
    names = ["127.0.0.1", "localhost", "::1", "[::1]", "127.0.0.1"]
    assert page.options == {
        "server_name": "127.0.0.1",
        "server_port": 9,
        "max_file_size": 7 * 2**20,
        "app_kwargs": {"middleware": [(Guard, {}), ("trusted hosts", {"allowed_hosts": names})]},
        "theme": {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]},
        "css": "a style",
        "allowed_paths": [str(page.folder)],
        "footer_links": [],
        "inbrowser": True,
        "prevent_thread_lock": True,
        "share": False,
        "ssr_mode": False,
        "mcp_server": False,
        "enable_monitoring": False,
        "quiet": True,
    }


def test_a_proxy_is_not_asked_for_this_machine(page, monkeypatch):
    monkeypatch.setenv("no_proxy", "a.org,b.org")
    served(page)
    assert os.environ["no_proxy"] == "a.org,b.org,localhost,127.0.0.1"
    assert os.environ["NO_PROXY"] == "localhost,127.0.0.1"


def test_an_address_that_others_reach_is_warned_of_and_answers_to_any_name(page, caplog):
    served(page, "0.0.0.0")
    assert page.options["app_kwargs"] == {"middleware": [(Guard, {})]}
    [warning] = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert warning.startswith("--host 0.0.0.0: everybody who can reach this machine can use the")


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_an_address_of_ipv6_has_brackets_where_a_url_needs_them(host, page, monkeypatch):
    checked = []
    monkeypatch.setattr(server, "check_address", checked.append)
    served(page, host)
    assert checked == ["::1"] and page.options["server_name"] == "[::1]"
    assert os.environ["NO_PROXY"].endswith(",::1")


@pytest.mark.parametrize(
    ("error", "port", "message"),
    [
        (OSError("taken"), 80, r"^127\.0\.0\.1: port 80 cannot be used \(taken\); leave out --por"),
        (OSError("none"), None, r"^127\.0\.0\.1: port  cannot be used \(none\); close other prog"),
        (HTTPError("late"), None, r"^127\.0\.0\.1: the page does not answer \(late\); check the"),
        (ValueError("no"), None, r"the page does not answer \(no\); check the settings of proxies"),
    ],
)
def test_a_page_that_cannot_be_opened_says_why(error, port, message, page):
    page.error = error
    with pytest.raises(ZooError, match=message):
        served(page, port=port)
    assert page.calls == ["queue", "launch"] and not page.folder.exists()


def test_every_answer_says_what_the_page_may_load():
    sent = []

    async def app(scope, receive, send):
        assert (scope, receive) == ("scope", "receive")
        await send({"type": "http.response.start", "headers": [(b"a", b"b")]})
        await send({"type": "http.response.body", "body": b"c"})

    async def send(message):
        sent.append(message)

    asyncio.run(Guard(app)("scope", "receive", send))
    assert sent == [
        {
            "type": "http.response.start",
            "headers": [
                (b"a", b"b"),
                (b"content-security-policy", POLICY.encode()),
                (b"x-content-type-options", b"nosniff"),
                (b"referrer-policy", b"no-referrer"),
            ],
        },
        {"type": "http.response.body", "body": b"c"},
    ]
    allowed = dict(part.split(" ", 1) for part in POLICY.split("; "))
    assert allowed == {
        "default-src": "'self'",
        "script-src": "'self' 'unsafe-inline' 'unsafe-eval' blob:",
        "style-src": "'self' 'unsafe-inline'",
        "img-src": "'self' blob: data:",
        "font-src": "'self' data:",
        "worker-src": "'self' blob:",
        "object-src": "'none'",
        "frame-ancestors": "'self'",
    }
