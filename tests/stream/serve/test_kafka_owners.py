"""Workers asked through Kafka: what an answer, no answer and a refusal do to the next questions."""

import asyncio
import logging

from stream.config import Config
from stream.errors import BrokerUnavailable
from stream.kafka.ask import Everywhere, NotAnswered
from stream.kafka.documents import Document, ItemPart, PopularItem, TitledFollower
from stream.kafka.messages import Recommended, Reply
from stream.serve.kafka_owners import KafkaOwners

REPLY = Reply(
    user="ann", items=[Recommended("milk", 1.0)], model=None, model_age_s=None, source="popularity", event_ts=None,
    emitted_ts=1, partition=0, offset=0,
)  # fmt: skip


class FixedClient:
    """A client whose question ends as a test decides."""

    partitions = (0, 1)

    def __init__(self) -> None:
        self.outcome: Reply | Exception = REPLY
        self.everywhere = Everywhere({}, {0: "away", 1: "away"})
        self.asked = 0

    def partition_of(self, user: str) -> int:
        return 1

    async def ask(self, request, timeout_s, partition):
        self.asked += 1
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    async def ask_all(self, request, timeout_s, partitions):
        return self.everywhere


def owners() -> tuple[KafkaOwners, FixedClient]:
    client = FixedClient()
    return KafkaOwners(Config(broker="nowhere:1"), client), client


def test_an_owner_that_is_silent_is_asked_rarely_and_the_log_says_so_once(monkeypatch, caplog):
    monkeypatch.setattr("stream.serve.owners.SILENT_AFTER_S", 0.0)

    async def run() -> None:
        asking, client = owners()
        assert await asking.recommendation("ann", 0.1) == REPLY
        for outcome in (NotAnswered("late", 1), BrokerUnavailable("away")):
            client.outcome, client.asked = outcome, 0
            assert [await asking.recommendation("ann", 0.1) for _ in range(20)] == [None] * 20
            assert client.asked <= 2
        monkeypatch.setattr("stream.serve.owners.TRY_EVERY_S", 0.0)
        client.outcome = REPLY
        assert await asking.recommendation("ann", 0.1) == REPLY

    with caplog.at_level(logging.INFO):
        asyncio.run(run())
    lines = [record.message for record in caplog.records]
    assert len(lines) == 2
    assert "no worker answers for partition 1" in lines[0]
    assert lines[1] == "partition 1 is answered for again"


def test_an_owner_that_has_too_many_requests_is_not_silent(monkeypatch):
    monkeypatch.setattr("stream.serve.owners.SILENT_AFTER_S", 0.0)

    async def run() -> None:
        asking, client = owners()
        client.outcome = NotAnswered("replied 'too many'", 1, replied=True)
        assert [await asking.recommendation("ann", 0.1) for _ in range(5)] == [None] * 5
        assert client.asked == 5

    asyncio.run(run())


def test_what_partitions_know_is_added_up_and_says_whether_all_answered():
    def document(partition: int, weight: float) -> Document:
        part = ItemPart("milk", "Milk", 3, 1.0, [TitledFollower("tea", None, weight)], None)
        popular = [PopularItem("tea", None, weight)]
        return Document(id="", want="item", partition=partition, emitted_ts=1, item=part, popular=popular)

    async def run() -> None:
        asking, client = owners()
        assert await asking.item("milk", 0.1) is None
        assert await asking.popular(0.1) is None
        client.everywhere = Everywhere({0: document(0, 2.0)}, {1: "away"})
        known = await asking.item("milk", 0.1)
        assert known is not None
        assert (known.report.degree, known.complete) == (3, False)
        client.everywhere = Everywhere({0: document(0, 2.0), 1: document(1, 5.0)}, {})
        known = await asking.item("milk", 0.1)
        assert known is not None
        assert (known.report.degree, known.report.next[0].weight, known.complete) == (6, 7.0, True)
        popular = await asking.popular(0.1)
        assert popular is not None
        assert [item.item for item in popular] == ["tea"]

    asyncio.run(run())
