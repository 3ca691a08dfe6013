"""Which key an installation's ids are hashed with: found or made once by `init`, and the same for every worker.

The record in the topic `models` decides (`stream/kafka/id_key_record.py`). Where it is missing, because the topic was
created again, the stores of this machine still have the key, and then the checkpoints. A store of a key that an
operator has replaced is moved aside and built again. One of any other key is refused.
"""

import asyncio
import logging
from typing import Literal, NamedTuple

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from state.checkpoint import CheckpointStore
from state.errors import StateError
from state.id_hash import IdHash, new_key
from state.identity import Identity, another_key, with_key
from state.view import id_key_at, id_keys_in, partition_path, partitions_in
from stream.config import Config
from stream.errors import AnabranchError
from stream.kafka import exchange
from stream.kafka.connection import connection
from stream.kafka.id_key_record import publish_record, read_record
from stream.kafka.messages import IdKey
from stream.kafka.signing import signed
from stream.kafka.topics import log_ends
from stream.stores.partition_stores import move_aside, rebuilt_path

log = logging.getLogger("anabranch")

Choice = Literal["new", "data"]
"""`new`: replace the key by a new one. `data`: make the key of the data directory the installation's."""


UNKEYED = (
    "ids are hashed without a key: a person who chooses user ids can make one that reads and erases another user. "
    "`anabranch init --id-key new` makes a key, which the state takes over in further steps (docs/operating.md)"
)


class SettledKey(NamedTuple):
    """The installation's key, and whether this call has written it."""

    record: IdKey
    written: bool


def settle_key(config: Config, cluster: str, choice: Choice | None = None) -> SettledKey:
    """Find the installation's key, or make it. A new installation gets one; one from before the key stays without.

    Raises AnabranchError where the key cannot be known, BrokerUnavailable and StateError.
    """
    found = read_record(config)
    if choice is not None:
        return _write(config, _replacing(config, cluster, found.record, choice))
    if found.record is not None:
        is_current = found.record == signed(found.record, config.kafka.signing_keys)
        if is_current and not found.repeat:
            return SettledKey(found.record, written=False)
        return _write(config, found.record)
    key = _key_of_state(config, cluster)
    if key is None and (found.has_versions or has_run(config)):
        raise AnabranchError(
            f"this installation has run before, and its id key is neither in the topic {config.topics.models!r} nor in "
            f"{config.data}. Run `anabranch init` on a machine that has its state (--data DIR). If no machine has it: "
            f"`anabranch init --id-key new`, and the state is built from the log"
        )
    return _write(config, IdKey(new_key() if key is None else key))


def find(config: Config, cluster: str) -> IdKey:
    """The installation's key, for a process that makes none. Raises AnabranchError where it cannot be known."""
    found = read_record(config).record
    if found is not None:
        return found
    key = _key_of_state(config, cluster)
    if key is None:
        raise AnabranchError(
            f"the topic {config.topics.models!r} has no id key, and there is no state in {config.data} that has it: "
            f"run `anabranch init`"
        )
    if key:
        log.warning(
            "the topic %r has lost the id key; going on with the one of the state in %s. `anabranch init --data %s` "
            "writes it again", config.topics.models, config.data, config.data,
        )  # fmt: skip
    return IdKey(key)


def prepare(config: Config, cluster: str) -> IdHash:
    """The hash with the installation's key, for a worker. Its stores of a replaced key are moved aside.

    Raises AnabranchError where the key cannot be known or a store has another one, BrokerUnavailable and StateError.
    """
    found = find(config, cluster)
    if not found.ids.keyed:
        log.warning("%s", UNKEYED)
    for number in partitions_in(config.data, config.topics.clicks):
        path = partition_path(config.data, config.topics.clicks, number)
        try:
            key = id_key_at(path, config.state)
        except StateError:  # the opener logs why, and tries again
            continue
        theirs = IdHash(key or "")
        if key is None or theirs == found.ids or rebuilt_path(path).exists():
            continue
        if theirs.fingerprint not in found.replaces:
            raise AnabranchError(another_key(path, theirs.fingerprint, found.ids.fingerprint))
        move_aside(path, f"{path} hashes its ids {with_key(theirs.fingerprint)}, which was replaced")
    return found.ids


def check_same_key(config: Config, identities: list[Identity]) -> None:
    """Check that stores can be used in the installation, or that it has no key yet.

    Raises AnabranchError where it has another key, and BrokerUnavailable.
    """
    record = read_record(config).record
    for ids in {IdHash(identity.id_key) for identity in identities}:
        if record is not None and ids != record.ids:
            raise AnabranchError(
                f"the backup hashes its ids {with_key(ids.fingerprint)}, and the installation at {config.broker} "
                f"{with_key(record.ids.fingerprint)}, so none of its users would be found. Use a backup of this "
                f"installation; or restore it while no broker is named and make its key the installation's with "
                f"`anabranch init --id-key data`: all other stores are then built again"
            )


def _write(config: Config, record: IdKey) -> SettledKey:
    stands = asyncio.run(publish_record(config, record)).record
    return SettledKey(stands or record, written=stands is not None and stands.id_key == record.id_key)


def _replacing(config: Config, cluster: str, before: IdKey | None, choice: Choice) -> IdKey:
    """The record that replaces the one before by an operator's choice."""
    here = _keys_of_state(config, cluster)
    if choice == "new":
        key, replaced = new_key(), {IdHash(key).fingerprint for key in here} | {""}
    elif len(local := set(id_keys_in(config.data, config.topics.clicks, config.state).values())) == 1:
        key, replaced = local.pop(), set()
    else:
        raise AnabranchError(f"{config.data} has {'no store' if not local else 'stores of different id keys'}")
    if before is not None:
        replaced |= {*before.replaces, before.ids.fingerprint}
    return IdKey(key, sorted(replaced - {IdHash(key).fingerprint}))


def _key_of_state(config: Config, cluster: str) -> str | None:
    """The one key of the state on this machine or in checkpoints; None without any. Raises AnabranchError."""
    keys = _keys_of_state(config, cluster)
    if len(keys) > 1:
        named = ", ".join(sorted(IdHash(key).fingerprint or "none" for key in keys))
        raise AnabranchError(
            f"the state in {config.data} has different id keys ({named}), and the topic {config.topics.models!r} has "
            f"none that decides: move the stores of the wrong key away, and run `anabranch init`"
        )
    return next(iter(keys), None)


def _keys_of_state(config: Config, cluster: str) -> set[str]:
    topic = config.topics.clicks
    local = set(id_keys_in(config.data, topic, config.state).values())
    if local or not config.artifacts:
        return local
    ends = log_ends(config, topic)
    if not any(ends.values()):  # no event was ever written, so there is no checkpoint to look for
        return set()
    found = (
        CheckpointStore(
            config.artifacts, Identity(cluster, topic, number, 0, 0, 0), config.kafka.signing_keys
        ).newest_identity()
        for number in ends
    )
    return {identity.id_key for identity in found if identity is not None}


def has_run(config: Config) -> bool:
    """Whether a worker of the group has ever committed. Raises BrokerUnavailable."""
    clicks = [TopicPartition(config.topics.clicks, number) for number in log_ends(config, config.topics.clicks)]
    return exchange.ask(config, "the offsets of the group", group_has_read(config, clicks))


async def group_has_read(config: Config, partitions: list[TopicPartition]) -> bool:
    """Whether a worker of the group has ever committed; False where the broker does not answer that."""
    admin = AIOKafkaAdminClient(**connection(config))
    try:
        await admin.start()
        offsets = await admin.list_consumer_group_offsets(config.group, partitions=partitions)
        return any(offset.offset >= 0 for offset in offsets.values())
    except KafkaError:
        return False
    finally:
        await admin.close()
