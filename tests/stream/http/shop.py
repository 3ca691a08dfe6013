"""The interface on a port of this machine, with answers that a test decides."""

import asyncio
import functools
import io
from collections.abc import Awaitable, Callable, Sequence

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from yarl import URL

from stream.config import Config, ServeSettings
from stream.http.answers import Event, Recommendations, Related, RelatedItem, Unsent
from stream.http.api import Api
from stream.http.health import Checks, add_health
from stream.kafka.messages import Recommended

WRITE, OPERATE = "write-token-of-the-shop", "operate-token-of-the-shop"
SETTINGS = ServeSettings(write_token=WRITE, operate_token=OPERATE, client_requests_per_s=0)


class FixedAnswers:
    """Ten items for everybody; it records what is asked and sent."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.sent: list[Event] = []
        self.unsent: dict[bytes, Unsent] = {}
        """What becomes of the events with these keys."""
        self.counted: list[tuple[str, int]] = []
        self.failure: Exception | None = None
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def recommend(self, user: str) -> Recommendations:
        self.asked.append(user)
        await self.may_answer.wait()
        if self.failure is not None:
            raise self.failure
        items = [Recommended(f"item-{n}", 1.0 - n / 10) for n in range(10)]
        return Recommendations(user=user, items=items, source="model", model="000001", age_s=0.0)

    async def related(self, item: str) -> Related:
        self.asked.append(item)
        return Related(item=item, items=[RelatedItem(f"item-{n}", 10.0 - n) for n in range(10)], events=7)

    async def publish(self, events: Sequence[Event]) -> list[Unsent | None]:
        self.sent += events
        return [self.unsent.get(event.key) for event in events]

    def recommended(self, by: str) -> None:
        self.counted.append((by, 1))

    def sent_count(self, outcome: str, count: int) -> None:
        self.counted.append((outcome, count))


class Shop:
    """A client of the interface."""

    def __init__(self, answers: FixedAnswers, api: Api, client: TestClient) -> None:
        self.answers, self.api, self.client = answers, api, client

    async def get(self, path: str, **headers: str) -> aiohttp.ClientResponse:
        return await self.ask("GET", path, headers=headers)

    async def ask(self, method: str, path: str, **more) -> aiohttp.ClientResponse:
        url = URL(str(self.client.make_url("/")).rstrip("/") + path, encoded=True)
        response = await self.client.session.request(method, url, **more)
        await response.read()
        return response

    async def send(self, body: bytes, content_type: str = "application/json", token: str = WRITE):
        headers = {"Authorization": f"Bearer {token}", "Content-Type": content_type}
        return await self.ask("POST", "/v1/events", data=io.BytesIO(body), headers=headers)


class Counts:
    """The counts of the interface, kept by the answers of a test."""

    def __init__(self, answers: FixedAnswers) -> None:
        self.recommended, self.sent = answers.recommended, answers.sent_count


def with_shop(settings: ServeSettings = SETTINGS, **more):
    """Run the scenario as a test, with a shop on these settings."""

    def decorate(scenario: Callable[[Shop], Awaitable[None]]):
        @functools.wraps(scenario)
        def test() -> None:
            asyncio.run(run())

        async def run() -> None:
            answers, app = FixedAnswers(), web.Application()
            api = Api(Config(serve=settings, **more), answers, Counts(answers))
            api.add_to(app)
            add_health(app, Checks(ready=lambda: ()))
            async with TestClient(TestServer(app), auto_decompress=True) as client:
                await scenario(Shop(answers, api, client))

        del test.__wrapped__
        return test

    return decorate
