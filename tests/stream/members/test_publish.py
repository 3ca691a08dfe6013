"""A process publishes its record every second. Nothing that goes wrong with it reaches the process."""

import asyncio
import logging

import msgspec
import pytest
from aiokafka.errors import KafkaConnectionError

from stream.config import Config
from stream.members.last_error import MAX_CHARS, LastError
from stream.members.member import MAX_PARTITIONS, MAX_RECORD_BYTES, Member, begin, decode_member
from stream.members.publish import MemberPublisher
from tests.stream.members.members import worker


class Broker:
    """Stands in for the producer: it takes records, refuses them, or hangs."""

    def __init__(self, monkeypatch) -> None:
        self.records: list[Member] = []
        self.away = self.hangs = False
        monkeypatch.setattr("stream.members.publish.AIOKafkaProducer", lambda **_: self)
        for limit in ("EVERY_S", "SEND_WITHIN_S", "LAST_WITHIN_S"):
            monkeypatch.setattr(f"stream.members.publish.{limit}", 0.02)

    async def start(self) -> None:
        if self.away:
            raise KafkaConnectionError("away")

    async def stop(self) -> None:
        if self.hangs:
            await asyncio.Event().wait()

    async def send_and_wait(self, topic, value, key) -> None:
        if self.hangs:
            await asyncio.Event().wait()
        if self.away:
            raise KafkaConnectionError("away")
        member = decode_member(value)
        assert member is not None
        assert (topic, key) == ("members", member.key.encode())
        self.records.append(member)


@pytest.fixture
def broker(monkeypatch):
    monkeypatch.setattr("stream.kafka.exchange.GIVE_UP_S", 0.02)
    return Broker(monkeypatch)


async def until(condition) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


def test_records_follow_each_other_and_the_last_one_says_that_it_stopped(broker):
    async def run() -> None:
        publisher = MemberPublisher(Config(), lambda: worker("a"))
        publisher.start()
        logging.getLogger("anabranch.worker").warning("the disk is\nfull")
        await until(lambda: len(broker.records) > 2)
        await publisher.stop()

    asyncio.run(run())
    assert [m.stopped for m in broker.records[-2:]] == [False, True]
    assert broker.records[0].ts > worker().ts
    assert broker.records[-1].last_error == "the disk is\\nfull"
    assert broker.records[-1].last_error_ts >= broker.records[0].ts - 1000


def test_a_broker_that_is_away_or_hangs_costs_records_only(broker):
    async def run() -> None:
        broker.away = True
        publisher = MemberPublisher(Config(), lambda: worker("a"))
        publisher.start()
        await asyncio.sleep(0.1)
        broker.away = False
        await until(lambda: broker.records)
        broker.hangs, before = True, len(broker.records)
        await asyncio.sleep(0.1)
        assert len(broker.records) <= before + 1
        broker.hangs = False
        await until(lambda: len(broker.records) > before + 1)
        broker.hangs = True
        async with asyncio.timeout(2):
            await publisher.stop()

    asyncio.run(run())
    assert not broker.records[-1].stopped, "the last record could not be sent, and the process ends all the same"


def test_a_fault_in_a_record_is_logged_and_ends_nothing(broker, caplog):
    records = iter([ZeroDivisionError, worker("a")])

    def look() -> Member:
        found = next(records, worker("a"))
        if not isinstance(found, Member):
            raise found
        return found

    async def run() -> None:
        publisher = MemberPublisher(Config(), look)
        publisher.start()
        await until(lambda: broker.records)
        await publisher.stop()

    asyncio.run(run())
    assert "ZeroDivisionError" in caplog.text


def test_the_last_error_is_one_line_of_bounded_length():
    kept = LastError()
    for level, text in ((logging.ERROR, "\x1b[31m" + "x" * 5000), (logging.INFO, "all is well")):
        if level >= kept.level:
            kept.emit(logging.LogRecord("anabranch", level, "", 0, text, None, None))
    assert kept.text.startswith("\\x1b[31mx")
    assert len(kept.text) < MAX_CHARS + 10
    kept.emit(logging.LogRecord("anabranch", logging.ERROR, "", 0, "%d", ("no number",), None))
    assert kept.text == "%d"


def test_a_record_names_its_process_and_where_it_is_reached():
    member = begin("worker", "shop-2", ":8081")
    assert member.starting
    assert member.address == f"{member.host}:8081"
    assert member.key == "worker/shop-2"
    assert decode_member(msgspec.json.encode(member)) == member


@pytest.mark.parametrize("value", [None, b"", b"[]", b'{"kind": "worker"}', b"\xff", b"[" * 100_000])
def test_what_is_no_record_is_skipped(value):
    assert decode_member(value) is None


@pytest.mark.parametrize(
    "forged",
    [worker(answering=range(MAX_PARTITIONS + 1)), worker(last_error="x" * MAX_RECORD_BYTES)],
    ids=["partitions", "bytes"],
)
def test_a_record_that_no_process_writes_is_skipped(forged):
    assert decode_member(msgspec.json.encode(forged)) is None
    assert decode_member(msgspec.json.encode(worker(answering=range(MAX_PARTITIONS)))) is not None
