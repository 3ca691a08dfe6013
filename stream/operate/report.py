"""What runs and how well: the document of `anabranch status`.

The fields of a document, in their order, are the keys of `--json`. The tables and the demo read the same fields.
"""

from collections.abc import Collection, Sequence

import msgspec

from state.progress import Progress
from state.view import View
from stream.config import Config
from stream.kafka.keys import explain_foreign, explain_keyless
from stream.kafka.pointers import Pointers
from stream.live_metrics import Mode, Score, ScoreKey, Scores, decode_scores, total
from stream.operate.model_report import ModelStatus, model_status
from stream.operate.worker_report import WorkerReport, partition_state, worker_report
from stream.trainer import status_file
from stream.trainer.status_file import TrainerStatus


class PartitionStatus(msgspec.Struct):
    """How far one partition of `clicks` has been applied."""

    partition: int
    next_offset: int | None
    """None while its store has never been opened here."""
    log_end: int | None
    """None if no broker answers."""
    lag: int | None
    state: str
    """`answering`, or what keeps it from that: `opening`, `catching up`, `lagging`, `paused`, `faulted`, `waiting for
    the group`, `not responding`, `not here` (no worker of this data directory owns it) or `down`."""


class EventCounts(msgspec.Struct):
    """Counts of the events by outcome, over all partitions."""

    applied: int
    dead: int
    duplicate: int
    too_old: int
    expired: int
    erased: int
    key_mismatch: int
    lost: int
    keyless: int
    foreign_partition: int
    truncated: int


class Quality(msgspec.Struct):
    """How well a version or baseline predicted: each event is a test before it is learned."""

    events: int
    hit: float = msgspec.field(name="hit@10")
    ndcg: float = msgspec.field(name="ndcg@10")
    rolling_hit: float = msgspec.field(name="rolling_hit@10")
    rolling_ndcg: float = msgspec.field(name="rolling_ndcg@10")


class ComparedVersion(msgspec.Struct):
    """Champion or candidate in their comparison. The JSON has the scores only after the first tested event."""

    version: str
    events: int | msgspec.UnsetType = msgspec.UNSET
    hit: float | msgspec.UnsetType = msgspec.field(default=msgspec.UNSET, name="hit@10")
    ndcg: float | msgspec.UnsetType = msgspec.field(default=msgspec.UNSET, name="ndcg@10")
    rolling_hit: float | msgspec.UnsetType = msgspec.field(default=msgspec.UNSET, name="rolling_hit@10")
    rolling_ndcg: float | msgspec.UnsetType = msgspec.field(default=msgspec.UNSET, name="rolling_ndcg@10")


class Comparison(msgspec.Struct):
    """Champion and candidate on live events."""

    mode: Mode
    """`shadow`: the same events, the candidate is not served; `ab`: each on the events of its own users."""
    share: float
    """Share of the users who get the candidate."""
    champion: ComparedVersion
    candidate: ComparedVersion


class Status(msgspec.Struct):
    """The document of `anabranch status`."""

    partitions: list[PartitionStatus]
    events: EventCounts
    users: int
    items: int
    edges: int
    model: ModelStatus
    trainer: TrainerStatus | None
    comparison: Comparison | None
    prequential: dict[str, Quality]
    """By version or baseline."""
    warnings: list[str]
    """What is wrong with the topics, if a broker answers, and with the keys of events."""
    worker: WorkerReport | None
    """None where no worker has run."""
    id_keys: list[str]
    """Fingerprints of the keys that the partitions' ids are hashed with; empty text: without one."""


def status(
    config: Config,
    view: View,
    log_ends: dict[int, int] | None,
    pointers: Pointers,
    of_topics: Sequence[str] = (),
) -> Status:
    """Progress, counts, the serving version and its quality on live events.

    `log_ends` are the next offsets of the partitions in Kafka; None if no broker answers. `of_topics` is what is wrong
    with the topics.
    """
    progress = {number: p.read_progress() for number, p in view.partitions.items()}
    worker = worker_report(config.data)
    numbers = sorted({*progress, *(worker.phases if worker else ())})
    scores = total([decode_scores(p.prequential()) for p in view.partitions.values()])
    return Status(
        partitions=[partition_status(number, progress.get(number), log_ends, worker) for number in numbers],
        events=(events := event_counts(progress.values())),
        users=sum(p.users for p in progress.values()),
        items=count_items(view),
        edges=sum(p.edges for p in progress.values()),
        model=model_status(config, pointers),
        trainer=status_file.read(config.data),
        comparison=comparison(config, pointers, scores),
        prequential=qualities({key: score for key, score in scores.items() if key.pair is None}),
        warnings=[*of_topics, *warnings_of_keys(config.topics.clicks, events, several=len(log_ends or progress) > 1)],
        worker=worker,
        id_keys=sorted({p.ids.fingerprint for p in view.partitions.values() if p.identity is not None}),
    )


def warnings_of_keys(topic: str, events: EventCounts, *, several: bool) -> list[str]:
    """What is wrong with the keys of events in a topic of one or of several partitions."""
    keyless = [explain_keyless(topic, events.keyless)] if events.keyless and several else []
    return [*keyless, explain_foreign(topic, events.foreign_partition)] if events.foreign_partition else keyless


def partition_status(
    number: int, progress: Progress | None, log_ends: dict[int, int] | None, worker: WorkerReport | None
) -> PartitionStatus:
    """One partition's progress against the end of its log, and what its worker does with it."""
    end = log_ends.get(number) if log_ends is not None else None
    next_offset = progress.log_offset if progress is not None else None
    lag = None if end is None or next_offset is None else max(end - next_offset, 0)
    return PartitionStatus(number, next_offset, end, lag, partition_state(number, lag, worker))


def event_counts(progress: Collection[Progress]) -> EventCounts:
    """The sum of each count over the partitions."""
    return EventCounts(**{name: sum(getattr(p, name) for p in progress) for name in EventCounts.__struct_fields__})


def comparison(config: Config, pointers: Pointers, scores: Scores) -> Comparison | None:
    """Champion and candidate on live events; None without a candidate."""
    champion, candidate = pointers.champion, pointers.scored
    if champion is None or candidate is None:
        return None
    mode: Mode = "ab" if config.worker.ab else "shadow"
    pair = champion.version, candidate.version

    def compared(version: str) -> ComparedVersion:
        score = scores.get(ScoreKey(version, mode, pair), Score())
        if not score.events:
            return ComparedVersion(version)
        return ComparedVersion(version, *msgspec.structs.astuple(quality(score)))

    return Comparison(mode, config.worker.ab, compared(champion.version), compared(candidate.version))


def qualities(scores: Scores) -> dict[str, Quality]:
    """By version or baseline, those that were tested."""
    named = {str(key): score for key, score in scores.items() if score.events}
    return {name: quality(named[name]) for name in sorted(named)}


def quality(score: Score) -> Quality:
    """Counts as means; at least one event was tested."""
    return Quality(
        score.events,
        round(score.hits / score.events, 5),
        round(score.ndcg / score.events, 5),
        round(score.rolling_hit, 5),
        round(score.rolling_ndcg, 5),
    )


def count_items(view: View) -> int:
    """Items in the graph; an item in several partitions counts once."""
    if len(view.partitions) == 1:
        return next(iter(view.partitions.values())).read_progress().items
    return len(view.all_items())
