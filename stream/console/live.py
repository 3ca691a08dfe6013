"""What the installation does now, as the overview shows it: from the members' own records."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from stream.console.broker_watch import BrokerWatch
from stream.members.member import Member, PartitionState

MODEL, RIVALS = "model", ("popularity", "own", "transitions")
NAMES = {
    "model": "the live model",
    "popularity": "global popularity",
    "own": "own most frequent items",
    "transitions": "item-to-item transitions",
}
"""Lines of the plot, by the key of their score."""
GOOD = ("answering", "running")


class Seen(Protocol):
    """A member as its follower sees it (`stream.members.sightings`)."""

    @property
    def member(self) -> Member:
        """Its last record."""

    @property
    def doing(self) -> str:
        """What it does."""

    @property
    def seen_s(self) -> float:
        """For how many seconds nothing new has come from it."""


class PartitionRow(NamedTuple):
    """A partition of `clicks`."""

    number: int
    owner: str
    """Empty: nobody serves it."""
    phase: str
    lag: int | None
    lag_ms: int
    pending: int
    next_offset: int | None
    log_end: int | None


class Quality(NamedTuple):
    """How well a version or a rival predicted the newest 2,000 events."""

    events: int
    hit: float
    ndcg: float


class Live(NamedTuple):
    """The installation now."""

    members: list[Seen]
    partitions: list[PartitionRow]
    quality: dict[str, Quality]
    """By the key of the score: `model`, a rival, or a version in a comparison."""
    counts: dict[str, int]
    warnings: list[str]
    known: bool
    """Whether any member was ever seen."""

    @property
    def workers(self) -> list[Seen]:
        """The workers."""
        return [seen for seen in self.members if seen.member.kind == "worker"]

    @property
    def trainers(self) -> list[Seen]:
        """The trainers."""
        return [seen for seen in self.members if seen.member.kind == "trainer"]

    @property
    def lag(self) -> int | None:
        """Clicks in the log that are not applied; None if unknown."""
        known = [row.lag for row in self.partitions if row.lag is not None]
        return sum(known) if known else None

    @property
    def lag_ms(self) -> int:
        """How long the oldest of them has waited."""
        return max((row.lag_ms for row in self.partitions), default=0)

    @property
    def pending(self) -> int:
        """Users who wait for an answer."""
        return sum(row.pending for row in self.partitions)

    @property
    def versions(self) -> list[str]:
        """The versions that answer; more than one while a new one spreads."""
        return sorted({w.member.version for w in self.workers if w.member.version and lives(w)})

    @property
    def answering(self) -> int:
        """Partitions that answer."""
        return sum(row.phase == "answering" for row in self.partitions)


def live(members: Sequence[Seen], broker: BrokerWatch) -> Live:
    """The installation now, from the members and the ends of the log."""
    workers = [seen for seen in members if seen.member.kind == "worker"]
    # Others may write to `members`: once the broker has named the partitions, there are no others.
    numbers = broker.ends.keys() or {number for seen in workers for number in seen.member.partitions}
    rows = [_row(number, workers, broker.ends.get(number)) for number in sorted(numbers)]
    states = [state for seen in workers if lives(seen) for state in seen.member.partitions.values()]
    return Live(
        members=sorted(members, key=lambda seen: (not lives(seen), seen.member.kind, seen.member.instance)),
        partitions=rows,
        quality=_quality(seen.member for seen in workers if lives(seen)),
        counts=_sum(state.counts for state in states),
        warnings=_warnings(members, rows),
        known=bool(members),
    )


def lives(seen: Seen) -> bool:
    """Whether a member may still do its work."""
    return seen.doing not in ("dead", "stopped")


def _row(number: int, workers: Sequence[Seen], end: int | None) -> PartitionRow:
    owners = [seen for seen in workers if number in seen.member.partitions]
    owner = max(owners, key=lambda seen: (lives(seen), -seen.seen_s), default=None)
    if owner is None:
        return PartitionRow(number, "", "nobody serves it", None, 0, 0, None, end)
    state: PartitionState = owner.member.partitions[number]
    log_end = max((e for e in (end, state.log_end) if e is not None), default=None)
    lag = None if log_end is None or state.next_offset is None else max(log_end - state.next_offset, 0)
    if not lives(owner):
        phase, name = f"nobody serves it: {owner.member.instance} is {owner.doing}", ""
    else:
        phase, name = (state.phase if owner.doing == "running" else owner.doing), owner.member.instance
    return PartitionRow(number, name, phase, lag, state.lag_ms, state.pending, state.next_offset, log_end)


def _quality(members: Iterable[Member]) -> dict[str, Quality]:
    """The members' means, each weighed by its events."""
    found: dict[str, Quality] = {}
    for member in members:
        for key, score in member.scores.items():
            before = found.get(key, Quality(0, 0.0, 0.0))
            events = before.events + score.events
            if events:
                hit = (before.hit * before.events + score.rolling_hit * score.events) / events
                ndcg = (before.ndcg * before.events + score.rolling_ndcg * score.events) / events
                found[key] = Quality(events, hit, ndcg)
    return found


def _sum(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for one in counts:
        for name, count in one.items():
            total[name] = total.get(name, 0) + count
    return total


def _warnings(members: Sequence[Seen], rows: Sequence[PartitionRow]) -> list[str]:
    found = []
    if unserved := [str(row.number) for row in rows if not row.owner]:
        found.append(f"Nobody serves partition {', '.join(unserved)}: `anabranch worker` starts a worker.")
    for seen in members:
        member, name = seen.member, f"{seen.member.kind} {seen.member.instance}"
        if seen.doing == "paused":
            found.append(f"The {name} is paused: clicks wait in Kafka.")
        elif seen.doing in ("dead", "not responding", "waiting for the group"):
            found.append(f"The {name} on {member.host} is {seen.doing}.")
        if member.version_problem and lives(seen):
            found.append(f"The {name} does not serve the named version: {member.version_problem}")
        if member.trainer is not None and member.trainer.failure and lives(seen):
            found.append(f"Learning fails, {member.trainer.failures} times in a row: {member.trainer.failure}")
    return found
