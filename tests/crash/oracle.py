"""The expected state: plain dicts, folded from the log itself, one record after the other.

From the product the oracle uses only the readers (`View`), which are under test, and the settings. It has its own rules
for what an event is, how it counts, and which events are duplicates, expired or forgotten.
"""

import functools
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import xxhash
from kafka.consumer.fetcher import ConsumerRecord

from state.partition import Partition
from state.view import View
from stream.config import Config
from tests.e2e.conftest import read_all

BUILT_IN = ("click", "view", "cart", "purchase", "like", "dislike", "hide", "undo", "forget")
DAY_MS = 86_400_000
SECONDS_FROM, SECONDS_BELOW = 100_000_000, 100_000_000_000
"""A time between these is in seconds; one that is larger is in milliseconds."""
ALL_EDGES = 10**9
FURTHER_HALF_LIVES_S = (3_600, 6 * 3_600, 86_400, 30 * 86_400)
"""Half-lives of popularity beside the one that is a setting."""


class Line(NamedTuple):
    """An applied event."""

    user: str
    item: str
    ts: int
    kind: str
    offset: int


class Log:
    """The folded log of one partition."""

    def __init__(self, config: Config) -> None:
        self._state, self._max_future_ms = config.state, config.clicks.max_future_s * 1000
        self.lines: dict[str, list[Line]] = defaultdict(list)
        """Each user's applied events in order of arrival, also expired ones; not those of before a forget."""
        self.forgotten: dict[str, int] = {}
        """Offset of each user's last forget."""
        self.bad: set[int] = set()
        """Offsets of records that are not events."""
        self.items: set[str] = set()
        """Every item that any event named."""
        self.applied = self.duplicate = self.too_old = self.newest_ts = self.end = 0
        self._seen: set[tuple[int, str, str]] = set()

    def add(self, record: ConsumerRecord) -> None:
        """Fold the next record."""
        self.end = record.offset + 1
        event = self._event(record)
        if event is None:
            self.bad.add(record.offset)
            return
        user, kind, ts = event["user"], event.get("event", "click"), event["ts"]
        if self._state.kinds[kind].role == "forget":
            self.lines.pop(user, None)
            self.forgotten[user] = record.offset
            return
        if "id" in event:
            generation, its = record.offset // self._state.dedup_window_events, (user, event["id"])
            if {(generation, *its), (generation - 1, *its)} & self._seen:
                self.duplicate += 1
                return
            self._seen.add((generation, *its))
        if ts < self._horizon(max(self.newest_ts, ts)):
            self.too_old += 1
            return
        self.newest_ts = max(self.newest_ts, ts)
        self.applied += 1
        self.items.add(event["item"])
        self.lines[user].append(Line(user, event["item"], ts, kind, record.offset))

    def _event(self, record: ConsumerRecord) -> dict[str, Any] | None:
        """The record's event, or None. These checks find every bad record that `tests/crash/clicks.py` writes."""
        try:
            event = json.loads(record.value)
            if SECONDS_FROM <= event["ts"] < SECONDS_BELOW:
                event["ts"] *= 1000
            kind = self._state.kinds[event.get("event", "click")]
            known = event["user"] and (kind.role == "forget" or event["item"])
            in_time = SECONDS_BELOW <= event["ts"] <= record.timestamp + self._max_future_ms
        except (ValueError, KeyError, TypeError, AttributeError):
            return None
        return event if known and in_time else None

    def _horizon(self, newest: int) -> int:
        window_ms = int(self._state.window_s * 1000)
        return max(newest - window_ms, 0) if window_ms else 0

    @property
    def horizon(self) -> int:
        """Event time, ms, before which no query has an answer."""
        return self._horizon(self.newest_ts)

    @property
    def on_disk_from(self) -> int:
        """Event time, ms, from which events are on disk: whole days are removed."""
        return self.horizon // DAY_MS * DAY_MS

    def steps(self, user: str, since: int) -> list[Line]:
        """A user's events in order of time, equal times in order of arrival."""
        return sorted((line for line in self.lines.get(user, ()) if line.ts >= since), key=lambda line: line.ts)

    def not_undone(self, user: str) -> list[Line]:
        """A user's events without undone ones. An undo takes back the newest earlier event of its item that is left."""
        stacks: dict[str, list[Line]] = defaultdict(list)
        for line in self.steps(user, 0):
            if self._state.kinds[line.kind].role != "undo":
                stacks[line.item].append(line)
            elif stacks[line.item]:
                stacks[line.item].pop()
        return [line for stack in stacks.values() for line in stack]

    def shared(self, user: str) -> list[Line]:
        """A user's events that count for others: the first ones of each day, item and kind, and of each day."""
        alive, positives = set(self.not_undone(user)), Counter[int]()
        of_item: Counter[tuple[int, str, str]] = Counter()
        found = []
        for line in self.steps(user, 0):
            day = line.ts // DAY_MS
            positives[day] += self.weight(line) > 0
            if line not in alive or not self.weight(line) or positives[day] > (self._state.user_cap or 10**9):
                continue
            of_item[day, line.item, line.kind] += 1
            if of_item[day, line.item, line.kind] <= (self._state.user_item_cap or 10**9):
                found.append(line)
        return found

    def adjacent(self) -> dict[str, list[tuple[Line, Line]]]:
        """By item: its clicks and the very next click of their user, where both count for others."""
        found: dict[str, list[tuple[Line, Line]]] = defaultdict(list)
        for user in self.lines:
            alive, shared = set(self.not_undone(user)), set(self.shared(user))
            counting = [line for line in self.steps(user, self.on_disk_from) if line in alive and self.weight(line)]
            for left, right in pairwise(counting):
                if left in shared and right in shared:
                    found[left.item].append((left, right))
        return found

    def weight(self, line: Line) -> float:
        """The weight of an event in popularity."""
        kind = self._state.kinds[line.kind]
        return kind.weight if kind.role == "positive" else 0.0

    def hidden(self, user: str) -> set[str]:
        """Items that a user does not want to see."""
        kinds, lines = self._state.kinds, self.not_undone(user)
        return {line.item for line in lines if line.ts >= self.horizon and kinds[line.kind].role == "negative"}


class Truth(NamedTuple):
    """A folded log."""

    logs: dict[int, Log]
    """By partition."""

    @property
    def bad(self) -> set[tuple[int, int]]:
        """Partition and offset of each record that is not an event."""
        return {(number, offset) for number, log in self.logs.items() for offset in log.bad}

    @property
    def events(self) -> int:
        """Applied events."""
        return sum(log.applied for log in self.logs.values())

    def summary(self) -> str:
        """The content of the log in one line."""
        logs = self.logs.values()
        kinds = Counter(line.kind for log in logs for lines in log.lines.values() for line in lines)
        expired = sum(line.ts < log.on_disk_from for log in logs for lines in log.lines.values() for line in lines)
        return (
            f"{self.events:,} applied, {sum(log.duplicate for log in logs):,} duplicates, "
            f"{sum(log.too_old for log in logs):,} behind the horizon, {len(self.bad):,} no events, "
            f"{sum(len(log.forgotten) for log in logs):,} users forgotten, {expired:,} expired since; "
            + ", ".join(f"{count:,} {kind}" for kind, count in sorted(kinds.items()))
        )


def fold(log: list[ConsumerRecord], config: Config) -> Truth:
    """Fold records. Those of one partition must be in the order of their offsets."""
    truth = Truth({})
    for record in log:
        truth.logs.setdefault(record.partition, Log(config)).add(record)
    return truth


class Found(NamedTuple):
    """The differences of stores, dead letters and recommendations from the log."""

    lost: int
    """Events of the log without an edge."""
    doubled: int
    """Edges without an event of the log."""
    differences: list[str]


def differences(config: Config, truth: Truth) -> list[str]:
    """All differences from the log, one a line; empty when everything is right."""
    return compare(config, truth).differences


def compare(config: Config, truth: Truth, *, sent: bool = True) -> Found:
    """Compare every sequence, edge, count, dead letter and recommendation with the log.

    `sent`: also dead letters and recommendations, which all workers of a group send together.
    """
    found: list[str] = []
    lost = doubled = 0
    with View(config.data, config.topics.clicks, config.state) as view:
        for number, log in truth.logs.items():
            if number not in view.partitions:
                found.append(f"partition {number} has no store")
                lost += log.applied
                continue
            partition = view.partitions[number]
            differing, missing, more = _edges(partition, log)
            lost, doubled = lost + missing, doubled + more
            differing += [*_sequences(partition, log, config), *_rows(partition, log, config)]
            differing += [*_counts(partition, log), *_names(partition, log)]
            found += [f"partition {number}: {line}" for line in differing]
    if not sent:
        return Found(lost, doubled, found)
    dead = {place(r) for r in read_all(config, config.topics.dead_letters)}
    found += [f"dead letter {p}" for p in dead ^ truth.bad]
    found += _answers(read_all(config, config.topics.recommendations), truth)
    return Found(lost, doubled, found)


def _edges(partition: Partition, log: Log) -> tuple[list[str], int, int]:
    """Compare the edges by item and the journal; return the differences, missing edges and superfluous ones."""
    hashed = hashing(partition)
    lines = [line for user in log.lines for line in log.steps(user, log.horizon)]
    by_item: Counter[tuple[int, int, int, int]] = Counter()
    for item in log.items:
        for edge in partition.edges(hashed(item), ALL_EDGES):
            by_item[int(edge["user"]), hashed(item), int(edge["ts"]), int(edge["kind"])] += 1
    right = Counter((hashed(line.user), hashed(line.item), line.ts, code(line.kind)) for line in lines)
    found = [f"edge {e}: {by_item[e]}, not {right[e]}" for e in by_item.keys() | right.keys() if by_item[e] != right[e]]
    journal = Counter(
        tuple(int(event[name]) for name in ("user", "item", "ts", "kind", "offset"))
        for event in partition.journal(0, 2**62)
        if event["ts"] >= log.on_disk_from
    )
    arrived = Counter(
        (hashed(line.user), hashed(line.item), line.ts, code(line.kind), line.offset)
        for user in log.lines
        for line in log.steps(user, log.on_disk_from)
    )
    if not partition.erasing:
        found += [f"journal {e}: {journal[e]}, not {arrived[e]}" for e in (journal - arrived) + (arrived - journal)]
    return found, (right - by_item).total(), (by_item - right).total()


def _sequences(partition: Partition, log: Log, config: Config) -> list[str]:
    """Compare sequences, the steps that count and hidden items; a forgotten user has none."""
    hashed = hashing(partition)
    found = []
    users = sorted(log.lines.keys() | log.forgotten.keys())
    hashes = np.array([hashed(user) for user in users], np.uint64)
    sequences, positives = partition.sequences(hashes), partition.positives(hashes)
    limit = config.state.sequence_events
    for row, (user, hidden) in enumerate(zip(users, partition.hidden(hashes), strict=True)):
        right = log.steps(user, log.horizon)[-limit:]
        steps = [(int(s["item"]), int(s["ts"]), int(s["kind"])) for s in sequences.of(row)]
        if steps != [(hashed(line.item), line.ts, code(line.kind)) for line in right]:
            found.append(f"sequence of {user}: {len(steps)} steps, not {len(right)}, or others")
        counting = Counter((hashed(s.item), s.ts) for s in set(log.not_undone(user)) & set(right) if log.weight(s))
        if Counter((int(s["item"]), int(s["ts"])) for s in positives.of(row)) != counting:
            found.append(f"steps of {user} that count: not those of the log")
        if set(hidden.tolist()) != {hashed(item) for item in log.hidden(user)}:
            found.append(f"hidden from {user}: {len(hidden)} items, not {len(log.hidden(user))}, or others")
    return found


def _rows(partition: Partition, log: Log, config: Config) -> list[str]:
    """Compare each item's first and last event, clicks that count for others, popularities and the items after it."""
    hashed = hashing(partition)
    found = []
    clicks: dict[str, list[Line]] = {line.item: [] for user in log.lines for line in log.not_undone(user)}
    for user in log.lines:
        for line in log.shared(user):
            clicks[line.item].append(line)
    items = sorted(clicks)
    times: dict[str, list[int]] = defaultdict(list)
    for line in (line for user in log.lines for line in log.steps(user, log.on_disk_from)):
        times[line.item].append(line.ts)
    rows = partition.rows(np.array([hashed(item) for item in items], np.uint64))
    half_lives_s = (config.state.popularity_half_life_s, *FURTHER_HALF_LIVES_S)
    pairs, pair_half_life_ms = log.adjacent(), config.state.pair_half_life_s * 1000
    for row, item in enumerate(items):
        counting = [line for line in clicks[item] if line.ts >= log.on_disk_from]
        if rows.degree[row] != len(counting):
            found.append(f"clicks of {item}: {rows.degree[row]:.0f}, not {len(counting)}")
        ends = int(rows.first_ts[row]), int(rows.last_ts[row])
        if ends != (right_ends := (min(times[item], default=0), max(times[item], default=0))):
            found.append(f"first and last event of {item}: at {ends}, not {right_ends}")
        for recent, half_life_s in zip(rows.recent[row].tolist(), half_lives_s, strict=True):
            fades = [2 ** ((line.ts - int(rows.ts[row])) / 1000 / half_life_s) for line in counting]
            right = sum(log.weight(line) * fade for line, fade in zip(counting, fades, strict=True))
            if abs(recent - right) > 0.01 + 0.001 * right:
                found.append(f"popularity of {item} that halves in {half_life_s:.0f} s: {recent:.4f}, not {right:.4f}")
        following: dict[int, float] = defaultdict(float)
        for left, after in pairs[item]:
            fade = 2 ** ((after.ts - int(rows.ts[row])) / pair_half_life_ms)
            following[hashed(after.item)] += log.weight(left) * log.weight(after) * fade
        counted = dict(zip(rows.nodes[row].tolist(), rows.next[row].tolist(), strict=True))
        for node in following.keys() | counted.keys():
            if abs(counted.get(node, 0.0) - following.get(node, 0.0)) > 0.01:
                found.append(f"right after {item}: {node} {counted.get(node, 0.0)} times, not {following.get(node)}")
    return found


def _counts(partition: Partition, log: Log) -> list[str]:
    progress = partition.read_progress()
    on_disk = [line for user in log.lines for line in log.steps(user, log.on_disk_from)]
    counted = (
        ("events applied", progress.applied, log.applied),
        ("edges", progress.edges, len(on_disk)),
        ("users", progress.users, len({line.user for line in on_disk})),
        ("items", progress.items, len({line.item for line in on_disk})),
        ("dead letters counted", progress.dead, len(log.bad)),
        ("duplicates", progress.duplicate, log.duplicate),
        ("behind the horizon", progress.too_old, log.too_old),
        ("the newest event time", progress.newest_ts, log.newest_ts),
        ("keys that disagree", progress.key_mismatch, 0),
        ("events without a key", progress.keyless, 0),
        ("events in a strange partition", progress.foreign_partition, 0),
        ("lost to retention", progress.lost, 0),
    )
    return [f"{what}: {found}, not {right}" for what, found, right in counted if found != right]


def _names(partition: Partition, log: Log) -> list[str]:
    """Compare the ids of users; a user without events has neither an id nor a recommendation."""
    hashed = hashing(partition)
    found = []
    users = sorted(log.lines.keys() | log.forgotten.keys())
    ids = partition.user_ids(np.array([hashed(user) for user in users], np.uint64))
    for user, name in zip(users, ids, strict=True):
        there = bool(log.steps(user, log.on_disk_from))
        if name != (user.encode() if there else None):
            found.append(f"the id of {user} is stored as {name!r}")
        if not there and partition.recommended(hashed(user)) is not None:
            found.append(f"a recommendation of {user} is stored, although no event is")
    return found


def _answers(sent: list[ConsumerRecord], truth: Truth) -> list[str]:
    """Check that the last answer to each user is for the newest event and hides what it must; or is a tombstone."""
    found = []
    last: dict[str, Any] = {}
    for record in sent:  # a user's answers are in one partition, so the last record is the last one sent
        last[record.key.decode()] = json.loads(record.value) if record.value is not None else None
    for number, log in truth.logs.items():
        for user in log.lines.keys() | log.forgotten.keys():
            answer, lines = last.get(user), log.lines.get(user, [])
            there = log.steps(user, log.on_disk_from)
            if not lines:
                if user not in last or answer is not None:
                    found.append(f"{user} was forgotten at {number}/{log.forgotten[user]}; the last answer is {answer}")
                continue
            if answer is None:
                if there:
                    found.append(f"{user} has events up to {number}/{lines[-1].offset}, the last answer is {answer}")
                continue
            # After a crash pending users are read from the journal: events that expired by then get no answer.
            oldest = max(line.offset for line in there) if there else -1
            if answer["partition"] != number or not oldest <= answer["offset"] <= lines[-1].offset:
                at = answer["partition"], answer["offset"]
                found.append(f"the last answer to {user} is for {at}, the newest event is {(number, lines[-1].offset)}")
            elif shown := {item["item"] for item in answer["items"]} & log.hidden(user):
                found.append(f"the last answer to {user} names {shown}, which are hidden")
    known = {user for log in truth.logs.values() for user in log.lines.keys() | log.forgotten.keys()}
    return [*found, *(f"an answer to {user!r}, who is not in the log" for user in last.keys() - known)]


def hashing(partition: Partition) -> Callable[[str], int]:
    """How the store's ids are hashed on disk, by the key in its identity."""
    assert partition.identity is not None
    if not (key := bytes.fromhex(partition.identity.id_key)):
        return lambda name: xxhash.xxh3_64_intdigest(name.encode()) or 1

    @functools.cache
    def hashed(name: str) -> int:
        return int.from_bytes(hashlib.blake2s(name.encode(), key=key, digest_size=8).digest(), "little") or 1

    return hashed


def code(kind: str) -> int:
    """The code of a kind on disk."""
    return BUILT_IN.index(kind) if kind in BUILT_IN else 64 + xxhash.xxh3_64_intdigest(kind.encode()) % (2**16 - 64)


def place(letter: ConsumerRecord) -> tuple[int, int]:
    """Partition and offset of a dead letter's record."""
    headers = dict(letter.headers)
    return int(headers["partition"]), int(headers["offset"])
