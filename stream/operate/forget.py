"""Forget a user: send the event, wait until the stores have applied it, and search for remains."""

import time

import msgspec
import numpy as np
from aiokafka import AIOKafkaProducer

from state.search import search
from state.view import View
from stream.config import Config
from stream.errors import AnabranchError
from stream.kafka.connection import connection
from stream.kafka.exchange import ask
from stream.kafka.field_mapping import map_fields
from stream.kafka.messages import encode

POLL_S = 0.5
FORGET_EVENT = "forget"


class PublishedEvent(msgspec.Struct):
    """Where the forget event lies in the log."""

    partition: int
    offset: int


class Searched(msgspec.Struct):
    """How much was searched."""

    files: int
    bytes: int
    records: int


class ForgetReport(msgspec.Struct):
    """The document of `anabranch forget`."""

    user: str
    published: list[PublishedEvent]
    not_here: list[int]
    """Partitions that got the event and whose state is not in this data directory."""
    searched: Searched
    found: list[str]
    """Places that still name the user."""


def forget(config: Config, user: str, within_s: float) -> ForgetReport:
    """Publish a forget event, wait until it is applied, and search the data directory for the user.

    The event goes to the partition of the user's key, and to every other partition whose store here knows the user: a
    shop with other keys has the user's clicks there. Raises AnabranchError, or before anything is published StateError.
    """
    with View(config.data, config.topics.clicks, config.state) as view:
        view.check_all_open()
        key = np.array([view.ids.of(user)], np.uint64)
        known = [n for n, partition in view.partitions.items() if len(partition.sequences(key).steps)]
        offsets = ask(config, "the forget event to be acknowledged", _publish(config, user, known))
        here = {number: offset for number, offset in offsets.items() if number in view.partitions}
        _wait_until_applied(view, here, within_s, config)
    found = search(config.data, user)
    return ForgetReport(
        user=user,
        published=[PublishedEvent(partition, offset) for partition, offset in offsets.items()],
        not_here=sorted(offsets.keys() - here.keys()),
        searched=Searched(found.files, found.bytes, found.records),
        found=found.places,
    )


def _wait_until_applied(view: View, offsets: dict[int, int], within_s: float, config: Config) -> None:
    until = time.monotonic() + within_s
    while True:
        view.refresh()
        left = [
            number
            for number, offset in offsets.items()
            if (partition := view.partitions.get(number)) is None
            or partition.read_progress().log_offset <= offset
            or partition.erasing
        ]
        if not left:
            return
        if time.monotonic() > until:
            raise AnabranchError(
                f"the forget event is in the log, but partitions {left} in {config.data} have not applied it within "
                f"{within_s:.0f} s: does a worker run? It applies the event when it does; run this command again for "
                f"the proof"
            )
        time.sleep(POLL_S)


async def _publish(config: Config, user: str, known: list[int]) -> dict[int, int]:
    """The offset of the event in each partition that it was sent to."""
    topic, key = config.topics.clicks, user.encode()
    async with AIOKafkaProducer(**connection(config), acks="all") as producer:
        value = encode(map_fields({"user": user, "event": FORGET_EVENT}, config.clicks.fields))
        sent = [await producer.send_and_wait(topic, value, key=key)]
        sent += [
            await producer.send_and_wait(topic, value, key=key, partition=number)
            for number in known
            if number != sent[0].partition
        ]
    return {metadata.partition: metadata.offset for metadata in sent}
