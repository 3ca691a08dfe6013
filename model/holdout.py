"""The newest events of the stream, kept back: what a candidate is measured on, by the very code that serves.

The graph that speaks in the measurement is played forward from test to test, so its evidence has never seen the event
it predicts, and is as fresh as serving has it.
"""

from collections.abc import Collection, Iterator

import msgspec
import numpy as np
import torch
from torch import Tensor

from model.conditional_logit import Choices, fit
from model.create import Create
from model.fusion import AT_FIRST, Fusion
from model.histories import to_histories
from model.metrics import gains
from model.ranking import Ranking
from model.replay import batches
from model.settings import RankingSettings
from model.vocabulary import Vocabulary
from state.events import EVENT, Ids, Records
from state.graph import MemoryGraph
from state.sequences import Sequences
from state.settings import StateSettings

AT_ONCE = 64
CELLS = 1 << 25
"""Scores made at once, at most: a large catalogue is scored for fewer tests at a time."""
CUTOFF = 10


def cut(sequences: Sequences, holdout_events: int) -> tuple[Sequences, Sequences]:
    """Past and held-out steps of every user: the newest of all, a tenth at most.

    The cut is one moment for all users, as it is between what a version has learned and what it will serve. Held back
    from some users only, what the others did at the time makes the model look fresher than it will be, and gets it too
    much weight. Steps of the very moment belong to the past.
    """
    ts = sequences.steps["ts"]
    held = min(holdout_events, len(ts) // 10)
    moment = np.partition(ts, len(ts) - held - 1)[len(ts) - held - 1] if len(ts) else 0
    return _where(sequences, ts <= moment), _where(sequences, ts > moment)


class Holdout:
    """Held-out events as tests: a user's steps so far, and the item that came next, in order of time.

    The graph that speaks is played forward between them: it knows all users' events up to each test, none later.
    """

    def __init__(self, past: Sequences, held: Sequences, state: StateSettings) -> None:
        """`past` and `held` have the same users in the same order."""
        users, histories, targets, ts = [], [], [], []
        for row in np.flatnonzero((np.diff(past.indptr) > 0) & (np.diff(held.indptr) > 0)).tolist():
            before, after = past.of(row), held.of(row)
            for test in range(len(after)):
                users.append(past.users[row])
                histories.append(np.concatenate([before, after[:test]]))
                targets.append(after["item"][test])
                ts.append(after["ts"][test])
        order = np.argsort(np.array(ts, np.int64), kind="stable")
        indptr = np.concatenate([[0], np.cumsum([len(histories[at]) for at in order])]).astype(np.int64)
        steps = np.concatenate([past.steps[:0], *(histories[at] for at in order)])
        self.sequences = Sequences(np.array(users, np.uint64)[order], indptr, steps)
        self.targets: Ids = np.array(targets, np.uint64)[order]
        self._ts = np.array(ts, np.int64)[order]

        events = np.concatenate([_events(past), _events(held)])
        events = events[np.argsort(events["ts"], kind="stable")]
        moment = self._ts[0] if len(self._ts) else np.iinfo(np.int64).max
        self._arriving = events[events["ts"] >= moment]
        self._graph = MemoryGraph(state)
        if len(self._arriving) < len(events):
            self._graph.apply(events[events["ts"] < moment])

    def batches(self, items: int) -> Iterator[tuple[slice, Records, MemoryGraph]]:
        """Tests to score at once over this many items, what arrived before them, and the graph as it stood."""
        graph = self._graph.copy()
        few = max(1, min(AT_ONCE, CELLS // (items + 1)))
        for tests, arrived in batches(self._arriving, self._ts, few):
            if len(arrived):
                graph.apply(arrived)
            yield tests, arrived, graph

    def scores(
        self, model: Create, vocabulary: Vocabulary, fusion: Fusion, settings: RankingSettings
    ) -> dict[str, float]:
        """hit@10 and ndcg@10 with these fusion weights; no events, no numbers."""
        if not len(self.targets):
            return {}
        ranking = Ranking(model, vocabulary, fusion, msgspec.structs.replace(settings, because=False))
        ranks = []
        for tests, arrived, graph in self.batches(len(vocabulary)):
            ranking.clicked(arrived)
            ranked = ranking.rank(rows_of_sequences(self.sequences, tests.start, tests.stop), graph, CUTOFF)
            match = ranked.items == self.targets[tests, None]
            ranks.append(np.where(match.any(1), match.argmax(1), CUTOFF))
        found = np.concatenate(ranks)
        return {"hit@10": float((found < CUTOFF).mean()), "ndcg@10": float(gains(found, CUTOFF).mean())}


BEFORE = (0.0, 0.5, 1.0)
"""What may count of the neighbours that come before an item: each is a word of its own, of which one is taken."""
WORDS = (
    Fusion(1.0, 0.0, 0.0, 0.0),
    Fusion(0.0, 0.0, 1.0, 0.0),
    Fusion(0.0, 0.0, 0.0, 1.0),
    *(Fusion(0.0, 1.0, 0.0, 0.0, before) for before in BEFORE),
)
MODEL, REPEAT, POPULARITY, EVIDENCE = 0, 1, 2, 3
MOST = (150, 100, 50, 60, 60, 60)
"""Candidates that each word brings in, of those it says anything for."""
DRAWN = 100
"""Candidates drawn from all others."""
FEW = 50
"""Fewer held-out events than this choose no weights."""


def choices(holdout: Holdout, model: Create, vocabulary: Vocabulary, settings: RankingSettings) -> Choices:
    """What each word says of each held-out event's target and of the items that could have come instead.

    Those that a word speaks for most are taken as they are; the rest are drawn, each standing for many.
    """
    alone = msgspec.structs.replace(settings, because=False, fresh_items=0)
    by_word = [Ranking(model, vocabulary, word, alone) for word in WORDS]
    draw = torch.Generator().manual_seed(0)
    # Made beforehand: small tensors that stay, taken between large ones that go, would leave the heap in pieces.
    most = 1 + sum(MOST) + DRAWN
    words = torch.zeros(len(holdout.targets), most, len(WORDS))
    corrections = torch.full((len(holdout.targets), most), -torch.inf)
    count = 0
    for tests, arrived, graph in holdout.batches(len(vocabulary)):
        part = rows_of_sequences(holdout.sequences, tests.start, tests.stop)
        targets = torch.from_numpy(vocabulary.lookup(holdout.targets[tests]))
        known = (targets > 0).nonzero()[:, 0]
        said = []
        for ranking in by_word:
            ranking.clicked(arrived)
            said.append(ranking.scores(part, graph))
        if not len(known):
            continue
        possible = torch.ones(said[0].shape, dtype=torch.bool)
        possible[:, 0] = False
        if settings.filter_seen:
            seen = to_histories(part, vocabulary)
            row = np.repeat(np.arange(len(seen)), seen.lengths)
            possible[torch.from_numpy(row), torch.from_numpy(seen.items)] = False
        for at in known.tolist():
            items, correction = _candidates(targets[at], possible[at], [s[at] for s in said], draw)
            words[count, : len(items)] = torch.stack([s[at, items] for s in said], 1)
            corrections[count, : len(items)] = correction
            count += 1
    return Choices(words[:count], corrections[:count])


def _candidates(target: Tensor, possible: Tensor, said: list[Tensor], draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """The target, then what words speak for most, then what was drawn; and the log of what each stands for."""
    chosen = torch.zeros_like(possible)
    for word, most in zip(said, MOST, strict=True):
        best = word.masked_fill(~possible, -torch.inf).topk(min(most, len(word)))
        says = torch.isfinite(best.values) if word is said[MODEL] else best.values > 0
        chosen[best.indices[says]] = True
    chosen[target] = False
    loud = chosen.nonzero()[:, 0]
    drawn = torch.unique(torch.randint(1, len(possible), (DRAWN,), generator=draw))
    drawn = drawn[possible[drawn] & ~chosen[drawn] & (drawn != target)]
    rest = max(int(possible.sum()) - len(loud) - 1, 1)
    standing_for = torch.zeros(1 + len(loud) + len(drawn))
    standing_for[1 + len(loud) :] = float(np.log(rest / max(len(drawn), 1)))
    return torch.cat([target[None], loud, drawn]), standing_for


def choose_fusion(
    holdout: Holdout,
    model: Create,
    vocabulary: Vocabulary,
    settings: RankingSettings,
    prior: Fusion = AT_FIRST,
    without: Collection[str] = (),
) -> Fusion:
    """The weights that foretell the held-out events best, near those known before; too few events leave them.

    Only a repeat may count against an item. `without`: names of words that get no weight.
    """
    known = choices(holdout, model, vocabulary, settings)
    best, best_loss = prior, np.inf
    before_it = torch.zeros(len(WORDS))
    before_it[[MODEL, REPEAT, POPULARITY]] = torch.tensor([prior.model, prior.repeat, prior.popularity])
    before_it[EVIDENCE:] = prior.evidence
    for word, before in enumerate(BEFORE, EVIDENCE) if len(known.words) >= FEW else ():
        free = torch.zeros(len(WORDS), dtype=torch.bool)
        used = {"model": MODEL, "repeat": REPEAT, "popularity": POPULARITY, "evidence": word}
        free[[at for name, at in used.items() if name not in without]] = True
        free[REPEAT] &= not settings.filter_seen
        weights, reached = fit(known, free, before_it)
        while len(wrong := [w for w in (MODEL, POPULARITY, word) if weights[w] < 0]):
            free[wrong] = False
            weights, reached = fit(known, free, before_it)
        if reached < best_loss:
            said = weights.tolist()
            best, best_loss = Fusion(said[MODEL], said[word], said[REPEAT], said[POPULARITY], before), reached
    return best


def _events(sequences: Sequences) -> Records:
    events = np.zeros(len(sequences.steps), EVENT)
    events["user"] = np.repeat(sequences.users, np.diff(sequences.indptr))
    for name in ("item", "ts", "kind"):
        events[name] = sequences.steps[name]
    return events


def rows_of_sequences(sequences: Sequences, start: int, end: int) -> Sequences:
    """The users from row `start` up to `end`."""
    indptr = sequences.indptr[start : min(end, len(sequences.users)) + 1]
    return Sequences(sequences.users[start:end], indptr - indptr[0], sequences.steps[indptr[0] : indptr[-1]])


def _where(sequences: Sequences, kept: np.ndarray) -> Sequences:
    count = np.concatenate([[0], np.cumsum(kept)])
    return Sequences(sequences.users, count[sequences.indptr], sequences.steps[kept])
