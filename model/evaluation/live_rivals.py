"""Rivals that need no training, counted event by event.

popularity          clicks so far
recent popularity   clicks so far, halved every `state.popularity_half_life_s` of event time
own                 the user's own most frequent items, the newest first among equals
transitions         items that most often followed the user's newest item
session-kNN         items of the most similar users, among those who last clicked one of the user's items: cosine, in
                    which newer items of the session count more (Jannach and Ludewig, 2017)
item-kNN            `model.evaluation.rivals.item_knn` over all histories so far, counted again every RECOUNT_EVENTS
"""

from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable

import numpy as np

from model.encoders.histories import to_histories
from model.encoders.vocabulary import Vocabulary
from model.evaluation.recorded_stream import RecordedStream
from model.evaluation.rivals import HistoryScorer, item_knn
from state.events import Ids, Records
from state.sequences import Sequences

RECOUNT_EVENTS = 2_000
ITEM_KNN_AGE_DECAY = 0.8
"""Factor of item-kNN on an item of the history for each step that it is older."""
SESSION_NEIGHBOURS = 100
RECENT_USERS = 500
"""session-kNN looks for neighbours among this many users: the last who clicked a shared item."""
SESSION_EVENTS = 20
"""session-kNN takes this many newest events of a user for a session."""


class MostClicked:
    """Items by clicks so far."""

    def __init__(self, stream: RecordedStream, depth: int) -> None:
        self._depth = depth
        self._counts = Counter(stream.events()["item"].tolist())

    def rank(self, tests: Sequences) -> Ids:
        """The same items for every user."""
        best = np.array([item for item, _ in self._counts.most_common(self._depth)], np.uint64)
        return np.tile(best, (len(tests.users), 1))

    def update(self, events: Records) -> None:
        """Count the clicks."""
        self._counts.update(events["item"].tolist())


class MostClickedLately:
    """Items by recent clicks, as the graph counts them."""

    def __init__(self, stream: RecordedStream, depth: int) -> None:
        self._stream, self._depth = stream, depth

    def rank(self, tests: Sequences) -> Ids:
        """The same items for every user."""
        return np.tile(self._stream.graph.popular(self._depth), (len(tests.users), 1))

    def update(self, events: Records) -> None:
        """Do nothing: the graph counts the clicks."""


class OwnItems:
    """The user's own most frequent items."""

    def __init__(self, stream: RecordedStream, depth: int) -> None:
        self._depth = depth

    def rank(self, tests: Sequences) -> Ids:
        """Rank by count, then by recency."""
        ranked = np.zeros((len(tests.users), self._depth), np.uint64)
        for row in range(len(tests.users)):
            items, first, counts = np.unique(tests.of(row)["item"][::-1], return_index=True, return_counts=True)
            best = items[np.lexsort((first, -counts))[: self._depth]]
            ranked[row, : len(best)] = best
        return ranked

    def update(self, events: Records) -> None:
        """Do nothing: the user's history is enough."""


class Transitions:
    """Items that most often followed the user's newest item."""

    def __init__(self, stream: RecordedStream, depth: int) -> None:
        self._depth = depth
        self._after: defaultdict[int, Counter[int]] = defaultdict(Counter)
        self._newest: dict[int, int] = {}
        self.update(stream.events())

    def rank(self, tests: Sequences) -> Ids:
        """Rank by count."""
        ranked = np.zeros((len(tests.users), self._depth), np.uint64)
        for row, newest in enumerate(tests.steps["item"][tests.indptr[1:] - 1].tolist()):
            best = [item for item, _ in self._after[newest].most_common(self._depth)]
            ranked[row, : len(best)] = best
        return ranked

    def update(self, events: Records) -> None:
        """Count each item as a successor of its user's item before it."""
        for user, item in zip(events["user"].tolist(), events["item"].tolist(), strict=True):
            if user in self._newest:
                self._after[self._newest[user]][item] += 1
            self._newest[user] = item


class SessionKNN:
    """Items of the most similar users."""

    def __init__(self, stream: RecordedStream, depth: int) -> None:
        self._depth = depth
        self._users_of: defaultdict[int, OrderedDict[int, None]] = defaultdict(OrderedDict)
        self._items_of: defaultdict[int, OrderedDict[int, None]] = defaultdict(OrderedDict)
        self.update(stream.events())

    def rank(self, tests: Sequences) -> Ids:
        """Rank by the summed similarity of the neighbours who clicked an item."""
        ranked = np.zeros((len(tests.users), self._depth), np.uint64)
        for row, user in enumerate(tests.users.tolist()):
            best = self._best_items(user, tests.of(row)["item"][-SESSION_EVENTS:].tolist())
            ranked[row, : len(best)] = best
        return ranked

    def _best_items(self, user: int, session: list[int]) -> list[int]:
        share = {item: (place + 1) / len(session) for place, item in enumerate(session)}
        similarity: dict[int, float] = {}
        for item in reversed(share):
            for other in reversed(self._users_of[item]):
                if other == user or other in similarity:
                    continue
                if len(similarity) == RECENT_USERS:
                    break
                had = self._items_of[other]
                similarity[other] = sum(s for i, s in share.items() if i in had) / len(had) ** 0.5
        scores: defaultdict[int, float] = defaultdict(float)
        for other in sorted(similarity, key=lambda other: -similarity[other])[:SESSION_NEIGHBOURS]:
            for item in self._items_of[other]:
                scores[item] += similarity[other]
        return sorted(scores, key=lambda item: -scores[item])[: self._depth]

    def update(self, events: Records) -> None:
        """Make each user the newest of the item, and each item the newest of the user."""
        for user, item in zip(events["user"].tolist(), events["item"].tolist(), strict=True):
            self._users_of[item][user] = None
            self._users_of[item].move_to_end(user)
            if len(self._users_of[item]) > RECENT_USERS:
                self._users_of[item].popitem(last=False)
            self._items_of[user][item] = None
            self._items_of[user].move_to_end(item)
            if len(self._items_of[user]) > SESSION_EVENTS:
                self._items_of[user].popitem(last=False)


class ItemKNN:
    """Items by their cosine to the user's items, over the users who clicked both."""

    def __init__(self, stream: RecordedStream, depth: int) -> None:
        self._stream, self._depth, self._since = stream, depth, 0
        self._count()

    def _count(self) -> None:
        known = np.unique(self._stream.events()["item"])
        self._vocabulary = Vocabulary(known, [""] * len(known))
        histories = to_histories(self._stream.sequences(self._stream.users), self._vocabulary)
        self._scorer: HistoryScorer = item_knn(histories, len(known), ITEM_KNN_AGE_DECAY)

    def rank(self, tests: Sequences) -> Ids:
        """Rank by summed similarity to the user's items; 0 where no item is similar."""
        scores = self._scorer(to_histories(tests, self._vocabulary))
        best = scores.topk(min(self._depth, scores.shape[1]), dim=1)
        hashes = np.concatenate([np.zeros(1, np.uint64), self._vocabulary.hashes])
        return np.where(best.values.numpy() > 0, hashes[best.indices.numpy()], 0)

    def update(self, events: Records) -> None:
        """Count from scratch every RECOUNT_EVENTS."""
        self._since += len(events)
        if self._since >= RECOUNT_EVENTS:
            self._since = 0
            self._count()


Rival = MostClicked | MostClickedLately | OwnItems | Transitions | SessionKNN | ItemKNN
LIVE_RIVALS: dict[str, Callable[[RecordedStream, int], Rival]] = {
    "popularity": MostClicked,
    "recent popularity": MostClickedLately,
    "own": OwnItems,
    "transitions": Transitions,
    "session-kNN": SessionKNN,
    "item-kNN": ItemKNN,
}
