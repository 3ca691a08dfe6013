"""Workers asked through Kafka's topics `requests` and `replies`."""

from aiokafka.partitioner import murmur2

from stream.kafka.ask import RequestClient
from stream.kafka.messages import Recommendation, Reply, Request
from stream.operate.lookup import ItemReport
from stream.serve.owners import Silence

POSITIVE = 0x7FFFFFFF
"""The bits of a hash that Kafka's partitioner uses."""


class KafkaOwners:
    """Asks the owner of a user's partition. Partitions that do not answer are asked rarely."""

    def __init__(self, client: RequestClient, partitions: int) -> None:
        self._client, self._partitions, self._silence = client, partitions, Silence()

    def partition_of(self, user: str) -> int:
        """The partition of a user's events, by Kafka's own partitioner."""
        return int(murmur2(user.encode()) & POSITIVE) % self._partitions

    async def recommendation(self, user: str, within_s: float) -> Recommendation | None:
        """What the owner of the user recommends now; None: it does not answer in time, or has too many requests."""
        partition = self.partition_of(user)
        if not self._silence.may_ask(partition):
            return None
        try:
            reply = await self._client.ask(Request(user=user), within_s)
        except TimeoutError:
            self._silence.asked(partition, answered=False)
            return None
        self._silence.asked(partition, answered=True)
        return reply if isinstance(reply, Reply) and reply.status == "ok" else None

    async def item(self, item: str, within_s: float) -> ItemReport | None:
        """What all workers know about an item, together."""
        return None

    async def popular(self, within_s: float) -> Recommendation | None:
        """What is popular, from any worker."""
        return await self.recommendation("\\0", within_s)
