"""Where the console of `up` and `demo` is, and who opens it."""

import socket
import threading

import pytest

from stream.config import Config, ServeSettings
from stream.local import page_address
from stream.local.page_address import address_to_serve, open_when_there


def config(http: str) -> Config:
    return Config(serve=ServeSettings(http=http))


def test_the_set_address_is_served_where_its_port_is_free():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    assert address_to_serve(config(f"127.0.0.1:{port}")) == f"127.0.0.1:{port}"


def test_another_port_is_served_where_it_is_in_use():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        host, _, other = address_to_serve(config(f"127.0.0.1:{port}")).rpartition(":")
    assert host == "127.0.0.1"
    assert int(other) not in (0, port)


def test_without_an_address_nothing_is_served():
    assert address_to_serve(config("")) == ""


@pytest.fixture
def opened(monkeypatch):
    """Pages that were opened in a browser."""
    pages: list[str] = []
    monkeypatch.setattr(page_address.webbrowser, "open", pages.append)
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(page_address.sys, "platform", "linux")
    return pages


def wait_for_browser():
    for thread in threading.enumerate():
        if thread.name == "browser":
            thread.join(10)


def test_no_browser_is_opened_without_a_screen(opened):
    with socket.create_server(("127.0.0.1", 0)) as server:
        open_when_there(f"http://127.0.0.1:{server.getsockname()[1]}/")
        wait_for_browser()
    assert opened == []


def test_a_browser_is_opened_when_the_page_is_there(opened, monkeypatch):
    monkeypatch.setenv("DISPLAY", ":9")
    with socket.create_server(("127.0.0.1", 0)) as server:
        page = f"http://127.0.0.1:{server.getsockname()[1]}/"
        open_when_there(page)
        wait_for_browser()
    assert opened == [page]


def test_a_browser_that_does_not_start_is_no_failure(opened, monkeypatch):
    def fail(page: str) -> None:
        raise OSError("no browser")

    monkeypatch.setenv("DISPLAY", ":9")
    monkeypatch.setattr(page_address.webbrowser, "open", fail)
    with socket.create_server(("127.0.0.1", 0)) as server:
        open_when_there(f"http://127.0.0.1:{server.getsockname()[1]}/")
        wait_for_browser()


def test_no_browser_is_opened_for_a_page_that_never_comes(opened, monkeypatch):
    monkeypatch.setenv("DISPLAY", ":9")
    monkeypatch.setattr(page_address, "OPENED_WITHIN_S", 0.0)
    open_when_there("http://127.0.0.1:1/")
    wait_for_browser()
    assert opened == []
