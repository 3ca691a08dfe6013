"""The workers, as far as answers come from them."""

import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

from stream.kafka.documents import ItemReport
from stream.kafka.messages import Recommendation, Recommended

SILENT_AFTER_S = 1.0
"""A partition whose requests have had no answer for so long is taken for silent."""
TRY_EVERY_S = 0.5
"""How often a silent one is asked all the same. Every request to it would wait in the topic until its owner is back."""


class KnownItem(NamedTuple):
    """What workers know about an item."""

    report: ItemReport
    complete: bool
    """Whether every partition has answered."""


class Owners(Protocol):
    """Asks workers. None: no answer in time."""

    async def recommendation(self, user: str, within_s: float) -> Recommendation | None:
        """What the owner of the user recommends now."""

    async def item(self, item: str, within_s: float) -> KnownItem | None:
        """What all workers know about an item, together."""

    async def popular(self, within_s: float) -> list[Recommended] | None:
        """What is popular, best first, as far as partitions answer."""


class Silence:
    """Which partitions answer. While one does not, most requests to it are answered at once without it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: dict[int, float] = {}
        """When the first request without an answer ended, by partition, if none was answered after it."""
        self._tried_at: dict[int, float] = {}

    def may_ask(self, partition: int) -> bool:
        """Whether a request to the partition may be answered in time."""
        now = self._clock()
        if partition not in self._since or now - self._since[partition] < SILENT_AFTER_S:
            return True
        if now - self._tried_at.get(partition, 0.0) < TRY_EVERY_S:
            return False
        self._tried_at[partition] = now
        return True

    def asked(self, partition: int, *, answered: bool) -> None:
        """Note how a request to the partition ended."""
        if answered:
            self._since.pop(partition, None)
        else:
            self._since.setdefault(partition, self._clock())
