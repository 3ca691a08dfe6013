"""The workers, as far as answers come from them."""

import time
from collections.abc import Callable
from typing import Protocol

from stream.kafka.messages import Recommendation
from stream.operate.lookup import ItemReport

SILENT_AFTER = 3
"""After so many requests without an answer a worker is taken for silent."""
TRY_EVERY_S = 0.5
"""How often a silent one is asked all the same. Requests to it would wait in the topic until it is back."""


class Owners(Protocol):
    """Asks workers. None: no answer in time."""

    async def recommendation(self, user: str, within_s: float) -> Recommendation | None:
        """What the owner of the user recommends now."""

    async def item(self, item: str, within_s: float) -> ItemReport | None:
        """What all workers know about an item, together."""

    async def popular(self, within_s: float) -> Recommendation | None:
        """What is popular, from any worker."""


class Silence:
    """Which partitions answer. The next request to one that does not is answered at once without it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._unanswered: dict[int, int] = {}
        self._tried_at: dict[int, float] = {}

    def may_ask(self, partition: int) -> bool:
        """Whether a request to the partition may be answered in time."""
        if self._unanswered.get(partition, 0) < SILENT_AFTER:
            return True
        if self._clock() - self._tried_at.get(partition, 0.0) < TRY_EVERY_S:
            return False
        self._tried_at[partition] = self._clock()
        return True

    def asked(self, partition: int, *, answered: bool) -> None:
        """Note how a request to the partition ended."""
        if answered:
            self._unanswered.pop(partition, None)
            return
        self._unanswered[partition] = self._unanswered.get(partition, 0) + 1
        self._tried_at[partition] = self._clock()
