"""The partitions this worker owns, from assignment to revocation: stores opened, opened anew after a fault, closed.

A store closes only between two answers (`turn`) and once those on their way are settled.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError

from state.errors import StoreFault, StoreUnreadable
from state.store import Store
from stream.config import Config
from stream.errors import BrokerUnavailable
from stream.stores.opener import Opener, known_topic_id
from stream.stores.partition_stores import PartitionStores, rebuilt_path

WATCH_EVERY_S = 10.0


class Assignment(ConsumerRebalanceListener):  # type: ignore[misc]
    """Which stores are open, and why one is not."""

    def __init__(
        self,
        config: Config,
        consumer: AIOKafkaConsumer,
        partitions: PartitionStores,
        cluster: str,
        *,
        settled: Callable[[], Awaitable[None]],
        changed: Callable[[], None],
    ) -> None:
        """`settled` waits for the answers on their way; `changed` is told when stores were opened or closed."""
        self._config, self._topic = config, config.topics.clicks
        self._consumer, self._partitions, self._cluster = consumer, partitions, cluster
        self._settled, self._changed = settled, changed
        self._opening = Opener(config, consumer, partitions, cluster, changed)
        self._faults: dict[int, StoreFault] = {}
        self.turn = asyncio.Lock()
        """Held while users of a store are being answered: it must not close then."""

    def store(self, number: int) -> Store | None:
        """The partition's store; None where it was revoked or is to be opened anew: then its log is read again."""
        return None if number in self._faults else self._partitions.stores.get(number)

    def stores(self) -> dict[int, Store]:
        """All that are open and sound, by partition."""
        return {n: store for n, store in self._partitions.stores.items() if n not in self._faults}

    def speaking(self) -> dict[int, Store]:
        """Those that hold all that the log held when they were assigned: no owner before can have said more."""
        return {number: store for number, store in self.stores().items() if number not in self._opening.behind}

    async def catch_up(self) -> bool:
        """Look which have come so far, all that was polled being folded; whether one has."""
        behind, came = self._opening.behind, False
        for number, end in list(behind.items()):
            partition = TopicPartition(self._topic, number)
            if number not in self.stores() or partition not in self._consumer.assignment():
                continue
            # Not the store's offset: the end of a transaction takes one in the log that is never folded.
            if await self._consumer.position(partition) >= end:
                came = behind.pop(number, None) is not None or came
        return came

    def fault(self, fault: StoreFault) -> None:
        """Have the store of a fault opened anew before anything else is folded into it."""
        number = next((n for n, s in self._partitions.stores.items() if s.path == fault.path), None)
        if number is None:
            raise fault
        self._faults[number] = fault

    async def mend(self) -> None:
        """Open anew what has a fault."""
        for number, fault in list(self._faults.items()):
            await self.reopen(number, fault)

    async def open_assigned(self) -> None:
        """Open the stores of assigned partitions as they come, for ever: that can take a download.

        Raises StateError where a store cannot be used.
        """
        await self._opening.run()

    async def on_partitions_assigned(self, assigned: list[TopicPartition]) -> None:
        """Have the stores opened; until each is, nothing of its partition is read."""
        self._opening.add(p for p in assigned if p.topic == self._topic)

    async def on_partitions_revoked(self, revoked: list[TopicPartition]) -> None:
        """Let the answers under way finish, then close the stores."""
        clicks = [p for p in revoked if p.topic == self._topic]
        self._opening.discard(clicks)
        await self._close([p.partition for p in clicks])

    def pause(self, paused: bool) -> None:
        """Stop or go on reading clicks; answers and requests are not affected."""
        self._opening.paused = paused
        clicks = [TopicPartition(self._topic, number) for number in self._partitions.stores]
        if paused:
            self._consumer.pause(*clicks)
        else:
            self._consumer.resume(*clicks)

    async def swap(self) -> int:
        """Put completed rebuilds in the place of the stores being served; return how many."""
        waiting = [n for n, store in self._partitions.stores.items() if rebuilt_path(store.path).exists()]
        for number in waiting:
            await self.reopen(number)
        return len(waiting)

    async def watch_log(self) -> None:
        """Notice a topic that is deleted and made again while it is read, for ever."""
        while True:
            await asyncio.sleep(WATCH_EVERY_S)
            with contextlib.suppress(KafkaError, BrokerUnavailable):
                now = await known_topic_id(self._config, self._cluster)
                identities = {number: store.identity for number, store in self._partitions.stores.items()}
                for number, identity in identities.items():
                    if identity is not None and identity.topic_id and now not in ("", identity.topic_id):
                        await self.reopen(number)

    async def reopen(self, number: int, fault: StoreFault | None = None) -> None:
        """Close a store and open what is right for its partition now: one that is damaged is moved aside before."""
        await self._close([number])
        partition = TopicPartition(self._topic, number)
        if isinstance(fault, StoreUnreadable):
            self._partitions.move_aside(number, str(fault))
        if partition in self._consumer.assignment():
            self._opening.add([partition])

    async def _close(self, numbers: list[int]) -> None:
        async with self.turn, self._partitions.reading:
            await self._settled()
            for number in numbers:
                self._partitions.close(number)
                self._faults.pop(number, None)
            self._changed()
