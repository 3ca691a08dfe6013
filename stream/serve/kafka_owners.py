"""Workers asked through Kafka's topics `requests` and `replies`."""

import asyncio
import logging

from stream.config import Config
from stream.errors import AnabranchError
from stream.kafka.ask import Everywhere, NotAnswered, RequestClient
from stream.kafka.documents import merge_items, merge_popular
from stream.kafka.messages import Recommendation, Recommended, Reply, Request
from stream.kafka.rarely import Rarely
from stream.serve.owners import KnownItem, Silence

log = logging.getLogger("anabranch.serve")

RELATED_ITEMS = 50
"""Related items that are asked for, whatever the limit of a request: the answer is kept."""

GRACE_S = 0.05
"""A broker that fails is examined; an answer does not wait for that."""


class KafkaOwners:
    """Asks the owner of a user's partition, or those of all partitions. Ones that do not answer are asked rarely."""

    def __init__(self, config: Config, client: RequestClient) -> None:
        self._config, self._client, self._silence = config, client, Silence()
        self._silent, self._rarely = set[int](), Rarely()

    def partition_of(self, user: str) -> int:
        """The partition of a user's events, by Kafka's own partitioner."""
        return self._client.partition_of(user)

    async def recommendation(self, user: str, within_s: float) -> Recommendation | None:
        """What the owner of the user recommends now; None: it does not answer in time, or has too many requests."""
        partition = self.partition_of(user)
        if not self._silence.may_ask(partition):
            self._log_silence(partition)
            return None
        try:
            async with asyncio.timeout(within_s + GRACE_S):
                reply = await self._client.ask(Request(user=user), within_s, partition)
        except NotAnswered as why:
            self._silence.asked(partition, answered=why.replied)
            return None
        except (AnabranchError, TimeoutError):  # no broker
            self._silence.asked(partition, answered=False)
            return None
        self._silence.asked(partition, answered=True)
        if partition in self._silent:
            self._silent.discard(partition)
            log.info("partition %d is answered for again", partition)
        return reply if isinstance(reply, Reply) else None

    def _log_silence(self, partition: int) -> None:
        self._silent.add(partition)
        if self._rarely.may_log(str(partition)):
            log.warning(
                "no worker answers for partition %d: its users get their last recommendation, or what is popular. "
                "`anabranch status` shows who owns it", partition,
            )  # fmt: skip

    async def item(self, item: str, within_s: float) -> KnownItem | None:
        """What all workers know about an item, together."""
        found = await self._everywhere(Request(want="item", item=item, limit=RELATED_ITEMS), within_s)
        parts = [document.item for document in found.documents.values() if document.item is not None]
        if not parts:
            return None
        complete = len(parts) == len(self._client.partitions)
        return KnownItem(merge_items(parts, RELATED_ITEMS, self._config.state), complete)

    async def popular(self, within_s: float) -> list[Recommended] | None:
        """What is popular, best first, as far as partitions answer."""
        found = await self._everywhere(Request(want="popular"), within_s)
        lists = [document.popular for document in found.documents.values() if document.popular is not None]
        if not lists:
            return None
        count = self._config.state.popular_items
        return [Recommended(p.item, p.score, title=p.title, why="popular") for p in merge_popular(lists, count)]

    async def _everywhere(self, request: Request, within_s: float) -> Everywhere:
        asked = [partition for partition in self._client.partitions if self._silence.may_ask(partition)]
        try:
            async with asyncio.timeout(within_s + GRACE_S):
                found = await self._client.ask_all(request, within_s, asked)
        except (AnabranchError, TimeoutError):  # no broker
            return Everywhere({}, {})
        for partition in found.documents:
            self._silence.asked(partition, answered=True)
        return found
