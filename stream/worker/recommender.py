"""From pending users to recommendation messages, a batch at a time."""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from state.events import Ids, Records
from state.partition import Partition
from state.pending import Unanswered
from state.sequences import Sequences
from state.store import Applied
from state.titles import Titles
from stream.config import Config
from stream.live_metrics import FALLBACK, LastRecommendation, ScoreKey, baselines
from stream.times import now_ms
from stream.worker.item_names import ItemNames, Name
from stream.worker.live_graph import StoresGraph
from stream.worker.recommendation import Answer, ItemList, message_of, popular_list, ranked_list
from stream.worker.served_versions import Arm, ServedVersions

if TYPE_CHECKING:
    from model.ranking.stages import Ranked

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

    @property
    def withdrawn(self) -> Ids:
        """Items that are recommended to nobody."""
        return self._titles.withdrawn if self._titles is not None else np.empty(0, np.uint64)

    async def recommend_off_loop(
        self, partition: int, users: Mapping[int, Unanswered], *, tested: bool = True
    ) -> list[Answer]:
        """`recommend`, in a thread where it would hold the event loop for long. Raises StoreFault."""
        if len(users) <= MAX_USERS_ON_LOOP:
            return self.recommend(partition, users, tested=tested)
        return await asyncio.to_thread(self.recommend, partition, users, tested=tested)

    def recommend(self, partition: int, users: Mapping[int, Unanswered], *, tested: bool = True) -> list[Answer]:
        """Recommendations for these users of one partition, each from all that the store holds. Raises StoreFault.

        `tested`: the users' next events test these answers, so the candidate and the baselines rank too.
        """
        return [answer for arm in self.versions.arms(users) for answer in self._recommend(partition, arm, tested)]

    def _recommend(self, partition: int, arm: Arm, tested: bool) -> list[Answer]:
        store, k = self._stores[partition], self._config.ranking.k
        # Who
        users = np.fromiter(arm.users, np.uint64, len(arm.users))
        # History
        history = store.positives(users)
        # Filters: what each user hides, what is withdrawn. The stages leaves out items that are seen or have no click
        hidden = store.hidden(users)
        withdrawn = self.withdrawn
        # Signals, top k, reasons (`model/ranking/stages.py`)
        ranked = arm.version.stages.rank(history, self.graph, k, hidden, withdrawn) if arm.version else None
        scored = arm.scored.stages.rank(history, self.graph, k, hidden, withdrawn) if arm.scored and tested else None
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
            shown = of_model or popular_list(popular, hidden[row], k)
            version = arm.version if of_model else None
            offset = progress.in_messages(newest.offset)
            message = message_of(ids[row] or b"", shown, version, newest, names, emitted_ts, partition, offset)
            last = _last_recommendation(arm, shown, row, scored, rivals) if of_model else _fallback(shown)
            answers.append(Answer(user, ids[row] or b"", message, last))
        return answers

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
