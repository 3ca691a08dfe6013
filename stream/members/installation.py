"""The whole installation, put together from its members' records: who serves each partition, and in what state."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from stream.live_metrics import Score, Scores, parse_key, total
from stream.members.member import PartitionState, ScoreState
from stream.members.sightings import Doing, SeenMember

DOWN = "down"
"""The state of a partition that nobody serves."""


class MemberReport(msgspec.Struct):
    """One process. Times are ms of its clock; `seen_s` is by the reader's."""

    kind: str
    instance: str
    host: str
    pid: int
    software: str
    address: str
    """HOST:PORT of its HTTP server; empty: it has none."""
    doing: Doing
    seen_s: float
    """For how many seconds nothing new has come from it."""
    started_ts: int
    paused_ts: int | None
    version: str | None
    """The version that it serves, or a trainer learns from; None: none."""
    version_problem: str
    last_error: str
    """The newest warning or error that it has logged."""
    last_error_ts: int
    partitions: dict[int, str]
    """Phase of each partition that it owns, or owned last."""


class PartitionReport(msgspec.Struct):
    """One partition of `clicks`."""

    partition: int
    owner: str | None
    """The living worker that owns it, as `worker/NAME`; None: nobody serves it."""
    host: str | None
    state: str
    """`answering`, or what keeps it from that: `opening`, `catching up`, `lagging`, `paused`, `faulted`, `waiting for
    the group`, `not responding`, or `down` where nobody serves it."""
    next_offset: int | None
    log_end: int | None
    lag: int | None
    lag_ms: int | None
    """For how long the oldest record that is not applied has been in the log, at most."""
    pending: int | None
    """Users who wait for an answer."""
    last_owner: str | None = None
    """Who served it last, where nobody does and it is known."""


class Installation(msgspec.Struct):
    """All partitions, and what is counted over them."""

    partitions: list[PartitionReport]
    counts: dict[str, int]
    """Sums over the partitions: events by outcome, users, edges, and items. An item counts in each that has it."""
    scores: dict[str, ScoreState]
    """Of versions and baselines, over all partitions."""
    warnings: list[str]


class Claim(NamedTuple):
    """What a worker says about a partition of its own."""

    by: SeenMember
    state: PartitionState


def claims(members: Iterable[SeenMember]) -> dict[int, Claim]:
    """Of each partition, the living worker that owns it, or else the one whose record of it is the newest.

    While a partition moves two may claim it. The one that the group confirms is the owner, and then the newer record.
    """
    found: dict[int, Claim] = {}
    for seen in members:
        if seen.member.kind != "worker":
            continue
        for number, state in seen.member.partitions.items():
            claim = Claim(seen, state)
            if number not in found or _rank(claim) > _rank(found[number]):
                found[number] = claim
    return found


def _rank(claim: Claim) -> tuple[bool, bool, float]:
    return claim.by.lives, claim.by.member.confirmed, -claim.by.seen_s


def installation(
    members: Sequence[SeenMember], partitions: Iterable[int] | None = None, log_ends: Mapping[int, int] | None = None
) -> Installation:
    """The document of an installation.

    `partitions` are those that `clicks` has, None where that is not known: those that members name are shown.
    `log_ends` are the ends of their logs as the broker has them; else those of the owners' records.
    """
    claimed = claims(members)
    numbers = sorted({*(claimed if partitions is None else partitions), *(log_ends or ())})
    used = {id(claim.by): claim.by for number, claim in claimed.items() if number in numbers}
    return Installation(
        partitions=[_partition(number, claimed.get(number), (log_ends or {}).get(number)) for number in numbers],
        counts=dict(sum((Counter(claimed[n].state.counts) for n in numbers if n in claimed), Counter())),
        scores={
            str(key): ScoreState(*msgspec.structs.astuple(score))
            for key, score in total([scores_of(seen) for seen in used.values()]).items()
        },
        warnings=warnings_of(members, numbers, claimed),
    )


def report_of(seen: SeenMember) -> MemberReport:
    """A member as it is shown."""
    member = seen.member
    return MemberReport(
        kind=member.kind,
        instance=member.instance,
        host=member.host,
        pid=member.pid,
        software=member.software,
        address=member.address,
        doing=seen.doing,
        seen_s=seen.seen_s,
        started_ts=member.started_ts,
        paused_ts=member.paused_ts or None,
        version=member.version,
        version_problem=member.version_problem,
        last_error=member.last_error,
        last_error_ts=member.last_error_ts,
        partitions={number: state.phase for number, state in member.partitions.items()},
    )


def _partition(number: int, claim: Claim | None, log_end: int | None) -> PartitionReport:
    if claim is None:
        return PartitionReport(number, None, None, DOWN, None, log_end, None, None, None)
    seen, state = claim
    end = log_end if log_end is not None else state.log_end
    lag = None if end is None or state.next_offset is None else max(end - state.next_offset, 0)
    lives = seen.lives
    return PartitionReport(
        partition=number,
        owner=seen.member.key if lives else None,
        host=seen.member.host if lives else None,
        state=state_of(claim) if lives else DOWN,
        next_offset=state.next_offset,
        log_end=end,
        lag=lag,
        lag_ms=state.lag_ms if lives else None,
        pending=state.pending if lives else None,
        last_owner=None if lives else seen.member.key,
    )


def state_of(claim: Claim) -> str:
    """The state of a partition whose owner lives."""
    if claim.by.doing != "running":
        return claim.by.doing
    return "lagging" if claim.state.phase == "answering" and claim.state.lagging else claim.state.phase


def scores_of(seen: SeenMember) -> Scores:
    """The scores that a member counts."""
    return {parse_key(text): Score(*msgspec.structs.astuple(s)) for text, s in seen.member.scores.items()}


def warnings_of(members: Sequence[SeenMember], numbers: Iterable[int], claimed: Mapping[int, Claim]) -> list[str]:
    """What an operator should act on."""
    found = []
    workers = [seen for seen in members if seen.member.kind == "worker"]
    if not any(seen.lives for seen in workers):
        last = min(workers, key=lambda seen: seen.seen_s, default=None)
        why = f"; {explain_away(last)}" if last is not None else ""
        found.append(f"nobody serves: no worker runs{why}. `anabranch up` or `anabranch worker` starts one")
    else:
        for number in numbers:
            claim = claimed.get(number)
            if claim is None or not claim.by.lives:
                why = f": {explain_away(claim.by)}" if claim is not None else ""
                found.append(
                    f"nobody serves partition {number}{why}. The other workers take it over within a minute; if they "
                    f"do not, look at their logs"
                )
    living = Counter(seen.member.key for seen in members if seen.lives)
    found += [
        f"{count} processes are named {key}: give each a name of its own ({_name_setting(key)})"
        for key, count in living.items()
        if count > 1
    ]
    if (trainers := [seen.member.key for seen in members if seen.lives and seen.member.kind == "trainer"])[1:]:
        found.append(
            f"{len(trainers)} trainers run ({', '.join(trainers)}): run one, they choose the same version names"
        )
    return found


def explain_away(seen: SeenMember) -> str:
    """A clause about a worker that no longer serves: where it ran, and whether it stopped or died."""
    member = seen.member
    how = "stopped" if seen.doing == "stopped" else "died without stopping"
    return f"{member.kind} {member.instance} on {member.host} {how} {seen.seen_s:,.0f} s ago"


def _name_setting(key: str) -> str:
    return "serve.instance" if key.startswith("serve/") else "worker.instance, or --instance"
