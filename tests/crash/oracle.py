"""What the state must be: plain dicts, folded from the log itself, one record after the other."""

import json
from collections import Counter, defaultdict
from typing import Any, NamedTuple

import numpy as np
from kafka.consumer.fetcher import ConsumerRecord

from state.events import hash_id
from state.view import View
from stream.config import Config
from tests.e2e.conftest import read_all


class Truth(NamedTuple):
    """A log, folded."""

    sequences: dict[str, list[tuple[str, int]]]
    """(item, ts) of each user, by time, equal times as they arrived."""
    edges: Counter[tuple[str, str, int]]
    """How often user clicked item at ts."""
    clicks: Counter[tuple[int, str]]
    """Of an item in a partition."""
    newest: dict[str, tuple[int, int]]
    """Partition and offset of each user's newest event in the log."""
    bad: set[tuple[int, int]]
    """Partition and offset of what is no event."""
    events: int


def fold(log: list[ConsumerRecord], sequence_events: int) -> Truth:
    """A record is an event when it is a JSON object with a user and an item: the test writes nothing subtler."""
    arrived: dict[str, list[tuple[int, str]]] = defaultdict(list)
    truth = Truth({}, Counter(), Counter(), {}, set(), sum(1 for _ in log))
    for record in log:
        try:
            click = json.loads(record.value)
            user, item, ts = click["user"], click["item"], click["ts"]
        except (ValueError, KeyError, TypeError):
            truth.bad.add((record.partition, record.offset))
            continue
        arrived[user].append((ts, item))
        truth.edges[user, item, ts] += 1
        truth.clicks[record.partition, item] += 1
        truth.newest[user] = record.partition, record.offset
    for user, clicks in arrived.items():
        in_order = sorted(clicks, key=lambda click: click[0])
        truth.sequences[user] = [(item, ts) for ts, item in in_order][-sequence_events:]
    return truth


class Found(NamedTuple):
    """What the stores, the dead letters and the recommendations hold, beside the log."""

    lost: int
    """Events of the log that no edge stands for."""
    doubled: int
    """Edges that no event of the log stands behind."""
    differences: list[str]


def differences(config: Config, truth: Truth) -> list[str]:
    """Where anything is not what the log says; empty is right."""
    return compare(config, truth).differences


def compare(config: Config, truth: Truth) -> Found:
    """Every sequence, edge, count, dead letter and recommendation, beside the log's."""
    found: list[str] = []
    users, items = sorted(truth.sequences), sorted({item for _, item in truth.clicks})
    name_of = {hash_id(item): item for item in items}
    with View(config.data, config.topics.clicks, config.state) as view:
        sequences = view.sequences(np.array([hash_id(u) for u in users], np.uint64))
        for row, user in enumerate(users):
            kept = [(name_of[step["item"]], int(step["ts"])) for step in sequences.of(row)]
            if kept != truth.sequences[user]:
                found.append(f"sequence of {user}: {len(kept)} steps, not {len(truth.sequences[user])}, or others")
        edges: Counter[tuple[int, str, int]] = Counter()
        hashes = np.array([hash_id(i) for i in items], np.uint64)
        for number, partition in view.partitions.items():
            degrees = partition.rows(hashes).degree
            for item, degree in zip(items, degrees, strict=True):
                if degree != truth.clicks[number, item]:
                    found.append(f"clicks of {item} in partition {number}: {degree}, not {truth.clicks[number, item]}")
                for edge in partition.edges(hash_id(item), 10**9):
                    edges[int(edge["user"]), item, int(edge["ts"])] += 1
        wanted = Counter({(hash_id(u), i, ts): n for (u, i, ts), n in truth.edges.items()})
        found += [
            f"edge {e}: {edges[e]}, not {wanted[e]}" for e in edges.keys() | wanted.keys() if edges[e] != wanted[e]
        ]
        marks = [p.marks() for p in view.partitions.values()]
        for what, counted, right in (
            ("events applied", sum(m.applied for m in marks), truth.edges.total()),
            ("users", sum(m.users for m in marks), len(users)),
            ("items of partitions", sum(m.items for m in marks), len(truth.clicks)),
            ("dead letters counted", sum(m.dead for m in marks), len(truth.bad)),
        ):
            if counted != right:
                found.append(f"{counted} {what}, not {right}")
    buried = {place(r) for r in read_all(config, config.topics.dead_letters)}
    found += [f"dead letter {p}" for p in buried ^ truth.bad]
    answered: dict[str, tuple[int, int]] = {}
    for record in read_all(config, config.topics.recommendations):
        message: dict[str, Any] = json.loads(record.value)
        at = message["partition"], message["offset"]
        answered[message["user"]] = at  # a user's answers lie in one partition: this is the last that was said
    found += [
        f"the last answer to {user} is of {answered.get(user)}, the newest event is {truth.newest[user]}"
        for user in users
        if answered.get(user) != truth.newest[user]
    ]
    return Found((wanted - edges).total(), (edges - wanted).total(), found)


def place(letter: ConsumerRecord) -> tuple[int, int]:
    """Where a dead letter lay."""
    told = dict(letter.headers)
    return int(told["partition"]), int(told["offset"])
