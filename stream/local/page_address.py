"""Where `anabranch serve` listens as a child of `up` and `demo`, and the console in a browser."""

import contextlib
import os
import socket
import sys
import threading
import time
import webbrowser

from stream.config import Config
from stream.local.embedded_broker import free_port

OPENED_WITHIN_S = 60.0
"""A browser is opened if the page is there by then."""


def address_to_serve(config: Config) -> str:
    """The address of the setting `serve.http`; with another port if that one is in use. Empty: nothing is served."""
    host, colon, port = config.serve.http.rpartition(":")
    if not colon:
        return ""
    return config.serve.http if int(port) and _is_free(host, int(port)) else f"{host}:{free_port()}"


def page_of(address: str) -> str:
    """The address of the console for a browser on this machine.

    >>> page_of("127.0.0.1:8080"), page_of(":8080"), page_of("[::]:8080")
    ('http://127.0.0.1:8080/', 'http://localhost:8080/', 'http://localhost:8080/')
    """
    host, _, port = address.rpartition(":")
    return f"http://{'localhost' if host in ('', '0.0.0.0', '[::]') else host}:{port}/"


def open_when_there(page: str) -> None:
    """Open the page in a browser where there is a screen, once it answers. It never fails and never waits."""
    if sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        threading.Thread(target=_open, args=(page,), daemon=True, name="browser").start()


def _open(page: str) -> None:
    host, _, port = page.removeprefix("http://").strip("/").rpartition(":")
    until = time.monotonic() + OPENED_WITHIN_S
    while time.monotonic() < until:
        with contextlib.suppress(OSError):
            socket.create_connection((host.strip("[]"), int(port)), 1.0).close()
            break
        time.sleep(0.5)
    else:
        return
    with contextlib.suppress(Exception):  # a browser that does not start is no fault of the demo
        webbrowser.open(page)


def _is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), port))
        except OSError:
            return False
    return True
