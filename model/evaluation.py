"""Protocols on a recorded stream, by the code that trains and serves.

`global_temporal`: everything up to one moment (the 0.9 quantile of event times) is for learning, what comes after is
for testing; equal times keep the file's order and lie on the same side. Targets: each user's *last* event, and
*successive*, every event after the split with the events before it as history. The whole catalogue is ranked, with and
without the user's seen items; ties count against the target. Items that the past does not know cannot be ranked by
anybody: they are counted as cold and left out. The graph stands still at the split.

`prequential`: each event is first a test, then learned from. Nothing sorted by anything but arrival is read ahead.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import numpy as np
import torch

from model.fusion import MODEL_ALONE, Fusion
from model.histories import to_histories
from model.holdout import rows_of_sequences
from model.increment import Trained, learn
from model.metrics import CUTOFF, Ranks, ranks_of, summary
from model.ranking import Ranking
from model.rivals import Scorer, item_knn, popularity, transitions
from model.settings import ModelSettings, RankingSettings, TrainingSettings, without_graph
from model.vocabulary import Vocabulary
from state.events import EVENT, Ids, Records, hash_ids
from state.graph import MemoryGraph
from state.sequences import STEP, Sequences, from_events
from state.settings import StateSettings

SPLIT = 0.9
RECENT_S = 90 * 86_400.0
"""Half-life of the recency-weighted popularity that is a rival."""
WARM_UP = 0.2
"""The part of a stream that the first version learns from before testing begins."""
INCREMENTS = 8
DEPTH = 100
"""How far down the list a target is looked for where items no model knows may be ranked too."""
NOT_FOUND = 10**9
AT_ONCE = 256
"""Events tested against one state of the graph before it takes them in."""

Progress = Callable[[float, str], None]
Document = dict[str, Any]


def as_events(users: list[str], items: list[str], ts: np.ndarray) -> tuple[Records, dict[int, str]]:
    """EVENTs in arrival order, and the items' ids by hash."""
    events = np.zeros(len(ts), EVENT)
    events["user"] = hash_ids([u.encode() for u in users])
    events["item"] = hash_ids([i.encode() for i in items])
    events["ts"], events["offset"] = ts, np.arange(len(ts))
    return events, dict(zip(events["item"].tolist(), items, strict=True))


class Split(NamedTuple):
    """A stream cut at one moment, and the tests behind it."""

    past: Sequences
    names: dict[int, str]
    """Ids of the past's items by hash."""
    vocabulary: Vocabulary
    graph: MemoryGraph
    """The live graph as it stood at the cut."""
    tests: Sequences
    """Test event after test event, its user's history until then."""
    targets: torch.Tensor
    """[T] what came, by index of the vocabulary."""
    last: np.ndarray
    """[T] whether it is its user's last event."""
    cold: int
    """Events after the cut whose item the past does not know; not tested."""


def split(events: Records, names: dict[int, str], quantile: float, state: StateSettings) -> Split:
    """Cut a stream at a quantile of its event times."""
    moment = np.quantile(events["ts"], quantile)
    past, future = events[events["ts"] <= moment], events[events["ts"] > moment]
    known = np.unique(past["item"])
    warm = np.isin(future["item"], known)
    graph = MemoryGraph(state)
    graph.apply(past)
    sequences = from_events(past, state.sequence_events)
    tests, targets, is_last = _tests(sequences, future[warm], state.sequence_events)
    past_names = {h: names[h] for h in known.tolist()}
    vocabulary = Vocabulary(known, list(past_names.values()))
    found = torch.from_numpy(vocabulary.lookup(targets))
    return Split(sequences, past_names, vocabulary, graph, tests, found, is_last, int((~warm).sum()))


Score = Callable[[Sequences], torch.Tensor]
"""Scores [B, n + 1] of a batch of users, by index of the split's vocabulary."""


def ranked_tests(cut: Split, unfiltered: Score, filtered: Score | None = None) -> dict[str, Ranks]:
    """Ranks of all tests with seen items ranked like any other, and with them filtered (but a repeated target)."""
    ranks: dict[str, list[Ranks]] = {"unfiltered": [], "filtered": []}
    for start in range(0, len(cut.targets), AT_ONCE):
        part, targets = rows_of_sequences(cut.tests, start, start + AT_ONCE), cut.targets[start : start + AT_ONCE]
        scores = unfiltered(part).clone()
        scores[:, 0] = -torch.inf
        ranks["unfiltered"].append(ranks_of(scores, targets))
        if filtered is not None:
            scores = filtered(part).clone()
            scores[:, 0] = -torch.inf
        seen = to_histories(part, cut.vocabulary)
        own = scores.gather(1, targets[:, None])
        scores[
            torch.from_numpy(np.repeat(np.arange(len(seen)), seen.lengths)), torch.from_numpy(seen.items)
        ] = -torch.inf
        ranks["filtered"].append(ranks_of(scores.scatter(1, targets[:, None], own), targets))
    return {name: np.concatenate(found) for name, found in ranks.items()}


def of_model(cut: Split, trained: Trained, fusion: Fusion, settings: RankingSettings) -> Score:
    """A trained model's scores, by the code that serves."""
    alone = msgspec.structs.replace(settings, because=False, fresh_items=0)
    ranking = Ranking(trained.model, trained.vocabulary, fusion, alone)
    column = torch.from_numpy(np.concatenate([[0], trained.vocabulary.lookup(cut.vocabulary.hashes)]))
    return lambda part: ranking.scores(part, cut.graph)[:, column]


def of_rival(cut: Split, scorer: Scorer) -> Score:
    """A rival's scores."""
    return lambda part: scorer(to_histories(part, cut.vocabulary))


def rivals(cut: Split) -> dict[str, Scorer]:
    """Everything that needs no training, counted over the past."""
    past, items = to_histories(cut.past, cut.vocabulary), len(cut.vocabulary)
    ts = cut.past.steps["ts"]
    return {
        "popularity": popularity(past, ts, items),
        "recent popularity": popularity(past, ts, items, RECENT_S),
        "transitions": transitions(past, items),
        "item-kNN": item_knn(past, items),
    }


def global_temporal(
    users: list[str],
    items: list[str],
    ts: np.ndarray,
    *,
    model: ModelSettings,
    training: TrainingSettings,
    ranking: RankingSettings,
    state: StateSettings,
    seed: int,
    progress: Progress = lambda _done, _what: None,
) -> Document:
    """Learn from the past of one moment, test on what came after; `models {name: {last, successive}}`.

    Seen items are filtered where `ranking.filter_seen` says so.
    """
    events, names = as_events(users, items, ts)
    cut = split(events, names, SPLIT, state)
    which = "filtered" if ranking.filter_seen else "unfiltered"
    found: dict[str, Ranks] = {}
    trained_as = {"create": training, "sasrec": without_graph(training)}
    for number, (name, settings) in enumerate(trained_as.items()):
        progress(number / len(trained_as), f"training {name}")
        trained = learn(
            None, None, cut.past, cut.names, cut.graph.rows,
            model=model, training=settings, ranking=ranking, state=state, seed=seed,
        )  # fmt: skip
        for suffix, fusion in (("", MODEL_ALONE), ("+graph", trained.fusion)):
            found[name + suffix] = ranked_tests(cut, of_model(cut, trained, fusion, ranking))[which]
    for name, scorer in rivals(cut).items():
        found[name] = ranked_tests(cut, of_rival(cut, scorer))[which]
    tested, last = len(cut.targets), int(cut.last.sum())
    return {
        "protocol": "global-temporal",
        "seen_items": which,
        "events": {"past": int((events["ts"] <= np.quantile(ts, SPLIT)).sum()), "tested": tested, "last": last}
        | {"cold": cut.cold},
        "seed": seed,
        "models": {
            name: {"last": summary(ranks[cut.last]), "successive": summary(ranks)} for name, ranks in found.items()
        },
    }


def prequential(
    users: list[str],
    items: list[str],
    ts: np.ndarray,
    *,
    model: ModelSettings,
    training: TrainingSettings,
    ranking: RankingSettings,
    state: StateSettings,
    seed: int,
    progress: Progress = lambda _done, _what: None,
) -> Document:
    """Test each event, then learn from it; `models {name: {hit@10, ndcg@10, mrr}}`."""
    events, names = as_events(users, items, ts)
    start = int(len(events) * WARM_UP)
    bounds = np.linspace(start, len(events), INCREMENTS + 1).astype(int)
    graph = MemoryGraph(state)
    graph.apply(events[:start])

    def cycle(champion: Trained | None, end: int) -> Trained:
        seen = events[:end]
        known = np.unique(seen["item"])
        new = known if champion is None else known[champion.vocabulary.lookup(known) == 0]
        return learn(
            champion, None, from_events(seen, state.sequence_events), {h: names[h] for h in new.tolist()}, graph.rows,
            model=model, training=training, ranking=ranking, state=state, seed=seed,
        )  # fmt: skip

    progress(0.0, "learning the first version")
    frozen = champion = cycle(None, start)
    found: dict[str, list[Ranks]] = {n: [] for n in ("create", "frozen", "popularity", "own", "transitions")}
    for number in range(INCREMENTS):
        progress(number / INCREMENTS, f"version {number + 1}")
        for at in range(bounds[number], bounds[number + 1], AT_ONCE):
            tested = events[at : min(at + AT_ONCE, bounds[number + 1])]
            before = from_events(events[:at][np.isin(events["user"][:at], tested["user"])], state.sequence_events)
            tests, targets, _ = _tests(before, tested, state.sequence_events)
            if len(targets):
                found["create"].append(_model_ranks(champion, tests, targets, graph, ranking))
                found["frozen"].append(_model_ranks(frozen, tests, targets, graph, ranking))
                popular = np.tile(graph.popular(DEPTH), (len(targets), 1))
                found["popularity"].append(_places(targets, popular))
                found["own"].append(_places(targets, _own(tests)))
                found["transitions"].append(_places(targets, _transitions(tests, graph)))
            graph.apply(tested)
        if number + 1 < INCREMENTS:
            champion = cycle(champion, int(bounds[number + 1]))
    summed = {name: summary(np.concatenate(ranks)) for name, ranks in found.items() if ranks}
    return {
        "protocol": "prequential",
        "events": {"warm_up": start, "tested": sum(len(r) for r in found["create"])},
        "seed": seed,
        "models": {n: {"hit@10": m["recall@10"], "ndcg@10": m["ndcg@10"], "mrr": m["mrr"]} for n, m in summed.items()},
    }


def _tests(before: Sequences, events: Records, limit: int) -> tuple[Sequences, Ids, np.ndarray]:
    """Each event whose user has a history by then: that history, the item that came, whether it is the user's last."""
    row_of = {user: row for row, user in enumerate(before.users.tolist())}
    history: dict[int, np.ndarray] = {}
    users: list[int] = []
    histories: list[Records] = []
    targets: list[int] = []
    last: dict[int, int] = {}
    for event in events:
        user = int(event["user"])
        if user not in history:
            row = row_of.get(user)
            history[user] = before.of(row) if row is not None else np.empty(0, STEP)
        if len(history[user]):
            last[user] = len(users)
            users.append(user)
            histories.append(history[user])
            targets.append(event["item"])
        step = np.array([(event["item"], event["ts"], event["kind"])], STEP)
        history[user] = np.concatenate([history[user], step])[-limit:]
    indptr = np.concatenate([[0], np.cumsum([len(h) for h in histories])]).astype(np.int64)
    steps = np.concatenate([np.empty(0, STEP), *histories])
    is_last = np.zeros(len(users), bool)
    is_last[list(last.values())] = True
    return Sequences(np.array(users, np.uint64), indptr, steps), np.array(targets, np.uint64), is_last


def _model_ranks(
    trained: Trained, tests: Sequences, targets: Ids, graph: MemoryGraph, settings: RankingSettings
) -> Ranks:
    alone = msgspec.structs.replace(settings, because=False)
    ranker = Ranking(trained.model, trained.vocabulary, trained.fusion, alone)
    ranks = []
    for start in range(0, len(targets), AT_ONCE):
        ranked = ranker.rank(rows_of_sequences(tests, start, start + AT_ONCE), graph, DEPTH)
        ranks.append(_places(targets[start : start + AT_ONCE], ranked.items))
    return np.concatenate(ranks) if ranks else np.zeros(0, np.int64)


def _places(targets: Ids, ranked: Ids) -> Ranks:
    """0-based place of each target in its row of ranked items; NOT_FOUND where it is not there."""
    match = ranked == targets[:, None]
    return np.where(match.any(1), match.argmax(1), NOT_FOUND)


def _transitions(tests: Sequences, graph: MemoryGraph) -> np.ndarray:
    rows = graph.rows(tests.steps["item"][tests.indptr[1:] - 1])
    order = np.argsort(-rows.after, axis=1, kind="stable")
    following = np.take_along_axis(rows.nodes, order, 1)
    return np.where(np.take_along_axis(rows.after, order, 1) > 0, following, 0)


def _own(tests: Sequences) -> np.ndarray:
    said = np.zeros((len(tests.users), CUTOFF), np.uint64)
    for row in range(len(tests.users)):
        items, first, counts = np.unique(tests.of(row)["item"][::-1], return_index=True, return_counts=True)
        best = items[np.lexsort((first, -counts))[:CUTOFF]]
        said[row, : len(best)] = best
    return said
