"""What runs and how well: the document of `anabranch status`.

The fields of a document, in their order, are the keys of `--json`. The tables and the demo read the same fields.
"""

from collections.abc import Sequence

import msgspec

from state.view import View
from stream.config import Config
from stream.kafka.keys import explain_foreign, explain_keyless
from stream.kafka.pointers import Pointers
from stream.live_metrics import Mode, Score, ScoreKey, Scores, decode_scores, total
from stream.members.installation import MemberReport, report_of, scores_of
from stream.members.member import TrainerState, counts_of
from stream.members.sightings import SeenMember
from stream.operate.model_report import ModelStatus, model_status
from stream.operate.partition_sources import PartitionStatus, served_by, sources, trainer_of
from stream.operate.worker_report import WorkerReport, worker_report


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
    trainer: TrainerState | None
    comparison: Comparison | None
    prequential: dict[str, Quality]
    """By version or baseline."""
    warnings: list[str]
    """What is wrong with the topics, if a broker answers, and with the keys of events."""
    worker: WorkerReport | None
    """None where no worker has run."""
    id_keys: list[str]
    """Fingerprints of the keys that the partitions' ids are hashed with; empty text: without one."""
    members: list[MemberReport] | None = None
    """Every worker, trainer and `serve` of the installation; None: no broker answers."""


def status(
    config: Config,
    view: View,
    log_ends: dict[int, int] | None,
    pointers: Pointers,
    of_topics: Sequence[str] = (),
    members: Sequence[SeenMember] | None = None,
) -> Status:
    """Progress, counts, the serving version and its quality on live events.

    `log_ends` are the next offsets of the partitions in Kafka; None if no broker answers. `of_topics` is what is wrong
    with the topics. `members` are those of the installation; None: only this data directory is known.
    """
    worker = worker_report(config.data)
    found = sources(view, log_ends, worker, members)
    claimed = list(found.elsewhere.values())
    scores = total(
        [
            *(decode_scores(view.partitions[number].prequential()) for number in found.here),
            *(scores_of(seen) for seen in {id(claim.by): claim.by for claim in claimed}.values()),
        ]
    )
    counted = [*map(counts_of, found.here.values()), *(claim.state.counts for claim in claimed)]
    events = EventCounts(**{n: sum(counts.get(n, 0) for counts in counted) for n in EventCounts.__struct_fields__})
    only_here = not claimed and len(found.here) == len(view.partitions)
    keys = {p.ids for n, p in view.partitions.items() if n in found.here and p.identity is not None}
    return Status(
        partitions=found.partitions,
        events=events,
        users=sum(counts.get("users", 0) for counts in counted),
        items=count_items(view) if only_here else sum(counts.get("items", 0) for counts in counted),
        edges=sum(counts.get("edges", 0) for counts in counted),
        model=served_by(model_status(config, pointers), found.members, worker),
        trainer=trainer_of(config.data, found.members),
        comparison=comparison(config, pointers, scores),
        prequential=qualities({key: score for key, score in scores.items() if key.pair is None}),
        warnings=[
            *of_topics,
            *warnings_of_keys(config.topics.clicks, events, several=len(found.partitions) > 1),
            *found.warnings,
        ],
        worker=worker,
        id_keys=sorted(
            {ids.fingerprint for ids in keys}
            | {claim.state.id_key for claim in claimed if claim.state.next_offset is not None}
        ),
        members=None if members is None else [report_of(seen) for seen in found.members],
    )


def warnings_of_keys(topic: str, events: EventCounts, *, several: bool) -> list[str]:
    """What is wrong with the keys of events in a topic of one or of several partitions."""
    keyless = [explain_keyless(topic, events.keyless)] if events.keyless and several else []
    return [*keyless, explain_foreign(topic, events.foreign_partition)] if events.foreign_partition else keyless


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
