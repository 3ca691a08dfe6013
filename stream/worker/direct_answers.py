"""Requests that come to this process itself, over HTTP: answered from its stores, without Kafka.

They are ranked in batches. The requests that come while one batch is ranked are the next one.
"""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry

from state.id_hash import IdHash
from state.partition import Partition
from state.pending import Unanswered
from stream.config import Config
from stream.kafka.messages import Recommendation
from stream.stores.assignment import Assignment
from stream.worker.recommender import Recommender

COLLECT_S = 0.002
"""How long the first request of a batch waits for others: ranking two costs little more than ranking one."""


class Waiting(NamedTuple):
    """A request, and where its answer goes."""

    user: str
    answer: "asyncio.Future[Recommendation | None]"


class DirectAnswers:
    """Recommends to users of the partitions that this worker owns."""

    def __init__(
        self,
        config: Config,
        assignment: Assignment,
        recommender: Recommender,
        answering_lock: asyncio.Lock,
        id_hash: IdHash,
    ) -> None:
        self._limit, self._batch_users = config.worker.requests_per_poll, config.worker.rank_batch_users
        self._assignment, self._recommender = assignment, recommender
        self._answering_lock, self._id_hash = answering_lock, id_hash
        self._waiting: dict[int, list[Waiting]] = {}
        self._count, self._some_wait = 0, asyncio.Event()

    def owns(self, partition: int) -> bool:
        """Whether the partition is this worker's."""
        return self._assignment.phase(partition) is not None

    async def recommend(self, user: str, partition: int) -> Recommendation | None:
        """What is recommended to the user now; None where the partition's store is not open, or too many wait."""
        if self._count >= self._limit:
            return None
        waiting = Waiting(user, asyncio.get_running_loop().create_future())
        self._waiting.setdefault(partition, []).append(waiting)
        self._count += 1
        self._some_wait.set()
        return await waiting.answer

    async def run(self) -> None:
        """Answer what waits, for ever."""
        while True:
            await self._some_wait.wait()
            await asyncio.sleep(COLLECT_S)
            self._some_wait.clear()
            taken, self._waiting, self._count = self._waiting, {}, 0
            try:
                for number, waiting in taken.items():
                    for start in range(0, len(waiting), self._batch_users):
                        batch = waiting[start : start + self._batch_users]
                        await self._answer(number, [one for one in batch if not one.answer.done()])
            finally:  # also where a fault of a store ended the hold
                for one in (one for waiting in taken.values() for one in waiting if not one.answer.done()):
                    one.answer.set_result(None)

    async def _answer(self, number: int, waiting: Sequence[Waiting]) -> None:
        async with self._assignment.hold(number) as store:
            if store is None or not waiting:
                return
            users = [one.user for one in waiting]
            messages = await messages_now(self._recommender, self._answering_lock, self._id_hash, number, store, users)
            for one, message in zip(waiting, messages, strict=True):
                if not one.answer.done():
                    found = msgspec.json.decode(message, type=Recommendation)
                    # A user without events has no id in the state.
                    one.answer.set_result(msgspec.structs.replace(found, user=one.user))


async def messages_now(
    recommender: Recommender,
    answering_lock: asyncio.Lock,
    id_hash: IdHash,
    number: int,
    store: Partition,
    users: Sequence[str],
) -> list[bytes]:
    """The message of each user as it would be sent now, in a hold of the store. Raises StoreFault."""
    progress = store.read_progress()
    next_offset = progress.next_offset
    recommender.clock.see(progress.newest_ts)
    hashes = [id_hash.of(user) for user in users]
    asked = {user: Unanswered(next_offset, next_offset - 1, -1) for user in hashes}
    async with answering_lock:
        answers = await recommender.recommend_off_loop(number, asked, tested=False, moment=recommender.clock.now)
    messages = {answer.user: answer.message for answer in answers}
    return [messages[user] for user in hashes]


class HttpApi(Protocol):
    """The interface for shops on the server of this worker (`stream.serve.in_worker`)."""

    def add_to(self, app: web.Application, registry: CollectorRegistry) -> None:
        """Add the routes, and the metrics of them."""

    def begin(self, direct: DirectAnswers) -> None:
        """Answer, once the worker can."""

    async def close(self) -> None:
        """Answer no longer."""
