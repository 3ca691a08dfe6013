"""Sends examples to their topic. No event and no answer waits for it: what is not acknowledged is counted as lost.

An installation from before the topic has none, and a worker's user may lack the right to write to it. Then the worker
says so once, drops its examples and serves on.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, ProducerClosed, TopicAuthorizationFailedError, UnknownTopicOrPartitionError

from model.ranker.examples import Example
from stream.config import Config
from stream.errors import BrokerUnavailable, TopicMismatch
from stream.kafka.examples import pack
from stream.kafka.lease import Lease, LeaseLost
from stream.kafka.topics import check_existence

log = logging.getLogger("anabranch.examples")

MAX_QUEUED = 1_024
"""Examples that wait for the broker, some 5 MB. Beyond them the oldest are lost."""
SENT_AT_ONCE = 64
LOOK_AGAIN_S = 60.0
"""Pause before a topic that was missing, or refused us, is tried again."""
SEND_AGAIN_S = 1.0
NOT_FOR_US = (TopicAuthorizationFailedError, UnknownTopicOrPartitionError)

Keyed = tuple[bytes, Example]
"""An example with the id of its user."""


async def topic_exists(config: Config) -> bool:
    """Whether the topic is there for us. Raises BrokerUnavailable."""
    try:
        await asyncio.to_thread(check_existence, config, config.topics.examples)
    except TopicMismatch:
        return False
    return True


class ExampleSender:
    """Sends the examples of one worker, and the tombstones that erase them."""

    def __init__(
        self,
        config: Config,
        producer: AIOKafkaProducer,
        lease: Lease,
        counted: Callable[[str, int], None] = lambda _outcome, _count: None,
        exists: Callable[[Config], Awaitable[bool]] = topic_exists,
    ) -> None:
        """`counted` gets `sent` or `lost`, and how many."""
        self._config, self._topic = config, config.topics.examples
        self._producer, self._lease, self._counted, self._exists = producer, lease, counted, exists
        self._queue: deque[Keyed] = deque()
        self._some, self._sending = asyncio.Event(), asyncio.Lock()
        self._there: bool | None = None
        """Whether the topic takes our messages; None: not known yet."""
        self._look_at, self._logged = 0.0, False

    def add(self, examples: Iterable[Keyed]) -> None:
        """Send these, some time soon."""
        self._queue.extend(examples)
        over = len(self._queue) - MAX_QUEUED
        for _ in range(over):
            self._queue.popleft()
        if over > 0:
            self._counted("lost", over)
        if self._queue:
            self._some.set()

    def forget(self, users: Sequence[int]) -> None:
        """Drop what is not sent of these users, hashes. The tombstone follows what is."""
        if users:
            self._queue = deque(entry for entry in self._queue if entry[1].user not in users)

    async def run(self) -> None:
        """Send what is added, until the producer is closed."""
        while True:
            await self._some.wait()
            self._some.clear()
            while self._queue:
                try:
                    await self._send_some()
                except BrokerUnavailable:  # logged elsewhere
                    await asyncio.sleep(SEND_AGAIN_S)
                except LeaseLost:
                    return
                except Exception as error:  # a broker that answers in a strange way ends no worker
                    log.warning("examples are not sent: %s: %s", type(error).__name__, error)
                    await asyncio.sleep(LOOK_AGAIN_S)

    async def erase(self, users: Sequence[str]) -> None:
        """Send tombstones, behind the examples before them, until they are acknowledged. Raises LeaseLost."""
        left = [user.encode() for user in users]
        while left:
            if not self._lease.held:
                raise LeaseLost
            try:
                if not await self._takes_messages():
                    return
                outcomes = await self._try([(user, None) for user in left])
                left = [user for user, error in zip(left, outcomes, strict=True) if error is not None]
            except BrokerUnavailable:
                await asyncio.sleep(SEND_AGAIN_S)
                continue
            if left and self._there:
                log.warning("the broker did not take tombstones of examples; trying again in %.0f s", SEND_AGAIN_S)
                await asyncio.sleep(SEND_AGAIN_S)

    async def _send_some(self) -> None:
        """Send the oldest of the queue. Raises BrokerUnavailable."""
        if not await self._takes_messages():
            self._counted("lost", len(self._queue))
            self._queue.clear()
            return
        from model.ranking.features import SCHEMA  # imports torch, as ranking has

        some = [self._queue.popleft() for _ in range(min(SENT_AT_ONCE, len(self._queue)))]
        if self._lease.held:
            outcomes = await self._try([(user, pack(example, SCHEMA)) for user, example in some])
            sent = sum(error is None for error in outcomes)
            self._counted("sent", sent)
            self._counted("lost", len(some) - sent)
        else:  # another worker may own their partitions
            self._counted("lost", len(some))

    async def _try(self, messages: Sequence[tuple[bytes, bytes | None]]) -> list[KafkaError | None]:
        """Send all of them once; the error of each, or None."""
        sent: list[asyncio.Future[object]] = []
        async with self._sending:  # a tombstone goes behind the examples before it
            for key, value in messages:
                try:
                    sent.append(await self._producer.send(self._topic, value, key=key))
                except KafkaError as error:
                    failed: asyncio.Future[object] = asyncio.get_running_loop().create_future()
                    failed.set_exception(error)
                    sent.append(failed)
            outcomes = await asyncio.gather(*sent, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, ProducerClosed):  # the worker stops
                raise LeaseLost from None
            if isinstance(outcome, NOT_FOR_US):
                self._refused(f"refuses our messages ({type(outcome).__name__})")
        return [None if not isinstance(o, BaseException) else o if isinstance(o, KafkaError) else KafkaError(o)
                for o in outcomes]  # fmt: skip

    async def _takes_messages(self) -> bool:
        """Whether the topic takes our messages. Raises BrokerUnavailable."""
        now = asyncio.get_running_loop().time()
        if self._there is None or (not self._there and now >= self._look_at):
            if await self._exists(self._config):
                self._there = True
            else:
                self._refused("does not exist, or we may not see it")
        return bool(self._there)

    def _refused(self, why: str) -> None:
        self._there, self._look_at = False, asyncio.get_running_loop().time() + LOOK_AGAIN_S
        if not self._logged:
            self._logged = True
            log.warning(
                "the topic %r %s: examples are dropped, and the trainer does not teach the ranker what users do. "
                "`anabranch init` creates the topic; docs/messages.md lists the rights of a worker", self._topic, why,
            )  # fmt: skip
