"""Who lives: judged by when this reader last saw something new of a member, never by a member's clock.

Time here is the reader's: seconds for which it has listened to a broker that answers. While the broker is away this
clock stands still, and nobody dies of it.
"""

from collections.abc import Iterable
from typing import Literal

import msgspec

from stream.members.member import Member
from stream.times import now_ms

QUIET_AFTER_S, DEAD_AFTER_S = 2.5, 4.0
"""A member publishes every second. After this long without a record it does not respond, and then is dead."""
FORGET_AFTER_S = 86_400.0
"""A member that has been away for longer is no longer shown. Nobody removes its record from the topic."""
MAX_LIVES = 2_000
"""Processes that are remembered, at most: a client that may write to the topic must not fill a reader's memory."""

Doing = Literal[
    "running", "paused", "starting", "waiting for the group", "not responding", "stopped", "dead"
]  # fmt: skip
LIVING: frozenset[Doing] = frozenset({"running", "paused", "starting", "waiting for the group", "not responding"})


class SeenMember(msgspec.Struct, frozen=True):
    """A member as a reader of the topic sees it."""

    member: Member
    doing: Doing
    """`waiting for the group`: the group has not confirmed this worker within its session timeout; `not responding`:
    2.5 s without a record; `dead`: 4 s, and it has not said that it stops; `stopped`: it has."""
    seen_s: float
    """For how many seconds nothing new has come from it."""

    @property
    def lives(self) -> bool:
        """Whether it may still do its work."""
        return self.doing in LIVING


class _Life:
    """What was seen of one process."""

    def __init__(self, member: Member, number: int) -> None:
        self.member = member
        self.began = self.last = number
        self.at = 0.0
        self.stamp_ms = 0
        self.of_broker = False
        self.live = False


class Sightings:
    """The records that one reader has seen, in the order of the log.

    What it reads up to the end that the log had is the past. `caught_up` dates it by the broker's timestamps, where
    the records have such: their differences come of one clock. From then on a record is dated by its arrival.
    """

    def __init__(self) -> None:
        self._lives: dict[tuple[str, tuple[str, int, int]], _Life] = {}
        self._number = 0
        self._past = True

    def saw(self, member: Member, now: float, stamp_ms: int = 0, *, of_broker: bool = False) -> None:
        """Note a record. `stamp_ms` is its timestamp; `of_broker`: the broker has set it, not its producer."""
        self._number += 1
        key = (member.key, member.life)
        life = self._lives.pop(key, None) or _Life(member, self._number)
        self._lives[key] = life  # the newest is last
        if not life.member.stopped:  # a record that comes late brings nobody back
            life.member = member
        life.last, life.at, life.live = self._number, now, not self._past
        life.stamp_ms, life.of_broker = stamp_ms, of_broker
        if len(self._lives) > MAX_LIVES:
            del self._lives[next(iter(self._lives))]

    def forget(self, key: str) -> None:
        """Drop the member with this key: its record was deleted from the topic."""
        for found in [one for one in self._lives if one[0] == key]:
            del self._lives[found]

    def caught_up(self, now: float) -> None:
        """The past has been read: date what is known of it."""
        self._past = False
        newest = max((life.stamp_ms for life in self._lives.values() if life.of_broker), default=0)
        for life in self._lives.values():
            life.at = now - max(newest - life.stamp_ms, 0) / 1000 if life.of_broker else now

    def in_doubt(self, now: float) -> bool:
        """Whether some member has neither said anything since the past, nor been silent for long enough to be dead."""
        return any(
            not life.live and not life.member.stopped and now - life.at < DEAD_AFTER_S for _, life in self._shown(now)
        )

    def members(self, now: float) -> list[SeenMember]:
        """Every member that is known, by key. Of several processes with one name those that live, or the newest."""
        found = []
        for _, life in self._shown(now):
            doing = judge(life.member, now - life.at)
            # For how long one has been away may be older than this reader. It is for people, and judges nothing.
            since_stamp = (now_ms() - life.stamp_ms) / 1000 if life.stamp_ms and doing not in LIVING else 0.0
            silent_s = max(now - life.at, since_stamp)
            found.append(SeenMember(life.member, doing, round(silent_s, 1)))
        return sorted(found, key=lambda seen: (seen.member.key, seen.member.started_ts))

    def _shown(self, now: float) -> Iterable[tuple[str, _Life]]:
        by_key: dict[str, list[_Life]] = {}
        for (key, _), life in self._lives.items():
            by_key.setdefault(key, []).append(life)
        for key, lives in by_key.items():
            newest = lives[-1]
            for life in lives:
                # A restart: the one before has said nothing since the next began.
                replaced = any(other.began > life.last for other in lives)
                away = judge(life.member, now - life.at) not in LIVING
                if now - life.at < FORGET_AFTER_S and (life is newest or not (replaced or away)):
                    yield key, life


def judge(member: Member, silent_s: float) -> Doing:
    """What a member does whose last record came so many seconds ago."""
    if member.stopped:
        return "stopped"
    if silent_s >= DEAD_AFTER_S:
        return "dead"
    if silent_s >= QUIET_AFTER_S:
        return "not responding"
    if member.starting:
        return "starting"
    if member.paused_ts:
        return "paused"
    # The group confirms a worker by its commits: one without an open store makes none.
    has_open = any(partition.phase != "opening" for partition in member.partitions.values())
    return "running" if member.confirmed or not has_open else "waiting for the group"
