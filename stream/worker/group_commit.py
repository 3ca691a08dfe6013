"""Step 7: the group's offsets. Lag monitors read them, and they renew the lease.

On assignment the store's own offset is sought, whatever the group has. An accepted commit proves that the partitions
are still this worker's.
"""

import asyncio
import logging
import time
from collections.abc import Callable

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, UnknownMemberIdError

from state import crash_points
from stream.config import Config
from stream.errors import GroupInstanceTaken
from stream.kafka.lease import Lease
from stream.kafka.reader import positions
from stream.stores.assignment import Assignment

log = logging.getLogger("anabranch.worker")

COMMIT_EVERY_S = 1.0


class GroupCommit:
    """Commits the offsets of the open stores, once a second."""

    def __init__(
        self,
        config: Config,
        consumer: AIOKafkaConsumer,
        assignment: Assignment,
        lease: Lease,
        on_commit: Callable[[float], None] = lambda _seconds: None,
    ) -> None:
        """`on_commit` gets how long the group took to accept a commit."""
        self._on_commit = on_commit
        self._config, self._consumer, self._assignment, self._lease = config, consumer, assignment, lease
        self._committed_at = 0.0
        self._lapse_logged = False

    async def commit_if_due(self) -> bool:
        """Commit, if it is time or the lease has run out. Return whether the lease is held again.

        Raises GroupInstanceTaken.
        """
        if self._lease.held and time.monotonic() - self._committed_at < COMMIT_EVERY_S:
            return False
        # The group accepts commits while it rebalances, and then goes on without a member that does not join in time.
        if self._assignment.giving_up:
            return False
        self._committed_at = time.monotonic()
        topics = self._config.topics
        offsets = {
            TopicPartition(topics.clicks, number): store.progress.log_offset
            for number, store in self._assignment.stores.items()
        }
        if not offsets:
            return False
        lapsed, asked_at, began = False, self._lease.now(), time.perf_counter()
        offsets |= {p: at for p, at in positions(self._consumer).items() if p.topic == topics.requests}
        try:
            await asyncio.wait_for(self._consumer.commit(offsets), self._config.worker.session_timeout_ms / 1000)
            lapsed = not self._lease.held
            self._lease.confirmed(asked_at)
            self._on_commit(time.perf_counter() - began)
            crash_points.reached(7)
        except (KafkaError, TimeoutError) as error:  # it fails while the group rebalances: the stores' offsets decide
            self._end_if_replaced(error)
        self._log_lapse()
        return lapsed and self._lease.held

    def _end_if_replaced(self, error: Exception) -> None:
        """A static member that is unknown within its session timeout was replaced by another one with its id.

        aiokafka would join again, and replace that one in turn, without end.
        """
        instance = self._config.worker.group_instance_id
        if instance and self._lease.held and isinstance(error.__cause__, UnknownMemberIdError):
            raise GroupInstanceTaken(
                f"another worker has joined the group {self._config.group!r} as {instance!r}: this one ends. Give each "
                f"worker a worker.group_instance_id of its own"
            ) from error

    def _log_lapse(self) -> None:
        if self._lease.held and self._lapse_logged:
            self._lapse_logged = False
            log.info("the group confirms this worker again: it goes on")
        elif not self._lease.held and not self._lapse_logged and self._lease.was_held:
            self._lapse_logged = True
            log.warning(
                "the group has not confirmed this worker for %.1f s (the broker at %s is away or slow, or this process "
                "was stopped): nothing is applied or sent until it does",
                self._config.worker.session_timeout_ms / 1000, self._config.broker,
            )  # fmt: skip
