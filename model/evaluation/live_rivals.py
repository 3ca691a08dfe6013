"""Rivals that need no training, counted event by event.

popularity          clicks so far
recent popularity   the same, halved every `state.popularity_half_life_s` of event time
own                 the user's own most frequent items, newest first among equals
transitions         what most often came right after the user's newest item
session-kNN         items of the users most like this one among those who lately had one of its items (Jannach and
                    Ludewig, 2017: cosine, newer items of the session count more)
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
AGE_DECAY = 0.8
"""What an item of the history counts for item-kNN for each step it lies further back."""
NEIGHBOURS = 100
RECENT_USERS = 500
"""Users in whom session-kNN looks for neighbours: the newest that share an item."""
SESSION_EVENTS = 20
"""Newest events of a user that session-kNN takes for its session."""


class MostClicked:
    """Clicks so far."""

    def __init__(self, stream: RecordedStream, depth: int) -> None:
        self._depth = depth
        self._counts = Counter(stream.events()["item"].tolist())

    def rank(self, tests: Sequences) -> Ids:
        """The same for everybody."""
        best = np.array([item for item, _ in self._counts.most_common(self._depth)], np.uint64)
        return np.tile(best, (len(tests.users), 1))

    def update(self, events: Records) -> None:
        """Count."""
        self._counts.update(events["item"].tolist())


class MostClickedLately:
    """Clicks of the last days, as the graph counts them."""

    def __init__(self, stream: RecordedStream, depth: int) -> None:
        self._stream, self._depth = stream, depth

    def rank(self, tests: Sequences) -> Ids:
        """The same for everybody."""
        return np.tile(self._stream.graph.popular(self._depth), (len(tests.users), 1))

    def update(self, events: Records) -> None:
        """Do nothing: the graph counts."""


class Own:
    """The user's own most frequent items."""

    def __init__(self, stream: RecordedStream, depth: int) -> None:
        self._depth = depth

    def rank(self, tests: Sequences) -> Ids:
        """By count, then by recency."""
        ranked = np.zeros((len(tests.users), self._depth), np.uint64)
        for row in range(len(tests.users)):
            items, first, counts = np.unique(tests.of(row)["item"][::-1], return_index=True, return_counts=True)
            best = items[np.lexsort((first, -counts))[: self._depth]]
            ranked[row, : len(best)] = best
        return ranked

    def update(self, events: Records) -> None:
        """Do nothing: the user's history is enough."""


class Transitions:
    """What most often came right after the user's newest item."""

    def __init__(self, stream: RecordedStream, depth: int) -> None:
        self._depth = depth
        self._after: defaultdict[int, Counter[int]] = defaultdict(Counter)
        self._newest: dict[int, int] = {}
        self.update(stream.events())

    def rank(self, tests: Sequences) -> Ids:
        """By count."""
        ranked = np.zeros((len(tests.users), self._depth), np.uint64)
        for row, newest in enumerate(tests.steps["item"][tests.indptr[1:] - 1].tolist()):
            best = [item for item, _ in self._after[newest].most_common(self._depth)]
            ranked[row, : len(best)] = best
        return ranked

    def update(self, events: Records) -> None:
        """Count each item after the one its user had before."""
        for user, item in zip(events["user"].tolist(), events["item"].tolist(), strict=True):
            if user in self._newest:
                self._after[self._newest[user]][item] += 1
            self._newest[user] = item


class SessionKNN:
    """Items of the users most like this one."""

    def __init__(self, stream: RecordedStream, depth: int) -> None:
        self._depth = depth
        self._users_of: defaultdict[int, OrderedDict[int, None]] = defaultdict(OrderedDict)
        self._items_of: defaultdict[int, OrderedDict[int, None]] = defaultdict(OrderedDict)
        self.update(stream.events())

    def rank(self, tests: Sequences) -> Ids:
        """By the summed similarity of the neighbours who had an item."""
        ranked = np.zeros((len(tests.users), self._depth), np.uint64)
        for row, user in enumerate(tests.users.tolist()):
            best = self._of(user, tests.of(row)["item"][-SESSION_EVENTS:].tolist())
            ranked[row, : len(best)] = best
        return ranked

    def _of(self, user: int, session: list[int]) -> list[int]:
        share = {item: (place + 1) / len(session) for place, item in enumerate(session)}
        like: dict[int, float] = {}
        for item in reversed(share):
            for other in reversed(self._users_of[item]):
                if other == user or other in like:
                    continue
                if len(like) == RECENT_USERS:
                    break
                had = self._items_of[other]
                like[other] = sum(s for i, s in share.items() if i in had) / len(had) ** 0.5
        scores: defaultdict[int, float] = defaultdict(float)
        for other in sorted(like, key=lambda o: -like[o])[:NEIGHBOURS]:
            for item in self._items_of[other]:
                scores[item] += like[other]
        return sorted(scores, key=lambda item: -scores[item])[: self._depth]

    def update(self, events: Records) -> None:
        """Move user and item to the newest of each other."""
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
    """Cosine of items over the users who had both."""

    def __init__(self, stream: RecordedStream, depth: int) -> None:
        self._stream, self._depth, self._since = stream, depth, 0
        self._count()

    def _count(self) -> None:
        known = np.unique(self._stream.events()["item"])
        self._vocabulary = Vocabulary(known, [""] * len(known))
        histories = to_histories(self._stream.sequences(self._stream.users), self._vocabulary)
        self._scorer: HistoryScorer = item_knn(histories, len(known), AGE_DECAY)

    def rank(self, tests: Sequences) -> Ids:
        """By summed similarity to the user's items; 0 where no item is similar."""
        scores = self._scorer(to_histories(tests, self._vocabulary))
        best = scores.topk(min(self._depth, scores.shape[1]), dim=1)
        hashes = np.concatenate([np.zeros(1, np.uint64), self._vocabulary.hashes])
        return np.where(best.values.numpy() > 0, hashes[best.indices.numpy()], 0)

    def update(self, events: Records) -> None:
        """Count again every RECOUNT_EVENTS."""
        self._since += len(events)
        if self._since >= RECOUNT_EVENTS:
            self._since = 0
            self._count()


Rival = MostClicked | MostClickedLately | Own | Transitions | SessionKNN | ItemKNN
LIVE_RIVALS: dict[str, Callable[[RecordedStream, int], Rival]] = {
    "popularity": MostClicked,
    "recent popularity": MostClickedLately,
    "own": Own,
    "transitions": Transitions,
    "session-kNN": SessionKNN,
    "item-kNN": ItemKNN,
}
