"""What the pages read from: members, requests to workers, the broker, the artifact store, history."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from aiohttp import web

from stream.config import Config
from stream.console.broker_watch import BrokerWatch
from stream.console.history import History
from stream.console.live import Live, live
from stream.console.page import Pages
from stream.console.sampler import Sampler
from stream.console.session import Attempts, Sessions
from stream.errors import AnabranchError
from stream.kafka.ask import Everywhere
from stream.kafka.documents import Document, ItemReport, UserReport, merge_items
from stream.kafka.messages import Reply, Request
from stream.members.sightings import SeenMember
from stream.operate.model_report import Models, models

T = TypeVar("T")

ANSWER_WITHIN_S, GRACE_S = 4.0, 1.0
"""How long a page waits for a worker, the broker or the artifact store; what a client may take longer than it says."""
ACT_WITHIN_S = 10.0
"""The same for an action."""
KEEP_VERSIONS_S = 5.0
SCANS = 2
"""Pages that read through a topic at once."""
MAX_FOLLOWERS = 10


class Members(Protocol):
    """The members of the installation (`stream.members.follow`)."""

    async def start(self) -> None:
        """Begin to follow them."""

    async def stop(self) -> None:
        """End."""

    def members(self) -> Sequence[SeenMember]:
        """Every member that is known."""

    @property
    def problem(self) -> str:
        """Why they are not those of now; empty: they are."""


class Requests(Protocol):
    """Asks workers through Kafka (`stream.kafka.ask`)."""

    async def ask(self, request: Request, timeout_s: float) -> Reply | Document:
        """The answer for a user. Raises AnabranchError."""

    async def ask_all(self, request: Request, timeout_s: float) -> Everywhere:
        """The answers of all partitions. Raises AnabranchError."""


class ItemFound(NamedTuple):
    """What the workers know of an item, together."""

    report: ItemReport
    newest_ts: int
    """Time of its newest event, ms; 0: none."""
    missing: list[str]
    """Why partitions did not answer, a sentence each."""


class Console:
    """The console of one process."""

    def __init__(
        self,
        config: Config,
        members: Members,
        client_of: Callable[[], Requests | None],
        pages: Pages,
        sessions: Sessions,
        broker: BrokerWatch,
    ) -> None:
        self.config, self.pages, self.sessions = config, pages, sessions
        self.members, self._client_of = members, client_of
        self.attempts = Attempts()
        self.history = History(config.data)
        self.broker = broker
        self._scans = asyncio.Semaphore(SCANS)
        self._sampler = Sampler(self.live, lambda: self.away, self.broker, self.history)
        self._tasks: list[asyncio.Task[None]] = []
        self._models: tuple[float, Models] | None = None
        self._models_lock = asyncio.Lock()

    async def start(self) -> None:
        """Begin to watch the broker and to collect history."""
        self.history.read()
        self._following = asyncio.create_task(self.members.start())  # it waits for a broker, the pages do not
        self._tasks = [asyncio.create_task(self.broker.run()), asyncio.create_task(self._sampler.run())]

    async def stop(self) -> None:
        """End both, and write the history."""
        watching, sampling = self._tasks
        sampling.cancel()
        await asyncio.wait([sampling])
        await self.broker.stop(watching)
        await asyncio.wait([self._following])
        await self.members.stop()
        self.history.write()

    @property
    def away(self) -> bool:
        """Whether the broker does not answer: neither us nor the follower of the members."""
        return self.broker.asked and not self.broker.answers and bool(self.members.problem)

    def live(self) -> Live:
        """What the installation does now."""
        return live(self.members.members(), self.broker)

    async def recommendation(self, user: str) -> Reply:
        """What the user's owner recommends now. Raises AnabranchError."""
        found = await self._asked(lambda client: client.ask(Request(user=user), ANSWER_WITHIN_S))
        if isinstance(found, Reply):
            return found
        raise AnabranchError(f"The worker answered another question than for a recommendation to {user!r}.")

    async def user(self, user: str) -> UserReport:
        """What the user's owner knows. Raises AnabranchError."""
        found = await self._asked(lambda client: client.ask(Request(user=user, want="user"), ANSWER_WITHIN_S))
        if isinstance(found, Document) and found.user is not None:
            return found.user
        raise AnabranchError(f"The worker answered another question than for the user {user!r}.")

    async def item(self, item: str, at: int = 0) -> ItemFound:
        """What the workers know of an item, now or before a time. Raises AnabranchError."""
        request = Request(item=item, want="item", at=at)
        everywhere = await self._asked(lambda client: client.ask_all(request, ANSWER_WITHIN_S))
        parts = [document.item for document in everywhere.documents.values() if document.item is not None]
        missing = [f"Partition {number}: {why}." for number, why in sorted(everywhere.missing.items())]
        if not parts:
            raise AnabranchError(" ".join(missing) or "No worker owns a partition.")
        report = merge_items(parts, MAX_FOLLOWERS, self.config.state)
        return ItemFound(report, max(part.ts for part in parts), missing)

    async def _asked(self, ask: Callable[[Requests], Awaitable[T]]) -> T:
        client = self._client_of()
        if client is None:
            raise AnabranchError(f"The broker at {self.config.broker} does not answer.")
        return await within(ANSWER_WITHIN_S + GRACE_S, ask(client), "No worker answered")

    @contextlib.asynccontextmanager
    async def scanning(self) -> AsyncIterator[None]:
        """Read through a topic here. Raises AnabranchError where no turn comes: pages that nobody waits for any more
        would keep the broker busy for hours."""
        await within(ANSWER_WITHIN_S, self._scans.acquire(), "Too many pages read topics now: no turn came")
        try:
            yield
        finally:
            self._scans.release()

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
