"""The partitions this worker owns: one state machine, from assignment to revocation.

                      the group assigns the partition: its log is paused
                                          |
                                          v
        +---------------------------> OPENING --------------------------------+
        |                                 |                                   |
        |        its store is open: sought to its own offset, resumed         |
        |                                 v                                   |
        |                            CATCHING_UP -----------------------------+
        |                                 |                                   |  the group revokes
        |        read up to what the log held when it was opened              |  the partition
        |                                 v                                   |
        |                             ANSWERING ------------------------------+
        |                                 |                                   |
        |        a StoreFault, or the log no longer belongs to the store      |
        |        (also from CATCHING_UP)  v                                   v
        +---- the store is closed --- FAULTED ----------------------------> gone: the store
              (a damaged one is moved aside)                                is closed

| phase       | store | clicks are applied | users are answered          | requests |
|-------------|-------|--------------------|-----------------------------|----------|
| OPENING     | no    | no, log is paused  | no                          | no       |
| CATCHING_UP | open  | yes                | no: see `Phase.CATCHING_UP` | yes      |
| ANSWERING   | open  | yes                | yes                         | yes      |
| FAULTED     | open  | no                 | no                          | no       |

An operator's pause is a flag beside the phases: clicks are not read, answers go on.

A store is used inside a `hold` only, and closes only when there is none (`stream/stores/holds.py`). A revocation, a
reopening and the stop of the worker do the same three things: they let no new hold begin, wait for the holds that have
begun, and close the store. So an answer whose sending has begun is sent and recorded before the next owner gets the
partition. A hold ends in bounded time: what it sends is given up when the lease runs out.
"""

import asyncio
import contextlib
import enum
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError

from state.errors import StoreFault, StoreUnreadable
from state.store import Store
from stream.config import Config
from stream.errors import BrokerUnavailable
from stream.kafka.lease import Lease, LeaseLost
from stream.stores.holds import Holds
from stream.stores.opener import OPEN_AGAIN_S, Opener, read_topic_id
from stream.stores.partition_stores import PartitionStores, rebuilt_path

log = logging.getLogger("anabranch.worker")

CHECK_TOPIC_EVERY_S = 10.0
"""Time between two checks of the clicks topic's id."""


class Phase(enum.Enum):
    """What may be done with a partition now."""

    OPENING = enum.auto()
    """Its store is not open yet."""
    CATCHING_UP = enum.auto()
    """Its store applies clicks. The owner before may have answered events that this store has not read yet: an older
    answer would replace that owner's newer one in the topic."""
    ANSWERING = enum.auto()
    """Its store has read all that the log held when it was opened."""
    FAULTED = enum.auto()
    """Its store is opened again before anything else is done with it."""

    @property
    def words(self) -> str:
        """Its name for people: `catching up`."""
        return self.name.lower().replace("_", " ")


@dataclass
class OwnedPartition:
    """One partition and its phase."""

    number: int
    store: Store | None = None
    """None while OPENING."""
    phase: Phase = Phase.OPENING
    log_end: int = 0
    """The last stable offset of the log when the store was opened."""
    fault: StoreFault | None = None
    """Why it is FAULTED; None if the log no longer belongs to the store."""


def partitions_text(numbers: Sequence[int]) -> str:
    """The numbers of partitions, for a line of the log."""
    return f"partition{'s' if len(numbers) > 1 else ''} {', '.join(map(str, sorted(numbers)))}"


class Assignment(ConsumerRebalanceListener):  # type: ignore[misc]
    """The owned partitions; the only writer of their phases."""

    def __init__(
        self,
        config: Config,
        consumer: AIOKafkaConsumer,
        partition_stores: PartitionStores,
        lease: Lease,
        cluster: str,
    ) -> None:
        self._config, self._topic, self._cluster = config, config.topics.clicks, cluster
        self._consumer, self._lease, self._partition_stores = consumer, lease, partition_stores
        self._opener = Opener(config, partition_stores, cluster)
        self._owned: dict[int, OwnedPartition] = {}
        self._stores: dict[int, Store] = {}
        self.stores: Mapping[int, Store] = MappingProxyType(self._stores)
        """The open stores by partition, FAULTED ones among them. Read-only, and live."""
        self.on_change: Callable[[], None] = lambda: None
        """Called after a store was opened or closed."""
        self._paused, self._giving_up = False, 0
        self.joined = False
        """Whether the group's assignment is in effect: not before the first, nor during a rebalance."""
        self.rebalances = 0
        """Assignments by the group since the start."""
        self._to_open = asyncio.Event()
        self._holds = Holds()

    # Use of the stores

    @contextlib.asynccontextmanager
    async def hold(self, number: int) -> AsyncIterator[Store | None]:
        """The store of a partition for the time of a block, in which it is not closed. Never inside another hold.

        None where the partition has no usable store here, or the lease has run out. A fault of a store ends the block:
        its partition is FAULTED then. A lease that runs out in the block (LeaseLost) ends it too.
        """
        async with self._holds.held():
            owned = self._owned.get(number)
            usable = owned is not None and owned.phase in (Phase.CATCHING_UP, Phase.ANSWERING) and self._lease.held
            with self._ending_the_block():
                yield owned.store if owned is not None and usable else None

    def keep_holding(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Inside a hold: start work on the held store. The store stays open until the work has ended too."""

        async def held() -> None:
            with self._ending_the_block():
                await work

        task = asyncio.create_task(held())
        self._holds.keep_until_done(task)
        return task

    def keep_open(self) -> contextlib.AbstractAsyncContextManager[None]:
        """Keep all stores open for the time of a block, with or without the lease. Never inside another hold."""
        return self._holds.held()

    @contextlib.asynccontextmanager
    async def hold_all(self) -> AsyncIterator[None]:
        """Use all open stores for the time of a block. A fault of one ends the block. Never inside another hold."""
        async with self._holds.held():
            with self._ending_the_block():
                yield

    @contextlib.contextmanager
    def _ending_the_block(self) -> Iterator[None]:
        try:
            yield
        except LeaseLost:
            return
        except StoreFault as fault:
            owned = next((p for p in self._owned.values() if p.store and p.store.path == fault.path), None)
            if owned is None:
                raise
            owned.phase, owned.fault = Phase.FAULTED, fault

    # Assigned -> OPENING -> CATCHING_UP -> ANSWERING

    async def on_partitions_assigned(self, assigned: list[TopicPartition]) -> None:
        """Own these: nothing is read of them until their stores are open. Called by the Kafka client."""
        self.joined, self.rebalances = True, self.rebalances + 1
        numbers = sorted(p.partition for p in assigned if p.topic == self._topic)
        if numbers:
            log.info("the group assigns %s", partitions_text(numbers))
        for number in numbers:
            self._begin_opening(number)

    def _begin_opening(self, number: int) -> None:
        self._owned[number] = OwnedPartition(number)
        self._consumer.pause(TopicPartition(self._topic, number), *self._requests_of(number))
        self._to_open.set()

    async def open_assigned(self) -> None:
        """Open the stores of OPENING partitions, forever. It can take as long as a download.

        Raises StateError where a store cannot be used and waiting would not change that.
        """
        while True:
            await self._to_open.wait()
            self._to_open.clear()
            while opening := {p.number: p for p in self._in(Phase.OPENING)}:
                async for number, store, log_end in self._opener.open(list(opening)):
                    self._opened(opening[number], store, log_end)
                if any(p.phase is Phase.OPENING and self._owns(p) for p in opening.values()):
                    await asyncio.sleep(OPEN_AGAIN_S)

    def _opened(self, owned: OwnedPartition, store: Store, log_end: int) -> None:
        partition = TopicPartition(self._topic, owned.number)
        if not self._owns(owned) or partition not in self._consumer.assignment():
            # It was revoked in the meantime. Where it is assigned again, it is opened again: the owner between may have
            # answered events beyond `log_end`.
            store.close()
            if self._owns(owned):
                self._close(owned.number)
            return
        owned.store, owned.log_end, owned.phase = store, log_end, Phase.CATCHING_UP
        self._stores[owned.number] = store
        self._consumer.seek(partition, store.progress.log_offset)
        self._consumer.resume(*self._requests_of(owned.number), *([] if self._paused else [partition]))
        self.on_change()

    def _requests_of(self, number: int) -> list[TopicPartition]:
        """The partition of requests that the store answers: read before the store is open, they would be lost."""
        requests = TopicPartition(self._config.topics.requests, number)
        return [requests] if requests in self._consumer.assignment() else []

    async def catch_up(self) -> bool:
        """Let partitions that have caught up answer. Return whether there is one. Called when all polled records are
        applied.

        The consumer's position decides: the end of a transaction takes an offset, and no event comes of it.
        """
        caught_up: list[int] = []
        for owned in self._in(Phase.CATCHING_UP):
            partition = TopicPartition(self._topic, owned.number)
            if partition not in self._consumer.assignment():
                continue
            at_the_end = await self._consumer.position(partition) >= owned.log_end
            if at_the_end and owned.phase is Phase.CATCHING_UP:
                owned.phase = Phase.ANSWERING
                caught_up.append(owned.number)
        if caught_up:
            log.info("answering for %s", partitions_text(caught_up))
        return bool(caught_up)

    # -> FAULTED -> OPENING

    def reopen_soon(self, number: int, reason: str) -> None:
        """The log no longer belongs to the store: open the store again before anything else is applied."""
        log.error("partition %d: %s; its store is opened again", number, reason)
        self._owned[number].phase = Phase.FAULTED

    async def reopen_faulted(self) -> None:
        """Open FAULTED stores again. Called between two polls."""
        for owned in self._in(Phase.FAULTED):
            await self._reopen(owned)

    async def swap(self) -> int:
        """Replace the open stores by their completed rebuilds; return how many."""
        rebuilt = [p for p in self._owned.values() if p.store is not None and rebuilt_path(p.store.path).exists()]
        for owned in rebuilt:
            await self._reopen(owned)
        return len(rebuilt)

    async def watch_topic(self) -> None:
        """Open all stores again when the clicks topic was deleted and created again; look forever."""
        while True:
            await asyncio.sleep(CHECK_TOPIC_EVERY_S)
            with contextlib.suppress(KafkaError, BrokerUnavailable):
                now = await read_topic_id(self._config, self._cluster)
                for number, store in list(self._stores.items()):
                    built_from = store.identity.topic_id if store.identity is not None else ""
                    if built_from and now not in ("", built_from):
                        self.reopen_soon(number, f"the topic {self._topic!r} was deleted and created again")

    async def _reopen(self, owned: OwnedPartition) -> None:
        async with self._holds.none_held():
            if not self._owns(owned):  # revoked while this waited, and perhaps assigned again with a sound store
                return
            self._close(owned.number)
        self.on_change()
        if isinstance(owned.fault, StoreUnreadable):
            self._partition_stores.move_aside(owned.number, str(owned.fault))
        if TopicPartition(self._topic, owned.number) in self._consumer.assignment():
            self._begin_opening(owned.number)

    # -> gone

    async def on_partitions_revoked(self, revoked: list[TopicPartition]) -> None:
        """Close the stores of these. The Kafka client waits for it, and the next owner gets them only then."""
        self.joined = False
        began, numbers = time.monotonic(), sorted(p.partition for p in revoked if p.topic == self._topic)
        await self._give_up(numbers)
        if numbers:
            log.info("gave up %s in %.1f s: the group rebalances", partitions_text(numbers), time.monotonic() - began)

    async def close_all(self) -> None:
        """Close every store and own nothing: the worker stops."""
        await self._give_up(list(self._owned))

    async def _give_up(self, numbers: list[int]) -> None:
        """Wait until no store is in use, close these and own them no more."""
        self._giving_up += 1
        try:
            async with self._holds.none_held():
                for number in numbers:
                    self._close(number)
        finally:
            self._giving_up -= 1
        self.on_change()

    def _close(self, number: int) -> None:
        self._owned.pop(number, None)
        if (store := self._stores.pop(number, None)) is not None:
            store.close()

    # Phases, and the pause

    def _owns(self, owned: OwnedPartition) -> bool:
        """Whether this is the partition as it is owned now: not since revoked, nor opened again."""
        return self._owned.get(owned.number) is owned

    def _in(self, phase: Phase) -> list[OwnedPartition]:
        return [p for p in self._owned.values() if p.phase is phase]

    def phase(self, number: int) -> Phase | None:
        """The phase of a partition; None where it is not owned."""
        owned = self._owned.get(number)
        return owned.phase if owned is not None else None

    def phases(self) -> dict[int, Phase]:
        """The phase of every partition that is owned."""
        return {number: owned.phase for number, owned in self._owned.items()}

    def log_ends(self) -> dict[int, int]:
        """The last stable offset of each partition's log when its store was opened, where it is open."""
        return {p.number: p.log_end for p in self._owned.values() if p.store is not None}

    @property
    def paused(self) -> bool:
        """Whether an operator has stopped the reading of clicks."""
        return self._paused

    @property
    def giving_up(self) -> bool:
        """Whether partitions wait for the end of their holds to be given up: the lease must not be renewed for them."""
        return self._giving_up > 0

    def log_offset(self, partition: TopicPartition) -> int | None:
        """The next offset to read of a partition of clicks; None without an open store."""
        store = self._stores.get(partition.partition) if partition.topic == self._topic else None
        return store.progress.log_offset if store is not None else None

    def answering(self) -> dict[int, Store]:
        """The stores of the ANSWERING partitions."""
        return {p.number: p.store for p in self._in(Phase.ANSWERING) if p.store is not None}

    def pause(self, paused: bool) -> None:
        """Stop reading clicks, or continue."""
        self._paused = paused
        clicks = [TopicPartition(self._topic, number) for number in self._stores]
        if paused:
            self._consumer.pause(*clicks)
        else:
            self._consumer.resume(*clicks)
