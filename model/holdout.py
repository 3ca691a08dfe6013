"""The newest events of the stream, kept back: what a candidate is measured on, by the very code that serves.

The graph that speaks in the measurement is built from what was not held back, so its evidence has never seen the event
it predicts; of other users it may be a little ahead, as the live graph is of a version.
"""

import msgspec
import numpy as np
import torch
from torch import Tensor

from model.create import Create
from model.fusion import MODEL_ALONE, Fusion
from model.histories import to_histories
from model.metrics import Ranks, gains
from model.ranking import Ranking
from model.settings import RankingSettings
from model.vocabulary import Vocabulary
from state.events import EVENT, Ids
from state.graph import MemoryGraph
from state.sequences import Sequences
from state.settings import StateSettings

HELD_BACK = 4
"""Every fourth user, by its hash, has its newest events held back."""
AT_ONCE = 256
CUTOFF = 10
CANDIDATES = 200
EVIDENCE_WEIGHTS = (0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)
POPULARITY_WEIGHTS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
REPEAT_WEIGHTS = (0.0, 1.0, 2.0, 4.0, 8.0)
BEFORE = (0.0, 0.5, 1.0)


def cut(sequences: Sequences, holdout_events: int) -> tuple[Sequences, Sequences]:
    """Past and held-out steps of every user: the newest of every fourth user, a tenth of all steps at most.

    Holding back the newest of all users would cost a version what matters most to it: a tenth of NDCG@10 on Beauty. The
    cut is one moment for all who are held back; steps of that very moment belong to the past.
    """
    chosen = sequences.users % HELD_BACK == 0
    if not chosen.any():
        chosen[:] = True
    held_back = np.repeat(chosen, np.diff(sequences.indptr))
    ts = sequences.steps["ts"]
    eligible = ts[held_back]
    held = min(holdout_events, len(ts) // 10, max(len(eligible) - 1, 0))
    moment = np.partition(eligible, len(eligible) - held - 1)[len(eligible) - held - 1] if len(eligible) else 0
    later = held_back & (ts > moment)
    return _where(sequences, ~later), _where(sequences, later)


class Holdout:
    """Held-out events as tests: a user's steps so far, and the item that came next."""

    def __init__(self, past: Sequences, held: Sequences, state: StateSettings) -> None:
        """`past` and `held` have the same users in the same order."""
        self.graph = MemoryGraph(state)
        events = np.zeros(len(past.steps), EVENT)
        events["user"] = np.repeat(past.users, np.diff(past.indptr))
        for name in ("item", "ts", "kind"):
            events[name] = past.steps[name]
        if len(events):
            self.graph.apply(events[np.argsort(events["ts"], kind="stable")])
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
        ranks = []
        for start in range(0, len(self.targets), AT_ONCE):
            ranked = ranking.rank(rows_of_sequences(self.sequences, start, start + AT_ONCE), self.graph, CUTOFF)
            match = ranked.items == self.targets[start : start + AT_ONCE, None]
            ranks.append(np.where(match.any(1), match.argmax(1), CUTOFF))
        return held_out(np.concatenate(ranks))


def held_out(ranks: Ranks) -> dict[str, float]:
    """hit@10 and ndcg@10 of ranks; no events, no numbers."""
    if not len(ranks):
        return {}
    return {"hit@10": float((ranks < CUTOFF).mean()), "ndcg@10": float(gains(ranks, CUTOFF).mean())}


class Candidates:
    """For each held-out event what every word says of the items that can come first.

    Words of the graph are never negative, so an item none of them speaks for and that is not among the model's first
    CANDIDATES has that many items before it whatever the weights are. Ranks up to there are exact.
    """

    def __init__(self, holdout: Holdout, model: Create, vocabulary: Vocabulary, settings: RankingSettings) -> None:
        words = {"repeat": Fusion(0.0, 1.0, 0.0), "popularity": Fusion(0.0, 0.0, 1.0)}
        words |= {f"evidence {before}": Fusion(1.0, 0.0, 0.0, before) for before in BEFORE}
        alone = msgspec.structs.replace(settings, because=False, fresh_items=0)
        by_model = Ranking(model, vocabulary, MODEL_ALONE, alone)
        by_word = {name: Ranking(model, vocabulary, fusion, alone) for name, fusion in words.items()}
        self._parts: list[dict[str, Tensor]] = []
        for start in range(0, len(holdout.targets), AT_ONCE):
            part = rows_of_sequences(holdout.sequences, start, start + AT_ONCE)
            targets = torch.from_numpy(vocabulary.lookup(holdout.targets[start : start + AT_ONCE]))
            known = (targets > 0).nonzero()[:, 0]
            base = by_model.scores(part, holdout.graph)
            base[:, 0] = -1e9
            if settings.filter_seen:
                seen = to_histories(part, vocabulary)
                own = base.gather(1, targets[:, None])
                row = np.repeat(np.arange(len(seen)), seen.lengths)
                base[torch.from_numpy(row), torch.from_numpy(seen.items)] = -1e9
                base.scatter_(1, targets[:, None], own)
            said = {name: ranking.scores(part, holdout.graph) for name, ranking in by_word.items()}
            plain = by_model.scores(part, holdout.graph)
            said = {name: torch.nan_to_num(scores - plain) for name, scores in said.items()}
            loud = torch.stack([*said.values()]).amax(0)
            loud.scatter_(1, base.topk(min(CANDIDATES, base.shape[1]), dim=1).indices, 1e9)
            loud.scatter_(1, targets[:, None], 2e9)
            width = min(int((loud > 0).sum(1).max()), base.shape[1])
            at = loud.topk(width, dim=1).indices[known]  # the target comes first
            self._parts.append({n: s[known].gather(1, at) for n, s in {"model": base, **said}.items()})
        self.count = len(holdout.targets)

    def ranks(self, fusion: Fusion) -> Ranks:
        """Rank of each held-out event under these weights; an item the model does not know is not found."""
        found = []
        for part in self._parts:
            scores = part["model"] + fusion.repeat * part["repeat"] + fusion.popularity * part["popularity"]
            scores += fusion.evidence * part[f"evidence {fusion.before}"]
            found.append(((scores >= scores[:, :1]).sum(1) - 1).numpy())
        ranks = np.concatenate([np.empty(0, np.int64), *found])
        return np.concatenate([ranks, np.full(self.count - len(ranks), 10**9)])


def choose_fusion(candidates: Candidates) -> Fusion:
    """The best weights, one at a time and twice over."""
    best, best_score = Fusion(1.0, 1.0, 0.0, 0.0), -1.0
    coordinates = (
        ("evidence", EVIDENCE_WEIGHTS),
        ("before", BEFORE),
        ("repeat", REPEAT_WEIGHTS),
        ("popularity", POPULARITY_WEIGHTS),
    )
    for name, weights in coordinates * 2:
        for weight in weights:
            fusion = msgspec.structs.replace(best, **{name: weight})
            score = float(gains(candidates.ranks(fusion), CUTOFF).mean()) if candidates.count else -1.0
            if score > best_score:
                best, best_score = fusion, score
    return best


def rows_of_sequences(sequences: Sequences, start: int, end: int) -> Sequences:
    """The users from row `start` up to `end`."""
    indptr = sequences.indptr[start : min(end, len(sequences.users)) + 1]
    return Sequences(sequences.users[start:end], indptr - indptr[0], sequences.steps[indptr[0] : indptr[-1]])


def _where(sequences: Sequences, kept: np.ndarray) -> Sequences:
    count = np.concatenate([[0], np.cumsum(kept)])
    return Sequences(sequences.users, count[sequences.indptr], sequences.steps[kept])
