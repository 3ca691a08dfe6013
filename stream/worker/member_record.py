"""What a worker publishes of itself: the state of its partitions, their lag, their counts and their scores."""

import msgspec

from state.errors import StateError
from state.store import Store
from stream.live_metrics import Scores, decode_scores, total
from stream.members.member import Member, PartitionState, ScoreState, counts_of
from stream.stores.assignment import Assignment, Phase
from stream.worker.lag import Lag
from stream.worker.served_versions import ServedVersion
from stream.worker.status_file import LAGGING_AFTER_MS, WorkerStatus


def describe(
    member: Member,
    status: WorkerStatus,
    assignment: Assignment,
    lag: Lag,
    champion: ServedVersion | None,
    problem: str,
) -> Member:
    """The record of a worker whose status is this."""
    lagging = status.behind_ms >= LAGGING_AFTER_MS and not status.paused_ts
    scores: list[Scores] = []
    partitions = {}
    for number, phase in sorted(assignment.phases().items()):
        state = PartitionState(phase=phase.words)
        if (store := assignment.stores.get(number)) is not None:
            progress = store.progress
            state.next_offset, state.log_end = progress.log_offset, lag.end(number)
            state.lag_ms = int(1000 * (lag.seconds(number) or 0))
            state.lagging = lagging and bool(lag.events(number)) and phase is Phase.ANSWERING
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
