"""The newest events of the stream, kept back: what a candidate is measured on, by the very code that serves.

The graph that speaks in the measurement is built from the events before the cut, so its evidence has never seen the
event it predicts.
"""

import msgspec
import numpy as np

from model.create import Create
from model.fusion import Fusion
from model.ranking import Ranking
from model.settings import RankingSettings
from model.vocabulary import Vocabulary
from state.events import EVENT, Ids
from state.graph import MemoryGraph
from state.sequences import Sequences
from state.settings import StateSettings

CUTOFF = 10
EVIDENCE_WEIGHTS = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0)
POPULARITY_WEIGHTS = (0.0, 0.5, 1.0, 2.0, 4.0)
REPEAT_WEIGHTS = (0.0, 1.0, 2.0, 4.0, 8.0)
COORDINATES = (
    ("popularity", POPULARITY_WEIGHTS),
    ("repeat", REPEAT_WEIGHTS),
    ("evidence", EVIDENCE_WEIGHTS),
    ("before", (0.0, 0.5, 1.0)),
    ("evidence", EVIDENCE_WEIGHTS),
    ("popularity", POPULARITY_WEIGHTS),
)
"""Each weight is chosen with the others as they stand; evidence again once its direction is known."""


def cut(sequences: Sequences, holdout_events: int) -> tuple[Sequences, Sequences]:
    """Past and held-out steps of every user: about the newest `holdout_events`, a tenth of all at most.

    The cut is one moment for all users; steps of that very moment belong to the past.
    """
    ts = sequences.steps["ts"]
    held = min(holdout_events, len(ts) // 10)
    moment = np.partition(ts, len(ts) - held - 1)[len(ts) - held - 1] if len(ts) else 0
    return _where(sequences, ts <= moment), _where(sequences, ts > moment)


class Holdout:
    """Held-out events as tests: a user's steps so far, and the item that came next."""

    def __init__(self, past: Sequences, held: Sequences, state: StateSettings) -> None:
        """`past` and `held` have the same users in the same order."""
        self._graph = MemoryGraph(state)
        events = np.zeros(len(past.steps), EVENT)
        events["user"] = np.repeat(past.users, np.diff(past.indptr))
        for name in ("item", "ts", "kind"):
            events[name] = past.steps[name]
        if len(events):
            self._graph.apply(events[np.argsort(events["ts"], kind="stable")])
        users, histories, targets = [], [], []
        for row in np.flatnonzero((np.diff(past.indptr) > 0) & (np.diff(held.indptr) > 0)).tolist():
            before, after = past.of(row), held.of(row)
            for test in range(len(after)):
                users.append(past.users[row])
                histories.append(np.concatenate([before, after[:test]]))
                targets.append(after["item"][test])
        indptr = np.concatenate([[0], np.cumsum([len(h) for h in histories])]).astype(np.int64)
        steps = np.concatenate([past.steps[:0], *histories])
        self.sequences = Sequences(np.array(users, np.uint64), indptr, steps)
        self.targets: Ids = np.array(targets, np.uint64)

    def scores(
        self, model: Create, vocabulary: Vocabulary, fusion: Fusion, settings: RankingSettings
    ) -> dict[str, float]:
        """hit@10 and ndcg@10 with these fusion weights; no events, no numbers."""
        if not len(self.targets):
            return {}
        ranking = Ranking(model, vocabulary, fusion, msgspec.structs.replace(settings, because=False))
        hits, gains = [], []
        for start in range(0, len(self.targets), 256):
            part = rows_of_sequences(self.sequences, start, start + 256)
            ranked = ranking.rank(part, self._graph, CUTOFF)
            match = ranked.items == self.targets[start : start + 256, None]
            hits.append(match.any(1))
            gains.append((match / np.log2(np.arange(CUTOFF) + 2.0)).sum(1))
        return {"hit@10": float(np.concatenate(hits).mean()), "ndcg@10": float(np.concatenate(gains).mean())}


def choose_fusion(holdout: Holdout, model: Create, vocabulary: Vocabulary, settings: RankingSettings) -> Fusion:
    """The weights with the best NDCG@10, one at a time in the order of COORDINATES."""
    best, best_score = Fusion(1.0, 1.0, 0.0, 0.0), -1.0

    def consider(fusion: Fusion) -> None:
        nonlocal best, best_score
        score = holdout.scores(model, vocabulary, fusion, settings).get("ndcg@10", -1.0)
        if score > best_score:
            best, best_score = fusion, score

    for name, weights in COORDINATES:
        for weight in weights:
            consider(msgspec.structs.replace(best, **{name: weight}))
    return best


def rows_of_sequences(sequences: Sequences, start: int, end: int) -> Sequences:
    """The users from row `start` up to `end`."""
    indptr = sequences.indptr[start : min(end, len(sequences.users)) + 1]
    return Sequences(sequences.users[start:end], indptr - indptr[0], sequences.steps[indptr[0] : indptr[-1]])


def _where(sequences: Sequences, kept: np.ndarray) -> Sequences:
    count = np.concatenate([[0], np.cumsum(kept)])
    return Sequences(sequences.users, count[sequences.indptr], sequences.steps[kept])
