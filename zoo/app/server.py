"""Serving the page of the app: where, to whom, and from which folder."""

from __future__ import annotations

import ipaddress
import logging
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any, TypeAlias

from zoo.app.models import Models
from zoo.errors import ZooError, pip_install, reason_of

logger = logging.getLogger(__name__)

POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' blob: data:; font-src 'self' data:; "
    "worker-src 'self' blob:; object-src 'none'; frame-ancestors 'self'"
)
"""What the page may load: nothing from other hosts. Gradio's own code needs "unsafe-inline"."""

Message: TypeAlias = MutableMapping[str, Any]


class Guard:
    """Adds headers to what the server sends.

    Args:
        app: the application of ASGI that it stands before.
    """

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self.app = app

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        """Pass a request on, and add the headers to its answer."""

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    (b"content-security-policy", POLICY.encode()),
                    (b"x-content-type-options", b"nosniff"),
                    (b"referrer-policy", b"no-referrer"),
                ]
            await send(message)

        await self.app(scope, receive, sent)


def is_loopback(host: str) -> bool:
    """Whether only programs on this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_address(host: str) -> None:
    """Check that a program can listen at an address; Gradio alone tries a hundred ports first.

    Raises:
        ZooError: if this machine does not have the address.
    """
    try:
        kind, *_, place = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(kind) as tried:
            tried.bind(place)
    except (OSError, UnicodeError) as error:
        raise ZooError(
            f"--host {host}: this machine has no such address ({reason_of(error)}); give one of "
            "its own, or leave out --host"
        ) from error


def serve(
    models: Models,
    *,
    host: str,
    port: int | None,
    most_megabytes: int,
    at_once: int,
    open_browser: bool,
    ready: Callable[[str], None],
) -> None:
    """Serve the page until Ctrl-C or SIGTERM; then all uploads and results are removed.

    Args:
        models: the networks on offer.
        host: the address to listen at. At a loopback address, only requests to this machine's own
            names are answered, so that no other site can reach the page through a name of its own.
        port: the port; None for the first free one from 7860.
        most_megabytes: largest size of an uploaded file.
        at_once: how many visitors' photos are restored at the same time; others wait.
        open_browser: whether to open the page in a browser.
        ready: called with the address of the page when it answers.

    Raises:
        ZooError: if Gradio is not installed, or the address or the port cannot be used.
    """
    host = host.removeprefix("[").removesuffix("]")  # as an address of IPv6 is in a URL
    check_address(host)
    with tempfile.TemporaryDirectory(prefix="zoo-app-") as name:
        folder = Path(name).resolve()
        # Gradio reads these when it is imported. It sends statistics unless it is told not to.
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        os.environ["GRADIO_TEMP_DIR"] = str(folder)
        # It asks itself whether it is up, and would ask a proxy of the surroundings for that.
        for variable in ("no_proxy", "NO_PROXY"):
            others = os.environ.get(variable)
            os.environ[variable] = ",".join([*filter(None, [others]), "localhost", host])
        try:
            import gradio as gr
            from httpx import HTTPError
            from starlette.middleware import Middleware
            from starlette.middleware.trustedhost import TrustedHostMiddleware

            from zoo.app.page import STYLE, build
            from zoo.app.visitors import Visitors
        except ImportError as error:
            raise ZooError(f"the app needs Gradio: {pip_install('app')} ({error})") from error
        guards = [Middleware(Guard)]
        if is_loopback(host):
            names = ["127.0.0.1", "localhost", "::1", "[::1]", host]
            guards.append(Middleware(TrustedHostMiddleware, allowed_hosts=names))
        else:
            logger.warning(
                "--host %s: everybody who can reach this machine can use the page, without a "
                "password and unencrypted",
                host,
            )
        font = ["system-ui", "sans-serif"]  # the theme's own would come from another host
        mono = ["ui-monospace", "monospace"]
        page = build(models, Visitors(folder, at_once))
        page.queue()
        try:
            _, address, _ = page.launch(
                server_name=f"[{host}]" if ":" in host else host,
                server_port=port,
                max_file_size=most_megabytes * 2**20,
                app_kwargs={"middleware": guards},
                theme=gr.themes.Default(font=font, font_mono=mono),
                css=STYLE,
                allowed_paths=[str(folder)],  # its hidden files, too, wherever the command runs
                footer_links=[],
                inbrowser=open_browser,
                prevent_thread_lock=True,
                share=False,
                ssr_mode=False,
                mcp_server=False,
                enable_monitoring=False,
                quiet=True,
            )
        except OSError as error:
            fix = "leave out --port" if port is not None else "close other programs"
            raise ZooError(f"{host}: port {port or ''} cannot be used ({error}); {fix}") from error
        except (HTTPError, ValueError) as error:  # how Gradio says that it cannot reach itself
            raise ZooError(
                f"{host}: the page does not answer ({error}); check the settings of proxies, and "
                "whether this machine is very busy"
            ) from error
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            ready(address)
            threading.Event().wait()
        except KeyboardInterrupt:
            logger.info("stopped")
        finally:
            page.close(verbose=False)
