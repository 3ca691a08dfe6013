"""The Kafka clients behind the answers: they connect when a broker answers, and close in the opposite order."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from aiokafka.errors import KafkaError

from stream.config import Config
from stream.errors import BrokerUnavailable
from stream.kafka.ask import RequestClient
from stream.kafka.diagnosis import unavailable
from stream.kafka.exchange import within
from stream.kafka.rarely import Rarely
from stream.kafka.topics import check_existence
from stream.serve.answers import OwnersAnswers
from stream.serve.event_sender import EventSender
from stream.serve.follower import Follower
from stream.serve.kafka_owners import KafkaOwners
from stream.serve.owners import Owners

log = logging.getLogger("anabranch.serve")

RETRY_S = 1.0
"""Pause between two attempts to reach a broker that is away."""

T = TypeVar("T")


class KafkaParts:
    """Answers that ask workers through Kafka. `connect` makes them work; until then they are fallbacks."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._follower = Follower(config)
        self.answers = OwnersAnswers(config, self._follower)
        self.client: RequestClient | None = None
        """Asks the workers; None until a broker answers."""
        self._to_close = contextlib.AsyncExitStack()
        self._tasks: list[asyncio.Task[None]] = []
        self._rarely = Rarely()

    async def connect(self, owners: Callable[[KafkaOwners], Owners] = lambda through_kafka: through_kafka) -> None:
        """Connect, however long a broker is away. `owners` may put others before those that are asked through Kafka.

        Raises TopicMismatch: a topic is missing.
        """
        topics = self._config.topics
        needed = (topics.clicks, topics.requests, topics.replies, topics.recommendations, topics.items)
        await self._retry(lambda: asyncio.to_thread(check_existence, self._config, *needed))
        sender, client = EventSender(self._config), RequestClient(self._config)
        self._to_close.push_async_callback(sender.stop)
        await self._retry(sender.start)
        await self._retry(client.start)
        self._to_close.push_async_callback(client.stop)
        self.client = client
        self.answers.sender, self.answers.owners = sender, owners(KafkaOwners(self._config, client))
        self._tasks = [asyncio.create_task(self._follower.run()), asyncio.create_task(self.answers.keep_popular())]

    async def close(self) -> None:
        """Close what is open."""
        self._follower.end()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._to_close.aclose()

    def not_ready(self) -> list[str]:
        """What is missing, as sentences."""
        if self.answers.owners is None:
            return [f"the broker at {self._config.broker} does not answer"]
        if not self._follower.caught_up.is_set():
            return ["the last recommendations are being read"]
        return []

    def not_live(self) -> list[str]:
        """Tasks that have ended and should not have."""
        return [f"a task has ended: {task.get_coro()}" for task in self._tasks if task.done()]

    async def _retry(self, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
        while True:
            try:
                return await within(self._config, "a connection", ask())
            except (BrokerUnavailable, KafkaError) as error:
                if self._rarely.may_log():
                    known = isinstance(error, BrokerUnavailable)
                    log.warning("%s; trying again", error if known else await unavailable(self._config, error))
                await asyncio.sleep(RETRY_S)
