"""Answers: from owed users to recommendation messages, a batch at a time, off the event loop's thread."""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from state.events import Ids, Records
from state.graph import Rows, combine
from state.kinds import Kinds, kinds_of
from state.partition import Partition
from state.pending import Unanswered
from state.sequences import of_users
from state.settings import StateSettings
from state.store import Applied
from state.titles import Titles
from state.view import most_popular
from stream.config import Config
from stream.kafka.messages import Recommendation, Recommended, encode
from stream.live_metrics import FALLBACK, LastRecommendation, baselines, compared_as
from stream.worker import online_weights as weights
from stream.worker.item_names import ItemNames, Name

if TYPE_CHECKING:
    from model.fusion_weights.online import OnlineFusion
    from model.ranking.ranker import Ranked, Ranker

LEARN_EVERY_S = 5.0
"""Between two steps of the fusion weights: each holds the event loop for some 30 ms, which the 99th percentile of
latencies is not to know."""
LEARN_USERS = 64
"""Clicking users looked at for a step, at most."""
POPULAR_FOR_S = 1.0
"""How long a list of popular items is served before it is read again."""


class Answer(NamedTuple):
    """One user's recommendation, ready to send."""

    user: int
    user_id: bytes
    offset: int
    message: bytes
    standing: LastRecommendation


class ServedVersion(NamedTuple):
    """The version being served."""

    version: str
    created_ts: int
    ranking: "Ranker"


def in_candidates_arm(user: int, share: float) -> bool:
    """Whether this user, a hash, gets the candidate: the same users for as long as the share is the same."""
    return (user * 0x9E3779B97F4A7C15 % 2**64) / 2.0**64 < share


class Recommender:
    """Ranks for the users of the stores of one worker, with whatever version is being served."""

    def __init__(self, config: Config, stores: Mapping[int, Partition], titles: Titles | None) -> None:
        self.serving: ServedVersion | None = None
        self.candidate: ServedVersion | None = None
        self._config = config
        self._state: StateSettings = config.state
        self._stores = stores
        self.names = ItemNames(stores, titles)
        self._popular: Ids = np.empty(0, np.uint64)
        self._popular_until = 0.0
        self._online: OnlineFusion | None = None
        self._beside: OnlineFusion | None = None
        """The candidate's weights, where there is one."""
        self._learn_at = 0.0

    def answer(self, partition: int, unanswered: dict[int, Unanswered]) -> list[Answer]:
        """Recommendations for these users of one partition, each reflecting all the store holds."""
        serving, candidate, share = self.serving, self.candidate, self._config.worker.ab
        if serving is None or candidate is None or not share:
            return self._answer(partition, unanswered, serving, candidate)
        chosen = {user for user in unanswered if in_candidates_arm(user, share)}
        arms = (
            (serving, {u: d for u, d in unanswered.items() if u not in chosen}),
            (candidate, {u: d for u, d in unanswered.items() if u in chosen}),
        )
        answers: list[Answer] = []
        for by, some in arms:
            if some:
                answers += self._answer(partition, some, by, None)
        return answers

    def _answer(
        self,
        partition: int,
        unanswered: dict[int, Unanswered],
        serving: ServedVersion | None,
        candidate: ServedVersion | None,
    ) -> list[Answer]:
        """Answers by one version, and what the candidate would have said where it is only scored."""
        store = self._stores[partition]
        users = np.fromiter(unanswered, np.uint64, len(unanswered))
        sequences, hidden = store.positives(users), store.hidden(users)
        k = self._config.ranking.k
        most_hidden = max(map(len, hidden), default=0)
        popular = self._popular_items(max(k, 10) + most_hidden)
        ranked = serving.ranking.rank(sequences, self, k, hidden) if serving else None
        beside = candidate.ranking.rank(sequences, self, k, hidden) if serving and candidate else None
        said: list[dict[str, list[int]]] = [{}] * len(users)
        if ranked is not None and self._config.worker.baselines and len(sequences.steps):
            last = sequences.steps["item"][np.maximum(sequences.indptr[1:] - 1, 0)]
            said = baselines(sequences, self.rows(last), popular)
        names = self._named(ranked, popular[: k + most_hidden])
        now_ms = time.time_ns() // 1_000_000
        progress = store.read_progress()
        answers = []
        ids = store.user_ids(users)
        for row, (user, newest) in enumerate(unanswered.items()):
            seen = popular[~np.isin(popular, hidden[row])][:k] if len(hidden[row]) else popular[:k]
            items, by = _items(ranked, row, seen, serving, names)
            user_id = ids[row] or b""
            message = Recommendation(
                user=user_id.decode(),
                items=items,
                model=by.version if by else None,
                model_age_s=round((now_ms - by.created_ts) / 1000, 1) if by else None,
                source="model" if by else "popularity",
                event_ts=newest.ts if newest.ts >= 0 else None,
                emitted_ts=now_ms,
                partition=partition,
                offset=progress.in_log(newest.offset),
            )
            shown = (ranked.items[row][ranked.items[row] != 0] if by and ranked else seen)[:10].tolist()
            compared = self._compared(by, shown, candidate, beside.items[row][:10].tolist() if beside else [])
            standing = LastRecommendation(by.version if by else FALLBACK, shown, said[row] if by else {}, compared)
            answers.append(Answer(user, user_id, newest.offset, encode(message), standing))
        return answers

    def _compared(
        self, by: ServedVersion | None, shown: list[int], candidate: ServedVersion | None, beside: list[int]
    ) -> dict[str, list[int]]:
        """What is counted to compare champion and candidate on this answer."""
        champion, challenger = self.serving, self.candidate
        if by is None or champion is None or challenger is None:
            return {}
        pair = champion.version, challenger.version
        if candidate is None:
            return {compared_as(by.version, *pair, "ab"): shown}
        return {
            compared_as(by.version, *pair, "shadow"): shown,
            compared_as(candidate.version, *pair, "shadow"): beside,
        }

    def score(self, candidate: ServedVersion | None) -> None:
        """Rank with a candidate too; None: no more."""
        if candidate is not None and self._stores:
            candidate.ranking.count_clicks(self)
        self._beside = self._begun(candidate) if candidate is not None else None
        self.candidate = candidate
        self._follow()

    def serve(self, serving: ServedVersion) -> None:
        """Serve another version. Its items are counted first: with a million of them that takes seconds."""
        if self._stores:
            serving.ranking.count_clicks(self)
        self._online = self._online_for(serving)
        if self._online is not None:
            serving.ranking.fusion = self._online.fusion
        self.serving = serving
        self._follow()

    def _online_for(self, serving: ServedVersion) -> "OnlineFusion | None":
        """Weights that go on from where they were left, by the same version or by the one before."""
        online, left = self._begun(serving), weights.read(self._config.data).get(self._config.worker.instance)
        if online is None:
            return None
        if left is not None and left.version == serving.version:
            online.resume(left.learned)
        elif left is not None:
            online.carry_over(left.learned)
        if self._online is not None:
            online.keep_clicks_of(self._online)
        return online

    def _begun(self, version: ServedVersion) -> "OnlineFusion | None":
        """The version's own weights, to be moved."""
        if not self._config.ranking.online_clicks:
            return None
        from model.fusion_weights.online import OnlineFusion

        return OnlineFusion(version.ranking.fusion, self._config.ranking)

    def _follow(self) -> None:
        """Weigh for the candidate as if it served: as far from its own weights as the champion's have come."""
        if self.candidate is not None and self._beside is not None and self._online is not None:
            self._beside.carry_over(self._online.learned)
            self.candidate.ranking.fusion = self._beside.fusion

    def learn(self, store: Partition, events: Records) -> None:
        """The champion's fusion weights go on with these clicks, before the store takes them in.

        Called by the event loop while another thread may rank: only numbers are read that are there already.
        """
        serving, online, now = self.serving, self._online, time.monotonic()
        if serving is None or online is None or now < self._learn_at or not serving.ranking.clicks_counted:
            return
        self._learn_at = now + LEARN_EVERY_S
        users, first = np.unique(events["user"], return_index=True)
        users, first = users[:LEARN_USERS], first[:LEARN_USERS]  # in order of a hash: anybody
        before = store.positives(users)
        known = np.diff(before.indptr) > 0
        online.update(serving.ranking, of_users(before, known), events["item"][first[known]], self)
        serving.ranking.fusion = online.fusion
        self._follow()
        weights.write(self._config.data, self._config.worker.instance, serving.version, online.learned)

    def take_in(self, applied: Applied) -> None:
        """Count what a store has just taken in, and what has left it."""
        for version in (self.serving, self.candidate):
            if version is not None:
                version.ranking.update(applied.gained)
                version.ranking.remove(applied.lost)
        if len(applied.gone):
            self.names.forget(applied.gone.tolist())
            self._popular_until = 0.0

    def reset_clicks(self) -> None:
        """Other partitions are this worker's now: what is clicked is to be counted anew."""
        for version in (self.serving, self.candidate):
            if version is not None:
                version.ranking.reset_clicks()

    @property
    def kinds(self) -> Kinds:
        """What each event counts for."""
        return kinds_of(self._state)

    @property
    def forgets(self) -> bool:
        """An item without a click in this worker's partitions has expired, or cannot be named here."""
        return True

    @property
    def popularity_half_life_s(self) -> float:
        """Event time after which a click counts half in the rows' popularity."""
        return self._state.popularity_half_life_s

    def rows(self, items: Ids) -> Rows:
        """Rows of the live graph over all partitions of this worker."""
        return combine([store.rows(items) for store in list(self._stores.values())], self._state)

    def _popular_items(self, k: int) -> Ids:
        """The most popular items over all partitions of this worker."""
        if time.monotonic() > self._popular_until:
            lists = [s.popular() for s in list(self._stores.values())]
            self._popular = most_popular(lists, self._state.popular_items)
            self._popular_until = time.monotonic() + POPULAR_FOR_S
        return self._popular[:k]

    def _named(self, ranked: "Ranked | None", popular: Ids) -> dict[int, Name]:
        """Names of all that may be shown."""
        wanted = set(popular.tolist())
        if ranked is not None:
            wanted.update(ranked.items.ravel().tolist())
            wanted.update(ranked.because.ravel().tolist())
        return self.names.of(wanted - {0})


def _items(
    ranked: "Ranked | None", row: int, popular: Ids, serving: ServedVersion | None, names: dict[int, Name]
) -> tuple[list[Recommended], ServedVersion | None]:
    """What is recommended to the user of this row, and by which version; None: what is popular."""
    if ranked is None or not ranked.items[row].any():
        strength = np.arange(len(popular), 0, -1) / max(len(popular), 1)
        return [_recommended(i, s, [], names) for i, s in zip(popular.tolist(), strength, strict=True)], None
    columns = (ranked.items[row].tolist(), ranked.scores[row].tolist(), ranked.because[row].tolist())
    return [_recommended(i, s, because, names) for i, s, because in zip(*columns, strict=True) if i], serving


def _recommended(item: int, score: float, because: list[int], names: dict[int, Name]) -> Recommended:
    name, title = names[item]
    reasons = [names[i].id for i in because if i]
    return Recommended(item=name, score=round(float(score), 4), because=reasons, title=title)
