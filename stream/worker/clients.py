"""The Kafka clients of one worker."""

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.coordinator.assignors.range import RangePartitionAssignor

from stream.config import Config
from stream.kafka.connection import connection, consumer_connection
from stream.stores.assignment import CHECK_TOPIC_EVERY_S

MAX_REQUEST_BYTES = 32 << 20
METADATA_MAX_AGE_MS = int(CHECK_TOPIC_EVERY_S * 1000)
"""How soon a topic that was deleted and created again is read."""
GIVING_UP_SESSIONS = 3
"""How many session timeouts a rebalance waits for a worker that gives up its partitions: one until the worker learns of
it, one until its lease has run out, and one until a send that had begun has ended."""


def click_consumer(config: Config) -> AIOKafkaConsumer:
    """The consumer of clicks and requests, a member of the group."""
    return AIOKafkaConsumer(
        **consumer_connection(config),
        group_id=config.group,
        group_instance_id=config.worker.group_instance_id or None,
        enable_auto_commit=False,
        auto_offset_reset="none",  # the reader learns of it: the log lost its beginning, or its end
        partition_assignment_strategy=[RangePartitionAssignor],
        session_timeout_ms=config.worker.session_timeout_ms,
        rebalance_timeout_ms=GIVING_UP_SESSIONS * config.worker.session_timeout_ms,
        heartbeat_interval_ms=config.worker.heartbeat_ms,
        fetch_max_bytes=config.worker.fetch_max_bytes,
        max_partition_fetch_bytes=config.worker.fetch_max_bytes,
        metadata_max_age_ms=METADATA_MAX_AGE_MS,
    )


def producer(config: Config) -> AIOKafkaProducer:
    """The producer of everything that the worker sends."""
    return AIOKafkaProducer(
        **connection(config),
        acks="all",
        max_request_size=MAX_REQUEST_BYTES,
        linger_ms=0,
        # A message that waited here while the network was cut is dropped: the partition may be another worker's.
        request_timeout_ms=config.worker.session_timeout_ms,
    )


def title_consumer(config: Config) -> AIOKafkaConsumer:
    """The consumer of titles, without a group: every worker reads all of them."""
    return AIOKafkaConsumer(**consumer_connection(config), enable_auto_commit=False, auto_offset_reset="earliest")
