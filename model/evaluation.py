"""Protocols and metrics on a recorded stream, by the code that trains and serves.

`global_temporal`: everything up to one moment (the 0.9 quantile of event times) is for learning, what comes after is
for testing; equal times keep the file's order. Targets: each user's *last* event, and *successive*, every event after
the split with the events before it as history. Items that the past does not know cannot be ranked by anybody; they
are counted as cold and left out. Metrics over the 100 best of the whole catalogue: MRR counts 0 beyond them.

`prequential`: each event is first a test, then learned from. Nothing sorted by anything but arrival is read ahead.
"""

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from model.increment import Trained, learn
from model.ranking import Fusion, Ranking
from model.settings import ModelSettings, RankingSettings, TrainingSettings
from state.events import EVENT, Ids, Records, hash_ids
from state.graph import MemoryGraph
from state.sequences import STEP, Sequences, from_events
from state.settings import StateSettings

CUTOFF = 10
DEPTH = 100
"""How far down the ranking a target is looked for."""
SPLIT = 0.9
WARM_UP = 0.2
"""The part of a stream that the first version learns from before testing begins."""
INCREMENTS = 8
AT_ONCE = 256
"""Events tested against one state of the graph before it takes them in."""

Progress = Callable[[float, str], None]
Scores = dict[str, float]
Document = dict[str, Any]


def as_events(users: list[str], items: list[str], ts: np.ndarray) -> tuple[Records, dict[int, str]]:
    """EVENTs in arrival order, and the items' ids by hash."""
    events = np.zeros(len(ts), EVENT)
    events["user"] = hash_ids([u.encode() for u in users])
    events["item"] = hash_ids([i.encode() for i in items])
    events["ts"], events["offset"] = ts, np.arange(len(ts))
    return events, dict(zip(events["item"].tolist(), items, strict=True))


def metrics(ranks: np.ndarray) -> Scores:
    """NDCG@10, Recall@10 and MRR of 0-based ranks; a rank of DEPTH or more counts as not found."""
    hit = ranks < CUTOFF
    return {
        "ndcg@10": round(float(np.where(hit, 1 / np.log2(ranks + 2.0), 0).mean()), 6),
        "recall@10": round(float(hit.mean()), 6),
        "mrr": round(float(np.where(ranks < DEPTH, 1 / (ranks + 1.0), 0).mean()), 6),
    }


def ranks_of(targets: Ids, ranked: np.ndarray) -> np.ndarray:
    """0-based rank of each target in its row of ranked items; DEPTH where it is not there."""
    match = ranked == targets[:, None]
    return np.where(match.any(1), match.argmax(1), DEPTH)


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
    """Learn from the past of one moment, test on what came after; `models {name: {last, successive}}`."""
    events, names = as_events(users, items, ts)
    split = np.quantile(ts, SPLIT)
    past = events[events["ts"] <= split]
    known = np.unique(past["item"])
    future = events[events["ts"] > split]
    warm = np.isin(future["item"], known)
    graph = MemoryGraph(state)
    graph.apply(past)
    sequences = from_events(past, state.sequence_events)
    past_names = {h: names[h] for h in known.tolist()}

    tests, targets, is_last = _tests(sequences, future[warm], state.sequence_events)
    alone = msgspec.structs.replace(training, w_global=0.0, w_transfer=0.0, warm_up_epochs=0)
    found: dict[str, np.ndarray] = {}
    for number, (name, settings) in enumerate((("create", training), ("sasrec", alone))):
        progress(number / 2, f"training {name}")
        trained = learn(
            None, None, sequences, past_names, graph.rows,
            model=model, training=settings, ranking=ranking, state=state, seed=seed,
        )  # fmt: skip
        found[name] = _model_ranks(trained, Fusion(0.0, 0.0), tests, targets, graph, ranking)
        found[f"{name}+graph"] = _model_ranks(trained, trained.fusion, tests, targets, graph, ranking)
    found["popularity"] = ranks_of(targets, np.tile(graph.popular(DEPTH), (len(targets), 1)))
    found["transitions"] = ranks_of(targets, _transitions(tests, graph))
    return {
        "protocol": "global-temporal",
        "events": {"past": len(past), "tested": len(targets), "cold": int((~warm).sum()), "last": int(is_last.sum())},
        "seed": seed,
        "models": {
            name: {"last": metrics(ranks[is_last]), "successive": metrics(ranks)} for name, ranks in found.items()
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
    found: dict[str, list[np.ndarray]] = {n: [] for n in ("create", "frozen", "popularity", "own", "transitions")}
    for number in range(INCREMENTS):
        progress(number / INCREMENTS, f"version {number + 1}")
        for at in range(bounds[number], bounds[number + 1], AT_ONCE):
            tested = events[at : min(at + AT_ONCE, bounds[number + 1])]
            before = from_events(events[:at][np.isin(events["user"][:at], tested["user"])], state.sequence_events)
            tests, targets, _ = _tests(before, tested, state.sequence_events)
            if len(targets):
                found["create"].append(_model_ranks(champion, champion.fusion, tests, targets, graph, ranking))
                found["frozen"].append(_model_ranks(frozen, frozen.fusion, tests, targets, graph, ranking))
                popular = np.tile(graph.popular(DEPTH), (len(targets), 1))
                found["popularity"].append(ranks_of(targets, popular))
                found["own"].append(ranks_of(targets, _own(tests)))
                found["transitions"].append(ranks_of(targets, _transitions(tests, graph)))
            graph.apply(tested)
        if number + 1 < INCREMENTS:
            champion = cycle(champion, int(bounds[number + 1]))
    summed = {name: metrics(np.concatenate(ranks)) for name, ranks in found.items() if ranks}
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
    trained: Trained, fusion: Fusion, tests: Sequences, targets: Ids, graph: MemoryGraph, settings: RankingSettings
) -> np.ndarray:
    as_chosen = msgspec.structs.replace(
        settings,
        evidence_weight=fusion.evidence,
        repeat_weight=fusion.repeat,
        popularity_weight=fusion.popularity,
        because=False,
    )
    ranker = Ranking(trained.model, trained.vocabulary, fusion, as_chosen)
    ranks = []
    for start in range(0, len(targets), AT_ONCE):
        indptr = tests.indptr[start : start + AT_ONCE + 1]
        part = Sequences(tests.users[start : start + AT_ONCE], indptr - indptr[0], tests.steps[indptr[0] : indptr[-1]])
        ranked = ranker.rank(part, graph, DEPTH)
        ranks.append(ranks_of(targets[start : start + AT_ONCE], ranked.items))
    return np.concatenate(ranks) if ranks else np.zeros(0, np.int64)


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
