"""What the installation does now, as the overview shows it: from the members' own records."""

from collections.abc import Sequence
from typing import NamedTuple

from stream.console.broker_watch import BrokerWatch
from stream.members.installation import Claim, claims, installation
from stream.members.member import ScoreState
from stream.members.sightings import SeenMember

MODEL, RIVALS = "model", ("popularity", "own", "transitions")
NAMES = {
    "model": "the live model",
    "popularity": "global popularity",
    "own": "own most frequent items",
    "transitions": "item-to-item transitions",
}
"""Lines of the plot, by the key of their score."""
GOOD = ("answering", "running")


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


class Live(NamedTuple):
    """The installation now."""

    members: list[SeenMember]
    partitions: list[PartitionRow]
    scores: dict[str, ScoreState]
    """How well the newest events were predicted, by key: `model`, a rival, or a version in a comparison."""
    counts: dict[str, int]
    warnings: list[str]
    known: bool
    """Whether any member was ever seen."""

    @property
    def workers(self) -> list[SeenMember]:
        """The workers."""
        return [seen for seen in self.members if seen.member.kind == "worker"]

    @property
    def trainers(self) -> list[SeenMember]:
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
        return sorted({w.member.version for w in self.workers if w.member.version and w.lives})

    @property
    def answering(self) -> int:
        """Partitions that answer."""
        return sum(row.phase == "answering" for row in self.partitions)


def live(members: Sequence[SeenMember], broker: BrokerWatch) -> Live:
    """The installation now, from the members and the ends of the log."""
    claimed = claims(members)
    # Others may write to `members`: once the broker has named the partitions, there are no others.
    numbers = sorted(broker.ends.keys() or claimed)
    rows = [_row(number, claimed.get(number), broker.ends.get(number)) for number in numbers]
    living = installation([seen for seen in members if seen.lives], numbers)
    return Live(
        members=sorted(members, key=lambda seen: (not seen.lives, seen.member.kind, seen.member.instance)),
        partitions=rows,
        scores={key: score for key, score in living.scores.items() if score.events},
        counts=living.counts,
        warnings=_warnings(members, rows),
        known=bool(members),
    )


def _row(number: int, claim: Claim | None, end: int | None) -> PartitionRow:
    if claim is None:
        return PartitionRow(number, "", "nobody serves it", None, 0, 0, None, end)
    owner, state = claim.by, claim.state
    log_end = max((e for e in (end, state.log_end) if e is not None), default=None)
    lag = None if log_end is None or state.next_offset is None else max(log_end - state.next_offset, 0)
    if not owner.lives:
        phase, name = f"nobody serves it: {owner.member.instance} is {owner.doing}", ""
    else:
        phase, name = (state.phase if owner.doing == "running" else owner.doing), owner.member.instance
    return PartitionRow(number, name, phase, lag, state.lag_ms, state.pending, state.next_offset, log_end)


def _warnings(members: Sequence[SeenMember], rows: Sequence[PartitionRow]) -> list[str]:
    found = []
    if unserved := [str(row.number) for row in rows if not row.owner]:
        found.append(f"Nobody serves partition {', '.join(unserved)}: `anabranch worker` starts a worker.")
    for seen in members:
        member, name = seen.member, f"{seen.member.kind} {seen.member.instance}"
        if seen.doing == "paused":
            found.append(f"The {name} is paused: clicks wait in Kafka.")
        elif seen.doing in ("dead", "not responding", "waiting for the group"):
            found.append(f"The {name} on {member.host} is {seen.doing}.")
        if member.version_problem and seen.lives:
            found.append(f"The {name} does not serve the named version: {member.version_problem}")
        if member.trainer is not None and member.trainer.failure and seen.lives:
            found.append(f"Learning fails, {member.trainer.failures} times in a row: {member.trainer.failure}")
    return found
