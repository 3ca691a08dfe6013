"""The newest events of the stream, kept back: what a candidate is measured on, by the very code that serves.

The graph that speaks in the measurement is played forward from test to test, so its evidence has never seen the event
it predicts, and is as fresh as serving has it.
"""

import time
from collections.abc import Collection, Iterator
from typing import NamedTuple

import msgspec
import numpy as np
import torch
from torch import Tensor

from model.encoders.create import Create
from model.encoders.histories import to_histories
from model.encoders.vocabulary import Vocabulary
from model.fusion_weights.conditional_logit import ChoiceSets, fit
from model.fusion_weights.ndcg_search import best_weight
from model.fusion_weights.timed_batches import AT_ONCE, batches
from model.metrics import CUTOFF, Ranks, gains
from model.ranking.fusion import INITIAL_FUSION, Fusion
from model.ranking.ranker import Ranker
from model.settings import FEW, RankingSettings
from state.events import EVENT, Ids, Records
from state.graph import MemoryGraph, Rows
from state.sequences import Sequences, where
from state.settings import StateSettings

MAX_SCORES_PER_BATCH = 1 << 22
"""Scores of one word made at once, at most: a large catalogue is scored for fewer tests at a time."""
TIMED_RANKINGS = 7
"""Rankings by which a version's pace is known."""


def split_holdout(
    sequences: Sequences, holdout_events: int, new: np.ndarray | None = None
) -> tuple[Sequences, Sequences]:
    """Past and held-out steps of every user: the newest of all, a tenth at most.

    The cut is one moment for all users, as it is between what a version has learned and what it will serve. Held back
    from some users only, what the others did at the time makes the model look fresher than it will be, and gets it too
    much weight. Steps of the very moment belong to the past.

    `new` marks the steps that the champion has not learned: only they are held back then, a quarter of them at most.
    """
    ts = sequences.steps["ts"]
    eligible = np.ones(len(ts), bool) if new is None else new
    count = int(eligible.sum())
    held = min(holdout_events, count // (10 if new is None else 4))
    moment = np.partition(ts[eligible], count - held - 1)[count - held - 1] if count else 0
    kept_back = eligible & (ts > moment)
    return where(sequences, ~kept_back), where(sequences, kept_back)


def mask_of(sequences: Sequences, events: Records) -> np.ndarray:
    """Which steps of the sequences are these events, [steps] bool."""
    users = np.repeat(sequences.users, np.diff(sequences.indptr))
    return np.isin(_mixed(users, sequences.steps), _mixed(events["user"], events))


def _mixed(users: Ids, steps: Records) -> Ids:
    """One number for a user, an item and a time: products of odd numbers, wrapping."""
    mixed: Ids = users * np.uint64(0x9E3779B97F4A7C15) ^ steps["item"] * np.uint64(0xC2B2AE3D27D4EB4F)
    return mixed * np.uint64(0xD6E8FEB86659FD93) ^ steps["ts"].astype(np.uint64) * np.uint64(0xA0761D6478BD642F)


class Answers(NamedTuple):
    """What a model answered to every test."""

    ranks: Ranks
    """[T] place of what came, CUTOFF where it was not among the answers."""
    items: Ids
    """[T, CUTOFF] what was recommended."""

    def scores(self) -> dict[str, float]:
        """hit@10 and ndcg@10; no events, no numbers."""
        if not len(self.ranks):
            return {}
        return {
            "hit@10": float((self.ranks < CUTOFF).mean()),
            "ndcg@10": float(gains(self.ranks, CUTOFF).mean()),
        }


class Holdout:
    """Held-out events as tests: a user's steps so far, and the item that came next, in order of time.

    The graph that speaks is played forward between them: it knows all users' events up to each test, none later.
    """

    def __init__(self, past: Sequences, held: Sequences, state: StateSettings) -> None:
        """`past` and `held` have the same users in the same order.

        A step may be known and yet be later than one held back, if that arrived late: it is no history of it.
        """
        users, histories, targets, ts = [], [], [], []
        for row in np.flatnonzero(np.diff(held.indptr) > 0).tolist():
            before, after = past.of(row), held.of(row)
            steps = np.concatenate([before, after])
            in_time = np.argsort(steps["ts"], kind="stable")
            steps = steps[in_time]
            for test in np.flatnonzero((in_time >= len(before)) & (np.arange(len(steps)) > 0)).tolist():
                users.append(past.users[row])
                histories.append(steps[:test])
                targets.append(steps["item"][test])
                ts.append(steps["ts"][test])
        order = np.argsort(np.array(ts, np.int64), kind="stable")
        indptr = np.concatenate([[0], np.cumsum([len(histories[at]) for at in order])]).astype(np.int64)
        before_each = np.concatenate([past.steps[:0], *(histories[at] for at in order)])
        self.sequences = Sequences(np.array(users, np.uint64)[order], indptr, before_each)
        self.targets: Ids = np.array(targets, np.uint64)[order]
        self.times = np.array(ts, np.int64)[order]
        """[T] when each target came, ms."""

        events = np.concatenate([_events(past), _events(held)])
        events = events[np.argsort(events["ts"], kind="stable")]
        moment = self.times[0] if len(self.times) else np.iinfo(np.int64).max
        self._arriving = events[events["ts"] >= moment]
        self._graph = MemoryGraph(state)
        if len(self._arriving) < len(events):
            self._graph.apply(events[events["ts"] < moment])

    def rows(self, items: Ids) -> Rows:
        """Rows of the item-item graph as it stood before the first test."""
        return self._graph.rows(items)

    def batches(self, items: int) -> Iterator[tuple[slice, Records, MemoryGraph]]:
        """Tests to score at once over this many items, what arrived before them, and the graph as it stood."""
        graph = self._graph.fork()
        for tests, arrived in batches(self._arriving, self.times, tests_per_batch(items)):
            if len(arrived):
                graph.apply(arrived)
            yield tests, arrived, graph

    def answers(self, model: Create, vocabulary: Vocabulary, fusion: Fusion, settings: RankingSettings) -> Answers:
        """What is recommended at each test with these fusion weights, as the worker would."""
        ranking = Ranker(model, vocabulary, fusion, msgspec.structs.replace(settings, because=False))
        items = np.zeros((len(self.targets), CUTOFF), np.uint64)
        for tests, arrived, graph in self.batches(len(vocabulary)):
            ranking.update(arrived)
            part = slice_sequences(self.sequences, tests.start, tests.stop)
            items[tests] = ranking.rank(part, graph, CUTOFF).items
        match = items == self.targets[:, None]
        return Answers(np.where(match.any(1), match.argmax(1), CUTOFF), items)

    def seconds(self, versions: list[tuple[Create, Vocabulary]], settings: RankingSettings) -> list[list[float]]:
        """Processor seconds each version takes to rank one batch of tests, measured in turns.

        Of this thread alone: what else the machine does is nothing against a version.
        """
        part = slice_sequences(self.sequences, 0, tests_per_batch(max(len(vocabulary) for _, vocabulary in versions)))
        rankings = [Ranker(model, vocabulary, INITIAL_FUSION, settings) for model, vocabulary in versions]
        taken: list[list[float]] = [[] for _ in rankings]
        for turn in range(1 + TIMED_RANKINGS if len(part.users) else 0):
            for ranking, times in zip(rankings, taken, strict=True):
                started = time.thread_time()
                ranking.rank(part, self._graph, CUTOFF)
                if turn:  # the first counts clicks
                    times.append(time.thread_time() - started)
        return taken

    def scores(
        self, model: Create, vocabulary: Vocabulary, fusion: Fusion, settings: RankingSettings
    ) -> dict[str, float]:
        """hit@10 and ndcg@10 with these fusion weights; no events, no numbers."""
        return self.answers(model, vocabulary, fusion, settings).scores()


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
SAMPLED_NEGATIVES = 100
"""Candidates drawn from all others."""


def choice_sets(holdout: Holdout, model: Create, vocabulary: Vocabulary, settings: RankingSettings) -> ChoiceSets:
    """What each word says of each held-out event's target and of the items that could have come instead.

    Those that a word speaks for most are taken as they are; the rest are drawn, each standing for many.
    """
    alone = msgspec.structs.replace(settings, because=False, fresh_items=0)
    by_word = [Ranker(model, vocabulary, word, alone) for word in WORDS]
    draw = torch.Generator().manual_seed(0)
    # Made beforehand: small tensors that stay, taken between large ones that go, would leave the heap in pieces.
    most = 1 + sum(MOST) + SAMPLED_NEGATIVES
    words = torch.zeros(len(holdout.targets), most, len(WORDS))
    corrections = torch.full((len(holdout.targets), most), -torch.inf)
    count = 0
    for tests, arrived, graph in holdout.batches(len(vocabulary)):
        part = slice_sequences(holdout.sequences, tests.start, tests.stop)
        targets = torch.from_numpy(vocabulary.lookup(holdout.targets[tests]))
        known = (targets > 0).nonzero()[:, 0]
        said = []
        for ranking in by_word:
            ranking.update(arrived)
            said.append(ranking.scores(part, graph))
        if not len(known):
            continue
        possible = eligible_items(part, vocabulary, settings)
        for at in known.tolist():
            items, correction = sample_alternatives(targets[at], possible[at], [s[at] for s in said], draw)
            words[count, : len(items)] = torch.stack([s[at, items] for s in said], 1)
            corrections[count, : len(items)] = correction
            count += 1
    return ChoiceSets(words[:count], corrections[:count])


def eligible_items(part: Sequences, vocabulary: Vocabulary, settings: RankingSettings) -> Tensor:
    """Which items could have come next, [B, n + 1] bool: those there are, but a user's own where they are filtered."""
    possible = torch.ones(len(part.users), len(vocabulary) + 1, dtype=torch.bool)
    possible[:, 0] = False
    possible[:, torch.from_numpy(vocabulary.free)] = False
    if settings.filter_seen:
        seen = to_histories(part, vocabulary)
        possible[torch.from_numpy(seen.users), torch.from_numpy(seen.items)] = False
    return possible


def sample_alternatives(
    target: Tensor, possible: Tensor, said: list[Tensor], draw: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The target, then what words (the first of WORDS) speak for most, then what was drawn; log of what each counts."""
    chosen = torch.zeros_like(possible)
    for word, most in zip(said, MOST, strict=False):
        best = word.masked_fill(~possible, -torch.inf).topk(min(most, len(word)))
        says = torch.isfinite(best.values) if word is said[MODEL] else best.values > 0
        chosen[best.indices[says]] = True
    chosen[target] = False
    loud = chosen.nonzero()[:, 0]
    drawn = torch.unique(torch.randint(1, len(possible), (SAMPLED_NEGATIVES,), generator=draw))
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
    prior: Fusion = INITIAL_FUSION,
    without: Collection[str] = (),
) -> Fusion:
    """The weights that foretell the held-out events best, near those known before; too few events leave them.

    Only a repeat may count against an item. `without`: names of words that get no weight.
    """
    return fit_fusion(choice_sets(holdout, model, vocabulary, settings), BEFORE, settings, prior, without)


class CrossFit(NamedTuple):
    """Fusion weights, and those by which they can be tested on the events they were chosen on."""

    fusion: Fusion
    halves: tuple[Fusion, Fusion]
    """Chosen on every second user's events alone."""
    half: np.ndarray
    """[T] on which half's users each test is: it is honest with the other half's weights."""


def cross_fit_fusion(
    holdout: Holdout, model: Create, vocabulary: Vocabulary, settings: RankingSettings, prior: Fusion
) -> CrossFit:
    """`choose_fusion` on all held-out events, and on either half of their users."""
    known = choice_sets(holdout, model, vocabulary, settings)
    fusion = fit_fusion(known, BEFORE, settings, prior)
    _, user = np.unique(holdout.sequences.users, return_inverse=True)
    half = user % 2
    of_choice = torch.from_numpy(half[vocabulary.lookup(holdout.targets) > 0])
    first, second = (
        fit_fusion(ChoiceSets(*(part[of_choice == n] for part in known)), (fusion.before,), settings, prior)
        for n in (0, 1)
    )
    return CrossFit(fusion, (first, second), half)


def fit_fusion(
    known: ChoiceSets,
    befores: tuple[float, ...],
    settings: RankingSettings,
    prior: Fusion,
    without: Collection[str] = (),
) -> Fusion:
    """The weights that make these choices likeliest, the evidence being one of those in `befores`; but of repeats the
    one that places them best (model/fusion_weights/ndcg_search.py).
    """
    found, best_before, best_loss = None, prior.before, np.inf
    repeats = not settings.filter_seen and "repeat" not in without
    before_it = torch.zeros(len(WORDS))
    before_it[[MODEL, REPEAT, POPULARITY]] = torch.tensor([prior.model, prior.repeat, prior.popularity])
    before_it[EVIDENCE:] = prior.evidence
    for before in befores if len(known.signals) >= FEW else ():
        word = EVIDENCE + BEFORE.index(before)
        free = torch.zeros(len(WORDS), dtype=torch.bool)
        used = {"model": MODEL, "repeat": REPEAT, "popularity": POPULARITY, "evidence": word}
        free[[at for name, at in used.items() if name not in without]] = True
        free[REPEAT] = repeats
        weights, reached = fit(known, free, before_it, (MODEL, POPULARITY, word))
        if reached < best_loss:
            found, best_before, best_loss = weights, before, reached
    if found is None:
        return prior
    if repeats:
        found = best_weight(known, found, REPEAT, prior.repeat)
    said = found.tolist()
    evidence = said[EVIDENCE + BEFORE.index(best_before)]
    return Fusion(said[MODEL], evidence, said[REPEAT], said[POPULARITY], best_before)


def tests_per_batch(items: int) -> int:
    """Tests that are scored together, over so many items."""
    return max(1, min(AT_ONCE, MAX_SCORES_PER_BATCH // (items + 1)))


def _events(sequences: Sequences) -> Records:
    events = np.zeros(len(sequences.steps), EVENT)
    events["user"] = np.repeat(sequences.users, np.diff(sequences.indptr))
    for name in ("item", "ts", "kind"):
        events[name] = sequences.steps[name]
    return events


def slice_sequences(sequences: Sequences, start: int, end: int) -> Sequences:
    """The users from row `start` up to `end`."""
    indptr = sequences.indptr[start : min(end, len(sequences.users)) + 1]
    return Sequences(sequences.users[start:end], indptr - indptr[0], sequences.steps[indptr[0] : indptr[-1]])
