"""What a worker publishes of itself: the state of its partitions, their lag, their counts and their scores."""

import time
from collections.abc import Mapping

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from state.errors import StateError
from state.store import Store
from stream.live_metrics import Scores, decode_scores, total
from stream.members.member import Member, PartitionState, ScoreState, counts_of
from stream.stores.assignment import Assignment, Phase
from stream.times import now_ms
from stream.worker.served_versions import ServedVersion
from stream.worker.status_file import LAGGING_AFTER_MS, WorkerStatus


class Lags:
    """How far each partition is behind its log, in events and in time."""

    def __init__(self, consumer: AIOKafkaConsumer, clicks: str) -> None:
        self._consumer, self._clicks = consumer, clicks
        self._caught_up_at: dict[int, float] = {}
        """When each was last seen at the end of its log."""

    def end(self, number: int) -> int | None:
        """The last stable offset of a partition of its last fetch; None before the first."""
        partition = TopicPartition(self._clicks, number)
        if partition not in self._consumer.assignment():
            return None
        end = self._consumer.last_stable_offset(partition)
        return end if end is not None and end >= 0 else None

    def lag_ms(self, number: int, lag: int, newest_ts: int | None) -> int:
        """For how long the oldest record that is not applied has been in the log, at most.

        It came after the newest one that is applied, and after the partition was last seen at the end.
        """
        now = time.monotonic()
        if not lag:
            self._caught_up_at[number] = now
            return 0
        behind_ms = int(1000 * (now - self._caught_up_at.setdefault(number, now)))
        since_newest_ms = max(now_ms() - newest_ts, 0) if newest_ts is not None else behind_ms
        return min(behind_ms, since_newest_ms)


def describe(
    member: Member,
    status: WorkerStatus,
    assignment: Assignment,
    lags: Lags,
    newest_ts: Mapping[int, int],
    champion: ServedVersion | None,
    problem: str,
) -> Member:
    """The record of a worker whose status is this."""
    lagging = status.behind_ms >= LAGGING_AFTER_MS and not status.paused_ts
    scores: list[Scores] = []
    partitions = {}
    for number, phase in sorted(assignment.phases().items()):
        state = PartitionState(phase=phase.name.lower().replace("_", " "))
        if (store := assignment.stores.get(number)) is not None:
            progress = store.progress
            state.next_offset, state.log_end = progress.log_offset, lags.end(number)
            lag = max((state.log_end or 0) - state.next_offset, 0)
            state.lag_ms = lags.lag_ms(number, lag, newest_ts.get(number))
            state.lagging = lagging and lag > 0 and phase is Phase.ANSWERING
            state.pending, state.counts = store.pending.waiting, counts_of(progress)
            state.id_key = store.ids.fingerprint
            scores.append(scores_of(store))
        partitions[number] = state
    return msgspec.structs.replace(
        member,
        starting=False,
        paused_ts=status.paused_ts,
        confirmed=status.confirmed,
        caught_up_ts=status.caught_up_ts,
        version=champion.version if champion is not None else None,
        version_created_ts=champion.created_ts if champion is not None else 0,
        version_problem=problem,
        partitions=partitions,
        scores={str(key): ScoreState(*msgspec.structs.astuple(score)) for key, score in total(scores).items()},
        counts={
            "too_many_requests": status.too_many_requests,
            "sent_smaller": status.sent_smaller,
            "unsendable": status.unsendable,
            "lost_dead_letters": status.lost_dead_letters,
        },
    )


def scores_of(store: Store) -> Scores:
    """The scores of a partition; none where the store has a fault, which is reported elsewhere."""
    try:
        return decode_scores(store.prequential())
    except StateError:
        return {}
