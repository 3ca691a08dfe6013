"""The trainer's process: it receives pointers and commands from Kafka while the trainer learns in a thread."""

import asyncio
import contextlib
import logging

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from model.ranker.learning import RING_EXAMPLES
from stream.config import Config
from stream.kafka.commands import RecordTime
from stream.kafka.connection import connection, consumer_connection
from stream.kafka.example_log import ExampleLog
from stream.kafka.pointers import decode_pointer, read_pointers
from stream.kafka.rarely import Rarely
from stream.kafka.reader import Reader
from stream.kafka.topics import partitions_or_first
from stream.members.member import Member, begin
from stream.members.publish import MemberPublisher
from stream.trainer.pages import TrainerPages
from stream.trainer.trainer import Trainer

log = logging.getLogger("anabranch.trainer")

CHECK_EVERY_S = 1.0


async def run(config: Config) -> None:
    """Receive messages and learn until cancelled."""
    producer = AIOKafkaProducer(**connection(config), acks="all")
    consumer = AIOKafkaConsumer(**consumer_connection(config), enable_auto_commit=False)
    trainer: Trainer
    log_of_examples = ExampleLog(config, lambda user: trainer.view.ids.of(user), RING_EXAMPLES)
    trainer = Trainer(config, producer, log_of_examples)
    member, starting = begin("trainer", config.worker.instance, config.trainer.http), True

    def record() -> Member:
        served = trainer.champion.pointers.champion
        version = served.version if served is not None else None
        return msgspec.structs.replace(member, trainer=trainer.status.current, version=version, starting=starting)

    publisher, pages = MemberPublisher(config, record), TrainerPages(config, trainer)
    await pages.start()
    publisher.start()
    try:
        await producer.start()
        await consumer.start()
        topics = (config.topics.models, config.topics.commands)
        partitions = [TopicPartition(t, p) for t in topics for p in await partitions_or_first(consumer, t)]
        consumer.assign(partitions)
        await consumer.seek_to_end(*partitions)
        await trainer.follow(await read_pointers(config))
        served = trainer.champion.pointers.champion
        starting = False
        log.info("trainer ready: %s", served.version if served else "no version yet")
        listening = asyncio.create_task(listen(config, consumer, trainer))
        pages.started(listening)
        try:
            while True:
                await trainer.cycle_if_due()
                if listening.done():
                    listening.result()
                await asyncio.sleep(CHECK_EVERY_S)
        finally:
            listening.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await listening
    finally:
        await publisher.stop()
        await consumer.stop()
        await producer.stop()
        trainer.view.close()
        await pages.stop()


async def listen(config: Config, consumer: AIOKafkaConsumer, trainer: Trainer) -> None:
    """Hand pointers and commands to the trainer, also while a cycle runs."""
    reader, rarely = Reader(consumer), Rarely()
    while True:
        for partition, records in (await reader.poll(timeout_ms=500)).records.items():
            for record in records:
                if partition.topic == config.topics.models:
                    await trainer.on_pointer(decode_pointer(record.value, config.kafka.signing_keys, rarely))
                else:
                    await trainer.on_command(record.value, RecordTime(record.timestamp, record.timestamp_type == 1))
