"""Forgetting a user on request: the event in the log, the wait until the stores have followed, and the proof."""

import asyncio
import time
from typing import Any

import numpy as np
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError, KafkaError

from state.events import hash_id
from state.search import search
from state.view import View
from stream.config import Config
from stream.errors import AnabranchError
from stream.kafka.connection import connection
from stream.kafka.diagnosis import unavailable
from stream.kafka.field_mapping import map_fields
from stream.kafka.messages import encode

LOOK_EVERY_S = 0.5
FORGET = "forget"


def forget(config: Config, user: str, within_s: float) -> dict[str, Any]:
    """Publish a forget event, wait until it is done, and search what is left. Raises AnabranchError, or
    StateError before anything is published.

    The event goes where the user's key leads, and to every partition whose store here knows the user: a shop that keys
    its clicks otherwise has them elsewhere.
    """
    with View(config.data, config.topics.clicks, config.state) as view:
        view.need_all()
        key = np.array([hash_id(user)], np.uint64)
        known = [n for n, partition in view.partitions.items() if len(partition.sequences(key).steps)]
        offsets = asyncio.run(_publish(config, user, known))
        here = {number: offset for number, offset in offsets.items() if number in view.partitions}
        _wait(view, here, within_s, config)
    found = search(config.data, user)
    return {
        "user": user,
        "published": [{"partition": n, "offset": o} for n, o in offsets.items()],
        "not_here": sorted(offsets.keys() - here.keys()),
        "searched": {"files": found.files, "bytes": found.bytes, "records": found.records},
        "found": found.places,
    }


def _wait(view: View, offsets: dict[int, int], within_s: float, config: Config) -> None:
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
                f"the forget event is in the log, but partitions {left} in {config.data} have not followed within "
                f"{within_s:.0f} s: does a worker run? It will follow when it does; call this again for the proof"
            )
        time.sleep(LOOK_EVERY_S)


async def _publish(config: Config, user: str, known: list[int]) -> dict[int, int]:
    """The offset of the event in each partition it went to."""
    producer = AIOKafkaProducer(**connection(config), acks="all")
    topic, key = config.topics.clicks, user.encode()
    try:
        await producer.start()
        value = encode(map_fields({"user": user, "event": FORGET}, config.clicks.fields))
        sent = [await producer.send_and_wait(topic, value, key=key)]
        sent += [
            await producer.send_and_wait(topic, value, key=key, partition=number)
            for number in known
            if number != sent[0].partition
        ]
    except (KafkaConnectionError, KafkaError) as error:
        raise await unavailable(config, error) from None
    finally:
        await producer.stop()
    return {metadata.partition: metadata.offset for metadata in sent}
