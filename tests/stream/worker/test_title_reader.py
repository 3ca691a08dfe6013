"""Titles from the items topic, whatever is sent to it."""

import asyncio
from collections import deque
from types import SimpleNamespace

import pytest
from aiokafka.errors import ConsumerStoppedError

from state.errors import StoreBlocked
from state.events import hash_id, hash_ids
from state.id_hash import UNKEYED, IdHash, new_key
from state.titles import Titles
from stream.kafka.click_values import Invalid
from stream.worker import title_reader as titles_module
from stream.worker.item_names import ItemNames
from stream.worker.title_reader import read_titles, title_of


def record(value: bytes | None, offset: int = 0, key: bytes | None = None) -> SimpleNamespace:
    return SimpleNamespace(value=value, offset=offset, key=key)


@pytest.mark.parametrize(
    ("value", "key", "found"),
    [
        (b'{"item": "milk", "title": "Milk"}', None, ("milk", "Milk")),
        (b'{"item": 7, "title": "Seven"}', None, ("7", "Seven")),
        (None, b"milk", ("milk", None)),
        (None, None, None),
        ('{"item": "milk", "title": "Café"}'.encode("latin-1"), None, None),
        (b'{"item": "milk", "title": "\\ud800"}', None, None),
        (b'{"item": "\\ud800", "title": "Milk"}', None, None),
        (b'{"item": "milk"}', None, None),
        (b"[" * 5000, None, None),
    ],
)
def test_an_invalid_title_is_skipped(value, key, found):
    expected = (hash_id(found[0]), found[1]) if found else None
    try:
        assert title_of(record(value, key=key)) == expected
    except Invalid:
        assert found is None


def test_a_flood_of_junk_is_one_line_in_the_log_and_costs_no_title(tmp_path, caplog):
    titles = Titles(tmp_path)
    junk = [b"{}", b'{"item": [], "withdrawn": true}', b'{"item": "milk", "title": 7}', b"\xff"]
    flood = [record(junk[number % 4], number) for number in range(1000)]
    read(Reader([*flood, record(b'{"item": "milk", "title": "Milk"}', 1000)]), titles)
    assert titles.get(hash_ids([b"milk"])) == ["Milk"]
    assert caplog.text.count("items topic") == 1
    titles.close()


class Reader:
    """A consumer with batches of partition 0; with `more`, its topic has another partition once they are read."""

    def __init__(self, *batches: list[SimpleNamespace], more: bool = False) -> None:
        self.batches, self.sought, self.more = deque(batches), {}, more
        self._subscription = SimpleNamespace(subscription=None)
        self._client = SimpleNamespace(force_metadata_update=self._nothing)

    async def _nothing(self) -> None:
        pass

    def partitions_for_topic(self, topic: str) -> set[int]:
        return {0, 1} if self.more and not self.batches else {0}

    def assign(self, partitions: list) -> None:
        self.partitions, self.sought = partitions, {}

    def seek(self, partition, offset: int) -> None:
        self.sought[partition.partition] = offset

    async def getmany(self, timeout_ms: int, max_records: int | None) -> dict:
        if not self.batches:
            raise ConsumerStoppedError
        return {self.partitions[0]: self.batches.popleft()}


def read(reader: Reader, titles: Titles, topic_id: str = "first", id_hash: IdHash = UNKEYED) -> None:
    asyncio.run(read_titles(reader, "items", topic_id, titles, ItemNames({}, titles), id_hash))


def test_reading_goes_on_where_it_stopped_and_begins_again_with_another_topic(tmp_path):
    titles = Titles(tmp_path)
    read(Reader([record(b'{"item": "milk", "title": "Milk"}', 4)]), titles)
    same, other = Reader(), Reader()
    read(same, titles)
    read(other, titles, "second")
    assert (same.sought, other.sought) == ({0: 5}, {0: 0})
    assert titles.get(hash_ids([b"milk"])) == ["Milk"]
    titles.close()


def test_titles_are_read_again_under_a_new_id_key(tmp_path):
    titles, ids, value = Titles(tmp_path), IdHash(new_key()), b'{"item": "milk", "title": "Milk"}'
    read(Reader([record(value, 4)]), titles)
    again, same = Reader([record(value, 4)]), Reader()
    read(again, titles, id_hash=ids)
    read(same, titles, id_hash=ids)
    assert (again.sought, same.sought) == ({0: 0}, {0: 5})
    assert titles.get(ids.of_many([b"milk"])) == ["Milk"]
    titles.close()


def test_a_partition_that_the_topic_gets_later_is_read_from_its_beginning(tmp_path):
    titles = Titles(tmp_path)
    reader = Reader([record(b'{"item": "milk", "title": "Milk"}', 4)], more=True)
    read(reader, titles)
    assert reader.sought == {0: 5, 1: 0}
    titles.close()


def test_the_reader_waits_while_the_disk_is_full_and_skips_no_title(tmp_path, monkeypatch):
    titles, real, tries = Titles(tmp_path), Titles.apply, []

    def apply(self, *titles):
        tries.append(titles)
        if len(tries) < 3:
            raise StoreBlocked("No space left on device", tmp_path)
        real(self, *titles)

    monkeypatch.setattr(Titles, "apply", apply)
    monkeypatch.setattr(titles_module, "APPLY_AGAIN_S", 0.0)
    read(Reader([record(b'{"item": "milk", "title": "Milk"}', 0)]), titles)
    assert len(tries) == 3
    assert titles.get(hash_ids([b"milk"])) == ["Milk"]
    titles.close()


def ids(titles: Titles) -> set[bytes]:
    return titles.withdrawn_ids


def test_a_withdrawal_keeps_the_title_and_a_title_keeps_the_withdrawal(tmp_path):
    titles = Titles(tmp_path)
    read(
        Reader(
            [
                record(b'{"item": "milk", "title": "Milk"}', 0),
                record(b'{"item": "milk", "withdrawn": true}', 1),
                record(b'{"item": 7, "withdrawn": true, "title": "Seven"}', 2),
                record(b'{"item": "milk", "title": "Fresh milk"}', 3),
                record(b'{"item": "salt", "withdrawn": true}', 4),
                record(b'{"item": "salt", "withdrawn": false}', 5),
                record(None, 6, b"milk"),
            ]
        ),
        titles,
    )
    assert ids(titles) == {b"milk", b"7"}
    assert titles.withdrawn.tolist() == sorted(hash_ids([b"milk", b"7"]).tolist())
    assert titles.get(hash_ids([b"milk", b"7"])) == [None, "Seven"]  # only the title of milk was removed
    titles.close()


def test_withdrawn_items_stay_so_after_a_restart_until_they_are_brought_back(tmp_path):
    titles = Titles(tmp_path)
    read(Reader([record(b'{"item": "milk", "withdrawn": true}', 0)]), titles)
    titles.close()
    titles = Titles(tmp_path)
    assert ids(titles) == {b"milk"}
    read(Reader([record(b'{"item": "milk", "withdrawn": false}', 1)]), titles)
    assert (ids(titles), len(titles.withdrawn)) == (set(), 0)
    titles.close()
    titles = Titles(tmp_path, read_only=True)
    assert ids(titles) == set()
    titles.close()


def test_a_tombstone_of_a_withdrawal_brings_the_item_back_as_compaction_would(tmp_path):
    titles = Titles(tmp_path)
    withdrawals = [record(b'{"item": "milk", "withdrawn": true}', 0), record(b'{"item": "salt", "withdrawn": true}', 1)]
    named = record(b'{"item": "milk", "title": "Milk"}', 2)
    read(Reader([*withdrawals, named, record(None, 3, b"withdrawn:milk"), record(None, 4, b"withdrawn:")]), titles)
    assert ids(titles) == {b"salt"}
    assert titles.get(hash_ids([b"milk"])) == ["Milk"]
    titles.close()


@pytest.mark.parametrize(
    "value",
    [
        b'{"item": "milk", "withdrawn": "yes"}',
        b'{"withdrawn": true}',
        b'{"item": "", "withdrawn": true}',
        b'{"item": "\\ud800", "withdrawn": true}',
        b'{"item": "' + b"x" * 600 + b'", "withdrawn": true}',
        b'["withdrawn"]',
        b'"withdrawn"' * 3,
    ],
)
def test_an_invalid_withdrawal_is_skipped(tmp_path, value):
    titles = Titles(tmp_path)
    read(Reader([record(value, 0), record(b'{"item": "salt", "withdrawn": true}', 1)]), titles)
    assert ids(titles) == {b"salt"}
    titles.close()
