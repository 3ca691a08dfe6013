"""What the pages read from: members, requests to workers, the broker, the artifact store, history."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar

from aiohttp import web

from stream.config import Config
from stream.console.broker_watch import BrokerWatch
from stream.console.history import History
from stream.console.live import Live, Seen, live
from stream.console.page import Pages
from stream.console.sampler import Sampler
from stream.console.session import Attempts, Sessions
from stream.errors import AnabranchError
from stream.kafka.messages import Request
from stream.operate.model_report import Models, models

T = TypeVar("T")

ANSWER_WITHIN_S, GRACE_S = 4.0, 1.0
"""How long a page waits for a worker, the broker or the artifact store; what a client may take longer than it says."""
ACT_WITHIN_S = 10.0
"""The same for an action."""
KEEP_VERSIONS_S = 5.0
LOOPBACK_ADDRESSES = ("127.", "localhost", "[::1]", "::1")


class Members(Protocol):
    """The members of the installation (`stream.members.follow`)."""

    def members(self) -> Sequence[Seen]:
        """Every member that is known."""


class Requests(Protocol):
    """Asks workers through Kafka (`stream.kafka.ask`)."""

    async def ask(self, request: Request, timeout_s: float) -> Any:
        """The answer. Raises AnabranchError or TimeoutError."""


class Console:
    """The console of one process."""

    def __init__(
        self,
        config: Config,
        members: Members,
        requests: Requests,
        pages: Pages,
        sessions: Sessions,
        broker: BrokerWatch,
    ) -> None:
        self.config, self.pages, self.sessions = config, pages, sessions
        self.members, self.requests = members, requests
        self.attempts = Attempts()
        self.on_loopback = config.serve.http.startswith(LOOPBACK_ADDRESSES)
        self.history = History(config.data)
        self.broker = broker
        self.scans = asyncio.Semaphore(2)
        """Reading through a topic for a page: few at once."""
        self._sampler = Sampler(self.live, self.broker, self.history)
        self._tasks: list[asyncio.Task[None]] = []
        self._models: tuple[float, Models] | None = None
        self._models_lock = asyncio.Lock()

    async def start(self) -> None:
        """Begin to watch the broker and to collect history."""
        self.history.read()
        self._tasks = [asyncio.create_task(self.broker.run()), asyncio.create_task(self._sampler.run())]

    async def stop(self) -> None:
        """End both, and write the history."""
        watching, sampling = self._tasks
        sampling.cancel()
        await asyncio.wait([sampling])
        await self.broker.stop(watching)
        self.history.write()

    def live(self) -> Live:
        """What the installation does now."""
        return live(self.members.members(), self.broker)

    async def ask(self, request: Request) -> Any:
        """The answer of the owner of a partition. Raises AnabranchError."""
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S + GRACE_S):
                return await self.requests.ask(request, ANSWER_WITHIN_S)
        except TimeoutError:
            raise AnabranchError(
                f"No worker answered within {ANSWER_WITHIN_S:.0f} s. The overview shows whether one owns the partition."
            ) from None

    async def models(self) -> Models:
        """The versions in the artifact store. Raises ArtifactError or AnabranchError."""
        loop = asyncio.get_running_loop()
        async with self._models_lock:
            if self._models is not None and loop.time() - self._models[0] < KEEP_VERSIONS_S:
                return self._models[1]
            reading = asyncio.to_thread(models, self.config, self.broker.pointers)
            found = await within(ANSWER_WITHIN_S, reading, "The artifact store did not answer")
            self._models = loop.time(), found
            return found

    async def act(self, action: Callable[[], Coroutine[Any, Any, T]], what: str) -> T:
        """Carry out an action in a thread, with a loop of its own: it may wait for the artifact store.

        What pages show of versions is read again. Raises AnabranchError.
        """
        try:
            return await within(ACT_WITHIN_S, asyncio.to_thread(lambda: asyncio.run(action())), f"{what}: no answer")
        finally:
            self._models = None
            self.broker.look_again()

    def error(self, request: web.Request, status: int, title: str, text: str) -> web.Response:
        """A page, or a part of one, that says what went wrong."""
        part = "HX-Request" in request.headers
        template = "error_part.html" if part else "error.html"
        return self.pages.render(request, template, status, title=title, text=text)


CONSOLE: web.AppKey[Console] = web.AppKey("console", Console)


async def within(seconds: float, work: Awaitable[T], what: str) -> T:
    """The result of `work`. Raises AnabranchError if it takes longer."""
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError:
        raise AnabranchError(f"{what} within {seconds:.0f} s.") from None
