"""Send a command to workers or the trainer, and wait for the reply."""

import asyncio
import math
import time
import uuid
from collections.abc import Callable
from itertools import chain

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaConnectionError, KafkaError

from stream.config import Config
from stream.errors import AnabranchError
from stream.kafka.connection import connection, consumer_connection
from stream.kafka.diagnosis import unavailable
from stream.kafka.exchange import close, within
from stream.kafka.messages import UNREADABLE, Command, CommandReply, encode
from stream.kafka.reader import Reader
from stream.kafka.signing import signed
from stream.kafka.topics import check_existence, cluster_id, partitions_of
from stream.times import now_ms

REPLY_WITHIN_S = 15.0
REPEAT_EVERY_S = 3.0
"""Until the first reply: a process that was just starting may have missed the command."""
CHECK_BROKER_EVERY_S = 10.0
"""The client itself waits for ever for a broker that is gone."""


async def send_command(
    config: Config,
    name: str,
    until: tuple[str, ...],
    within_s: float | None,
    on_progress: Callable[[CommandReply], None] | None = None,
    *,
    shadow: bool = False,
    id: str | None = None,
) -> CommandReply:
    """Send the command `name`; return the first reply whose status is one of `until`.

    `on_progress` gets the other replies. Without `within_s` only the first reply must come within REPLY_WITHIN_S.
    Raises AnabranchError.
    """
    await asyncio.to_thread(check_existence, config, config.topics.commands, config.topics.command_replies)
    sent_ts = now_ms()
    expires_ts = sent_ts + int((within_s or REPLY_WITHIN_S) * 1000)
    command = Command(name, id or uuid.uuid4().hex, shadow=shadow, sent_ts=sent_ts, expires_ts=expires_ts)
    command = signed(command, config.kafka.signing_keys)
    consumer = AIOKafkaConsumer(**consumer_connection(config), enable_auto_commit=False)
    producer = AIOKafkaProducer(**connection(config))
    try:
        topic = config.topics.command_replies

        async def begin() -> None:
            await consumer.start()
            await producer.start()
            replies = [TopicPartition(topic, number) for number in await partitions_of(consumer, topic)]
            consumer.assign(replies)
            await consumer.seek_to_end(*replies)

        await within(config, "a connection to the topics of commands", begin())
        reader = Reader(consumer)
        began = checked = time.monotonic()
        sent, replied = -math.inf, False
        while (within_s is None and replied) or time.monotonic() - began < (within_s or REPLY_WITHIN_S):
            if not replied and time.monotonic() - sent > REPEAT_EVERY_S:
                sent = time.monotonic()
                sending = producer.send_and_wait(config.topics.commands, encode(command), key=command.id.encode())
                await within(config, "the command to be acknowledged", sending)
            for record in chain.from_iterable((await reader.poll(timeout_ms=500)).records.values()):
                reply = _reply_to(command, record.value)
                if reply is None:
                    continue
                if reply.status in until:
                    return reply
                if reply.status == "expired":
                    raise AnabranchError(reply.message)
                replied = True
                if on_progress is not None:
                    on_progress(reply)
            if time.monotonic() - checked > CHECK_BROKER_EVERY_S:
                checked = time.monotonic()
                await asyncio.to_thread(cluster_id, config)
    except (KafkaConnectionError, KafkaError) as error:
        raise await unavailable(config, error) from None
    finally:
        await close(consumer, producer)
    receiver = "trainer" if name == "retrain" else "worker"
    raise AnabranchError(
        f"no {receiver} replied to {name!r} within {within_s or REPLY_WITHIN_S:.0f} s: does one run on "
        f"{config.broker}? `anabranch {receiver}` starts one"
    )


def _reply_to(command: Command, value: bytes | None) -> CommandReply | None:
    try:
        reply = msgspec.json.decode(value or b"", type=CommandReply)
    except UNREADABLE:  # others may write to the topic
        return None
    return reply if reply.id == command.id else None
