"""From pending users to recommendation messages, a batch at a time."""

import asyncio
from collections.abc import Collection, Mapping
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from model.ranker.examples import Shown
from state.events import Ids, Ints, Records
from state.kinds import kinds_of
from state.partition import Partition
from state.pending import Unanswered
from state.sequences import Sequences, of_users
from state.store import Applied
from state.titles import Titles
from stream.config import Config
from stream.live_metrics import FALLBACK, LastRecommendation, ScoreKey, baselines
from stream.times import now_ms
from stream.worker.event_clock import EventClock
from stream.worker.examples import LastShown, Made
from stream.worker.item_names import ItemNames, Name
from stream.worker.live_graph import StoresGraph
from stream.worker.recommendation import Answer, ItemList, message_of, popular_list, ranked_list
from stream.worker.served_versions import Arm, ServedVersions

if TYPE_CHECKING:
    from model.ranking.stages import Ranked, Stages

MAX_USERS_ON_LOOP = 8
"""A few users are ranked on the event loop, sooner than a thread is woken. Many would keep heartbeats waiting."""
MEASURED_ITEMS = 10
"""Items of a recommendation that the next event is tested against."""


class Recommender:
    """Ranks for the users of one worker's stores, with the versions that serve."""

    def __init__(self, config: Config, stores: Mapping[int, Partition], titles: Titles | None) -> None:
        self._config, self._stores = config, stores
        self.graph = StoresGraph(stores, config.state)
        self.versions = ServedVersions(config, self.graph)
        self.names = ItemNames(stores, titles, config.worker.title_chars)
        self._titles = titles
        self.last_shown, self.clock = LastShown(), EventClock()
        self._kinds = kinds_of(config.state)

    @property
    def withdrawn(self) -> Ids:
        """Items that are recommended to nobody."""
        return self._titles.withdrawn if self._titles is not None else np.empty(0, np.uint64)

    async def recommend_off_loop(
        self, partition: int, users: Mapping[int, Unanswered], *, tested: bool = True, moment: int | None = None
    ) -> list[Answer]:
        """`recommend`, in a thread where it would hold the event loop for long. Raises StoreFault.

        The lists of some users are kept with their features, until the users' next events. One ranking at a time.
        """
        kept = self.last_shown.choose(users) if self.versions.makes_examples else set()
        work = partial(self.recommend, partition, users, tested=tested, moment=moment, kept=kept)
        answers = work() if len(users) <= MAX_USERS_ON_LOOP else await asyncio.to_thread(work)
        for answer in answers:
            if answer.shown is not None and answer.user_id:
                self.last_shown.remember(answer.user, answer.shown, answer.last_recommendation.by.version)
        return answers

    def recommend(
        self,
        partition: int,
        users: Mapping[int, Unanswered],
        *,
        tested: bool = True,
        moment: int | None = None,
        kept: Collection[int] = (),
    ) -> list[Answer]:
        """Recommendations for these users of one partition, each from all that the store holds. Raises StoreFault.

        `tested`: the users' next events test these answers, so the candidate and the baselines rank too. `moment` is
        the event time, ms, at which they are ranked; None: that of each user's newest event. Answers for users in
        `kept` have the candidate items with their features.
        """
        return [a for arm in self.versions.arms(users) for a in self._recommend(partition, arm, tested, moment, kept)]

    def _recommend(
        self, partition: int, arm: Arm, tested: bool, moment: int | None, kept: Collection[int]
    ) -> list[Answer]:
        store, k = self._stores[partition], self._config.ranking.k
        # Who
        users = np.fromiter(arm.users, np.uint64, len(arm.users))
        # History
        history = store.positives(users)
        moments = _moments(history, moment)
        # Filters: what each user hides, what is withdrawn. The stages leave out items that are seen or have no click
        hidden = store.hidden(users)
        withdrawn = self.withdrawn
        # Stages: candidate items, features, ranker, top k, reasons (`model/ranking/stages.py`)
        ranked = scored = None
        shown: Mapping[int, Shown | None] = {}
        source = "popularity"
        if arm.version is not None:
            stages = arm.version.stages
            source = "model" if stages.ranker is None else "ranker"
            has_history = np.diff(history.indptr) > 0
            keeps = [row for row, user in enumerate(arm.users) if user in kept and has_history[row]]
            with_all = bool(keeps) and stages.ranker is not None
            ranked = stages.rank(history, self.graph, k, hidden, withdrawn, moments, shown=with_all)
            shown = self._shown(ranked, history, moments, keeps, stages, hidden)
        if arm.scored is not None and tested:
            scored = arm.scored.stages.rank(history, self.graph, k, hidden, withdrawn, moments)
        # Popular items, for users without a version or a history
        max_hidden = max(map(len, hidden), default=0)
        popular = self.graph.popular(max(k, MEASURED_ITEMS) + max_hidden, withdrawn)
        # Message
        names = self._names_of(ranked, popular[: k + max_hidden])
        rivals = self._baselines(history, popular) if ranked is not None and tested else None
        emitted_ts, progress = now_ms(), store.read_progress()
        ids = store.user_ids(users)  # now: a user who was forgotten during the ranking has none
        answers = []
        for row, (user, newest) in enumerate(arm.users.items()):
            of_model = ranked_list(ranked, row)
            best = of_model or popular_list(popular, hidden[row], k)
            version, by = (arm.version, source) if of_model else (None, "popularity")
            offset = progress.in_messages(newest.offset)
            message = message_of(ids[row] or b"", best, version, by, newest, names, emitted_ts, partition, offset)
            last = _last_recommendation(arm, best, row, scored, rivals) if of_model else _fallback(best)
            answers.append(Answer(user, ids[row] or b"", message, last, by, shown.get(row) if of_model else None))
        return answers

    def _shown(
        self,
        ranked: "Ranked",
        history: Sequences,
        moments: Ints | None,
        rows: list[int],
        stages: "Stages",
        hidden: list[Ids],
    ) -> dict[int, Shown | None]:
        """The candidate items, with their features, of the users of these rows."""
        if not rows:
            return {}
        if ranked.shown:
            return {row: ranked.shown[row] for row in rows}
        # The fusion has ranked every item. Candidate items and their features are made for these users only.
        of = np.zeros(len(history.users), bool)
        of[rows] = True
        some, their_hidden = None if moments is None else moments[of], [hidden[row] for row in rows]
        k, withdrawn = self._config.ranking.k, self.withdrawn
        shown = stages.shown(of_users(history, of), self.graph, k, their_hidden, withdrawn, some)
        return dict(zip(rows, shown, strict=True))

    def join(self, applied: Applied) -> Made:
        """Make examples of the lists before these events, which were just applied, and learn from them."""
        forgotten = applied.forgotten.tolist()
        self.last_shown.forget(forgotten)
        self.versions.rankers.forget(forgotten)
        made = self.last_shown.join(applied.events, self._kinds)
        self.versions.rankers.add(made.examples)
        return made

    def learn(self, store: Partition, events: Records) -> None:
        """Move the fusion weights by clicks that the store has not applied yet."""
        self.versions.learn(store, events)

    def update(self, applied: Applied) -> None:
        """Follow what a store has just applied, and what has left it."""
        self.versions.update(applied)
        if len(applied.gone):
            self.names.forget(applied.gone.tolist())
            self.graph.reset_popular()

    def _baselines(self, history: Sequences, popular: Ids) -> list[dict[ScoreKey, list[int]]] | None:
        if not self._config.worker.baselines or not len(history.steps):
            return None
        last_items = history.steps["item"][np.maximum(history.indptr[1:] - 1, 0)]
        return baselines(history, self.graph.rows(last_items), popular)

    def _names_of(self, ranked: "Ranked | None", popular: Ids) -> dict[int, Name]:
        """Names of all items that may be shown."""
        wanted = set(popular.tolist())
        if ranked is not None:
            wanted.update(ranked.items.ravel().tolist())
            wanted.update(ranked.because.ravel().tolist())
        return self.names.of(wanted - {0})


def _moments(history: Sequences, moment: int | None) -> Ints | None:
    """[B] event times, ms, of the rankings: at least that of each user's newest event."""
    if moment is None or not len(history.steps):
        return None
    last = history.steps["ts"][np.maximum(history.indptr[1:] - 1, 0)]
    found: Ints = np.maximum(last, moment)
    return found


def _last_recommendation(
    arm: Arm, shown: ItemList, row: int, scored: "Ranked | None", rivals: list[dict[ScoreKey, list[int]]] | None
) -> LastRecommendation:
    """What the user's next event tests: the version, the baselines, and the comparison of champion and candidate."""
    assert arm.version is not None
    items = shown.items[:MEASURED_ITEMS]
    compared = {}
    if arm.pair is not None:
        compared[ScoreKey(arm.version.version, arm.mode, arm.pair)] = items
    if arm.scored is not None and scored is not None:
        in_shadow = scored.items[row][:MEASURED_ITEMS].tolist()
        compared[ScoreKey(arm.scored.version, arm.mode, arm.pair)] = in_shadow
    return LastRecommendation(ScoreKey(arm.version.version), items, rivals[row] if rivals else {}, compared)


def _fallback(shown: ItemList) -> LastRecommendation:
    """Popular items were shown: no version is tested by the user's next event."""
    return LastRecommendation(FALLBACK, shown.items[:MEASURED_ITEMS], {})
