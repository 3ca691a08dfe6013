"""Batches that cannot be read, in logs whose other records must all be read: aiokafka's own records and errors."""

import asyncio
from types import SimpleNamespace

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import FetchError, FetchResult, PartitionRecords
from aiokafka.errors import (
    ConsumerStoppedError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    TopicAuthorizationFailedError,
)
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c_py
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.kafka import reader as reader_module
from stream.kafka.reader import Reader

READ_COMMITTED = 1
CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
UNKNOWN_CODEC = 5


def batch(first: int, count: int, codec: int = 0) -> bytes:
    """A batch of records at the offsets from `first` on, each with its offset as its value."""
    made = DefaultRecordBatchBuilder(
        2, codec, is_transactional=0, producer_id=-1, producer_epoch=-1, base_sequence=-1, batch_size=1 << 20
    )
    for at in range(count):
        made.append(
            at, timestamp=1_600_000_000_000, key=None, value=b"%d" % (first + at), headers=[("origin", b"shop")]
        )
    built = bytearray(made.build())
    built[:8] = first.to_bytes(8, "big")
    return bytes(built)


def with_wrong_checksum(built: bytes) -> bytes:
    return built[:-1] + bytes([built[-1] ^ 1])


def with_right_checksum(changed: bytearray) -> bytes:
    changed[17:21] = calc_crc32c_py(bytes(changed[21:])).to_bytes(4, "big")
    return bytes(changed)


def with_unknown_codec(built: bytes) -> bytes:
    changed = bytearray(built)
    changed[22] = UNKNOWN_CODEC
    return with_right_checksum(changed)


def with_header_that_is_not_utf8(built: bytes) -> bytes:
    """As Apache Kafka accepts it from any producer."""
    return with_right_checksum(bytearray(built.replace(b"origin", b"\xfforigi")))


class State:
    """The position of a partition."""

    paused, has_valid_position, position = False, True, 0

    def consumed_to(self, position: int) -> None:
        self.position = position


class Consumer:
    """Logs that are fetched and read as aiokafka does, each fetch with up to three batches."""

    def __init__(self, logs: dict[TopicPartition, list[bytes]], batches_per_fetch: int = 3) -> None:
        self.logs, self._per_fetch = logs, batches_per_fetch
        self.errors: list[Exception] = []
        assignment = SimpleNamespace(active=True, tps=set(logs), state_value=lambda p: self._states[p])
        self._states = {p: State() for p in logs}
        self._assignment = assignment
        self._subscription = SimpleNamespace(subscription=SimpleNamespace(assignment=assignment))
        self._fetched: dict[TopicPartition, FetchResult | FetchError] = {}
        self.beginnings: list[TopicPartition] = []

    def seek(self, partition, offset: int) -> None:
        self._states[partition].position = offset

    async def seek_to_beginning(self, partition) -> None:
        self.beginnings.append(partition)

    def highwater(self, partition) -> int:
        return max((next_offset(b) for b in self.logs[partition]), default=0)

    def fetch(self, partition: TopicPartition) -> None:
        position = self._states[partition].position
        wanted = [b for b in self.logs[partition] if next_offset(b) > position][: self._per_fetch]
        if wanted:
            records = MemoryRecords(b"".join(wanted))
            unpacked = PartitionRecords(partition, records, [], position, None, None, True, READ_COMMITTED)
            self._fetched[partition] = FetchResult(
                partition, assignment=self._assignment, partition_records=unpacked, backoff=0
            )

    async def getmany(self, *partitions, timeout_ms, max_records=None):
        if self.errors:
            raise self.errors.pop(0)
        for _ in range(2):  # aiokafka goes on until the timeout
            for partition in self.logs:
                if partition not in self._fetched:
                    self.fetch(partition)
            if drained := self.drain(partitions, max_records):
                return drained
        return {}

    def drain(self, partitions, left):
        drained = {}
        for partition in [p for p in self._fetched if not partitions or p in partitions]:
            records = self._fetched[partition].getall(left)
            if not self._fetched[partition].has_more():
                del self._fetched[partition]
            if records:
                drained[partition] = records
                if left is not None:
                    left -= len(records)
                    if not left:
                        break
        return drained


def next_offset(built: bytes) -> int:
    return MemoryRecords(built).next_batch().next_offset


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(reader_module, "FETCH_AGAIN_S", 0.0)


def read_all(consumer: Consumer, max_records: int | None = None):
    """Values by partition, and the offsets that were skipped, after as many polls as the logs can need."""
    read: dict[TopicPartition, list[bytes]] = {p: [] for p in consumer.logs}
    skipped: dict[TopicPartition, list[int]] = {p: [] for p in consumer.logs}

    async def run() -> None:
        reader, idle = Reader(consumer), 0
        while idle < reader_module.TRIES * len(consumer.logs) + 2:
            polled = await reader.poll(timeout_ms=0, max_records=max_records)
            for partition, records in polled.records.items():
                read[partition] += [r.value for r in records]
            if (bad := polled.unreadable) is not None:
                skipped[bad.partition] += range(bad.begin, bad.end)
            idle = 0 if polled.records or bad else idle + 1

    asyncio.run(run())
    return read, skipped


@pytest.mark.parametrize("codec", CODECS)
def test_every_codec_of_kafka_is_read(codec):
    log = TopicPartition("clicks", 0)
    read, skipped = read_all(Consumer({log: [batch(0, 3, CODECS[codec])]}))
    assert (read[log], skipped[log]) == ([b"0", b"1", b"2"], [])


@pytest.mark.parametrize("spoil", [with_wrong_checksum, with_unknown_codec, with_header_that_is_not_utf8])
def test_a_batch_that_cannot_be_read_is_logged_and_skipped_and_everything_else_is_read(caplog, spoil):
    bad, good = TopicPartition("clicks", 0), TopicPartition("clicks", 1)
    logs = {good: [batch(0, 2)], bad: [batch(0, 2), spoil(batch(2, 5)), batch(7, 1)]}
    read, skipped = read_all(Consumer(logs))
    assert (read[good], read[bad], skipped[bad]) == ([b"0", b"1"], [b"0", b"1", b"7"], [2, 3, 4, 5, 6])
    [line] = [r.message for r in caplog.records]
    assert "topic clicks, partition 0: the batch at offsets 2 to 6 cannot be read and is skipped: " in line


def test_the_records_before_a_bad_one_in_the_same_batch_are_read():
    log, built = TopicPartition("clicks", 0), batch(2, 5)
    before, _, after = built.rpartition(b"origin")
    logs = {log: [batch(0, 2), with_right_checksum(bytearray(before + b"\xfforigi" + after)), batch(7, 1)]}
    read, skipped = read_all(Consumer(logs))
    assert (read[log], skipped[log]) == ([b"0", b"1", b"2", b"3", b"4", b"5", b"7"], [6])


def test_a_checksum_that_was_wrong_once_loses_nothing():
    log = TopicPartition("clicks", 0)
    consumer = Consumer({log: [batch(0, 2), with_wrong_checksum(batch(2, 2))]})
    whole = {log: [batch(0, 2), batch(2, 2)]}

    async def run() -> list[bytes]:
        reader, read = Reader(consumer), []
        for _ in range(6):
            read += [r.value for records in (await reader.poll(timeout_ms=0)).records.values() for r in records]
            if read:
                consumer.logs = whole
        return read

    assert asyncio.run(run()) == [b"0", b"1", b"2", b"3"]


SPOIL = {
    "good": lambda built: built,
    "checksum": with_wrong_checksum,
    "codec": with_unknown_codec,
    "header": with_header_that_is_not_utf8,
}
batches = st.lists(
    st.tuples(st.integers(1, 4), st.sampled_from(["good", "good", "checksum", "codec", "header"])), max_size=6
)


@settings(max_examples=150, deadline=None)
@given(shapes=st.lists(batches, min_size=1, max_size=3), max_records=st.sampled_from([None, 1, 2, 5]))
def test_every_good_record_is_read_once_and_in_order_whatever_lies_between(shapes, max_records):
    logs, good, bad = {}, {}, {}
    for number, shape in enumerate(shapes):
        log, offset = TopicPartition("clicks", number), 0
        logs[log], good[log], bad[log] = [], [], []
        for count, kind in shape:
            built = batch(offset, count)
            logs[log].append(SPOIL[kind](built))
            (good if kind == "good" else bad)[log] += range(offset, offset + count)
            offset += count
    read, skipped = read_all(Consumer(logs), max_records)
    assert {p: [int(v) for v in values] for p, values in read.items()} == good
    assert skipped == bad


def poll_with(error: Exception):
    consumer = Consumer({TopicPartition("clicks", 0): []})
    consumer.errors.append(error)
    return consumer, asyncio.run(Reader(consumer).poll(timeout_ms=0))


def test_a_position_that_the_log_no_longer_holds_is_returned():
    lost = {TopicPartition("clicks", 0): 7}
    _, polled = poll_with(OffsetOutOfRangeError(lost))
    assert polled.out_of_range == lost


def test_a_partition_without_a_committed_offset_is_read_from_its_beginning():
    consumer, _ = poll_with(NoOffsetForPartitionError(TopicPartition("clicks", 0)))
    assert consumer.beginnings == [TopicPartition("clicks", 0)]


def test_a_missing_right_is_logged_and_read_again(caplog):
    _, polled = poll_with(TopicAuthorizationFailedError("clicks"))
    assert polled.records == {}
    assert "nothing is read for now: " in caplog.text
    assert "TopicAuthorizationFailedError" in caplog.text


def test_a_stopped_consumer_ends_the_reading():
    with pytest.raises(ConsumerStoppedError):
        poll_with(ConsumerStoppedError())
