"""Live metrics: every event first tests the last recommendation to its user, and is then learned from.

A recommendation counts from the moment it is sent until the next one. The baselines are computed at the same moment
from the same state, so all of them are tested by the very same events:

    popularity    the most popular items of the stream, decayed
    own           the user's own most frequent items
    transitions   the items that most often followed the user's last item

An event whose user has no recommendation, or only the popularity fallback, tests no model and is counted apart.
"""

import functools
import math
import re
from collections import OrderedDict
from collections.abc import Iterable
from typing import Literal, NamedTuple

import msgspec
import numpy as np

from model.metrics import CUTOFF
from state.events import Ids, Records
from state.graph import Rows
from state.sequences import Sequences

ROLLING_EVENTS = 2_000
MAX_SCORES = 60
"""Versions, comparisons and baselines that are counted, at most: their counts are written with every batch."""

Mode = Literal["shadow", "ab"]


class ScoreKey(NamedTuple):
    """The owner of a score: a version or a baseline, or a version in a comparison of champion and candidate."""

    version: str
    """The version; or the name of a baseline, of all versions together, or of the fallback."""
    mode: Mode | None = None
    """In a comparison: `shadow` where the candidate is only scored, `ab` where each version answers its own users."""
    pair: tuple[str, str] | None = None
    """In a comparison: champion and candidate."""

    def __str__(self) -> str:
        """The text of the key in the state and in `anabranch status`."""
        return self.version if self.pair is None else f"{self.version} ({self.mode} {self.pair[0]}/{self.pair[1]})"


@functools.lru_cache(maxsize=1024)
def parse_key(text: str) -> ScoreKey:
    """The key that has this text.

    >>> parse_key("000001 (shadow 000001/000002)")
    ScoreKey(version='000001', mode='shadow', pair=('000001', '000002'))
    """
    found = re.fullmatch(r"(.+) \((shadow|ab) (.+)/(.+)\)", text)
    if found is None:
        return ScoreKey(text)
    mode: Mode = "shadow" if found[2] == "shadow" else "ab"
    return ScoreKey(found[1], mode, (found[3], found[4]))


FALLBACK = ScoreKey("fallback")
ALL_VERSIONS = ScoreKey("model")
"""All versions together. The state and `anabranch status` show it as `model`."""
POPULARITY, OWN, TRANSITIONS = BASELINES = (ScoreKey("popularity"), ScoreKey("own"), ScoreKey("transitions"))
KEYS_WITHOUT_VERSION = frozenset({FALLBACK, ALL_VERSIONS, *BASELINES})


class Score(msgspec.Struct):
    """Counts of one key in one partition."""

    events: int = 0
    hits: float = 0.0
    ndcg: float = 0.0
    rolling_hit: float = 0.0
    rolling_ndcg: float = 0.0

    def update(self, hit: float, gain: float) -> None:
        """Count one test; the rolling means forget at the rate of ROLLING_EVENTS."""
        self.events += 1
        self.hits += hit
        self.ndcg += gain
        rate = 1.0 / min(self.events, ROLLING_EVENTS)
        self.rolling_hit += rate * (hit - self.rolling_hit)
        self.rolling_ndcg += rate * (gain - self.rolling_ndcg)


Scores = dict[ScoreKey, Score]


class LastRecommendation(NamedTuple):
    """What was last recommended to a user, and what the baselines would have recommended."""

    by: ScoreKey
    """The version, or FALLBACK."""
    items: list[int]
    baselines: dict[ScoreKey, list[int]]
    compared: dict[ScoreKey, list[int]] = {}  # noqa: RUF012  never changed
    """Keys under which the event counts in the comparison of champion and candidate."""


class LiveMetrics:
    """The last recommendations to the users of one worker, each tested by the user's next events."""

    def __init__(self, max_users: int) -> None:
        self._max_users = max_users
        self._last: OrderedDict[int, LastRecommendation] = OrderedDict()

    def remember(self, user: int, recommendation: LastRecommendation) -> None:
        """Replace the user's last recommendation. With too many users, the oldest recommendation is dropped."""
        self._last[user] = recommendation
        self._last.move_to_end(user)
        if len(self._last) > self._max_users:
            self._last.popitem(last=False)

    def forget(self, users: Iterable[int]) -> None:
        """Drop the last recommendations of these users."""
        for user in users:
            self._last.pop(user, None)

    def test(self, events: Records, scores: Scores) -> bool:
        """Count these events, of kinds that are learned from, in `scores`.

        Return whether any tested a recommendation.
        """
        tested = False
        for user, item in zip(events["user"].tolist(), events["item"].tolist(), strict=True):
            last = self._last.get(user)
            if last is None:
                continue
            tested = True
            lists = {last.by: last.items}
            if last.by != FALLBACK:
                lists |= {ALL_VERSIONS: last.items} | last.baselines | last.compared
            for key, items in lists.items():
                rank = items.index(item) if item in items else -1
                score = scores.setdefault(key, Score())
                score.update(float(rank >= 0), 1.0 / math.log2(rank + 2) if rank >= 0 else 0.0)
        if len(scores) > MAX_SCORES:
            _drop_oldest(scores)
        return tested


def _drop_oldest(scores: Scores) -> None:
    """Drop the oldest versions' scores; versions are numbered in the order in which they were learned."""
    versions = sorted((key for key in scores if key not in KEYS_WITHOUT_VERSION), key=str)
    for key in versions[: len(scores) - MAX_SCORES // 2]:
        del scores[key]


def decode_scores(value: bytes) -> Scores:
    """Scores as a store has them."""
    by_text = msgspec.json.decode(value, type=dict[str, Score]) if value else {}
    return {parse_key(text): score for text, score in by_text.items()}


def encode_scores(scores: Scores) -> bytes:
    """Scores for a store."""
    return msgspec.json.encode({str(key): score for key, score in scores.items()})


def total(parts: list[Scores]) -> Scores:
    """The partitions' scores as one; rolling means weigh each partition by its events."""
    result: Scores = {}
    for part in parts:
        for key, score in part.items():
            into = result.setdefault(key, Score())
            events = into.events + score.events
            for rolling in ("rolling_hit", "rolling_ndcg"):
                mean = getattr(into, rolling) * into.events + getattr(score, rolling) * score.events
                setattr(into, rolling, mean / max(events, 1))
            into.events = events
            into.hits += score.hits
            into.ndcg += score.ndcg
    return result


def baselines(sequences: Sequences, last_rows: Rows, popular: Ids) -> list[dict[ScoreKey, list[int]]]:
    """What each baseline recommends to each user now; `last_rows` are the rows of the users' last items."""
    lists = []
    top = popular[:CUTOFF].tolist()
    strongest = np.argsort(-last_rows.after, axis=1, kind="stable")[:, :CUTOFF]
    following = np.take_along_axis(last_rows.nodes, strongest, 1)
    followed = np.take_along_axis(last_rows.after, strongest, 1) > 0
    for row in range(len(sequences.users)):
        # Newest first, so that the stable sort breaks ties by recency.
        items, first, counts = np.unique(sequences.of(row)["item"][::-1], return_index=True, return_counts=True)
        own = items[np.lexsort((first, -counts))[:CUTOFF]].tolist()
        lists.append({POPULARITY: top, OWN: own, TRANSITIONS: following[row][followed[row]].tolist()})
    return lists
