"""The installation's id key in the topic `models`: a record under a key of its own, which compaction keeps.

The first record stands until a later one names it as replaced, which only an operator's command writes. So of two
`init`s that run at once the one whose record comes first makes the key, and both find it there.
"""

import asyncio
import logging
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from state.signing import Keys
from stream.config import Config
from stream.kafka.exchange import within
from stream.kafka.messages import UNREADABLE, IdKey, encode
from stream.kafka.pointers import decode_pointer
from stream.kafka.publish import publish_one
from stream.kafka.signing import refusal, signed
from stream.kafka.whole_topic import records_of

log = logging.getLogger("anabranch")

RECORD_KEY = b"id-key"


class FoundKey(NamedTuple):
    """What the topic `models` has."""

    record: IdKey | None = None
    """The record that stands."""
    repeat: bool = False
    """A later record does not stand. The one that does must be sent again, or compaction removes it."""
    has_versions: bool = False
    """Whether a pointer names a version: the installation has run."""


def standing(values: Iterable[bytes | None], keys: Keys = ()) -> FoundKey:
    """Which of the id key's records stands, in their order in the topic. A tombstone removes it."""
    found = FoundKey()
    for value in values:
        record = _decode(value, keys)
        if value is None:
            found = FoundKey()
        elif record is not None:
            now = found.record
            if now is None or now.ids.fingerprint in record.replaces or unsigned(now) == unsigned(record):
                found = FoundKey(record)
            else:
                found = FoundKey(now, repeat=True)
    return found


def unsigned(record: IdKey) -> IdKey:
    """The record without its signature: one that is signed with another key says the same."""
    return msgspec.structs.replace(record, signature="")


async def find_record(config: Config) -> FoundKey:
    """Read the topic `models` up to its end now. Raises BrokerUnavailable."""
    return await within(config, "the id key", _find_record(config))


async def _find_record(config: Config) -> FoundKey:
    keys, values, has_versions = config.kafka.signing_keys, [], False
    async for record in records_of(config, config.topics.models):
        if record.key == RECORD_KEY:
            values.append(record.value)
        has_versions = has_versions or decode_pointer(record.value, keys) is not None
    return standing(values, keys)._replace(has_versions=has_versions)


async def publish_record(config: Config, record: IdKey) -> FoundKey:
    """Sign a record and send it, and read which one stands then. Raises BrokerUnavailable."""
    record = signed(record, config.kafka.signing_keys)
    await publish_one(config, config.topics.models, RECORD_KEY, encode(record), "the id key")
    return await find_record(config)


def read_record(config: Config) -> FoundKey:
    """As `find_record`, outside an event loop."""
    return asyncio.run(find_record(config))


def _decode(value: bytes | None, keys: Keys) -> IdKey | None:
    try:
        record = msgspec.json.decode(value, type=IdKey) if value else None
    except UNREADABLE:
        return None
    if record is not None and (refused := refusal(record, keys)) is not None:
        log.warning("a record of the id key is not followed: %s", refused)
        return None
    return record
