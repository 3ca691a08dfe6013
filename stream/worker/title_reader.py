"""Reads the items topic into the store of titles, which lies beside the partitions' stores."""

import asyncio
import contextlib
import logging
from pathlib import Path
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import ConsumerStoppedError

from state.errors import StateError, StoreUnreadable
from state.id_hash import UNKEYED, IdHash
from state.titles import Titles
from stream.kafka.click_values import Invalid
from stream.kafka.messages import UNREADABLE, ItemTitle
from stream.kafka.rarely import Rarely
from stream.kafka.reader import Reader
from stream.kafka.topics import partitions_or_first
from stream.kafka.withdrawals import withdrawal_of
from stream.stores.partition_stores import move_aside
from stream.worker.item_names import MAX_TITLE_CHARS, ItemNames, cut_title

log = logging.getLogger("anabranch.titles")

APPLY_AGAIN_S = 5.0
MAX_TITLES_PER_POLL = 2000
"""Titles applied at once: clicks wait meanwhile."""


def open_titles(data: Path, id_hash: IdHash) -> Titles:
    """The titles on this disk; damaged ones are moved aside, and read again from the items topic."""
    try:
        return Titles(data, id_hash)
    except StoreUnreadable as reason:
        move_aside(data / "titles", str(reason))
        return Titles(data, id_hash)


async def read_titles(
    reader: AIOKafkaConsumer,
    topic: str,
    topic_id: str,
    titles: Titles,
    names: ItemNames,
    id_hash: IdHash = UNKEYED,
) -> None:
    """Follow the topic from where the titles end, or from its beginning if it was created again.

    Titles that were hashed with another id key are those of another topic.
    """
    topic_id += id_hash.fingerprint
    assigned: set[int] = set()
    skipped, rarely = 0, Rarely()
    known, polls = set(await partitions_or_first(reader, topic)), Reader(reader)
    while True:
        if known > assigned:  # the topic can get more partitions while it is followed
            reader.assign([TopicPartition(topic, number) for number in sorted(known)])
            stored, assigned = titles.offsets(topic_id), known
            for number in known:
                reader.seek(TopicPartition(topic, number), stored.get(number, 0))
        try:
            polled = (await polls.poll(timeout_ms=500, max_records=MAX_TITLES_PER_POLL)).records
        except ConsumerStoppedError:
            return
        for partition, records in polled.items():
            found, withdrawn = dict[int, str | None](), dict[bytes, bool]()
            for record in records:
                try:
                    change = withdrawal_of(record)
                    if change is not None:
                        withdrawn[str(change.item).encode()] = change.withdrawn
                    if (change is None or change.title is not None) and (title := title_of(record, id_hash)):
                        found[title[0]] = title[1]
                except Invalid as reason:
                    skipped += 1
                    if rarely.may_log():
                        log.warning(
                            "items topic: %d messages were skipped since the start, the last one at offset %d: %s",
                            skipped, record.offset, reason,
                        )  # fmt: skip
            while True:
                try:
                    titles.apply(found, topic_id, {partition.partition: records[-1].offset + 1}, withdrawn)
                    break
                except StateError as error:
                    log.error("no title is read for now: %s. Trying again in %.0f s", error, APPLY_AGAIN_S)
                    await asyncio.sleep(APPLY_AGAIN_S)
                    with contextlib.suppress(StateError):  # the next try logs why not
                        titles.reopen()
            names.forget(found)
        known = set(reader.partitions_for_topic(topic) or assigned)


def title_of(record: Any, id_hash: IdHash = UNKEYED) -> tuple[int, str | None] | None:
    """The item, a hash, and its title (None: it was removed); None for a message that names no item. Raises Invalid."""
    try:
        item = msgspec.json.decode(record.value, type=ItemTitle) if record.value else None
        key = str(item.item).encode() if item else record.key
        if item:
            item.title.encode()
    except (*UNREADABLE, UnicodeEncodeError) as error:
        raise Invalid(f"no title: {error}") from None
    return (id_hash.of(key), cut_title(item.title, MAX_TITLE_CHARS) if item else None) if key else None
