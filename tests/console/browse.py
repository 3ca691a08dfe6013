"""A browser without a screen: pages of a console with fakes behind it, forms as a person sends them."""

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from aiohttp import CookieJar, web
from aiohttp.test_utils import TestClient, TestServer

from stream.config import Config
from stream.console.console import CONSOLE, Console
from stream.console.routes import add_routes
from tests.console.fakes import FakeBroker, FakeMembers, FakeRequests, Seen, config, trainer, worker


class Page:
    """An answer."""

    def __init__(self, status: int, text: str, headers: Any) -> None:
        self.status, self.html, self.headers = status, text, headers

    @property
    def text(self) -> str:
        """What a person reads."""
        reader = _Reader()
        reader.feed(self.html)
        return " ".join(" ".join(reader.words).split())

    @property
    def elements(self) -> list[tuple[str, dict[str, str | None]]]:
        """Every tag with its attributes."""
        reader = _Reader()
        reader.feed(self.html)
        return reader.elements


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


class Browser:
    """Follows redirects and keeps cookies."""

    def __init__(self, loop: asyncio.Runner, client: TestClient[Any, Any], console: Console) -> None:
        self._loop, self._client, self.console = loop, client, console

    def get(self, path: str, follow: bool = True, **headers: str) -> Page:
        return self._loop.run(self._do("GET", path, follow, headers, None))

    def post(self, path: str, form: Any, follow: bool = True, **headers: str) -> Page:
        return self._loop.run(self._do("POST", path, follow, headers, form))

    def sign_in(self, token: str) -> Page:
        return self.post("/sign-in", {"token": token, "to": "/"})

    def submit(self, page: str, action: str, **also: str) -> Page:
        """Send the form of a page that has this action, with what it carries."""
        html = self.get(page).html
        form = re.search(rf'<form method="post" action="{re.escape(action)}".*?</form>', html, re.S)
        assert form, f"{page} has no form for {action}"
        carried = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', form[0]))
        return self.post(action, carried | also)

    async def _do(self, method: str, path: str, follow: bool, headers: dict[str, str], form: Any) -> Page:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        response = await self._client.request(method, path, data=form, headers=sent, allow_redirects=follow)
        return Page(response.status, await response.text(), response.headers)


@contextmanager
def console(
    data: Path,
    *seen: Seen,
    settings: Config | None = None,
    requests: FakeRequests | None = None,
    broker: FakeBroker | None = None,
    members: FakeMembers | None = None,
) -> Iterator[Browser]:
    """A console; without `seen`, of two workers and a trainer that all run."""
    settings = settings or config(data)
    running = [Seen(worker("0", (0,))), Seen(worker("1", (1,))), Seen(trainer())]
    app = web.Application()
    broker = broker or FakeBroker(settings)
    asked = requests or FakeRequests()
    add_routes(app, settings, members or FakeMembers(*(seen or running)), lambda: asked, broker)
    with asyncio.Runner() as loop:

        async def start() -> TestClient[Any, Any]:
            client: TestClient[Any, Any] = TestClient(TestServer(app), cookie_jar=CookieJar(unsafe=True))
            await client.start_server()
            return client

        client = loop.run(start())
        try:
            yield Browser(loop, client, app[CONSOLE])
        finally:
            loop.run(client.close())
