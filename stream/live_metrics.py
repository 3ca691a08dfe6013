"""Test, then learn: every event is first a test of what was last recommended to its user.

A recommendation stands from the moment it is sent until the next one. Beside it stand what the baselines would have
said at that same moment from the same state, so all are tested on the very same events:

    popularity    the most popular items of the stream, decayed
    own           the user's own most frequent items
    transitions   what most often followed the user's last item

Events whose user nothing stands for, or only the popularity fallback, test no model and are counted apart.
"""

import math
from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

import msgspec
import numpy as np

from model.metrics import CUTOFF
from state.events import Ids, Records
from state.graph import Rows
from state.sequences import Sequences

ROLLING_EVENTS = 2_000
SCORES_KEPT = 60
"""Versions, comparisons and baselines that are counted at most: the counts are written with every batch."""
FALLBACK = "fallback"
MODEL = "model"
"""All versions together."""
BASELINES = ("popularity", "own", "transitions")


class Score(msgspec.Struct):
    """Counts of one version or baseline in one partition."""

    events: int = 0
    hits: float = 0.0
    ndcg: float = 0.0
    rolling_hit: float = 0.0
    rolling_ndcg: float = 0.0

    def learn_one(self, hit: float, gain: float) -> None:
        """Count one test; the rolling means forget at the rate of ROLLING_EVENTS."""
        self.events += 1
        self.hits += hit
        self.ndcg += gain
        rate = 1.0 / min(self.events, ROLLING_EVENTS)
        self.rolling_hit += rate * (hit - self.rolling_hit)
        self.rolling_ndcg += rate * (gain - self.rolling_ndcg)


Scores = dict[str, Score]


class LastRecommendation(NamedTuple):
    """What stands for a user: the version that said it (or the fallback), and what the baselines said."""

    by: str
    items: list[int]
    baselines: dict[str, list[int]]
    compared: dict[str, list[int]] = {}  # noqa: RUF012  never changed
    """What counts for the comparison of champion and candidate, by `compared_as`."""


def compared_as(version: str, champion: str, candidate: str, mode: str) -> str:
    """The name of a version's score in a comparison; `mode` is `shadow` or `ab`."""
    return f"{version} ({mode} {champion}/{candidate})"


class LiveMetrics:
    """What stands for the users of one worker, tested by their next events."""

    def __init__(self, standing_users: int) -> None:
        self._limit = standing_users
        self._standing: OrderedDict[int, LastRecommendation] = OrderedDict()

    def remember(self, user: int, standing: LastRecommendation) -> None:
        """Remember what was just recommended; the user longest unanswered is forgotten first."""
        self._standing[user] = standing
        self._standing.move_to_end(user)
        if len(self._standing) > self._limit:
            self._standing.popitem(last=False)

    def forget(self, users: Iterable[int]) -> None:
        """Nothing stands for these users any more."""
        for user in users:
            self._standing.pop(user, None)

    def test(self, events: Records, scores: Scores) -> bool:
        """Count these events, of kinds to learn from, in `scores`; whether there was anything to test."""
        tested = False
        for user, item in zip(events["user"].tolist(), events["item"].tolist(), strict=True):
            standing = self._standing.get(user)
            if standing is None:
                continue
            tested = True
            said = {standing.by: standing.items}
            if standing.by != FALLBACK:
                said |= {MODEL: standing.items} | standing.baselines | standing.compared
            for name, items in said.items():
                rank = items.index(item) if item in items else -1
                score = scores.setdefault(name, Score())
                score.learn_one(float(rank >= 0), 1.0 / math.log2(rank + 2) if rank >= 0 else 0.0)
        if len(scores) > SCORES_KEPT:
            _forget(scores)
        return tested


def _forget(scores: Scores) -> None:
    """Drop the oldest versions' scores; versions are numbered in the order they were learned."""
    versions = sorted(name for name in scores if name[:1].isdigit())
    for name in versions[: len(scores) - SCORES_KEPT // 2]:
        del scores[name]


def decode_scores(value: bytes) -> Scores:
    """Scores as stored."""
    return msgspec.json.decode(value, type=Scores) if value else {}


def total(parts: list[Scores]) -> Scores:
    """The partitions' scores as one; rolling means weigh each partition by its events."""
    result: Scores = {}
    for part in parts:
        for name, score in part.items():
            into = result.setdefault(name, Score())
            events = into.events + score.events
            for rolling in ("rolling_hit", "rolling_ndcg"):
                mean = getattr(into, rolling) * into.events + getattr(score, rolling) * score.events
                setattr(into, rolling, mean / max(events, 1))
            into.events = events
            into.hits += score.hits
            into.ndcg += score.ndcg
    return result


def baselines(sequences: Sequences, last_rows: Rows, popular: Ids) -> list[dict[str, list[int]]]:
    """What each baseline says now for each user; `last_rows` are the rows of the users' last items."""
    said = []
    top = popular[:CUTOFF].tolist()
    strongest = np.argsort(-last_rows.after, axis=1, kind="stable")[:, :CUTOFF]
    following = np.take_along_axis(last_rows.nodes, strongest, 1)
    followed = np.take_along_axis(last_rows.after, strongest, 1) > 0
    for row in range(len(sequences.users)):
        # Newest first, so that the stable sort breaks ties by recency.
        items, first, counts = np.unique(sequences.of(row)["item"][::-1], return_index=True, return_counts=True)
        own = items[np.lexsort((first, -counts))[:CUTOFF]].tolist()
        said.append({"popularity": top, "own": own, "transitions": following[row][followed[row]].tolist()})
    return said
