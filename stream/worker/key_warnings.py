"""Whether producers split users over partitions. It is logged at once and then every hour with what came since."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from aiokafka import TopicPartition

from state.store import Store
from stream.kafka.keys import Misplaced, explain_foreign, explain_keyless, misplaced
from stream.kafka.rarely import Rarely

log = logging.getLogger("anabranch.worker")

LOG_EVERY_S = 3600.0


class KeyWarnings:
    """Adds up what the batches of a worker have, and logs it rarely."""

    def __init__(self, topic: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._topic, self._rarely = topic, Rarely(LOG_EVERY_S, clock)
        self._keyless = self._foreign = 0
        self._crc32 = True

    def add(self, found: Misplaced, partitions: int) -> None:
        """Count a batch of a topic with so many partitions. With one, no user can be split."""
        if partitions < 2:
            return
        self._keyless += found.keyless
        if self._keyless and self._rarely.may_log("keyless"):
            log.warning("%s", explain_keyless(self._topic, self._keyless))
            self._keyless = 0
        self._foreign += found.foreign
        self._crc32 = self._crc32 and (found.crc32 or not found.foreign)
        if self._foreign and self._rarely.may_log("foreign"):
            log.warning("%s", explain_foreign(self._topic, self._foreign, crc32=self._crc32))
            self._foreign, self._crc32 = 0, True


class KeyChecks:
    """Checks the keys of each batch. Clicks and requests have as many partitions, so one rule holds for both."""

    def __init__(self, topics: Iterable[str], stores: Mapping[int, Store]) -> None:
        self._warnings, self._stores = {topic: KeyWarnings(topic) for topic in topics}, stores

    def check(self, partition: TopicPartition, keys: Sequence[bytes | None]) -> Misplaced:
        """Count messages that are not where their users' other messages are; log them."""
        store = self._stores.get(partition.partition)
        identity = store.identity if store is not None else None
        if identity is None:
            return Misplaced()
        found = misplaced(keys, partition.partition, identity.partitions)
        self._warnings[partition.topic].add(found, identity.partitions)
        return found
